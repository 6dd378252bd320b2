"""From a detector's outputs to the objects in an image: boxes, scores, names, masks as COCO's run
lengths. Needs numpy; the same file lies in deploy/python and deploy/serving.
"""

from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

MASK_THRESHOLD = 0.5


class Mask(NamedTuple):
    """An object's pixels: True within `part`, whose first pixel is at (top, left)."""

    part: np.ndarray  # bool [h, w]
    top: int
    left: int


class Objects(NamedTuple):
    """What was found in one image of `height` x `width` pixels, best first."""

    boxes: np.ndarray  # float32 [n, 4]: x1, y1, x2, y2 in pixels of the image
    scores: np.ndarray  # float32 [n]
    labels: np.ndarray  # int64 [n]
    masks: Optional[list[Mask]]  # None: the detector has none
    height: int
    width: int


def objects_of(
    outputs: Sequence[np.ndarray],
    height: int,
    width: int,
    threshold: float,
    mask_threshold: float = MASK_THRESHOLD,
) -> Objects:
    """The objects of an image that score `threshold` or more. outputs: objects [n, 6] (label,
    score, x1, y1, x2, y2) and, if the detector has masks, probabilities [n, m, m] on a grid over
    each box, foreground from `mask_threshold`. ValueError for other shapes.
    """
    table = np.asarray(outputs[0], np.float32)
    if table.ndim != 2 or table.shape[1] != 6:
        raise ValueError(f"objects of the shape {list(table.shape)}; expected [n, 6]")
    table, masks = table[table[:, 1] >= threshold], None
    if len(outputs) > 1:
        grids = np.asarray(outputs[1])[np.asarray(outputs[0])[:, 1] >= threshold]
        masks = [
            paste(grid, box, height, width, mask_threshold)
            for grid, box in zip(grids, table[:, 2:])
        ]
    labels = table[:, 0].astype(np.int64)
    return Objects(table[:, 2:], table[:, 1], labels, masks, height, width)


def paste(
    grid: np.ndarray, box: Sequence[float], height: int, width: int, threshold: float
) -> Mask:
    """The pixels of `grid`, probabilities over `box`, in an image: bilinear, 0 outside the grid."""
    x1, y1, x2, y2 = (float(side) for side in box)
    rows, top = _shares(y1, y2, height, len(grid))
    columns, left = _shares(x1, x2, width, len(grid))
    return Mask(rows @ grid @ columns.T >= threshold, top, left)


def _shares(low: float, high: float, size: int, cells: int) -> tuple[np.ndarray, int]:
    """(float32 [n, cells], first): what each of the n pixels from `first` takes of the cells that
    lie evenly from `low` to `high`.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return np.zeros((0, cells), np.float32), 0
    first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, size)
    if high <= low or last <= first:
        return np.zeros((0, cells), np.float32), min(first, size)
    # in cells, 0: the centre of the first
    places = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    shares = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
    return shares.astype(np.float32), first


def told_objects(found: Objects, names: Sequence[str], with_masks: bool = True) -> list[dict]:
    """[{class_id, label_name, score, box, mask: {size, counts}}, ...]; without masks where there
    are none or none are wanted.
    """
    told: list[dict] = [
        {
            "class_id": int(label),
            "label_name": names[label],
            "score": float(score),
            "box": box.tolist(),
        }
        for box, score, label in zip(found.boxes, found.scores, found.labels)
    ]
    if with_masks and found.masks is not None:
        for entry, mask in zip(told, found.masks):
            entry["mask"] = run_lengths(mask, found.height, found.width)
    return told


def run_lengths(mask: Mask, height: int, width: int) -> dict[str, Any]:
    """{size: [height, width], counts}: COCO's compressed run lengths of the whole image."""
    rows = max(mask.part.shape[0], 1)
    at = np.flatnonzero(mask.part.T)
    # in the whole image, down its columns
    pixels = (mask.left + at // rows) * height + mask.top + at % rows
    breaks = np.flatnonzero(np.diff(pixels) != 1)
    starts = pixels[np.append(0, breaks + 1)] if len(pixels) else pixels
    ends = pixels[np.append(breaks, len(pixels) - 1)] + 1 if len(pixels) else pixels
    return {"size": [int(height), int(width)], "counts": coco_counts(starts, ends, height * width)}


def coco_counts(starts: np.ndarray, ends: np.ndarray, total: int) -> str:
    """COCO's compressed form of the runs from `starts` to `ends` of `total` pixels: their lengths
    and those between them, from the fourth on less the one two before, in 5-bit digits from '0' on,
    lowest first.
    """
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(np.concatenate([[0], edges, [total]])).astype(np.int64)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    values = counts.copy()
    values[3:] -= counts[1:-2]
    columns, going = [], np.ones(len(values), bool)
    while going.any():
        digits, values = values & 31, values >> 5
        # the top bit of the last digit is the sign
        more = values != np.where(digits & 16, -1, 0)
        columns.append(np.where(going, np.where(more, digits | 32, digits) + 48, 0))
        going &= more
    text = np.stack(columns, axis=1).astype(np.uint8)
    return text[text > 0].tobytes().decode("ascii")
