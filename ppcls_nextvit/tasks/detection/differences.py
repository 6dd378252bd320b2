"""How far what an exported detector finds is from what the model finds: `objects` [n, 6], each
(label, score, x1, y1, x2, y2), and `masks` [n, ...]. All arrays are float64.
"""

import numpy as np

__all__ = ["matched_difference", "score_difference", "set_difference"]

SAME_PLACE = 0.5  # intersection over union from which two boxes are the same object's


def set_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """How far the rows of two arrays lie apart at most, each from the nearest of the other, columns
    as shares of their scale.

    Objects of equal scores may come in any order.
    """
    if not len(output) or not len(expected):
        return float(len(output) != len(expected))
    rows, others = output.reshape(len(output), -1), expected.reshape(len(expected), -1)
    scale = np.maximum(np.abs(others).max(axis=0), 1e-2)
    apart = np.array([np.abs((others - row) / scale).max(axis=1) for row in rows])
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


def score_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Of an image whose boxes tie, so that rounding says which are kept: a hundredth of how far the
    best scores lie apart at most, as a share of the largest. Masks are not compared.
    """
    count = min(len(output), len(expected))
    if expected.ndim != 2 or not count:
        return 0.0
    scores = [np.sort(rows[:, 1])[::-1][:count] for rows in (output, expected)]
    return float(np.abs(scores[0] - scores[1]).max() / np.abs(scores[1]).max()) / 100


def matched_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Of a program in low precision: the share of all scores that is without an equal, each object
    against the one of its class at its place in the other, and counted by its score: of doubtful
    ones a few always differ. Of masks how far their means lie apart.
    """
    if expected.ndim != 2:
        means = [float(masks.mean()) if len(masks) else 0.0 for masks in (output, expected)]
        return abs(means[0] - means[1])
    total = (output[:, 1] ** 2).sum() + (expected[:, 1] ** 2).sum()
    if not total:
        return 0.0
    return float((_unequal(output, expected) + _unequal(expected, output)) / total)


def _unequal(rows: np.ndarray, others: np.ndarray) -> float:
    """The sum over `rows` of how far each score is from that of the best match in `others`, times
    the score.
    """
    if not len(others):
        return float((rows[:, 1] ** 2).sum())
    left = 0.0
    for row in rows:
        same = (others[:, 0] == row[0]) & (_overlaps(row[2:], others[:, 2:]) >= SAME_PLACE)
        nearest = np.abs(others[same, 1] - row[1]).min() if same.any() else row[1]
        left += row[1] * min(nearest, row[1])
    return float(left)


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union [n] of a box [4] with boxes [n, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-6)
