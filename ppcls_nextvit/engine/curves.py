"""The curves of a run, drawn from its log."""

from pathlib import Path
from typing import Any, Sequence

from .log import read_figures


def pyplot() -> Any:
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


def draw_curves(directory: Path, shown: Sequence[str], best_metric: str) -> None:
    """`curves.png` from `log.jsonl`: loss, figures of training and evaluation, and learning rate
    over epochs.

    shown: names of training figures, of which the first is drawn; a task may have none.
    best_metric: the figure of evaluation, which chooses the best model.
    """
    plt = pyplot()
    figures = read_figures(directory)
    train = [f for f in figures if f["kind"] == "train"]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4))
    epochs = [f["position"] for f in train]
    axes[0].plot(epochs, [f["loss"] for f in train], label="train", alpha=0.7)
    for name in shown[:1]:
        shares = [100 * f[name] for f in train]
        axes[1].plot(epochs, shares, label=f"{name}, train (augmented)", alpha=0.7)
    axes[2].plot(epochs, [f["lr"] for f in train])
    for kind, label in (("eval", "evaluation"), ("eval_ema", "evaluation, EMA")):
        rows = [f for f in figures if f["kind"] == kind]
        epochs = [f["epoch"] for f in rows]
        if rows and "loss" in rows[0]:
            axes[0].plot(epochs, [f["loss"] for f in rows], "o-", label=label)
        if rows:
            values = [100 * f[best_metric] for f in rows]
            axes[1].plot(epochs, values, "o-", label=f"{best_metric}, {label}")
    for axis, title in zip(axes, ("loss", "metric (%)", "learning rate")):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.legend()
    figure.tight_layout()
    figure.savefig(directory / "curves.png", dpi=90)
    plt.close(figure)
