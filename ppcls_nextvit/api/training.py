"""Training in Python: the run that `nextvit train` makes."""

import os
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from ..config.recipes import find, packaged_paths
from ..tasks import load_config
from ..tasks import train as train_config
from .sources import override_texts

__all__ = ["train"]


def train(
    config: Union[str, "os.PathLike[str]"], options: Optional[Mapping[str, Any]] = None
) -> Path:
    """Train as a YAML says; returns the folder of the run, which `load` takes.

    config: a file, or the name of a packaged one (`nextvit configs list`). options:
    {'Global.epochs': 3}: values in place of the file's, as of `-o`. Raises what `nextvit train`
    says on one line; KeyboardInterrupt for a run that was stopped and has saved `latest`.
    """
    path, overrides = Path(config), list(override_texts(options or {}))
    recipe = None if path.exists() else find(os.fspath(config))
    if recipe is not None:
        path, overrides = recipe, [*packaged_paths(recipe), *overrides]
    run = load_config(path, overrides)
    if train_config(run):
        raise KeyboardInterrupt(f"stopped; the run is in {run.output_dir}")
    return run.output_dir
