"""Losses: `loss(logits, batch) -> scalar`, in float32 whatever the precision of the logits.

logits: [B, C]. batch: a dict with `label` int64 [B]; where two images are mixed also `label_b`
int64 [B] and `lam` float32 [B], the share of `label`; or `soft_label` float32 [B, C] in place of
all three; with a distillation loss also `teacher_logits` [B, C]. Losses for several labels an
image, which have `multi_label = True`, are in multilabel_losses.py.
"""

from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ...schema import ConfigError, Registry, named_entries
from ..class_weights import weight_array

__all__ = [
    "LOSSES",
    "CELoss",
    "CombinedLoss",
    "DistillationLoss",
    "FocalLoss",
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
    return smoothed(target, epsilon)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of -sum(target * log softmax(logits))."""
    return -paddle.sum(target * log_softmax(logits), axis=-1).mean()


def log_softmax(logits: Tensor) -> Tensor:
    """In float32. Paddle's own kernel on CPU (3.3.1) cuts values below -64 off, and their gradients
    with them.
    """
    logits = logits.astype("float32")
    return logits - paddle.logsumexp(logits, axis=-1, keepdim=True)


def smoothed(target: Tensor, epsilon: float) -> Tensor:
    """(1 - epsilon) * target + epsilon / C of a target [B, C]."""
    return (1 - epsilon) * target + epsilon / target.shape[-1] if epsilon else target


class CELoss:
    """Cross entropy with label smoothing `epsilon`, for plain, mixed and soft labels alike.

    class_weights: one for each class, by which what is of it counts. The mean over the batch is
    then the weighted one, an image's weight being that of its label (mixed: of its two, by share).
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        epsilon: Optional[float] = None,
        class_weights: Optional[List[float]] = None,
    ):
        self.weight, self.epsilon = weight, checked_epsilon(epsilon)
        self.class_weights = weight_array(class_weights)

    def __call__(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        target = target_distribution(batch, logits.shape[-1])
        cost = self.costs(log_softmax(logits)) * smoothed(target, self.epsilon)  # [B, C]
        if self.class_weights is None:
            return cost.sum(axis=-1).mean()
        if len(self.class_weights) != logits.shape[-1]:
            raise ValueError(
                f"{len(self.class_weights)} class_weights, but the model has {logits.shape[-1]} "
                f"classes"
            )
        weights = paddle.to_tensor(self.class_weights)
        total = (target * weights).sum()
        # a batch of classes that do not count costs 0, not 0 / 0
        return (cost * weights).sum() / paddle.where(total > 0, total, paddle.ones_like(total))

    def costs(self, log_probabilities: Tensor) -> Tensor:
        """What each class costs where it is the label, [B, C]."""
        return -log_probabilities


def checked_epsilon(epsilon: Optional[float]) -> float:
    """Label smoothing, 0 for None. ValueError where it is not in [0, 1)."""
    if not 0 <= (epsilon or 0.0) < 1:
        raise ValueError(f"epsilon (label smoothing) must be in [0, 1); got {epsilon}")
    return epsilon or 0.0


LOSSES.register(CELoss)
# PaddleClas's old name for mixed batches, which CELoss handles by itself
LOSSES.register(CELoss, name="MixCELoss")


@LOSSES.register
class FocalLoss(CELoss):
    """The focal loss among all classes (Lin et al. 2017, arXiv:1708.02002): CELoss whose costs are
    -(1 - p)^gamma * log(p), so that what is right already counts less. class_weights are its alpha.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        weight: float = 1.0,
        epsilon: Optional[float] = None,
        class_weights: Optional[List[float]] = None,
    ):
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more; got {gamma}")
        super().__init__(weight=weight, epsilon=epsilon, class_weights=class_weights)
        self.gamma = gamma

    def costs(self, log_probabilities: Tensor) -> Tensor:
        """See CELoss."""
        # the power of 0 has no slope, that of less is no number
        wrong = paddle.clip(-paddle.expm1(log_probabilities), min=1e-12)
        return -(wrong**self.gamma) * log_probabilities


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
