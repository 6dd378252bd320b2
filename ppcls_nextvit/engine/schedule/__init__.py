"""Learning rate schedules: lr is a function of the optimiser step, so resuming needs the step
number alone.

A tick is what a schedule counts: an optimiser step, or with `by_epoch` an epoch. The first
`warmup_epoch` epochs rise linearly from `warmup_start_lr`; what follows starts at its own tick 0.
"""

from . import paddleclas, recipes  # noqa: F401  (they fill SCHEDULES)
from .base import SCHEDULES, Schedule, build_schedule
from .plateau import ReduceOnPlateau

__all__ = ["SCHEDULES", "ReduceOnPlateau", "Schedule", "build_schedule"]
