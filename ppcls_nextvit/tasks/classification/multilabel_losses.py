"""Losses for several labels an image, by PaddleClas's names and keys: `loss(logits, batch)` ->
scalar, in float32.

logits: [B, C], of each class against its absence. batch: a dict with `label` float32 [B, C], 1 for
what is there; with `label_ratio` of the dataset also `label_ratio` float32 [C], the share of images
that have each class.
"""

from typing import Literal, Mapping, Optional

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .losses import LOSSES, checked_epsilon, smoothed

__all__ = ["MultiLabelAsymmetricLoss", "MultiLabelLoss"]


def labels_like(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The batch's label, float32 [B, C]. ValueError where it is not of the logits' shape."""
    label = batch["label"]
    if label.shape != logits.shape:
        raise ValueError(
            f"several labels an image are expected, as 0 or 1 of shape {list(logits.shape)}; got "
            f"labels of shape {list(label.shape)}"
        )
    return label.astype("float32")


@LOSSES.register
class MultiLabelLoss:
    """Binary cross entropy of every class, the mean over classes and images.

    epsilon: label smoothing, as PaddleClas has it: (1 - epsilon) * label + epsilon / C. size_sum:
    the sum over the classes in place of their mean. weight_ratio: a class that is there counts
    exp(1 - ratio), one that is not exp(ratio), where ratio is its share of the images; for a
    dataset with `label_ratio`.
    """

    multi_label = True

    def __init__(
        self,
        *,
        weight: float = 1.0,
        epsilon: Optional[float] = None,
        size_sum: bool = False,
        weight_ratio: bool = False,
    ):
        self.weight, self.epsilon = weight, checked_epsilon(epsilon)
        self.size_sum, self.weight_ratio = size_sum, weight_ratio

    def __call__(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        logits = logits.astype("float32")
        label = labels_like(logits, batch)
        target = smoothed(label, self.epsilon)
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.weight_ratio:
            if "label_ratio" not in batch:
                raise ValueError(
                    "weight_ratio needs the classes' shares; set label_ratio: True in the dataset"
                )
            ratio = batch["label_ratio"].astype("float32")
            # of the smoothed label, which for epsilon near 1 is nowhere above a half
            there = (target > 0.5).astype("float32")
            cost = cost * paddle.exp(there * (1 - ratio) + (1 - there) * ratio)
        return cost.sum(axis=1).mean() if self.size_sum else cost.mean()


@LOSSES.register
class MultiLabelAsymmetricLoss:
    """The asymmetric loss (Ben-Baruch et al. 2020, arXiv:2009.14119): the focal loss of every class
    with gamma_pos where it is there and gamma_neg where it is not, whose probability is lowered by
    `clip`.

    epsilon: the least probability that a logarithm is taken of. disable_focal_loss_grad: the focal
    factors are given, and not learnt by. reduction: the sum over the batch and its classes, or
    their mean.
    """

    multi_label = True

    def __init__(
        self,
        *,
        weight: float = 1.0,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        clip: Optional[float] = 0.05,
        epsilon: float = 1e-8,
        disable_focal_loss_grad: bool = True,
        reduction: Literal["sum", "mean"] = "sum",
    ):
        if min(gamma_pos, gamma_neg) < 0 or not 0 <= (clip or 0.0) < 1 or not 0 < epsilon < 1:
            raise ValueError(
                f"expected gammas of 0 or more, clip in [0, 1) and epsilon in (0, 1); got "
                f"gamma_pos={gamma_pos}, gamma_neg={gamma_neg}, clip={clip}, epsilon={epsilon}"
            )
        self.weight, self.gammas, self.clip = weight, (gamma_pos, gamma_neg), clip or 0.0
        self.epsilon, self.reduction = epsilon, reduction
        self.fixed_factors = disable_focal_loss_grad

    def __call__(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        logits = logits.astype("float32")
        label = labels_like(logits, batch)
        absent = paddle.clip(F.sigmoid(-logits) + self.clip, max=1.0)
        right = label * F.sigmoid(logits) + (1 - label) * absent  # probability of what is so
        # the power of 0 has no slope
        wrong = paddle.clip(1 - (right.detach() if self.fixed_factors else right), min=1e-12)
        gamma_pos, gamma_neg = self.gammas
        factor = wrong ** (gamma_pos * label + gamma_neg * (1 - label))
        cost = -factor * paddle.log(paddle.clip(right, min=self.epsilon))
        return cost.sum() if self.reduction == "sum" else cost.mean()
