"""How far a classifier's probabilities can be trusted: calibration, and precision over recall."""

from typing import NamedTuple, Tuple

import numpy as np

__all__ = ["BINS", "Calibration", "calibration", "precision_recall"]

BINS = 10  # of confidence, of equal width


class Calibration(NamedTuple):
    """Of each bin of confidence: counts int64 [BINS]; confidence and accuracy float64 [BINS], the
    means of its images, 0 where it has none. error: the expected calibration error, the mean of
    |accuracy - confidence| over all images (Naeini et al. 2015; Guo et al. 2017).
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(confidences: np.ndarray, right: np.ndarray) -> Calibration:
    """confidences: float [N], the probability of the class that is predicted; right: bool [N],
    whether it is the true one. ValueError for no image.
    """
    if not len(confidences):
        raise ValueError("calibration: no image")
    which = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    sums = [np.bincount(which, values, BINS) for values in (confidences, right.astype(float))]
    confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    error = float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())
    return Calibration(counts, confidence, accuracy, error)


def precision_recall(scores: np.ndarray, truth: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(recall, precision), float64 [K] each, of calling everything of a score or more by the class,
    for each of the K scores that occur, from the highest. scores: float [N]; truth: bool [N], of
    which one must be True.
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(truth[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of images of one score
    found = np.arange(1, len(scores) + 1)[last]
    return right[last] / truth.sum(), right[last] / found
