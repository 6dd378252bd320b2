"""Pictures of a classifier's run: confusion matrix, predictions."""

from pathlib import Path
from typing import Sequence, Union

import numpy as np

from ...engine.curves import pyplot
from ..fonts import shortened, with_letters_of
from ..pictures import MOST_CURVES, draw_precision_curves
from .quality import BINS, calibration, precision_recall

MAX_CONFUSION_CLASSES = 50
LONGEST = 40  # characters of a name


def draw_confusion(
    path: Union[str, Path], labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> None:
    """Row-normalised confusion matrix; labels and predictions are int64 [N]. Skipped above
    MAX_CONFUSION_CLASSES classes.
    """
    if len(names) > MAX_CONFUSION_CLASSES:
        return
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    shown = [shortened(name, LONGEST) for name in names]
    with with_letters_of(shown):
        _draw_matrix(path, matrix, shown)


def _draw_matrix(path: Union[str, Path], matrix: np.ndarray, names: Sequence[str]) -> None:
    plt = pyplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 3 + 0.5 * len(names)
    figure, axis = plt.subplots(figsize=(side + 1, side))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(matrix)):
        axis.text(
            column,
            row,
            int(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share[row, column] > 0.5 else "black",
        )
    axis.set(
        xticks=range(len(names)),
        yticks=range(len(names)),
        xlabel="predicted",
        ylabel="true",
        title=f"top-1 {100 * np.trace(matrix) / max(matrix.sum(), 1):.2f} % of "
        f"{int(matrix.sum())} images",
    )
    # a dollar sign in a name begins no formula
    axis.set_xticklabels(names, rotation=60, ha="right", parse_math=False)
    axis.set_yticklabels(names, parse_math=False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_label_counts(
    path: Union[str, Path], labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> None:
    """For each class a bar of its images: found, missed and, beside it, wrongly said to have it;
    labels and predictions are [N, classes] of 0 and 1. Skipped above MAX_CONFUSION_CLASSES classes.
    """
    if len(names) > MAX_CONFUSION_CLASSES:
        return
    found = (labels & predictions).sum(axis=0)
    missed, wrong = labels.sum(axis=0) - found, predictions.sum(axis=0) - found
    shown = [shortened(name, LONGEST) for name in names]
    with with_letters_of(shown):
        plt, places = pyplot(), np.arange(len(names))
        figure, axis = plt.subplots(figsize=(8, 1.5 + 0.4 * len(names)))
        axis.barh(places - 0.2, found, 0.4, color="green", label="has it, found")
        axis.barh(places - 0.2, missed, 0.4, found, color="orange", label="has it, missed")
        axis.barh(places + 0.2, wrong, 0.4, color="red", label="has it not, said to")
        axis.set(yticks=places, xlabel="images", title=f"labels of {len(labels)} images")
        axis.set_yticklabels(shown, parse_math=False)  # a dollar sign begins no formula
        axis.invert_yaxis()
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
        figure.tight_layout()
        figure.savefig(path, dpi=90)
        plt.close(figure)


def draw_predictions(
    path: Union[str, Path],
    pictures: Sequence[np.ndarray],
    truths: Sequence[str],
    guesses: Sequence[str],
) -> None:
    """A sheet of pictures (uint8 HWC), titled with the predicted name: green where right, red with
    the true name where wrong.
    """
    right = [truth == guess for truth, guess in zip(truths, guesses)]
    truths, guesses = ([shortened(name, LONGEST) for name in part] for part in (truths, guesses))
    titles = [
        guess if same else f"{guess}\n(is {truth})"
        for truth, guess, same in zip(truths, guesses, right)
    ]
    with with_letters_of([*truths, *guesses]):
        _draw_sheet(path, pictures, titles, right)


def _draw_sheet(
    path: Union[str, Path],
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    right: Sequence[bool],
) -> None:
    plt = pyplot()
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.9 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title, same in zip(axes.flat, pictures, titles, right):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8, color="green" if same else "red", parse_math=False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_precision_recall(
    path: Union[str, Path], truth: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    """Precision over recall, a curve for each class of which there is an image; truth: bool [N, C],
    probabilities: float [N, C]. Skipped above MOST_CURVES classes.
    """
    if len(names) > MOST_CURVES:
        return
    curves = {
        shortened(name, LONGEST): precision_recall(probabilities[:, label], truth[:, label])
        for label, name in enumerate(names)
        if truth[:, label].any()
    }
    draw_precision_curves(path, curves)


def draw_calibration(path: Union[str, Path], confidences: np.ndarray, right: np.ndarray) -> float:
    """The reliability diagram of predictions, see `calibration`; returns its error."""
    found = calibration(confidences, right)
    plt = pyplot()
    figure, (above, below) = plt.subplots(2, 1, figsize=(6, 6), height_ratios=(3, 1), sharex=True)
    centres = (np.arange(BINS) + 0.5) / BINS
    some = found.counts > 0
    above.bar(centres[some], found.accuracy[some], 0.9 / BINS, label="accuracy")
    above.plot([0, 1], [0, 1], "--", color="grey", label="as confident as right")
    above.plot(found.confidence[some], found.accuracy[some], "o", color="black", markersize=4)
    above.set(
        ylabel="accuracy",
        ylim=(0, 1),
        title=f"expected calibration error {100 * found.error:.2f} %",
    )
    above.legend(loc="upper left")
    below.bar(centres, found.counts, 0.9 / BINS, color="grey")
    below.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return found.error
