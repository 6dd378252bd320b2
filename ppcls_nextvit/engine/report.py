"""Pictures of a run: training curves, confusion matrix, predictions."""

import numpy as np

from .log import read_figures

MAX_CONFUSION_CLASSES = 50


def pyplot():
    """matplotlib.pyplot, drawing to files only. ImportError names the extra."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "drawing curves needs matplotlib: pip install 'ppcls_nextvit[train]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_curves(directory):
    """`curves.png` from `log.jsonl`: loss, the metrics of training and evaluation, and learning
    rate over epochs.
    """
    plt = pyplot()
    figures = read_figures(directory)
    train = [f for f in figures if f["kind"] == "train"]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4))
    epochs = [f["position"] for f in train]
    axes[0].plot(epochs, [f["loss"] for f in train], label="train", alpha=0.7)
    measured = _following("loss", train)
    # a task may measure nothing in training
    if measured != "images_per_s":
        axes[1].plot(
            epochs,
            [100 * f[measured] for f in train],
            label=f"{measured}, train (augmented)",
            alpha=0.7,
        )
    axes[2].plot(epochs, [f["lr"] for f in train])
    for kind, label in (("eval", "evaluation"), ("eval_ema", "evaluation, EMA")):
        rows = [f for f in figures if f["kind"] == kind]
        if rows:
            if "loss" in rows[0]:
                axes[0].plot(
                    [f["epoch"] for f in rows], [f["loss"] for f in rows], "o-", label=label
                )
            # the one that chooses the best model
            metric = _following("epoch", rows)
            axes[1].plot(
                [f["epoch"] for f in rows],
                [100 * f[metric] for f in rows],
                "o-",
                label=f"{metric}, {label}",
            )
    for axis, title in zip(axes, ("loss", "metric (%)", "learning rate")):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.legend()
    figure.tight_layout()
    figure.savefig(directory / "curves.png", dpi=90)
    plt.close(figure)


def _following(key, rows):
    """The name that comes after `key` in the figures of the first row: there the log has the first
    metric.
    """
    names = list(rows[0]) if rows else [key, "top1"]
    return names[names.index(key) + 1]


def draw_confusion(path, labels, predictions, names):
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


def draw_predictions(path, pictures, truths, guesses):
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
