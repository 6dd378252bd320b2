"""A run as one file to read: report.html, which holds its pictures and needs nothing else; and its
evaluations as results.csv.
"""

import base64
import csv
import html
import io
import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from .log import read_figures

__all__ = [
    "SPEED",
    "Table",
    "html_picture",
    "html_section",
    "html_table",
    "html_text",
    "write_html",
    "write_page",
]

# rows of cells, the titles of the columns first
Table = Sequence[Sequence[Union[str, int, float, None]]]

PICTURES = (  # by file, in the order of the page
    ("curves.png", "Curves"),
    ("confusion_matrix.png", "Confusion matrix"),
    ("labels.png", "Labels"),
    ("precision_recall.png", "Precision and recall"),
    ("calibration.png", "Calibration: how often a prediction of a probability is right"),
    ("mistakes.png", "The most confident mistakes"),
    ("missed.png", "Missed objects, the largest first"),
    ("worst.png", "The images with the most wrong pixels"),
    ("predictions.png", "Predictions on evaluation images"),
)
CLASSES = "Classes"
SPEED = "Speed"  # the table of a task that the page adds training's to
NOT_SHOWN = ("kind", "time", "update")
WIDE = 800  # pixels of a picture, from which it is not shrunk to a telephone's width
MOST_ROWS = 200  # of a table; a report is read by people
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; padding: 1rem;
  max-width: 60rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
img { max-width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
.wide img { max-width: max(100%, 46rem); }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; }
details { margin-top: 1rem; }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; font-size: .85rem; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } pre { background: #2a2a2a; }
  th, td { border-color: #444; } img { background: #fff; }
}
"""


def write_page(
    directory: Path,
    title: str,
    summary: str,
    tables: Mapping[str, Table],
    model: Union[str, Path, None] = None,
) -> None:
    """report.html and results.csv in the folder of a run, of what the run left there.

    title: the model; summary: how good it became. tables: further ones of the task, by their
    titles. model: what the commands that use it are to be given; None: the folder.
    """
    evaluations, others = _evaluations(directory)
    with open(directory / "results.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(evaluations)
    parts = [
        f"<h1>{html_text(title)}</h1>",
        f"<p>{html_text(summary)}</p>",
        _use(model or directory),
    ]
    for name, heading in PICTURES[:1]:
        parts.append(_picture(directory / name, heading))
    for heading, table in {**others, **tables, SPEED: _speeds(others, tables)}.items():
        if table:
            parts.append(html_section(heading, html_table(table)))
    for name, heading in PICTURES[1:]:
        parts.append(_picture(directory / name, heading))
    parts.append(html_section("Evaluations", html_table(evaluations)))
    parts.append(_file("Configuration", directory / "config.yaml"))
    parts.append(_file("Versions and hardware", directory / "environment.json"))
    write_html(directory / "report.html", title, parts)


def write_html(path: Path, title: str, parts: Sequence[str]) -> None:
    """One file that needs nothing else. parts: of its body, HTML; empty ones are left out."""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
    path.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))


def _evaluations(directory: Path) -> Tuple[List[List[Any]], Dict[str, Table]]:
    """(a table of the numbers of all evaluations, further tables: of the classes in the last one,
    of its figures that are mappings, such as class_iou; of the training's speed).
    """
    found = [each for each in read_figures(directory) if each["kind"].startswith("eval")]
    keys: Dict[str, None] = {}
    for figures in found:
        keys.update(
            dict.fromkeys(
                key
                for key, value in figures.items()
                if key not in NOT_SHOWN and isinstance(value, (int, float))
            )
        )
    trained = [each for each in read_figures(directory) if each.get("images_per_s")]
    rows: List[List[Any]] = [["weights", *keys]]
    for figures in found:
        kind = "averaged" if figures["kind"] == "eval_ema" else "trained"
        rows.append([kind, *(figures.get(key, "") for key in keys)])
    last = found[-1] if found else {}
    of_class = {name: value for name, value in last.items() if isinstance(value, dict)}
    tables: Dict[str, Table] = {}
    if of_class:
        classes = dict.fromkeys(name for value in of_class.values() for name in value)
        tables[CLASSES] = [
            ["class", *(name.removeprefix("class_") for name in of_class)],
            *([name, *(value.get(name) for value in of_class.values())] for name in classes),
        ]
    if trained:
        speeds = sorted(each["images_per_s"] for each in trained)
        row = ["training (median)", speeds[len(speeds) // 2]]
        tables[SPEED] = [["", "images per second"], row]
    return rows, tables


def _speeds(*found: Mapping[str, Table]) -> Table:
    """The tables SPEED as one."""
    rows = [
        [name, f"{value:.1f}"]
        for tables in found
        for name, value in list(tables.get(SPEED, ()))[1:]
    ]
    return [["", "images per second"], *rows] if rows else []


def _use(directory: Union[str, Path]) -> str:
    model = shlex.quote(str(directory))
    commands = (
        f"nextvit infer --model {model} --images IMAGES\n"
        f"nextvit export --model {model} --to onnx -o Global.save_inference_dir=DIR"
    )
    python = (
        "import ppcls_nextvit as nv\n\n"
        f"model = nv.load({str(directory)!r})\n"
        'print(model.predict("photo.jpg")[0])'
    )
    return html_section(
        "Use it", f"<pre>{html_text(commands)}</pre>\n<pre>{html_text(python)}</pre>"
    )


def html_section(heading: str, content: str) -> str:
    """`content`, HTML, under a heading."""
    return f"<h2>{html_text(heading)}</h2>\n{content}"


def _picture(path: Path, heading: str) -> str:
    return html_picture(path.read_bytes(), heading) if path.is_file() else ""


def html_picture(png: bytes, heading: str) -> str:
    """A section with a picture, the bytes of a PNG."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img alt="{html_text(heading)}" src="{source}">'
    wide = int.from_bytes(png[16:20], "big") > WIDE
    return html_section(heading, f'<div class="wide">{image}</div>' if wide else image)


def _file(heading: str, path: Path) -> str:
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return (
        f"<details><summary>{html_text(heading)}</summary>\n<pre>{html_text(text)}</pre></details>"
    )


def html_table(table: Table) -> str:
    """A table of at most MOST_ROWS rows, which scrolls where it is too wide."""
    head, *rows = table
    out = io.StringIO()
    out.write('<div class="wide"><table>\n<thead><tr>')
    out.write("".join(f"<th>{html_text(cell)}</th>" for cell in head))
    out.write("</tr></thead>\n<tbody>\n")
    for row in rows[:MOST_ROWS]:
        cells = "".join(f"<td>{html_text(_shown(cell))}</td>" for cell in row)
        out.write(f"<tr>{cells}</tr>\n")
    out.write("</tbody></table></div>")
    left = len(rows) - MOST_ROWS
    return out.getvalue() + (f"\n<p>and {left} more rows</p>" if left > 0 else "")


def _shown(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def html_text(value: object) -> str:
    """`value` as text, escaped."""
    return html.escape(str(value))
