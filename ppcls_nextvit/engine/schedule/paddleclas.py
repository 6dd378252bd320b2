"""PaddleClas's schedules, with its names, keys and values: its classes wrap paddle.optimizer.lr,
and the numbers agree step by step.

Where PaddleClas counts ticks of one kind as the other (`by_epoch` with OneCycleLR, CosineFixmatch,
or Linear and a warm-up), `by_epoch` here means epochs throughout.
"""

import math
from typing import List, Literal, Optional

from .base import SCHEDULES, Schedule, check_increasing, cosine

__all__ = [
    "ConstLR",
    "Cosine",
    "CosineFixmatch",
    "Cyclic",
    "Linear",
    "MultiStepDecay",
    "OneCycleLR",
    "Piecewise",
    "Step",
]


@SCHEDULES.register
def ConstLR(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """One value (fine-tuning)."""
    return Schedule(
        epochs,
        steps_per_epoch,
        learning_rate,
        warmup_epoch,
        warmup_start_lr,
        by_epoch,
        curve=lambda tick: learning_rate,
    )


@SCHEDULES.register
def Linear(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    end_lr: float = 0.0,
    power: float = 1.0,
    cycle: bool = False,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Polynomial of `power` from learning_rate to end_lr over the epochs after the warm-up; `cycle`
    restarts on ever longer ramps.
    """
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )

    def curve(tick):
        if schedule.decay_ticks == 0:
            return learning_rate
        ramp = schedule.decay_ticks * (
            max(1, math.ceil(tick / schedule.decay_ticks)) if cycle else 1
        )
        return (learning_rate - end_lr) * (1 - min(tick, ramp) / ramp) ** power + end_lr

    schedule.curve = curve
    return schedule


@SCHEDULES.register
def Cosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    eta_min: float = 0.0,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Half a cosine from learning_rate to eta_min over the epochs after the warm-up."""
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )

    def curve(tick):
        if schedule.decay_ticks == 0:
            return learning_rate
        return cosine(
            learning_rate, eta_min, min(tick, schedule.decay_ticks) / schedule.decay_ticks
        )

    schedule.curve = curve
    return schedule


@SCHEDULES.register
def Step(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    step_size: float,
    gamma: float,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Times gamma every step_size epochs."""
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )
    size = step_size if by_epoch else int(step_size * steps_per_epoch)
    if size <= 0:
        raise ValueError(
            f"step_size must be at least one step; got {step_size} epochs of {steps_per_epoch} "
            f"steps"
        )
    schedule.curve = lambda tick: learning_rate * gamma ** (tick // size)
    return schedule


@SCHEDULES.register
def MultiStepDecay(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    milestones: List[float],
    gamma: float = 0.1,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Times gamma at each of the milestones (epochs, counted from the warm-up's end)."""
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )
    check_increasing("milestones", milestones)
    schedule.curve = lambda tick: (
        learning_rate * gamma ** sum(tick >= m * schedule.ticks_per_epoch for m in milestones)
    )
    return schedule


@SCHEDULES.register
def Piecewise(
    epochs: int,
    steps_per_epoch: int,
    *,
    decay_epochs: Optional[List[float]] = None,
    values: Optional[List[float]] = None,
    learning_rate: Optional[float] = None,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """values[i] until decay_epochs[i] (counted from the warm-up's end), then the last value.

    Or `learning_rate` alone: a tenth every 30 epochs.
    """
    if (learning_rate is None) == (values is None) or (decay_epochs is None) != (values is None):
        raise ValueError(
            "give either decay_epochs and values, or learning_rate alone (then it falls to a "
            "tenth every 30 epochs)"
        )
    if learning_rate is not None:
        decay_epochs = list(range(30, epochs, 30))
        values = [learning_rate * 0.1**i for i in range(len(decay_epochs) + 1)]
    ends, rates = list(decay_epochs or []), list(values or [])
    if len(rates) != len(ends) + 1:
        raise ValueError(
            f"values must be one more than decay_epochs; got {len(rates)} values and "
            f"{len(ends)} decay_epochs"
        )
    check_increasing("decay_epochs", ends)
    schedule = Schedule(epochs, steps_per_epoch, rates[0], warmup_epoch, warmup_start_lr, by_epoch)
    schedule.curve = lambda tick: rates[
        sum(tick >= epoch * schedule.ticks_per_epoch for epoch in ends)
    ]
    return schedule


@SCHEDULES.register
def Cyclic(
    epochs: int,
    steps_per_epoch: int,
    *,
    base_learning_rate: float,
    max_learning_rate: float,
    step_size_up: int,
    step_size_down: Optional[int] = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    exp_gamma: float = 1.0,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Triangles between the two rates; step_size_up and step_size_down are ticks.

    mode: triangular2 halves the height from cycle to cycle, exp_range multiplies it by exp_gamma
    from tick to tick.
    """
    down = step_size_down or step_size_up
    if step_size_up < 1 or down < 1:
        raise ValueError(
            f"step_size_up and step_size_down must be 1 or more; got {step_size_up} and "
            f"{step_size_down}"
        )

    def curve(tick):
        cycle, position = divmod(tick, step_size_up + down)
        height = (
            position / step_size_up
            if position <= step_size_up
            else (step_size_up + down - position) / down
        )
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": exp_gamma**tick}[mode]
        return base_learning_rate + (max_learning_rate - base_learning_rate) * height * scale

    return Schedule(
        epochs, steps_per_epoch, base_learning_rate, warmup_epoch, warmup_start_lr, by_epoch, curve
    )


@SCHEDULES.register
def OneCycleLR(
    epochs: int,
    steps_per_epoch: int,
    *,
    max_learning_rate: float,
    divide_factor: float = 25.0,
    end_learning_rate: float = 1e-10,
    phase_pct: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    three_phase: bool = False,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
) -> Schedule:
    """Up from max / divide_factor during phase_pct of the run, then down to end_learning_rate
    (three_phase: by way of the initial rate).
    """
    schedule = Schedule(
        epochs, steps_per_epoch, max_learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )
    total = epochs * schedule.ticks_per_epoch
    initial, up = max_learning_rate / divide_factor, phase_pct * total - 1
    knots = (
        [(0, initial), (up, max_learning_rate)]
        + [(2 * up, initial)] * three_phase
        + [(total - 1, end_learning_rate)]
    )
    check_increasing(
        f"the phases of phase_pct {phase_pct} in {total} ticks", [tick for tick, _ in knots]
    )
    mix = (
        cosine
        if anneal_strategy == "cos"
        else lambda start, end, share: start + (end - start) * share
    )

    def curve(tick):
        for (begin, start), (finish, end) in zip(knots, knots[1:]):
            if tick <= finish:
                return mix(start, end, (tick - begin) / (finish - begin))
        return end_learning_rate

    schedule.curve = curve
    return schedule


@SCHEDULES.register
def CosineFixmatch(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    num_warmup_steps: int = 0,
    num_cycles: float = 7 / 16,
    by_epoch: bool = False,
) -> Schedule:
    """FixMatch's: linear from 0 over num_warmup_steps ticks, then cos(pi * num_cycles * progress),
    which does not reach 0.
    """
    schedule = Schedule(epochs, steps_per_epoch, learning_rate, by_epoch=by_epoch)
    decay = max(1, epochs * schedule.ticks_per_epoch - num_warmup_steps)

    def curve(tick):
        if tick < num_warmup_steps:
            return learning_rate * tick / num_warmup_steps
        return learning_rate * max(
            0.0, math.cos(math.pi * num_cycles * (tick - num_warmup_steps) / decay)
        )

    schedule.curve = curve
    return schedule
