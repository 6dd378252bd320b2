"""Pictures of a classifier's run: confusion matrix, predictions."""

from pathlib import Path
from typing import Sequence, Union

import numpy as np

from ...engine.curves import pyplot
from ..fonts import shortened, with_letters_of

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
