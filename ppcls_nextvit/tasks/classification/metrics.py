"""Metrics as integer counts: summed over batches and processes they stay exact, whatever the order
or the number of processes.

A metric has reset(), update(logits, label), counts() -> int64 vector, result(summed counts) ->
{name: share}, and `names`, those of its results in order, of which the first chooses the best
model.
"""

from typing import Any, Dict, List, Tuple, Union

import numpy as np
import paddle

from ...schema import Registry

__all__ = ["METRICS", "TopkAcc", "build_metric"]

METRICS = Registry("metric")


def build_metric(items: Any, where: str = "Metric.Eval") -> Any:
    """The metric of a YAML list with one entry, such as [{TopkAcc: {topk: [1, 5]}}]. Its first
    result chooses the best model.

    ConfigError below `where`.
    """
    return METRICS.build_only(items, where, "metric", "[{TopkAcc: {topk: [1, 5]}}]")


@METRICS.register
class TopkAcc:
    """Share of images whose label is among the k classes of highest logit, for every k of `topk`.

    With fewer than k classes every image counts as right, as in PaddleClas ([1, 5] is everyone's
    default, also for 3 classes). Among equal logits the lower class index comes first. A logit that
    is not a number makes its image wrong.
    """

    def __init__(self, *, topk: Union[int, List[int], Tuple[int, ...]] = (1, 5)):
        self.topk = [topk] if isinstance(topk, int) else list(topk)
        if not self.topk or min(self.topk) < 1 or len(set(self.topk)) != len(self.topk):
            raise ValueError(f"topk must be different numbers of 1 or more; got {self.topk}")
        self.names = [f"top{k}" for k in self.topk]
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counts = np.zeros(1 + len(self.topk), dtype=np.int64)

    def update(self, logits: paddle.Tensor, label: paddle.Tensor) -> None:
        """logits: [B, C]. label: int64 [B]."""
        classes = paddle.arange(logits.shape[-1])
        label, logits = label.reshape([-1, 1]), logits.astype("float32")
        own = paddle.take_along_axis(logits, label, axis=1)  # [B, 1]
        ahead = paddle.logical_or(
            paddle.logical_not(logits <= own), paddle.logical_and(logits == own, classes < label)
        )
        # [B], 0 is the best class
        rank = ahead.astype("int64").sum(axis=-1).numpy()
        right = [rank.size if k > logits.shape[-1] else (rank < k).sum() for k in self.topk]
        self._counts += np.array([rank.size, *right], dtype=np.int64)

    def counts(self) -> np.ndarray:
        """int64 [1 + len(topk)]: images seen, then images right for each k. Sum it over the
        processes.
        """
        return self._counts.copy()

    def result(self, counts: np.ndarray) -> Dict[str, float]:
        """{'top1': share, ...} of a (summed) count vector. ValueError if it counts no image."""
        if counts[0] == 0:
            raise ValueError("no image was evaluated; the data set is empty")
        return {name: int(right) / int(counts[0]) for name, right in zip(self.names, counts[1:])}
