"""How good a classifier is at each class."""

from typing import List, Sequence, Union

import numpy as np

__all__ = ["class_table"]


def class_table(
    labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> List[List[Union[str, int, float, None]]]:
    """Rows [class, images, precision, recall, F1], their titles first, the worst F1 first.

    labels, predictions: int64 [N], or 0 and 1 as [N, classes] where an image has several. A share
    of nothing is None: the precision of a class that is never predicted, the recall of one that no
    image has.
    """
    if labels.ndim == 1:
        count = len(names)
        images = np.bincount(labels, minlength=count)
        predicted = np.bincount(predictions, minlength=count)
        right = np.bincount(labels[labels == predictions], minlength=count)
    else:
        images, predicted = labels.sum(axis=0), predictions.sum(axis=0)
        right = (labels * predictions).sum(axis=0)
    rows: List[List[Union[str, int, float, None]]] = []
    for i, name in enumerate(names):
        total = int(images[i] + predicted[i])
        rows.append(
            [
                name,
                int(images[i]),
                float(right[i] / predicted[i]) if predicted[i] else None,
                float(right[i] / images[i]) if images[i] else None,
                2 * float(right[i]) / total if total else None,
            ]
        )
    rows.sort(key=lambda row: (row[4] is None, row[4]))
    return [["class", "images", "precision", "recall", "F1"], *rows]
