"""The folder of a training run, used as a model: its best weights, its names, its preprocessing."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

from ..config import Config
from ..config.sections import InferSection
from ..engine.distributed import Processes
from ..engine.lock import own_folder
from ..engine.run_folder import CONFIG, remove_run_files
from ..files import CONFIG_BYTES, read_text
from ..schema import ConfigError
from .check import load_config
from .common import CLASS_NAMES

__all__ = ["load_run", "remove_run", "run_overrides", "run_with", "with_infer"]

BEST_FIRST = ("best_model", "latest")


def run_with(path: Union[str, "os.PathLike[str]"]) -> Optional[Path]:
    """The run folder that `path` names: itself, or the only folder in it that is one (a run writes
    into <output_dir>/<model>). None if there is none; ConfigError if there are several.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    if (folder / CONFIG).is_file():
        return folder
    inside = sorted(each.parent for each in folder.glob(f"*/{CONFIG}"))
    if len(inside) > 1:
        raise ConfigError(
            f"{folder}: has {len(inside)} runs in it; name one: {', '.join(map(str, inside[:5]))}"
        )
    return inside[0] if inside else None


def remove_run(folder: Path) -> None:
    """Remove what a run wrote into `folder`, but for the class names, which the next one writes
    anew, and nothing else. LockedError while a run goes on there.
    """
    with own_folder(folder, Processes()):
        remove_run_files(folder)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()


def run_overrides(folder: Path, weights: Optional[str] = None) -> List[str]:
    """The `-o` texts by which config.yaml of the run in `folder` uses what the run made: `weights`,
    by default its best or, where nothing was evaluated, its latest; and its class names.

    ConfigError for a run that has saved nothing yet.
    """
    if weights is None:
        found = [folder / name for name in BEST_FIRST if (folder / f"{name}.pdparams").is_file()]
        if not found:
            raise ConfigError(f"{folder}: this run has saved no weights yet; let it go on")
        weights = str(found[0])
    overrides = [f"Global.pretrained_model={weights}", "Global.checkpoints=None"]
    names = folder / CLASS_NAMES
    has_infer = "Infer:" in read_text(folder / CONFIG, limit=CONFIG_BYTES).splitlines()
    if names.is_file() and has_infer:
        overrides.append(f"Infer.PostProcess.class_id_map_file={json.dumps(str(names))}")
    return overrides


def load_run(
    folder: Path,
    weights: Optional[str] = None,
    overrides: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> Config:
    """The checked Config of the run in `folder` with what it made: see run_overrides. A run that
    does not say how to predict does it as it evaluated.
    """
    texts = [*run_overrides(folder, weights), *overrides]
    return with_infer(load_config(folder / CONFIG, texts, imports), folder)


def with_infer(config: Config, folder: Path) -> Config:
    """`config`, if it has no section Infer with that of its evaluation's transforms."""
    evaluation: Any = config.DataLoader.get("Eval")
    if config.Infer is not None or evaluation is None:
        return config
    names = folder / CLASS_NAMES
    post = {"class_id_map_file": str(names)} if names.is_file() else {}
    transforms = evaluation["dataset"].get("transform_ops") or []
    return replace(config, Infer=InferSection(transforms=transforms, PostProcess=post))
