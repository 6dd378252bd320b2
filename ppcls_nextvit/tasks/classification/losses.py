"""Losses: `loss(logits, batch) -> scalar`, in float32 whatever the precision of the logits.

logits: [B, C]. batch: a dict with `label` int64 [B]; where two images are mixed also `label_b`
int64 [B] and `lam` float32 [B], the share of `label`; or `soft_label` float32 [B, C] in place of
all three; with a distillation loss also `teacher_logits` [B, C].
"""

from typing import Any, Dict, Literal, Mapping, Optional, Sequence, Tuple

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ...schema import ConfigError, Registry, named_entries

__all__ = [
    "LOSSES",
    "CELoss",
    "CombinedLoss",
    "DistillationLoss",
    "build_loss",
    "target_distribution",
]

LOSSES = Registry("loss")


def build_loss(items: Any, where: str = "Loss.Train") -> "CombinedLoss":
    """The CombinedLoss of a YAML list such as [{CELoss: {weight: 1.0, epsilon: 0.1}}, ...].
    ConfigError below `where`.
    """
    entries = list(named_entries(items, where))
    if not entries:
        raise ConfigError(
            f"{where}: expected a list of losses such as [{{CELoss: {{weight: 1.0}}}}], got "
            f"{items!r}"
        )
    combined = CombinedLoss(
        [(name, LOSSES.build(name, arguments, place)) for name, arguments, place in entries]
    )
    if len(combined.teachers) > 1:
        raise ConfigError(
            f"{where}: {len(combined.teachers)} losses have a teacher; one is supported"
        )
    return combined


class CombinedLoss:
    """`combined(logits, batch)` -> (sum of weight * loss, {name: weighted part}); the parts are
    detached, for the log.

    teacher: the Arch-like section of the model that must fill batch["teacher_logits"], or None.
    """

    def __init__(self, named_losses: Sequence[Tuple[str, Any]]):
        self.losses: Dict[str, Any] = {}
        for name, loss in named_losses:
            self.losses[name if name not in self.losses else f"{name}_{len(self.losses)}"] = loss
        self.teachers = [loss.teacher for loss in self.losses.values() if hasattr(loss, "teacher")]
        self.teacher = self.teachers[0] if self.teachers else None

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor]
    ) -> Tuple[Tensor, Dict[str, Tensor]]:
        parts = {name: loss.weight * loss(logits, batch) for name, loss in self.losses.items()}
        total = sum(parts.values())
        return total, {name: part.detach() for name, part in parts.items()}


def target_distribution(
    batch: Mapping[str, Tensor], num_classes: int, epsilon: float = 0.0
) -> Tensor:
    """What the batch's labels mean as probabilities, float32 [B, C].

    One-hot, mixed by `lam` where the images are, then smoothed: (1 - epsilon) * target + epsilon /
    C. Smoothing is linear, so smoothing before mixing (timm's Mixup) gives the same numbers. batch:
    as in the module's docstring. ValueError for soft labels of other classes.
    """
    if "soft_label" in batch:
        target = batch["soft_label"].astype("float32")
        if target.shape[-1] != num_classes:
            raise ValueError(f"soft_label has {target.shape[-1]} classes, the model {num_classes}")
    else:
        target = F.one_hot(batch["label"], num_classes)
        if "label_b" in batch:
            share = batch["lam"].astype("float32").unsqueeze(-1)
            target = share * target + (1 - share) * F.one_hot(batch["label_b"], num_classes)
    return (1 - epsilon) * target + epsilon / num_classes if epsilon else target


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of -sum(target * log softmax(logits))."""
    return -paddle.sum(target * log_softmax(logits), axis=-1).mean()


def log_softmax(logits: Tensor) -> Tensor:
    """In float32. Paddle's own kernel on CPU (3.3.1) cuts values below -64 off, and their gradients
    with them.
    """
    logits = logits.astype("float32")
    return logits - paddle.logsumexp(logits, axis=-1, keepdim=True)


class CELoss:
    """Cross entropy with label smoothing `epsilon`, for plain, mixed and soft labels alike."""

    def __init__(self, *, weight: float = 1.0, epsilon: Optional[float] = None):
        if not 0 <= (epsilon or 0.0) < 1:
            raise ValueError(f"epsilon (label smoothing) must be in [0, 1); got {epsilon}")
        self.weight, self.epsilon = weight, epsilon or 0.0

    def __call__(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return soft_cross_entropy(
            logits, target_distribution(batch, logits.shape[-1], self.epsilon)
        )


LOSSES.register(CELoss)
# PaddleClas's old name for mixed batches, which CELoss handles by itself
LOSSES.register(CELoss, name="MixCELoss")


@LOSSES.register
def SoftTargetCrossEntropy(*, weight: float = 1.0) -> CELoss:
    """PaddleClas's and timm's name for cross entropy with soft labels as they are."""
    return CELoss(weight=weight)


@LOSSES.register
class DistillationLoss:
    """Learn from a teacher's logits (Hinton et al. 2015, arXiv:1503.02531; 'hard': DeiT,
    arXiv:2012.12877).

    teacher: like the section Arch, {name: NextViT_base_224, pretrained: PATH, ...}; the trainer
    builds it and runs it on the batch.
    soft: temperature^2 * KL(teacher || student) of the softened distributions, mean over the batch.
    hard: cross entropy with the teacher's best class, where temperature has no meaning. Beside
    CELoss, give both a weight.
    """

    def __init__(
        self,
        *,
        teacher: dict,
        temperature: float = 4.0,
        weight: float = 1.0,
        kind: Literal["soft", "hard"] = "soft",
    ):
        if "name" not in teacher:
            raise ValueError(f"teacher needs a name, as Arch does; got {teacher}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0; got {temperature}")
        self.teacher, self.temperature, self.weight, self.kind = teacher, temperature, weight, kind

    def __call__(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        student = logits.astype("float32")
        teacher = batch["teacher_logits"].astype("float32").detach()
        if student.shape != teacher.shape:
            raise ValueError(
                f"the student's logits are {list(student.shape)}, the teacher's "
                f"{list(teacher.shape)}; "
                "give the teacher the same class_num"
            )
        if self.kind == "hard":
            return soft_cross_entropy(
                student, F.one_hot(teacher.argmax(axis=-1), teacher.shape[-1])
            )
        log_student = log_softmax(student / self.temperature)
        log_teacher = log_softmax(teacher / self.temperature)
        return (
            self.temperature**2
            * paddle.sum(log_teacher.exp() * (log_teacher - log_student), axis=-1).mean()
        )
