"""What `nextvit check` found, as one HTML file with pictures."""

import io
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from ..engine.curves import pyplot
from ..engine.page import html_picture, html_section, html_text, write_html
from ..tasks.fonts import shortened, with_letters_of
from .doctor import Findings
from .own_objects import ClassTable

__all__ = ["write_findings"]

MOST_BARS = 60  # classes that the picture of counts has
LONGEST = 40  # characters of a name


def write_findings(path: Path, title: str, described: Sequence[str], findings: Findings) -> None:
    """`findings` with histograms of the classes, of the images' and of the boxes' sizes.

    title: the folder; described: what it is, in lines. ImportError without Matplotlib.
    """
    parts = [f"<h1>{html_text(title)}</h1>", *(f"<p>{html_text(line)}</p>" for line in described)]
    for heading, lines in (("Errors", findings.errors), ("Warnings", findings.warnings)):
        parts.append(html_section(f"{heading}: {len(lines)}", _listed(lines)))
    if findings.counts.rows:
        heading = f"Of each class: {findings.counts.unit}"
        parts.append(html_picture(_bars(findings.counts), heading))
    if findings.sides:
        widths, heights = np.array(findings.sides).T
        sizes = {"width": widths, "height": heights}
        parts.append(html_picture(_histogram(sizes, "pixels", "images"), "Sizes of the images"))
    if findings.boxes:
        boxes = {"root of the area": np.array(findings.boxes)}
        parts.append(html_picture(_histogram(boxes, "pixels", "objects"), "Sizes of the boxes"))
    facts = html_text("\n".join(findings.facts))
    parts.append(f"<details><summary>Numbers</summary>\n<pre>{facts}</pre></details>")
    write_html(path, title, parts)


def _listed(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html_text(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if lines else "<p>none</p>"


def _bars(counts: ClassTable) -> bytes:
    """Of each class what there is to train with and to evaluate on, the first MOST_BARS."""
    rows = counts.rows[:MOST_BARS]
    names = [shortened(name, LONGEST) for name, _, _ in rows]
    with with_letters_of(names):
        plt, places = pyplot(), np.arange(len(rows))
        figure, axis = plt.subplots(figsize=(6.5, 1.5 + 0.35 * len(rows)))
        axis.barh(places - 0.2, [row[1] for row in rows], 0.4, label="train")
        axis.barh(places + 0.2, [row[2] for row in rows], 0.4, label="evaluation")
        axis.set(yticks=places, xlabel=counts.unit)
        axis.set_yticklabels(names, parse_math=False)  # a dollar sign begins no formula
        axis.invert_yaxis()
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return _png(plt, figure)


def _histogram(values: Any, label: str, unit: str) -> bytes:
    """{name: numbers} over each other, in the same bins, from 0 on."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.5, 3.5))
    bins = np.linspace(0, max(float(numbers.max()) for numbers in values.values()) * 1.02, 41)
    for name, numbers in values.items():
        axis.hist(numbers, bins, alpha=0.6, label=name)
    axis.set(xlabel=label, ylabel=unit)
    axis.legend()
    return _png(plt, figure)


def _png(plt: Any, figure: Any) -> bytes:
    data = io.BytesIO()
    figure.tight_layout()
    figure.savefig(data, dpi=90, format="png")
    plt.close(figure)
    return data.getvalue()
