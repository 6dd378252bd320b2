"""What a learning rate schedule is: a function of the optimiser step."""

import math
from typing import Any, Callable, Dict, Optional, Sequence

from ...schema import ConfigError, Registry, shown

__all__ = ["SCHEDULES", "Schedule", "build_schedule", "check_increasing", "cosine"]

SCHEDULES = Registry("learning rate schedule")


def build_schedule(
    section: Any, epochs: int, steps_per_epoch: int, where: str = "Optimizer.lr"
) -> "Schedule":
    """The schedule of a YAML section {name, learning_rate, ...}; without a name, a constant
    learning rate.

    epochs: of the whole run. steps_per_epoch: optimiser steps (batches / accumulation). ConfigError
    for what cannot be meant.
    """
    if not isinstance(section, dict):
        raise ConfigError(
            f"{where}: expected a mapping such as {{name: Cosine, learning_rate: 0.001}}, got "
            f"{section!r}"
        )
    if epochs < 1 or steps_per_epoch < 1:
        raise ConfigError(
            f"{where}: a schedule needs at least one epoch of at least one step; got {epochs} "
            f"epochs of {steps_per_epoch}"
        )
    arguments = {key: value for key, value in section.items() if key != "name"}
    return SCHEDULES.build(
        section.get("name", "ConstLR"), arguments, where, epochs, steps_per_epoch
    )


class Schedule:
    """`lr(step)`: linear warm-up to `peak`, then `curve(ticks since the warm-up's end)`.

    The no-ops let the loop treat every schedule as if it learned from the evaluated metric, as
    ReduceOnPlateau does.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        peak: float,
        warmup_epoch: float = 0.0,
        warmup_start_lr: float = 0.0,
        by_epoch: bool = False,
        curve: Optional[Callable[[float], float]] = None,
    ):
        if warmup_epoch < 0:
            raise ValueError(f"warmup_epoch must be 0 or more; got {warmup_epoch}")
        warmup_epoch = min(warmup_epoch, epochs)
        self.steps_per_tick = steps_per_epoch if by_epoch else 1
        self.ticks_per_epoch = 1 if by_epoch else steps_per_epoch
        self.warmup_ticks = warmup_epoch if by_epoch else round(warmup_epoch * steps_per_epoch)
        self.decay_ticks = (epochs - warmup_epoch) * self.ticks_per_epoch
        self.peak, self.warmup_start_lr = peak, warmup_start_lr
        # one that needs decay_ticks is set afterwards
        self.curve: Callable[[float], float] = curve or (lambda tick: peak)

    def lr(self, step: int) -> float:
        """Learning rate of the 0-based optimiser step."""
        tick = step // self.steps_per_tick
        if tick < self.warmup_ticks:
            return (
                self.warmup_start_lr + (self.peak - self.warmup_start_lr) * tick / self.warmup_ticks
            )
        return self.curve(tick - self.warmup_ticks)

    def observe(self, epoch: int, value: float) -> None:
        """Hear of the evaluated metric after `epoch`."""

    def state_dict(self) -> Dict[str, Any]:
        """What resuming needs beside the step: nothing."""
        return {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Take back a state_dict. ValueError for that of another kind of schedule."""
        if not isinstance(state, dict) or set(state) != set(self.state_dict()):
            raise ValueError(
                f"the saved schedule holds {shown(state)}, this one needs "
                f"{sorted(self.state_dict())}; "
                "resume with the Optimizer.lr of the saved run"
            )


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def check_increasing(name: str, values: Sequence[float]) -> None:
    """ValueError for values that do not increase."""
    if any(a >= b for a, b in zip(values, values[1:])):
        raise ValueError(f"{name} must be increasing; got {values}")
