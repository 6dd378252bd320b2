"""The one schedule with a memory. PaddleClas can only run it by epoch and without warm-up; here it
runs with either.
"""

import math
from typing import Any, Dict, Literal, Optional

from ...schema import shown
from .base import SCHEDULES, Schedule

__all__ = ["ReduceOnPlateau"]


@SCHEDULES.register
class ReduceOnPlateau(Schedule):
    """Times `factor` when the observed metric has not improved for more than `patience`
    observations.

    mode: 'max' for an accuracy, 'min' for a loss. threshold: the least improvement that counts,
    relative to the best or absolute.
    cooldown: observations ignored after a reduction. A reduction smaller than `epsilon` is not
    made.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        learning_rate: float,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        epsilon: float = 1e-8,
        warmup_epoch: float = 0.0,
        warmup_start_lr: float = 0.0,
        by_epoch: bool = False,
    ):
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1; got {factor}")
        super().__init__(
            epochs,
            steps_per_epoch,
            learning_rate,
            warmup_epoch,
            warmup_start_lr,
            by_epoch,
            curve=lambda tick: self.current,
        )
        self.best: Optional[float]
        self.sign = 1 if mode == "max" else -1
        self.factor = factor
        self.patience = patience
        self.cooldown = cooldown
        self.threshold = threshold
        self.relative = threshold_mode == "rel"
        self.min_lr = min_lr
        self.epsilon = epsilon
        self.current = learning_rate
        self.best = None
        self.bad_observations = 0
        self.cooldown_left = 0

    def observe(self, epoch: int, value: float) -> None:
        """Hear of the evaluated metric after `epoch`: the rate may fall."""
        if self.cooldown_left:
            self.cooldown_left -= 1
            return
        margin = (
            0.0 if self.best is None else self.threshold * (self.best if self.relative else 1.0)
        )
        if self.best is None or self.sign * (value - self.best) > margin:
            self.best, self.bad_observations = value, 0
        else:
            self.bad_observations += 1
        if self.bad_observations > self.patience:
            self.cooldown_left, self.bad_observations = self.cooldown, 0
            reduced = max(self.current * self.factor, self.min_lr)
            if self.current - reduced > self.epsilon:
                self.current = reduced

    def state_dict(self) -> Dict[str, Any]:
        """What the metrics heard so far have left, as plain numbers."""
        return {
            key: getattr(self, key)
            for key in ("current", "best", "bad_observations", "cooldown_left")
        }

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Take back a state_dict. ValueError for that of another kind of schedule."""
        super().load_state_dict(state)
        numbers = {key: value for key, value in state.items() if key != "best" or value is not None}
        for key, value in numbers.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"the saved schedule's {key} must be a number, got {shown(value)}")
        vars(self).update(state)
