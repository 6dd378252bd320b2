"""The schedules of the published recipes: the official Next-ViT classifiers' `TimmCosine`, and
`MMCVPoly` and `MMCVStep`, those of their segmentors and detectors.
"""

from typing import Callable, List

from .base import SCHEDULES, Schedule, check_increasing, cosine

__all__ = ["MMCVPoly", "MMCVStep", "TimmCosine"]


@SCHEDULES.register
def TimmCosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    eta_min: float = 0.0,
    warmup_epoch: int = 0,
    warmup_start_lr: float = 0.0,
    late_start: bool = True,
) -> Schedule:
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
        return cosine(learning_rate, eta_min, min(epoch, epochs) / epochs)

    return Schedule(epochs, steps_per_epoch, learning_rate, by_epoch=True, curve=curve)


@SCHEDULES.register
def MMCVPoly(
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    power: float = 1.0,
    min_lr: float = 0.0,
    warmup_iters: int = 0,
    warmup_ratio: float = 0.1,
) -> Schedule:
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
    epochs: int,
    steps_per_epoch: int,
    *,
    learning_rate: float,
    milestones: List[int],
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_ratio: float = 0.1,
) -> Schedule:
    """mmcv's `step` by epoch: times gamma at each of the milestones (0-based epochs of the run),
    warmed up as in _mmcv.
    """
    check_increasing("milestones", milestones)
    return _mmcv(
        lambda step: learning_rate * gamma ** sum(step // steps_per_epoch >= m for m in milestones),
        epochs,
        steps_per_epoch,
        learning_rate,
        warmup_iters,
        warmup_ratio,
    )


def _mmcv(
    regular: Callable[[int], float],
    epochs: int,
    steps_per_epoch: int,
    learning_rate: float,
    warmup_iters: int,
    warmup_ratio: float,
) -> Schedule:
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
