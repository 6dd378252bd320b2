"""Losses of the encoder-decoders: `loss(maps, label)` -> {head: part}, scalars whose sum is the
loss.
"""

from typing import Any, Callable, Dict, Sequence

import paddle

from ...data.transforms.joint import IGNORE, counted_pixels
from ...schema import Registry

__all__ = ["LOSSES", "CrossEntropyLoss", "build_loss"]

LOSSES = Registry("segmentation loss")
HEADS = ("decode", "auxiliary")


def build_loss(
    items: Any, where: str = "Loss.Train"
) -> Callable[[Sequence[paddle.Tensor], paddle.Tensor], Dict[str, paddle.Tensor]]:
    """The loss of a YAML list with one entry, such as [{CrossEntropyLoss: {auxiliary_weight:
    0.4}}].
    """
    return LOSSES.build_only(items, where, "loss", "[{CrossEntropyLoss: {weight: 1.0}}]")


@LOSSES.register
class CrossEntropyLoss:
    """Cross entropy of every pixel.

    Pixels labelled `ignore_index` or 255, as padding is, cost nothing. The mean is over all pixels,
    those included, as in mmsegmentation,
    or with avg_non_ignore over the others. weight and auxiliary_weight: of the decode head and of
    the auxiliary one, if there is one.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        auxiliary_weight: float = 0.4,
        ignore_index: int = IGNORE,
        avg_non_ignore: bool = False,
    ):
        self.weights = (weight, auxiliary_weight)
        self.ignore_index, self.avg_non_ignore = ignore_index, avg_non_ignore

    def __call__(
        self, maps: Sequence[paddle.Tensor], label: paddle.Tensor
    ) -> Dict[str, paddle.Tensor]:
        """maps: the heads' logits, float32 [B, C, H, W]. label: [B, H, W], below C or 255."""
        label = label.astype("int64")
        counted = counted_pixels(label, self.ignore_index)
        label = paddle.where(counted, label, paddle.zeros_like(label)).unsqueeze(1)
        return {
            name: weight * self._mean(logits, label, counted)
            for name, weight, logits in zip(HEADS, self.weights, maps)
        }

    def _mean(self, logits, label, counted):
        # by hand: Paddle's own cross entropy on CPU (3.3.1) cuts log-probabilities below -64 off,
        # and their gradients with them
        own = paddle.take_along_axis(logits, label, axis=1).squeeze(1)
        loss = (paddle.logsumexp(logits, axis=1) - own) * counted.astype("float32")
        return loss.sum() / max(int(counted.sum()), 1) if self.avg_non_ignore else loss.mean()
