"""The curves of a run, drawn from its log."""

from .log import read_figures


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
