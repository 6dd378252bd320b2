"""Pictures of a classifier's run: confusion matrix, predictions."""

from pathlib import Path
from typing import Sequence, Union

import numpy as np

from ...engine.curves import pyplot

MAX_CONFUSION_CLASSES = 50


def draw_confusion(
    path: Union[str, Path], labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> None:
    """Row-normalised confusion matrix; labels and predictions are int64 [N]. Skipped above
    MAX_CONFUSION_CLASSES classes.
    """
    if len(names) > MAX_CONFUSION_CLASSES:
        return
    plt = pyplot()
    matrix = np.zeros((len(names), len(names)))
    np.add.at(matrix, (labels, predictions), 1)
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
        yticklabels=names,
        xlabel="predicted",
        ylabel="true",
        title=f"top-1 {100 * np.trace(matrix) / max(matrix.sum(), 1):.2f} % of "
        f"{int(matrix.sum())} images",
    )
    axis.set_xticklabels(names, rotation=60, ha="right")
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
    plt = pyplot()
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.9 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, truth, guess in zip(axes.flat, pictures, truths, guesses):
        axis.imshow(picture)
        right = truth == guess
        axis.set_title(
            guess if right else f"{guess}\n(is {truth})",
            fontsize=8,
            color="green" if right else "red",
        )
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
