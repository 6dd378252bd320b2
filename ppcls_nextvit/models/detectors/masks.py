"""Masks of detections: from a grid over the box to the pixels of the image. numpy alone."""

from typing import Tuple

import numpy as np

from ..api import Detections, ImageMask, Instances

__all__ = ["instances", "paste"]

THRESHOLD = 0.5


def instances(found: Detections, height: int, width: int) -> Instances:
    """What was found in an image of `height` x `width` pixels, as arrays.

    found.masks: float32 [n, m, m], see `paste`; None stays None.
    """
    boxes, scores, labels = (part.numpy() for part in found[:3])
    if found.masks is None:
        return Instances(boxes, scores, labels, None)
    grids = found.masks.numpy()
    masks = [paste(grid, box, height, width) for grid, box in zip(grids, boxes)]
    return Instances(boxes, scores, labels, masks)


def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> ImageMask:
    """A mask's pixels in an image of `height` x `width`.

    mask: float [m, m], probabilities on a grid over `box` (x1, y1, x2, y2, in pixels). Bilinear, 0
    outside the grid, foreground from THRESHOLD; reference: mmdetection's FCNMaskHead. The grid is
    upright, so that rows and columns are interpolated one after the other.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    rows, top = _interpolation(y1, y2, height, len(mask))
    columns, left = _interpolation(x1, x2, width, len(mask))
    part = rows @ mask @ columns.T >= THRESHOLD
    return ImageMask(part, top, left, height, width)


def _interpolation(low: float, high: float, size: int, cells: int) -> Tuple[np.ndarray, int]:
    """(float32 [n, cells], first): what each of the n pixels from `first` takes of the cells that
    lie evenly from `low` to `high`.
    """
    first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, size)
    if high <= low or last <= first:
        return np.zeros((0, cells), np.float32), min(first, size)
    # in cells, 0: the centre of the first
    places = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    shares = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
    return shares.astype(np.float32), first
