"""COCO's json files."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ...data.datasets.coco_json import annotations_by_image, has_outlines, read_coco
from ...schema import ConfigError, shown_text
from ..own_data import EVALUATION, HERE, TRAIN, OwnData, Search
from .objects import PARTS, held_out

__all__ = ["find_coco"]

OTHER_JSON = ("captions", "person_keypoints", "panoptic", "stuff")
ALONE = ("coco", "instances", "annotation")  # words of the name of a json for all images


def find_coco(search: Search) -> Optional[OwnData]:
    """*train*.json and *val*.json in the folder or in annotations/, or a json in the folder of each
    part, or one for all images, which are split.
    """
    root = search.root
    files = [*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob("*/*.coco.json")]
    files = sorted(path for path in files if not path.name.startswith(OTHER_JSON))
    files = [path for path in files if path.stem not in search.by_stem]  # those are labelme's
    train, evaluation = search.parts(*(_called(files, words) for words in (TRAIN, EVALUATION)))
    if train is None or evaluation is None:
        alone = [path for path in files if any(word in path.name.lower() for word in ALONE)]
        return _split(search, alone[0]) if len(alone) == 1 else None
    contents = [read_coco(str(path)) for path in (train, evaluation)]
    names, others = (_names(content) for content in contents)
    if names != others:
        raise ConfigError(f"{train} and {evaluation} have other categories; give both the same")
    sections = [
        {
            "name": "COCODataset",
            "image_root": str(_images_of(root, path, content)),
            "annotation_path": str(path),
            "mode": mode,
        }
        for path, content, mode in zip((train, evaluation), contents, ("train", "val"))
    ]
    sizes = (len(contents[0]["images"]), len(contents[1]["images"]))
    masks = _outlined(contents[0])
    return OwnData(
        root,
        "coco",
        len(names),
        names,
        sections[0],
        sections[1],
        sizes,
        holds="objects",
        masks=masks,
    )


def _names(content: Dict[str, Any]) -> List[str]:
    return [entry["name"] for entry in sorted(content["categories"], key=lambda each: each["id"])]


def _outlined(content: Dict[str, Any]) -> bool:
    return bool(content["annotations"]) and has_outlines(content["annotations"])


def _called(files: Sequence[Path], words: Sequence[str]) -> Optional[Path]:
    """The only one of `files` whose name has one of the `words`, or whose folder is called so; of
    several the instances', then that of the first word.
    """
    for word in words:
        found = [
            path for path in files if word in path.stem.lower() or path.parent.name.lower() == word
        ]
        instances = [path for path in found if path.name.startswith("instances")]
        found = instances if len(found) > 1 and instances else found
        if len(found) > 1:
            raise ConfigError(f"{found[0]} and {found[1]}: which is meant? Leave one of them")
        if found:
            return found[0]
    return None


def _images_of(root: Path, path: Path, content: Dict[str, Any]) -> Path:
    """The folder that has the images of a COCO json."""
    first = content["images"][0]["file_name"]
    split = path.stem.rpartition("_")[2]
    places = [root / split, root / "images" / split, root / "images", root, path.parent]
    for place in places:
        if os.path.isfile(place / first):  # also where the name is too long
            return place
    raise ConfigError(
        f"{path}: its first image, {shown_text(first)}, is in none of "
        f"{', '.join(map(str, dict.fromkeys(places)))}"
    )


def _split(search: Search, path: Path) -> OwnData:
    """One json for all images."""
    content = read_coco(str(path))
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    of_image = annotations_by_image(content, str(path))
    classes = [
        {names[annotation["category_id"]] for annotation in of_image[image["id"]]}
        for image in content["images"]
    ]
    held = set() if search.whole else held_out(search, classes)
    texts, sizes = [], []
    for inside in (False, True):
        images = [
            image
            for index, image in enumerate(content["images"])
            if search.whole or (index in held) == inside
        ]
        sizes.append(len(images))
        annotations = [annotation for image in images for annotation in of_image[image["id"]]]
        part = {"images": images, "categories": content["categories"], "annotations": annotations}
        texts.append(json.dumps(part) + "\n")
    image_root = str(_images_of(search.root, path, content))
    sections = [
        {
            "name": "COCODataset",
            "image_root": image_root,
            "annotation_path": f"{HERE}/{name}",
            "mode": mode,
        }
        for name, mode in zip(PARTS, ("train", "val"))
    ]
    return OwnData(
        search.root,
        "coco",
        len(names),
        _names(content),
        sections[0],
        sections[1],
        (sizes[0], sizes[1]),
        lists=dict(zip(PARTS, texts)),
        holds="objects",
        masks=_outlined(content),
        split=True,
    )
