"""Metrics as integer counts: summed over batches and processes they stay exact, whatever the order
or the number of processes.

A metric has reset(), update(logits, label), counts() -> int64 vector, result(summed counts) ->
{name: share}, and `names`, those of its results in order, of which the first chooses the best
model. One that needs all images at once has gather(processes), whose result `result` takes, in
place of counts. Metrics for several labels an image, which have `multi_label = True`, are in
multilabel_metrics.py.
"""

from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
import paddle

from ...engine.distributed import Processes
from ...schema import ConfigError, Registry, named_entries

__all__ = ["METRICS", "CombinedMetric", "TopkAcc", "build_metric", "gathered"]

METRICS = Registry("metric")


def build_metric(items: Any, where: str = "Metric.Eval") -> Any:
    """The metric of a YAML list such as [{TopkAcc: {topk: [1, 5]}}], a CombinedMetric of several.
    Its first result chooses the best model.

    ConfigError below `where`, also for two that give figures of the same name.
    """
    if len(list(named_entries(items, where))) < 2:
        return METRICS.build_only(items, where, "metric", "[{TopkAcc: {topk: [1, 5]}}]")
    metrics = [METRICS.build(*entry) for entry in named_entries(items, where)]
    names = [name for metric in metrics for name in metric.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{where}: {', '.join(twice)} would be told twice; give each metric once")
    return CombinedMetric(metrics)


def gathered(metric: Any, processes: Processes) -> Any:
    """What a metric has seen in all processes, for its `result`."""
    if hasattr(metric, "gather"):
        return metric.gather(processes)
    return processes.sum(metric.counts())


class CombinedMetric:
    """Several metrics as one, their results in order."""

    def __init__(self, metrics: Sequence[Any]):
        self.metrics = list(metrics)
        self.names = [name for metric in metrics for name in metric.names]
        self.multi_label = any(getattr(metric, "multi_label", False) for metric in metrics)

    def reset(self) -> None:
        """Forget all counts."""
        for metric in self.metrics:
            metric.reset()

    def update(self, logits: paddle.Tensor, label: paddle.Tensor) -> None:
        """See the metrics."""
        for metric in self.metrics:
            metric.update(logits, label)

    def counts(self) -> np.ndarray:
        """The counts of all, one after the other."""
        return np.concatenate([metric.counts() for metric in self.metrics])

    def gather(self, processes: Processes) -> List[Any]:
        """What `gathered` gives of each."""
        return [gathered(metric, processes) for metric in self.metrics]

    def result(self, counts: Any) -> Dict[str, float]:
        """The results of what `gather` gives, or of a (summed) vector of `counts`."""
        if not isinstance(counts, list):
            ends = np.cumsum([len(metric.counts()) for metric in self.metrics])
            counts = np.split(counts, ends[:-1])
        return {
            name: value
            for metric, part in zip(self.metrics, counts)
            for name, value in metric.result(part).items()
        }


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
