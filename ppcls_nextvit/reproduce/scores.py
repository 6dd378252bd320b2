"""Figures from predictions: accuracy, accuracy per class, mean corruption error. All in %."""

from collections import defaultdict
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from ..schema import ConfigError
from .datasets import CORRUPTIONS, SEVERITIES, LabelledImages

__all__ = ["ALEXNET_ERROR", "accuracy", "corruption_errors", "per_class", "score"]

# Top-1 error of AlexNet on ImageNet-C, mean over the five severities: the normalisers of Hendrycks
# and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
# ICLR 2019 (their table rounds to %, their code has these digits).
ALEXNET_ERROR = dict(
    zip(
        CORRUPTIONS,
        (
            0.886428,
            0.894468,
            0.922640,
            0.819880,
            0.826268,
            0.785948,
            0.798360,
            0.866816,
            0.826572,
            0.819324,
            0.564592,
            0.853204,
            0.646056,
            0.717840,
            0.606500,
        ),
    )
)


Guesses = Sequence[Sequence[int]]  # per image class numbers, best first


def accuracy(predictions: Guesses, labels: Sequence[Sequence[int]], top: int = 1) -> float:
    """% of the images with a right class among the `top` best. predictions: per image class
    numbers, best first. labels: per image, which class numbers are right."""
    right = [not set(guess[:top]).isdisjoint(wanted) for guess, wanted in zip(predictions, labels)]
    return 100 * float(np.mean(right))


def per_class(predictions: Guesses, labels: Sequence[Sequence[int]]) -> Dict[int, float]:
    """{class number: top-1 %} over the images whose first label it is. predictions, labels: as for
    `accuracy`.
    """
    hits: Dict[int, List[bool]] = defaultdict(list)
    for guess, right in zip(predictions, labels):
        hits[right[0]].append(guess[0] in right)
    return {number: 100 * float(np.mean(hits[number])) for number in sorted(hits)}


def corruption_errors(errors: Mapping[str, float]) -> Tuple[Dict[str, float], float]:
    """({corruption: CE}, mCE) in %, from the top-1 error in % of every `corruption/severity`.

    CE is the mean error over the severities, divided by AlexNet's. ConfigError where one is
    missing.
    """
    missing = [f"{c}/{s}" for c in CORRUPTIONS for s in SEVERITIES if f"{c}/{s}" not in errors]
    if missing:
        raise ConfigError(
            f"no images of {len(missing)} corruptions, e.g. {missing[0]}; the mean corruption "
            f"error needs them all"
        )
    ce = {
        c: float(np.mean([errors[f"{c}/{s}"] for s in SEVERITIES])) / ALEXNET_ERROR[c]
        for c in CORRUPTIONS
    }
    return ce, float(np.mean(list(ce.values())))


def score(images: LabelledImages, predictions: Guesses) -> Dict[str, Any]:
    """The figures of `images`: {top1, top5}, and for corrupted images also {mce, ce: {corruption:
    %}, errors: {corruption/severity: %}}.

    predictions: per image up to five class numbers, best first.
    """
    figures: Dict[str, Any] = {
        "top1": accuracy(predictions, images.labels),
        "top5": accuracy(predictions, images.labels, top=5),
    }
    if images.groups is not None:
        errors = _group_errors(images.groups, predictions, images.labels)
        ce, mce = corruption_errors(errors)
        figures.update(mce=mce, ce=ce, errors=errors)
    return figures


def _group_errors(
    groups: Sequence[str], predictions: Guesses, labels: Sequence[Sequence[int]]
) -> Dict[str, float]:
    """{group: top-1 error in %}. groups: of each image."""
    members: Dict[str, List[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return {
        group: 100 - accuracy([predictions[i] for i in indices], [labels[i] for i in indices])
        for group, indices in members.items()
    }
