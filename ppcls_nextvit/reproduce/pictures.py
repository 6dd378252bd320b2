"""Reports as pictures: ours beside the published figures, and the spread over classes."""

import os
from typing import Any, Dict

import numpy as np

from ..engine.curves import pyplot

__all__ = ["draw_classification", "draw_dense"]


def draw_classification(report: Dict[str, Any], path: os.PathLike | str) -> None:
    """Ours beside published, and how accuracy spreads over the classes (for corrupted images: the
    error of each corruption).
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [1, 3]}
    )
    bars = {"ours": report["measured"]}
    if report["published"] is not None:
        bars["published"] = report["published"]
    drawn = left.bar(list(bars), list(bars.values()), color=["tab:blue", "tab:gray"][: len(bars)])
    left.bar_label(drawn, [f"{value:.2f}" for value in bars.values()])
    left.set(
        title=report["verdict"],
        ylabel=f"{report['metric']} (%)",
        ylim=(0, 1.1 * max(1, *bars.values())),
    )
    left.title.set_fontsize(9)
    if "ce" in report["figures"]:
        _draw_corruptions(report, right)
    else:
        _draw_classes(report, right)
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_corruptions(report: Dict[str, Any], axes: Any) -> None:
    ce = report["figures"]["ce"]
    axes.bar(range(len(ce)), list(ce.values()))
    axes.axhline(report["measured"], color="black", linewidth=1, linestyle="--", label="mean")
    names = [name.replace("_", " ") for name in ce]
    axes.set_xticks(range(len(ce)), names, rotation=45, ha="right", fontsize=8)
    axes.set(title=report["set"], ylabel="corruption error (%), AlexNet = 100")


def _draw_classes(report: Dict[str, Any], axes: Any) -> None:
    axes.hist(list(report["per_class"].values()), bins=np.linspace(0, 100, 26))
    axes.axvline(
        report["figures"]["top1"],
        color="black",
        linewidth=1,
        linestyle="--",
        label="top-1 over all images",
    )
    axes.set(
        title=f"{report['set']}, {report['images']} images",
        xlabel="top-1 of a class (%)",
        ylabel="classes",
    )


def draw_dense(report: Dict[str, Any], path: os.PathLike | str) -> None:
    """Ours beside published, and how the figure spreads over the classes."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [1, 2]}
    )
    names = list(report["figures"])
    for shift, label, values in (
        (-0.2, "ours", report["figures"]),
        (0.2, "published", report["published"]),
    ):
        places = [i + shift for i, name in enumerate(names) if name in values]
        heights = [values[name] for name in names if name in values]
        bars = left.bar(places, heights, 0.4, label=label)
        left.bar_label(bars, fmt="%.1f")
    left.set_xticks(range(len(names)), names)
    left.margins(y=0.15)
    left.set(title=report["verdict"], ylabel="%")
    left.title.set_fontsize(8)
    left.legend()
    for name, classes in report["result"].items():
        if isinstance(classes, dict) and classes:
            ranked = sorted((100 * (value or 0) for value in classes.values()), reverse=True)
            right.plot(range(1, len(classes) + 1), ranked, label=name)
    right.set(
        title=f"{report['set']}, {report['images']} images",
        xlabel="classes, best first",
        ylabel="%",
    )
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
