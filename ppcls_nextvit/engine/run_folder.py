"""The files of a run in its folder, and what becomes of them when another run takes the folder: it
must not mix with the earlier one.
"""

import os
import shutil
from pathlib import Path
from typing import List

from .checkpoint import SUFFIXES
from .trackers import FOLDERS as TRACKED

__all__ = ["CONFIG", "has_run", "remove_run_files", "set_run_aside"]

CONFIG = "config.yaml"
CLASS_NAMES = "class_names.txt"
CHECKPOINTS = ("latest", "best_model*", "epoch_*")
WRITTEN = (
    "calibration.png",
    "confusion_matrix.png",
    "curves.png",
    "environment.json",
    "labels.png",
    "log*.jsonl",
    "missed.png",
    "mistakes.png",
    "precision_recall.png",
    "predictions.png",
    "report.html",
    "results.csv",
    "train.log",
    "worst.png",
)
EARLIER = "earlier-"


def has_run(folder: Path) -> bool:
    """Whether a run left figures or a checkpoint in `folder`: one that failed before that left
    nothing to keep.
    """
    log = folder / "log.jsonl"
    return (log.is_file() and log.stat().st_size > 0) or any(_checkpoints(folder))


def set_run_aside(folder: Path) -> Path:
    """Move what a run wrote into `folder` into the next of its folders earlier-1, earlier-2, ...,
    where it can be used as ever; returns that. The class names stay here, too: configurations name
    them.
    """
    numbers = [path.name[len(EARLIER) :] for path in folder.glob(f"{EARLIER}*")]
    last = max((int(number) for number in numbers if number.isdecimal()), default=0)
    target = folder / f"{EARLIER}{last + 1}"
    target.mkdir()
    for path in [*_files(folder), *(folder / name for name in TRACKED)]:
        if path.exists():
            os.replace(path, target / path.name)
    if (folder / CLASS_NAMES).is_file():
        shutil.copy2(folder / CLASS_NAMES, target)
    return target


def remove_run_files(folder: Path) -> None:
    """Remove what a run wrote into `folder`, but for the class names, and nothing else."""
    for path in _files(folder):
        path.unlink()
    for name in TRACKED:
        shutil.rmtree(folder / name, ignore_errors=True)


def _checkpoints(folder: Path) -> List[Path]:
    patterns = [f"{name}{suffix}" for name in CHECKPOINTS for suffix in SUFFIXES]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _files(folder: Path) -> List[Path]:
    written = [path for pattern in (CONFIG, *WRITTEN) for path in folder.glob(pattern)]
    return [*written, *_checkpoints(folder)]
