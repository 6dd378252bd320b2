"""A model evaluated on other data than its run's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..config import Config
from ..schema import ConfigError, shown_text
from ..tasks import check
from ..tasks.common import class_names
from .layouts import recognised
from .own_data import HERE, OwnData

__all__ = ["on_data"]

ALL = "all"  # of the file for images that were not split
SAMPLER = {
    "name": "DistributedBatchSampler",
    "batch_size": 16,
    "drop_last": False,
    "shuffle": False,
}


def on_data(config: Config, root: Path, layout: Optional[str], folder: Path) -> Config:
    """`config` with the data in the folder `root` as those that are evaluated: the part of it that
    is for evaluation, or, where no part is, all. Lists of images go into `folder`.

    ConfigError, FileNotFoundError as `recognised`; ConfigError where its classes are not the
    model's.
    """
    data = recognised(root, layout)
    _check_names(config, data)
    if data.split:
        data = _whole(data)
    data.write_lists(folder)
    loader: Dict[str, Any] = dict(config.DataLoader.get("Eval") or {"sampler": SAMPLER})
    transforms = (loader.get("dataset") or {}).get("transform_ops")
    if transforms is None:
        transforms = config.section("Infer").transforms
    loader["dataset"] = {**data.placed(folder).evaluation, "transform_ops": transforms}
    return check(replace(config, DataLoader={**config.DataLoader, "Eval": loader}))


def _check_names(config: Config, data: OwnData) -> None:
    ours = class_names(config)
    if data.class_num != len(ours):
        raise ConfigError(f"{data.root}: {data.class_num} classes, but the model has {len(ours)}")
    if data.names is not None and list(data.names) != ours:
        index = next(i for i, pair in enumerate(zip(ours, data.names)) if pair[0] != pair[1])
        raise ConfigError(
            f"{data.root}: class {index} is {shown_text(data.names[index], 40)!r} there and "
            f"{shown_text(ours[index], 40)!r} in the model; both must have the same classes in the "
            f"same order"
        )


def _whole(data: OwnData) -> OwnData:
    """The data without a division that was made here."""
    texts = list(data.lists.values())
    ending = Path(next(iter(data.lists))).suffix
    name = f"{ALL}{ending}"
    text = _joined(texts) if ending == ".json" else "".join(texts)
    section = {
        key: f"{HERE}/{name}" if isinstance(value, str) and value.startswith(HERE) else value
        for key, value in data.evaluation.items()
    }
    return replace(data, evaluation=section, lists={name: text})


def _joined(texts: List[str]) -> str:
    """Several COCO json of the same categories as one, numbered anew."""
    images: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    categories: List[Dict[str, Any]] = []
    for text in texts:
        content = json.loads(text)
        categories = content["categories"]
        numbers = {image["id"]: len(images) + i for i, image in enumerate(content["images"], 1)}
        images += [{**image, "id": numbers[image["id"]]} for image in content["images"]]
        annotations += [
            {**each, "id": len(annotations) + i, "image_id": numbers[each["image_id"]]}
            for i, each in enumerate(content["annotations"], 1)
        ]
    return json.dumps({"images": images, "categories": categories, "annotations": annotations})
