"""Learning rate schedules: lr is a function of the optimiser step, so resuming needs the step
number alone.

Names, keys and values are PaddleClas's (its classes wrap paddle.optimizer.lr; the numbers agree
step by step), plus `TimmCosine`,
the official Next-ViT recipe, and `MMCVPoly` and `MMCVStep`, those of its segmentors and detectors.
A tick is what a schedule counts: an optimiser step, or with `by_epoch` an epoch. The first
`warmup_epoch` epochs rise linearly from `warmup_start_lr`; what follows starts at its own tick 0.

Where PaddleClas counts ticks of one kind as the other (`by_epoch` with OneCycleLR, CosineFixmatch,
or Linear and a warm-up), `by_epoch` here means epochs throughout. ReduceOnPlateau, which PaddleClas
can only run by epoch and without warm-up, runs with either.
"""

import math
from typing import List, Literal, Optional

from ..schema import ConfigError, Registry

__all__ = ["SCHEDULES", "ReduceOnPlateau", "Schedule", "build_schedule"]

SCHEDULES = Registry("learning rate schedule")


def build_schedule(section, epochs, steps_per_epoch, where="Optimizer.lr"):
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
        epochs,
        steps_per_epoch,
        peak,
        warmup_epoch=0.0,
        warmup_start_lr=0.0,
        by_epoch=False,
        curve=None,
    ):
        if warmup_epoch < 0:
            raise ValueError(f"warmup_epoch must be 0 or more; got {warmup_epoch}")
        warmup_epoch = min(warmup_epoch, epochs)
        self.steps_per_tick = steps_per_epoch if by_epoch else 1
        self.ticks_per_epoch = 1 if by_epoch else steps_per_epoch
        self.warmup_ticks = warmup_epoch if by_epoch else round(warmup_epoch * steps_per_epoch)
        self.decay_ticks = (epochs - warmup_epoch) * self.ticks_per_epoch
        self.peak, self.warmup_start_lr, self.curve = peak, warmup_start_lr, curve

    def lr(self, step: int) -> float:
        """Learning rate of the 0-based optimiser step."""
        tick = step // self.steps_per_tick
        if tick < self.warmup_ticks:
            return (
                self.warmup_start_lr + (self.peak - self.warmup_start_lr) * tick / self.warmup_ticks
            )
        return self.curve(tick - self.warmup_ticks)

    def observe(self, epoch, value):
        """Hear of the evaluated metric after `epoch`."""

    def state_dict(self):
        """What resuming needs beside the step: nothing."""
        return {}

    def load_state_dict(self, state):
        """Take back a state_dict. ValueError for that of another kind of schedule."""
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"the saved schedule holds {sorted(state)}, this one needs "
                f"{sorted(self.state_dict())}; "
                "resume with the Optimizer.lr of the saved run"
            )


@SCHEDULES.register
def ConstLR(
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
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
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    end_lr: float = 0.0,
    power: float = 1.0,
    cycle: bool = False,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
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
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    eta_min: float = 0.0,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
    """Half a cosine from learning_rate to eta_min over the epochs after the warm-up."""
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )

    def curve(tick):
        if schedule.decay_ticks == 0:
            return learning_rate
        return _cosine(
            learning_rate, eta_min, min(tick, schedule.decay_ticks) / schedule.decay_ticks
        )

    schedule.curve = curve
    return schedule


@SCHEDULES.register
def TimmCosine(
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    eta_min: float = 0.0,
    warmup_epoch: int = 0,
    warmup_start_lr: float = 0.0,
    late_start: bool = True,
):
    """The official Next-ViT schedule: steps once an epoch, and the cosine spans ALL epochs (the
    warm-up covers its beginning).

    late_start: the reference tells its scheduler the epoch just finished, so epochs 0 and 1 both
    run at warmup_start_lr and epoch e > 0 at what was meant for e - 1 (its logs: 1.01e-4 at epoch
    2, 1.978e-3 at epoch 21). False: epoch e runs at its own. A run shorter than its warm-up ends
    within it, as in timm.
    """
    if warmup_epoch < 0:
        raise ValueError(f"warmup_epoch must be 0 or more; got {warmup_epoch}")

    def curve(epoch):
        epoch = max(0, epoch - 1) if late_start else epoch
        if epoch < warmup_epoch:
            return warmup_start_lr + (learning_rate - warmup_start_lr) * epoch / warmup_epoch
        return _cosine(learning_rate, eta_min, min(epoch, epochs) / epochs)

    return Schedule(epochs, steps_per_epoch, learning_rate, by_epoch=True, curve=curve)


@SCHEDULES.register
def Step(
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    step_size: float,
    gamma: float,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
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
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    milestones: List[float],
    gamma: float = 0.1,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
    """Times gamma at each of the milestones (epochs, counted from the warm-up's end)."""
    schedule = Schedule(
        epochs, steps_per_epoch, learning_rate, warmup_epoch, warmup_start_lr, by_epoch
    )
    _check_increasing("milestones", milestones)
    schedule.curve = lambda tick: (
        learning_rate * gamma ** sum(tick >= m * schedule.ticks_per_epoch for m in milestones)
    )
    return schedule


@SCHEDULES.register
def Piecewise(
    epochs,
    steps_per_epoch,
    *,
    decay_epochs: Optional[List[float]] = None,
    values: Optional[List[float]] = None,
    learning_rate: Optional[float] = None,
    warmup_epoch: float = 0.0,
    warmup_start_lr: float = 0.0,
    by_epoch: bool = False,
):
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
    if len(values) != len(decay_epochs) + 1:
        raise ValueError(
            f"values must be one more than decay_epochs; got {len(values)} values and "
            f"{len(decay_epochs)} decay_epochs"
        )
    _check_increasing("decay_epochs", decay_epochs)
    schedule = Schedule(epochs, steps_per_epoch, values[0], warmup_epoch, warmup_start_lr, by_epoch)
    schedule.curve = lambda tick: values[
        sum(tick >= epoch * schedule.ticks_per_epoch for epoch in decay_epochs)
    ]
    return schedule


@SCHEDULES.register
def Cyclic(
    epochs,
    steps_per_epoch,
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
):
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
    epochs,
    steps_per_epoch,
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
):
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
    _check_increasing(
        f"the phases of phase_pct {phase_pct} in {total} ticks", [tick for tick, _ in knots]
    )
    mix = (
        _cosine
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
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    num_warmup_steps: int = 0,
    num_cycles: float = 7 / 16,
    by_epoch: bool = False,
):
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


@SCHEDULES.register
def MMCVPoly(
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    power: float = 1.0,
    min_lr: float = 0.0,
    warmup_iters: int = 0,
    warmup_ratio: float = 0.1,
):
    """mmcv's `poly` by iteration: polynomial of `power` from learning_rate at step 0 to min_lr
    after the last, warmed up as in _mmcv.
    """
    steps = epochs * steps_per_epoch
    return _mmcv(
        lambda step: (learning_rate - min_lr) * (1 - min(step, steps) / steps) ** power + min_lr,
        epochs,
        steps_per_epoch,
        learning_rate,
        warmup_iters,
        warmup_ratio,
    )


@SCHEDULES.register
def MMCVStep(
    epochs,
    steps_per_epoch,
    *,
    learning_rate: float,
    milestones: List[int],
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_ratio: float = 0.1,
):
    """mmcv's `step` by epoch: times gamma at each of the milestones (0-based epochs of the run),
    warmed up as in _mmcv.
    """
    _check_increasing("milestones", milestones)
    return _mmcv(
        lambda step: learning_rate * gamma ** sum(step // steps_per_epoch >= m for m in milestones),
        epochs,
        steps_per_epoch,
        learning_rate,
        warmup_iters,
        warmup_ratio,
    )


def _mmcv(regular, epochs, steps_per_epoch, learning_rate, warmup_iters, warmup_ratio):
    """mmcv's linear warm-up: the first warmup_iters steps scale `regular(step)`, which runs on
    beneath, from warmup_ratio to 1.
    """
    if warmup_iters < 0 or not 0 < warmup_ratio <= 1:
        raise ValueError(
            f"expected warmup_iters >= 0 and warmup_ratio above 0, at most 1; got {warmup_iters} "
            f"and {warmup_ratio}"
        )

    def curve(step):
        if step >= warmup_iters:
            return regular(step)
        return regular(step) * (1 - (1 - step / warmup_iters) * (1 - warmup_ratio))

    return Schedule(epochs, steps_per_epoch, learning_rate, curve=curve)


@SCHEDULES.register
class ReduceOnPlateau(Schedule):
    """Times `factor` when the observed metric has not improved for more than `patience`
    observations. The one schedule with a memory.

    mode: 'max' for an accuracy, 'min' for a loss. threshold: the least improvement that counts,
    relative to the best or absolute.
    cooldown: observations ignored after a reduction. A reduction smaller than `epsilon` is not
    made.
    """

    def __init__(
        self,
        epochs,
        steps_per_epoch,
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
        self.sign, self.factor, self.patience, self.cooldown = (
            (1 if mode == "max" else -1),
            factor,
            patience,
            cooldown,
        )
        self.threshold, self.relative, self.min_lr, self.epsilon = (
            threshold,
            threshold_mode == "rel",
            min_lr,
            epsilon,
        )
        self.current, self.best, self.bad_observations, self.cooldown_left = (
            learning_rate,
            None,
            0,
            0,
        )

    def observe(self, epoch, value):
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

    def state_dict(self):
        """What the metrics heard so far have left, as plain numbers."""
        return {
            key: getattr(self, key)
            for key in ("current", "best", "bad_observations", "cooldown_left")
        }

    def load_state_dict(self, state):
        """Take back a state_dict. ValueError for that of another kind of schedule."""
        super().load_state_dict(state)
        vars(self).update(state)


def _cosine(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _check_increasing(name, values):
    if any(a >= b for a, b in zip(values, values[1:])):
        raise ValueError(f"{name} must be increasing; got {values}")
