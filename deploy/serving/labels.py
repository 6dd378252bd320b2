"""From a segmentor's scores to the class of every pixel, and what is in the image. Needs numpy; the
same file lies in deploy/python and deploy/serving.
"""

from typing import Sequence

import numpy as np
from objects import coco_counts

TILE = 32  # pixels of the sides of the parts that are worked on
Size = tuple[int, int]  # (height, width)


def best_class(scores: np.ndarray, padded: Size, shape: Size, original: Size) -> np.ndarray:
    """The class of every pixel: `scores` [classes, h, w] resized to `padded`, cut to `shape`,
    resized to `original`; int32 `original`. Bilinear, half-pixel centres.

    Part by part: what is interpolated lies between the scores around it, so that only classes that
    reach the best of all least scores there can win. The others are left out.
    """
    rows = _Axis(scores.shape[1], padded[0], shape[0], original[0])
    columns = _Axis(scores.shape[2], padded[1], shape[1], original[1])
    labels = np.empty(original, np.int32)
    slack = 1e-5 * max(float(np.abs(scores).max()), 1e-30)  # for rounding
    for top in range(0, original[0], TILE):
        down, cells_down = rows.part(top)
        for left in range(0, original[1], TILE):
            across, cells_across = columns.part(left)
            cells = scores[:, cells_down, cells_across]
            flat = cells.reshape(len(cells), -1)
            reached = ~(
                flat.max(axis=1) < flat.min(axis=1).max() - slack
            )  # what is not a number stays
            labels[top : top + TILE, left : left + TILE] = _winners(
                cells, np.flatnonzero(reached), down, across
            )
    return labels


def _winners(cells, candidates, down, across):
    """The candidate with the largest interpolated score at every pixel of a part."""
    if len(candidates) == 1:
        return candidates[0]
    found = down @ (cells[candidates] @ across.T)
    return candidates[found.argmax(axis=0)]


class _Axis:
    """One axis of the two resizes, from `length` cells by `padded` and `kept` to `original`."""

    def __init__(self, length: int, padded: int, kept: int, original: int):
        low, high, share = _resize(kept, original)
        first = _resize(length, padded)
        self.length = length
        # (the cell, its weight) of the four that a pixel takes; float32, as the weights are
        self.cells = np.stack([first[0][low], first[1][low], first[0][high], first[1][high]])
        near, far = first[2][low], first[2][high]
        one = np.float32(1)
        self.weights = np.stack(
            [(one - share) * (one - near), (one - share) * near, share * (one - far), share * far]
        )

    def part(self, start: int) -> tuple[np.ndarray, slice]:
        """(float32 [n, m], the m cells) of the n pixels from `start` on."""
        cells = self.cells[:, start : start + TILE]
        weights = self.weights[:, start : start + TILE]
        first, last = int(cells.min()), int(cells.max()) + 1
        matrix = np.zeros((cells.shape[1], last - first), np.float32)
        pixels = np.arange(cells.shape[1])
        for cell, weight in zip(cells, weights):
            np.add.at(matrix, (pixels, cell - first), weight)
        return matrix, slice(first, last)


def _resize(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, share of high) of the `size` pixels that `length` become, in float32 as Paddle
    computes them.
    """
    ratio = np.float32(length) / np.float32(size)
    places = ratio * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = np.maximum(places, np.float32(0))
    low = np.minimum(places.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), places - low.astype(np.float32)


def class_areas(labels: np.ndarray, names: Sequence[str]) -> list[dict]:
    """[{class_id, label_name, pixels, share}, ...] of the classes in `labels`, largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(names))[: len(names)]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [
        {
            "class_id": i,
            "label_name": names[i],
            "pixels": int(counts[i]),
            "share": float(counts[i] / labels.size),
        }
        for i in order
    ]


def told_classes(labels: np.ndarray, names: Sequence[str], with_masks: bool = True) -> list[dict]:
    """`class_areas`, each with its mask {size, counts}, COCO's compressed run lengths, if any."""
    areas = class_areas(labels, names)
    if not with_masks:
        return areas
    height, width = labels.shape
    column = labels.T.reshape(-1)
    starts = np.append(0, np.flatnonzero(column[1:] != column[:-1]) + 1)
    ends = np.append(starts[1:], column.size)
    of_run = column[starts]
    for area in areas:
        mine = of_run == area["class_id"]
        counts = coco_counts(starts[mine], ends[mine], column.size)
        area["mask"] = {"size": [height, width], "counts": counts}
    return areas
