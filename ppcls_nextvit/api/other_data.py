"""A model, or an export, evaluated on other data than its run's."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

from ..config import Config
from ..config.recipes import located
from ..export.opened import Opened
from ..schema import ConfigError, shown_text
from ..tasks import check, evaluate, load_config
from ..tasks.common import class_names
from ..tasks.exported import config_of_export
from .layouts import recognised

__all__ = ["YAML", "evaluate_on", "on_data"]

YAML = (".yaml", ".yml")

SAMPLER = {
    "name": "DistributedBatchSampler",
    "drop_last": False,
    "shuffle": False,
}


def evaluate_on(
    model: Union[Config, Opened],
    root: Path,
    layout: Optional[str] = None,
    report: Optional[Path] = None,
) -> Dict[str, Any]:
    """{metric: value, ..., images} of a configuration or an export on the data `root`, see on_data.
    report: see tasks.evaluate.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = model if isinstance(model, Opened) else None
        config = model if isinstance(model, Config) else config_of_export(model, folder)
        return evaluate(on_data(config, root, layout, folder, opened is not None), report, opened)


def on_data(
    config: Config, root: Path, layout: Optional[str], folder: Path, exported: bool = False
) -> Config:
    """`config` with the data in the folder `root` as those that are evaluated: the part of it that
    is for evaluation, or, where no part is, all. Lists of images go into `folder`. Or `root` is a
    YAML: then they are its DataLoader.Eval, measured as it says. exported: see tasks.check.

    ConfigError, FileNotFoundError as `recognised`; ConfigError where its classes are not the
    model's.
    """
    if root.suffix in YAML:
        return check(_as_evaluated_by(config, str(root)), exported)
    data = recognised(root, layout, whole=True)
    _check_classes(config, str(root), data.class_num, data.names)
    data.write_lists(folder)
    batch_size = 16 if data.holds == "class" else 1
    sampler = {**SAMPLER, "batch_size": batch_size}
    loader: Dict[str, Any] = dict(config.DataLoader.get("Eval") or {"sampler": sampler})
    transforms = (loader.get("dataset") or {}).get("transform_ops")
    if transforms is None:
        transforms = config.section("Infer").transforms
    loader["dataset"] = {**data.placed(folder).evaluation, "transform_ops": transforms}
    evaluated = {**config.DataLoader, "Eval": loader}
    return check(replace(config, DataLoader=evaluated), exported)


def _as_evaluated_by(config: Config, path: str) -> Config:
    """`config` with the evaluation of the YAML at `path`: its data, its metrics, its loss."""
    theirs = load_config(*located(path))
    named = theirs.Infer is not None and theirs.Infer.class_id_map_file
    names = class_names(theirs) if named else None
    _check_classes(config, path, theirs.Arch.class_num, names)
    return replace(
        config,
        DataLoader={"Eval": theirs.section("DataLoader.Eval")},
        Metric={mode: found for mode, found in theirs.Metric.items() if mode == "Eval"},
        Loss={mode: found for mode, found in theirs.Loss.items() if mode == "Eval"},
    )


def _check_classes(config: Config, where: str, count: int, names: Optional[Sequence[str]]) -> None:
    """ConfigError where the data at `where` have others than the model. names: None for unknown."""
    ours = class_names(config)
    if count != len(ours):
        raise ConfigError(f"{where}: {count} classes, but the model has {len(ours)}")
    if names is not None and list(names) != ours:
        index = next(i for i, pair in enumerate(zip(ours, names)) if pair[0] != pair[1])
        raise ConfigError(
            f"{where}: class {index} is {shown_text(names[index], 40)!r} there and "
            f"{shown_text(ours[index], 40)!r} in the model; both must have the same classes in the "
            f"same order"
        )
