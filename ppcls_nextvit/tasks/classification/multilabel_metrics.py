"""Metrics for several labels an image, by PaddleClas's names and keys.

As those of metrics.py, with logits [B, C] and label float32 [B, C], 1 for what is there. A class is
said to be there where its probability, the sigmoid of its logit, is `threshold` or more, as
predictions say it. A logit that is not a number makes its label wrong.
"""

import math
from typing import Dict, Literal, Tuple

import numpy as np
import paddle

from ...engine.distributed import Processes
from .metrics import METRICS

__all__ = ["AccuracyScore", "HammingDistance", "MultiLabelMAP", "average_precision"]


class _Counted:
    """Images, labels and how many of both are right, as int64 [4]: images seen, labels seen, images
    without a wrong label, right labels.
    """

    multi_label = True

    def __init__(self, threshold: float):
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be a probability between 0 and 1; got {threshold}")
        self.logit = math.log(threshold / (1 - threshold))
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counts = np.zeros(4, dtype=np.int64)

    def update(self, logits: paddle.Tensor, label: paddle.Tensor) -> None:
        """logits: [B, C]. label: [B, C], 0 or 1."""
        found, truth = logits.astype("float32").numpy(), label.numpy() > 0.5
        right = ((found >= self.logit) == truth) & ~np.isnan(found)
        self._counts += np.array(
            [len(right), right.size, right.all(axis=1).sum(), right.sum()], dtype=np.int64
        )

    def counts(self) -> np.ndarray:
        """int64 [4]: see the class. Sum it over the processes."""
        return self._counts.copy()

    def _shares(self, counts: np.ndarray) -> Tuple[float, float]:
        """(share of images, share of labels) that are right. ValueError for no image."""
        images, labels, images_right, labels_right = (int(count) for count in counts)
        if not images:
            raise ValueError("no image was evaluated; the data set is empty")
        return images_right / images, labels_right / labels


@METRICS.register
class HammingDistance(_Counted):
    """The share of wrong labels, over all classes of all images. Less is better; the best model is
    therefore chosen by `label_accuracy`, which is the rest.
    """

    names = ["label_accuracy", "HammingDistance"]

    def __init__(self, *, threshold: float = 0.5):
        super().__init__(threshold)

    def result(self, counts: np.ndarray) -> Dict[str, float]:
        """{'label_accuracy', 'HammingDistance'} as shares, of a (summed) count vector."""
        right = self._shares(counts)[1]
        return {"label_accuracy": right, "HammingDistance": 1 - right}


@METRICS.register
class AccuracyScore(_Counted):
    """The share of what is right: of the labels, or with base `sample` of the images, all of whose
    labels must be.
    """

    names = ["AccuracyScore"]

    def __init__(self, *, base: Literal["label", "sample"] = "label", threshold: float = 0.5):
        super().__init__(threshold)
        self.base = base

    def result(self, counts: np.ndarray) -> Dict[str, float]:
        """{'AccuracyScore': share} of a (summed) count vector."""
        images, labels = self._shares(counts)
        return {"AccuracyScore": images if self.base == "sample" else labels}


@METRICS.register
class MultiLabelMAP:
    """The mean over the classes of the average precision, which no threshold decides. Classes that
    no image has are left out.

    map_type: integral, the mean precision at each image that has the class; 11point, the mean over
    the recalls 0, 0.1, ... 1 of the best precision from there on. Images of equal logits are taken
    together, so that their order decides nothing. A logit that is not a number ranks its image
    where it does most harm.
    """

    multi_label = True
    names = ["MultiLabelMAP"]

    def __init__(self, *, map_type: Literal["integral", "11point"] = "integral"):
        self.map_type = map_type
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._batches: list = []

    def update(self, logits: paddle.Tensor, label: paddle.Tensor) -> None:
        """logits: [B, C]. label: [B, C], 0 or 1."""
        truth = label.numpy() > 0.5
        found = logits.astype("float32").numpy()
        found = np.where(np.isnan(found), np.where(truth, -np.inf, np.inf), found)
        self._batches.append(np.stack([found, truth.astype(np.float32)]))  # [2, B, C]

    def gather(self, processes: Processes) -> np.ndarray:
        """Logits and labels of the images of all processes, float64 [2, N, C]."""
        own = np.concatenate(self._batches, axis=1) if self._batches else np.zeros((2, 0, 0))
        shapes = np.zeros((processes.world_size, 2))
        shapes[processes.rank] = own.shape[1:]
        shapes = processes.sum(shapes.reshape(-1)).reshape(-1, 2).astype(int)
        whole = np.zeros((2, shapes[:, 0].sum(), shapes[:, 1].max()))
        start = shapes[: processes.rank, 0].sum()
        if own.size:
            whole[:, start : start + own.shape[1]] = own
        return processes.sum(whole.reshape(-1)).reshape(whole.shape)

    def result(self, gathered: np.ndarray) -> Dict[str, float]:
        """{'MultiLabelMAP': share} of what `gather` gives. ValueError where no image has a
        class.
        """
        logits, labels = gathered
        found = [
            average_precision(logits[:, c], labels[:, c], self.map_type)
            for c in range(logits.shape[1])
            if labels[:, c].any()
        ]
        if not found:
            raise ValueError(
                "no image of the evaluation set has a label: there is no MultiLabelMAP"
            )
        return {"MultiLabelMAP": float(np.mean(found))}


def average_precision(
    scores: np.ndarray, labels: np.ndarray, map_type: Literal["integral", "11point"] = "integral"
) -> float:
    """Of one class: scores [N], labels [N] of 0 and 1, one of them 1; see MultiLabelMAP."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of equal scores
    right = np.cumsum(labels[order])[ends]
    precision, recall = right / (ends + 1), right / right[-1]
    if map_type == "integral":
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))
    # in whole numbers, for 0.3 is none
    best = [precision[10 * right >= tenths * right[-1]].max() for tenths in range(11)]
    return float(np.mean(best))
