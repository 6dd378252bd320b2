"""Metrics of the segmentors as integer counts: summed over images and processes they stay exact, in
whatever order.

A metric has reset(), update(prediction, label) of one image [H, W] or of a batch [B, H, W],
counts() -> int64 vector whose first entry is the number of images, result(summed counts) -> {name:
share, or a list by class}, and `names`, those of its shares in order, of which the first chooses
the best model.
"""

from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ...data.transforms.joint import IGNORE, counted_pixels
from ...schema import Registry

__all__ = ["METRICS", "MeanIoU", "PixelAccuracy", "build_metric"]

METRICS = Registry("segmentation metric")


def build_metric(items: Any, num_classes: int, where: str = "Metric.Eval") -> Any:
    """The metric of a YAML list with one entry, such as [{MeanIoU: {}}]."""
    return METRICS.build_only(items, where, "metric", "[{MeanIoU: {}}]", num_classes)


@METRICS.register
class PixelAccuracy:
    """Share of the pixels not labelled `ignore_index` or 255 whose best class is the label: cheap
    enough for every training batch.
    """

    names = ("aAcc",)

    def __init__(self, num_classes: int, *, ignore_index: int = IGNORE):
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counts = np.zeros(3, dtype=np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """prediction, label: integer arrays [H, W], or [B, H, W]."""
        counted = counted_pixels(label, self.ignore_index)
        self._counts += np.array(
            [_images(label), ((prediction == label) & counted).sum(), counted.sum()], dtype=np.int64
        )

    def counts(self) -> np.ndarray:
        """int64 [3]: images, pixels right, pixels counted."""
        return self._counts.copy()

    def result(self, counts: np.ndarray) -> Dict[str, float]:
        """{'aAcc': share} of a (summed) count vector."""
        return {"aAcc": float(counts[1]) / max(float(counts[2]), 1.0)}


@METRICS.register
class MeanIoU:
    """mIoU, mAcc and aAcc over all pixels of the dataset not labelled `ignore_index` or 255, as
    mmsegmentation's IoUMetric counts them.

    A class in neither labels nor predictions has no IoU, one not in the labels no accuracy: they
    are None, and the means leave them out.
    """

    names = ("mIoU", "mAcc", "aAcc")

    def __init__(self, num_classes: int, *, ignore_index: int = IGNORE):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._images = 0
        self._areas = np.zeros((3, self.num_classes), dtype=np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """prediction, label: integer arrays [H, W], or [B, H, W]; labels below num_classes or
        255.
        """
        self._images += _images(label)
        counted = counted_pixels(label, self.ignore_index)
        prediction, label = prediction[counted], label[counted]
        for area, pixels in zip(self._areas, (label[prediction == label], prediction, label)):
            area += np.bincount(pixels, minlength=self.num_classes)

    def counts(self) -> np.ndarray:
        """int64 [1 + 3 * num_classes]: images; then per class the pixels of intersection, of
        prediction, of label.
        """
        return np.concatenate([[self._images], self._areas.reshape(-1)])

    def result(self, counts: np.ndarray) -> Dict[str, Any]:
        """{'mIoU', 'mAcc', 'aAcc', 'class_iou', 'class_acc'} as shares; the last two are lists by
        class. ValueError if all was ignored.
        """
        if counts[0] == 0:
            raise ValueError("no image was evaluated; the data set is empty")
        both, predicted, labelled = np.asarray(counts[1:], dtype=np.float64).reshape(
            3, self.num_classes
        )
        if not labelled.any():
            raise ValueError(
                "no pixel of the evaluation set is labelled, all are ignored: there is no IoU"
            )
        iou, accuracy = _quotients(both, predicted + labelled - both), _quotients(both, labelled)
        return {
            "mIoU": _mean(iou),
            "mAcc": _mean(accuracy),
            "aAcc": float(both.sum() / max(labelled.sum(), 1.0)),
            "class_iou": iou,
            "class_acc": accuracy,
        }


def _images(label: np.ndarray) -> int:
    return 1 if label.ndim == 2 else len(label)


def _quotients(numerators: np.ndarray, denominators: np.ndarray) -> List[Optional[float]]:
    return [float(n / d) if d else None for n, d in zip(numerators, denominators)]


def _mean(values: Sequence[Optional[float]]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
