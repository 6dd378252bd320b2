"""The class of every pixel from a segmentor's scores, which are resized twice. Needs numpy; the
same file lies in deploy/python, in deploy/serving and in the package.
"""

from typing import Tuple

import numpy as np

BLOCK = 8  # pixels of the sides of the parts that are worked on
Size = Tuple[int, int]  # (height, width)


def best_class(scores: np.ndarray, padded: Size, shape: Size, original: Size) -> np.ndarray:
    """The class of every pixel: `scores` [classes, h, w] resized to `padded`, cut to `shape`,
    resized to `original`; int32 `original`. Bilinear, half-pixel centres. Of equal scores the first
    class's; where two classes' differ by rounding alone, either may be told.

    Block by block: what is interpolated lies between the scores around it, so that only classes
    that reach the best of all least scores there can win. The others are left out.
    """
    scores = np.asarray(scores, np.float32)
    rows = Axis(scores.shape[1], padded[0], shape[0], original[0])
    columns = Axis(scores.shape[2], padded[1], shape[1], original[1])
    slack = 1e-5 * max(float(np.abs(scores).max()), 1e-30)  # for rounding
    labels = np.empty((len(rows.first) * BLOCK, original[1]), np.int32)
    for i, first in enumerate(rows.first):
        band = scores[:, first : first + rows.count]
        found = _winners(band, rows.weights[i], columns, slack)
        labels[i * BLOCK : (i + 1) * BLOCK] = found[:, : original[1]]
    return labels[: original[0]]


def _winners(band: np.ndarray, down: np.ndarray, columns: "Axis", slack: float) -> np.ndarray:
    """The classes int32 [BLOCK, blocks * BLOCK] of a row of blocks, of whose cells `band` [classes,
    m, w] has the scores; down: float32 [BLOCK, m], what the pixels take of them.
    """
    most, least = (_reduced(ufunc, band, columns) for ufunc in (np.maximum, np.minimum))
    reached = ~(most < least.max(axis=0) - slack)  # what is not a number stays
    labels = np.empty((len(columns.first), BLOCK, BLOCK), np.int32)  # [blocks, across, down]
    labels[:] = reached.argmax(axis=0)[:, None, None]
    contested = np.flatnonzero(reached.sum(axis=0) > 1)
    if len(contested):
        labels[contested] = _compared(band, down, columns, reached[:, contested], contested)
    return labels.reshape(-1, BLOCK).T


def _reduced(reduce: np.ufunc, band: np.ndarray, columns: "Axis") -> np.ndarray:
    """[classes, blocks]: the largest or least score of each class in the cells of each block."""
    of_column = band[:, 0]
    for row in range(1, band.shape[1]):
        of_column = reduce(of_column, band[:, row])
    last = band.shape[2] - columns.count + 1
    of_window = of_column[:, :last]
    for start in range(1, columns.count):
        of_window = reduce(of_window, of_column[:, start : start + last])
    return of_window[:, columns.first]


def _compared(
    band: np.ndarray, down: np.ndarray, columns: "Axis", reached: np.ndarray, blocks: np.ndarray
) -> np.ndarray:
    """The first of the classes that `reached` [classes, blocks] names whose score is the largest,
    at each pixel of `blocks`: int32 [blocks, across, down].
    """
    classes = np.flatnonzero(reached.any(axis=1))
    # pairs of a block and a class, block by block, the classes in their order
    place, at = np.nonzero(reached[classes].T)
    block = blocks[place]
    lines = np.matmul(down, band[classes]).transpose(0, 2, 1)  # [classes, w, down]
    values = np.matmul(columns.weights[block], lines[at[:, None], columns.cells[block]])
    values[np.isnan(values)] = np.inf
    starts = np.searchsorted(place, np.arange(len(blocks)))
    best = np.maximum.reduceat(values, starts, axis=0)
    label = classes.astype(np.int32)[at][:, None, None]
    won = np.where(values < best[place], np.int32(len(reached)), label)
    return np.minimum.reduceat(won, starts, axis=0)


class Axis:
    """One axis of the two resizes, from `length` cells by `padded` and `kept` to `original`, in
    blocks of BLOCK pixels, the last filled up with its last pixel.

    first: int [blocks], the first cell of each; count: of cells, the same for all; cells: int
    [blocks, count]; weights: float32 [blocks, BLOCK, count], what a pixel takes of each.
    """

    def __init__(self, length: int, padded: int, kept: int, original: int):
        low, high, share = _resize(kept, original)
        first = _resize(length, padded)
        # (the cell, its weight) of the four that a pixel takes; float32, as the weights are
        taken = np.stack([first[0][low], first[1][low], first[0][high], first[1][high]])
        near, far = first[2][low], first[2][high]
        one = np.float32(1)
        weights = np.stack(
            [(one - share) * (one - near), (one - share) * near, share * (one - far), share * far]
        )
        blocks = -(-original // BLOCK)
        pixels = np.minimum(np.arange(blocks * BLOCK), original - 1).reshape(blocks, BLOCK)
        taken, weights = taken[:, pixels], weights[:, pixels]  # [4, blocks, BLOCK]
        lowest = taken.min(axis=(0, 2))
        self.count = int((taken.max(axis=(0, 2)) - lowest).max()) + 1
        self.first = np.minimum(lowest, length - self.count)
        self.cells = self.first[:, None] + np.arange(self.count)
        self.weights = np.zeros((blocks, BLOCK, self.count), np.float32)
        places = np.arange(blocks)[:, None], np.arange(BLOCK)
        for cell, weight in zip(taken - self.first[:, None], weights):
            np.add.at(self.weights, (*places, cell), weight)


def _resize(length: int, size: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, share of high) of the `size` pixels that `length` become, in float32 as Paddle
    computes them.
    """
    ratio = np.float32(length) / np.float32(size)
    places = ratio * (np.arange(size, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    places = np.maximum(places, np.float32(0))
    low = np.minimum(places.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), places - low.astype(np.float32)
