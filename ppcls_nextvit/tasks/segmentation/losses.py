"""Losses of the encoder-decoders: `loss(maps, label)` -> {part: value}, scalars whose sum is the
loss.
"""

from typing import Any, Callable, Dict, List, Optional, Sequence

import paddle

from ...data.transforms.joint import IGNORE, counted_pixels
from ...schema import Registry, named_entries
from ..class_weights import weight_array

__all__ = [
    "LOSSES",
    "CrossEntropyLoss",
    "MixedLoss",
    "OhemCrossEntropyLoss",
    "PixelLoss",
    "build_loss",
    "check_classes",
    "pixel_cross_entropy",
]

LOSSES = Registry("segmentation loss")
HEADS = ("decode", "auxiliary")


def build_loss(
    items: Any, where: str = "Loss.Train"
) -> Callable[[Sequence[paddle.Tensor], paddle.Tensor], Dict[str, paddle.Tensor]]:
    """The loss of a YAML list with one entry, such as [{CrossEntropyLoss: {auxiliary_weight:
    0.4}}]; MixedLoss adds several.
    """
    return LOSSES.build_only(items, where, "loss", "[{CrossEntropyLoss: {weight: 1.0}}]")


class PixelLoss:
    """What losses of label maps share: a part for each head, over the pixels that count.

    weight and auxiliary_weight: of the decode head and of the auxiliary one, if there is one.
    Pixels labelled `ignore_index` or 255, as padding is, cost nothing. class_weights: one for each
    class, or None. A subclass gives `of_head`.
    """

    def __init__(
        self,
        weight: float,
        auxiliary_weight: float,
        ignore_index: int,
        class_weights: Optional[Sequence[float]] = None,
    ):
        self.weights = (weight, auxiliary_weight)
        self.ignore_index = ignore_index
        self.class_weights = weight_array(class_weights)

    def __call__(
        self, maps: Sequence[paddle.Tensor], label: paddle.Tensor
    ) -> Dict[str, paddle.Tensor]:
        """maps: the heads' logits, float32 [B, C, H, W]. label: [B, H, W], below C or 255."""
        self.check_classes(maps[0].shape[1])
        label = label.astype("int64")
        counted = counted_pixels(label, self.ignore_index)
        label = paddle.where(counted, label, paddle.zeros_like(label))
        return {
            name: weight * self.of_head(logits, label, counted)
            for name, weight, logits in zip(HEADS, self.weights, maps)
        }

    def check_classes(self, class_num: int) -> None:
        """ValueError for a loss that is for other classes than those of a model of `class_num`."""
        weights = self.class_weights
        if weights is not None and len(weights) != class_num:
            raise ValueError(f"{len(weights)} class_weights, but the model has {class_num} classes")

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """The loss of one head, a scalar. logits: float32 [B, C, H, W]. label: int64 [B, H, W], 0
        where a pixel does not count. counted: bool [B, H, W].
        """
        raise NotImplementedError


def check_classes(loss: Any, class_num: int) -> None:
    """PixelLoss.check_classes of an entry of LOSSES, of which a user's own needs none."""
    if hasattr(loss, "check_classes"):
        loss.check_classes(class_num)


def pixel_cross_entropy(logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
    """-log of the label's probability at every pixel, float32 [B, H, W]. logits: [B, C, H, W],
    label: int64 [B, H, W].
    """
    # by hand: Paddle's own cross entropy on CPU (3.3.1) cuts log-probabilities below -64 off, and
    # their gradients with them
    own = paddle.take_along_axis(logits, label.unsqueeze(1), axis=1).squeeze(1)
    return paddle.logsumexp(logits, axis=1) - own


@LOSSES.register
class CrossEntropyLoss(PixelLoss):
    """Cross entropy of every pixel.

    The mean is over all pixels, the ignored included, as in mmsegmentation, or with avg_non_ignore
    over the others. class_weights: one for each class, by which a pixel counts; the mean over what
    is not ignored is then the weighted one.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
        avg_non_ignore: bool = False,
        class_weights: Optional[List[float]] = None,
    ):
        super().__init__(weight, auxiliary_weight, ignore_index, class_weights)
        self.avg_non_ignore = avg_non_ignore

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        share = counted.astype("float32")
        if self.class_weights is not None:
            share = share * paddle.to_tensor(self.class_weights)[label]
        loss = pixel_cross_entropy(logits, label) * share
        if not self.avg_non_ignore:
            return loss.mean()
        total = share.sum()
        # nothing that counts: 0, not 0 / 0
        return loss.sum() / paddle.where(total > 0, total, paddle.ones_like(total))


@LOSSES.register
class OhemCrossEntropyLoss(PixelLoss):
    """Cross entropy of the hard pixels alone, as PaddleSeg mines them.

    Where more than `min_kept` pixels of a batch count, those are left whose label has a probability
    below `thresh` or, if that is more, below the `min_kept`-th lowest; the mean is over them.
    """

    def __init__(
        self,
        *,
        thresh: float = 0.7,
        min_kept: int = 10000,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
    ):
        if not 0 < thresh <= 1 or min_kept < 1:
            raise ValueError(
                f"thresh must be a probability above 0, min_kept 1 or more; got {thresh}, "
                f"{min_kept}"
            )
        super().__init__(weight, auxiliary_weight, ignore_index)
        self.thresh, self.min_kept = thresh, min_kept

    def of_head(
        self, logits: paddle.Tensor, label: paddle.Tensor, counted: paddle.Tensor
    ) -> paddle.Tensor:
        """See PixelLoss."""
        loss = pixel_cross_entropy(logits, label)
        kept = counted
        if int(counted.sum()) > self.min_kept:
            probability = paddle.exp(-loss.detach())
            lowest = paddle.sort(probability[counted])[self.min_kept - 1]
            limit = paddle.clip(lowest, min=self.thresh)
            kept = paddle.logical_and(counted, probability < limit)
        share = kept.astype("float32")
        return (loss * share).sum() / paddle.clip(share.sum(), min=1.0)


@LOSSES.register
class MixedLoss:
    """The sum of several `losses`, each an entry as of Loss.Train, times its `coef`. PaddleSeg's.

    Its parts are named by head and loss; each loss has its own weights of the heads, too.
    """

    def __init__(self, *, losses: List[dict], coef: List[float]):
        self.losses: Dict[str, Any] = {}
        for name, arguments, place in named_entries(losses, "losses"):
            if name in self.losses or name == "MixedLoss":
                raise ValueError(f"{place}: each loss is given once, and MixedLoss not in itself")
            self.losses[name] = LOSSES.build(name, arguments, place)
        if not self.losses or len(self.losses) != len(coef):
            raise ValueError(
                f"coef must have a number for each of 1 or more losses; got {len(coef)} for "
                f"{len(self.losses)}"
            )
        if min(coef) < 0 or not max(coef):
            raise ValueError(f"coef must be 0 or more, and not all of them 0; got {coef}")
        self.coef = coef

    def check_classes(self, class_num: int) -> None:
        """See PixelLoss."""
        for loss in self.losses.values():
            check_classes(loss, class_num)

    def __call__(
        self, maps: Sequence[paddle.Tensor], label: paddle.Tensor
    ) -> Dict[str, paddle.Tensor]:
        """maps: the heads' logits, float32 [B, C, H, W]. label: [B, H, W]."""
        return {
            f"{head}_{name}": coef * part
            for (name, loss), coef in zip(self.losses.items(), self.coef)
            for head, part in loss(maps, label).items()
        }
