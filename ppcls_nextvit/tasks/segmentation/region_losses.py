"""Losses of label maps that look at regions or at hard pixels: PaddleSeg's, by its names and keys.

The dice loss (Milletari et al. 2016, arXiv:1606.04797), the focal loss (Lin et al. 2017,
arXiv:1708.02002) and the Lovasz-Softmax loss (Berman et al. 2018, arXiv:1705.08790). weight,
auxiliary_weight and ignore_index: see PixelLoss.
"""

from typing import List, Literal, Optional, Union

import paddle
from paddle.nn import functional as F

from ...data.transforms.joint import IGNORE
from .losses import LOSSES, PixelLoss, pixel_cross_entropy

__all__ = ["DiceLoss", "FocalLoss", "LovaszSoftmaxLoss", "MultiClassFocalLoss"]

LEAST = 1e-12  # of 1 - p: the power of 0 has no slope, that of less is no number


@LOSSES.register
class DiceLoss(PixelLoss):
    """1 - Dice of the probabilities and the label: for each class of each image, (2 * both +
    smooth) / (one + other + smooth) over the pixels that count; the mean over images and classes,
    each class times its entry of `class_weights`.
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        class_weights: Optional[List[float]] = None,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
    ):
        if smooth < 0:
            raise ValueError(f"smooth must be 0 or more; got {smooth}")
        super().__init__(weight, auxiliary_weight, ignore_index, class_weights)
        self.smooth = smooth

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        share = counted.astype("float32").unsqueeze(1)
        target = _one_hot(label, logits) * share  # [B, C, H, W]
        probability = F.softmax(logits, axis=1) * share
        both = (probability * target).sum(axis=[2, 3])
        sizes = (probability + target).sum(axis=[2, 3])
        loss = 1 - (2 * both + self.smooth) / (sizes + self.smooth + 1e-8)  # [B, C]
        if self.class_weights is not None:
            loss = loss * paddle.to_tensor(self.class_weights)
        return loss.mean()


@LOSSES.register
class FocalLoss(PixelLoss):
    """The focal loss of each class against the others: alpha_t * (1 - p_t)^gamma * -log(p_t) of
    sigmoids, the mean over classes and the pixels that count. alpha: of what is of the class; the
    rest has 1 - alpha. PaddleSeg has it for two classes alone.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
    ):
        if not 0 <= alpha <= 1 or gamma < 0:
            raise ValueError(
                f"alpha must be from 0 to 1, gamma 0 or more; got alpha={alpha}, gamma={gamma}"
            )
        super().__init__(weight, auxiliary_weight, ignore_index)
        self.alpha, self.gamma = alpha, gamma

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        target = _one_hot(label, logits)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        sign = 2 * target - 1
        wrong = paddle.clip(F.sigmoid(-sign * logits), min=LEAST)  # 1 - p_t
        alpha = self.alpha * target + (1 - self.alpha) * (1 - target)
        loss = alpha * wrong**self.gamma * loss * counted.astype("float32").unsqueeze(1)
        return loss.sum() / (
            paddle.clip(counted.astype("float32").sum(), min=1.0) * logits.shape[1]
        )


@LOSSES.register
class MultiClassFocalLoss(PixelLoss):
    """The focal loss of the label's probability among all classes: alpha * (1 - p)^gamma *
    -log(p), the mean over the pixels that count. num_class: of PaddleSeg's dialect; that of the
    model, if given.
    """

    def __init__(
        self,
        *,
        num_class: Optional[int] = None,
        alpha: float = 1.0,
        gamma: float = 2.0,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
    ):
        if alpha <= 0 or gamma < 0:
            raise ValueError(
                f"alpha must be above 0, gamma 0 or more; got alpha={alpha}, gamma={gamma}"
            )
        super().__init__(weight, auxiliary_weight, ignore_index)
        self.num_class, self.alpha, self.gamma = num_class, alpha, gamma

    def check_classes(self, class_num: int) -> None:
        """See PixelLoss."""
        if self.num_class not in (None, class_num):
            raise ValueError(
                f"MultiClassFocalLoss.num_class is {self.num_class}, but the model has {class_num} "
                f"classes"
            )

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        loss = pixel_cross_entropy(logits, label)
        wrong = paddle.clip(-paddle.expm1(-loss), min=LEAST)
        share = counted.astype("float32")
        loss = self.alpha * wrong**self.gamma * loss * share
        return loss.sum() / paddle.clip(share.sum(), min=1.0)


@LOSSES.register
class LovaszSoftmaxLoss(PixelLoss):
    """The Lovasz extension of 1 - IoU, over all pixels of a batch that count, the mean over
    `classes`: those that are in the labels (present), all, or the numbers of some.
    """

    def __init__(
        self,
        *,
        classes: Union[Literal["present", "all"], List[int]] = "present",
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
    ):
        if not classes or (isinstance(classes, list) and min(classes) < 0):
            raise ValueError(
                f"classes must be present, all, or numbers of classes; got {classes!r}"
            )
        super().__init__(weight, auxiliary_weight, ignore_index)
        self.classes = classes

    def check_classes(self, class_num: int) -> None:
        """See PixelLoss."""
        if isinstance(self.classes, list) and max(self.classes) >= class_num:
            raise ValueError(
                f"LovaszSoftmaxLoss.classes names class {max(self.classes)}, but the model has "
                f"{class_num} classes, from 0"
            )

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        if not bool(counted.any()):
            return 0.0 * logits.sum()
        probability = F.softmax(logits, axis=1).transpose([0, 2, 3, 1])[counted]  # [N, C]
        label = label[counted]
        chosen = range(logits.shape[1]) if isinstance(self.classes, str) else self.classes
        parts = [
            _lovasz((label == number).astype("float32"), probability[:, number])
            for number in chosen
            if self.classes != "present" or bool((label == number).any())
        ]
        return sum(parts) / len(parts)


def _lovasz(target: paddle.Tensor, probability: paddle.Tensor) -> paddle.Tensor:
    """One class's part, of target (0 or 1) and probability, float32 [N]."""
    error = (target - probability).abs()
    order = paddle.argsort(error.detach(), descending=True)
    target = target[order]
    # of the set of the so many worst pixels: intersection, union, 1 - IoU
    left = target.sum() - target.cumsum(axis=0)
    union = target.sum() + (1 - target).cumsum(axis=0)
    loss = 1 - left / union
    slope = paddle.concat([loss[:1], loss[1:] - loss[:-1]])
    return (error[order] * slope).sum()


def _one_hot(label: paddle.Tensor, logits: paddle.Tensor) -> paddle.Tensor:
    """float32 [B, C, H, W] of int64 [B, H, W]."""
    return F.one_hot(label, logits.shape[1]).transpose([0, 3, 1, 2])
