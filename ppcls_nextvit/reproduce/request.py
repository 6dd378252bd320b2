"""What is asked of an evaluation, how far it is, and whether its figures are the published ones."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping, Optional, Tuple

from ..engine.distributed import Processes
from ..engine.logger import logger
from ..zoo import Preprocessing, Weights

__all__ = ["MATCH", "MISMATCH", "NO_COMPARISON", "Request", "log_progress", "verdict"]

MATCH, MISMATCH, NO_COMPARISON = 0, 1, 3  # 2 is argparse's status for wrong arguments
PROGRESS_SECONDS = 10


@dataclass(frozen=True)
class Request:
    """Evaluate the file or name `weights` on the dataset `kind`, whose images lie below the folder
    `data`, and write into the folder `out`.

    kind: a key of PUBLISHED_DATASETS. record: the zoo's, that `weights` is. model, preprocessing:
    of weights without a record. tolerance: percentage points. limit: at most so many images, evenly
    spread. batch_size: None for the evaluation's own. layout: see open_dataset.
    """

    weights: str
    data: str
    out: Path
    kind: str
    record: Optional[Weights] = None
    model: Optional[str] = None
    preprocessing: Optional[Preprocessing] = None
    tolerance: float = 0.1
    limit: Optional[int] = None
    batch_size: Optional[int] = None
    num_workers: int = 0
    processes: Processes = field(default_factory=Processes)
    layout: Mapping[str, str] = field(default_factory=dict)


def verdict(
    measured: float, published: Optional[float], tolerance: float, complete: bool
) -> Tuple[int, str]:
    """(MATCH | MISMATCH | NO_COMPARISON, the reason in words). measured, published: %, or None.
    tolerance: percentage points.

    Rounding is not held against the weights: a difference counts as within the tolerance up to
    1e-9.
    """
    if published is None:
        return NO_COMPARISON, "no published figure to compare with"
    if not complete:
        return NO_COMPARISON, "not the complete set, so its published figure does not apply"
    difference = measured - published
    within = abs(difference) <= tolerance + 1e-9
    where = "within" if within else "outside"
    reason = f"{difference:+.3f} percentage points, {where} {tolerance:g}"
    return (MATCH if within else MISMATCH), reason


def log_progress(total: int, start: float) -> Callable[[int], None]:
    """A function to be called with the number of images that are done, of `total`: it logs at most
    every PROGRESS_SECONDS. start: time.monotonic() when the evaluation began.
    """
    last = start
    first: Optional[Tuple[float, int]] = None

    def progress(done: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        # what an earlier run has done says nothing of the speed
        first = first or (now, done)
        since, before = first
        if now - last >= PROGRESS_SECONDS and done > before:
            rate = (done - before) / (now - since)
            left = (total - done) / rate
            logger.info("%d of %d images, %.1f img/s, %.0f s to go", done, total, rate, left)
            last = now

    return progress
