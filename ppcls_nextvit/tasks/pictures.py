"""What the pictures of all tasks share: one colour for each class, pictures and texts that fit, and
sheets that compare predictions with the truth.
"""

import colorsys
from pathlib import Path
from typing import Mapping, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageDraw

from ..engine.curves import pyplot
from .fonts import draw_text, text_width, with_letters_of

__all__ = [
    "LINE",
    "MOST_CURVES",
    "TEXT",
    "captioned_sheet",
    "comparison_sheet",
    "draw_precision_curves",
    "fitted",
    "fitting",
    "palette",
    "with_legend",
]

# of a turn: hues of neighbouring classes lie far apart, whatever their number
GOLDEN_ANGLE = 0.381966
LINE, GAP = 18, 4  # of text, and between pictures, in pixels
SWATCH, SPACE = 12, 8  # of a legend, in pixels
MOST_ENTRIES = 40  # of a legend
MOST_CURVES = 20  # of classes that are told apart
TEXT = 13  # high, in a line


def palette(num_classes: int) -> np.ndarray:
    """uint8 [num_classes, 3]: one RGB colour a class, the same for the same class whatever the
    number of classes.
    """
    rows = [
        colorsys.hls_to_rgb(
            i * GOLDEN_ANGLE % 1.0, (0.5, 0.35, 0.68)[i // 7 % 3], (0.9, 0.6)[i // 21 % 2]
        )
        for i in range(num_classes)
    ]
    return np.round(255 * np.array(rows)).astype(np.uint8)


def comparison_sheet(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """One picture of rows of pictures, a title over each column; those of a row are of one size."""
    width = max(row[0].width for row in rows) + GAP
    height = sum(row[0].height + GAP for row in rows)
    sheet = Image.new("RGB", (len(titles) * width - GAP, LINE + height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw_text(draw, (column * width, 1), title, "black", TEXT)
    top = LINE
    for row in rows:
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * width, top))
        top += row[0].height + GAP
    return sheet


def captioned_sheet(
    shown: Sequence[Image.Image], captions: Sequence[Sequence[str]], columns: int = 4
) -> Image.Image:
    """One picture of pictures of one size, each over the lines of its caption."""
    width, height = shown[0].size
    step = height + LINE * max(map(len, captions)) + GAP
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * step), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(shown, captions)):
        left, top = number % columns * (width + GAP), number // columns * step
        sheet.paste(picture, (left, top))
        for line, text in enumerate(caption):
            at = (left, top + height + line * LINE)
            draw_text(draw, at, fitting(text, width), "black", TEXT)
    return sheet


def with_legend(picture: Image.Image, entries: Sequence[Tuple[str, Sequence[int]]]) -> Image.Image:
    """`picture` above a legend of (text, RGB colour), in lines as wide as the picture; as it is
    without entries.
    """
    if not entries:
        return picture
    left_over = len(entries) - MOST_ENTRIES
    shown = [*entries[:MOST_ENTRIES]]
    places, x, row = [], SPACE, 0
    for text, _ in shown:
        text = fitting(text, max(picture.width - SWATCH - 3 * SPACE, 20))
        width = SWATCH + SPACE // 2 + round(text_width(text, TEXT)) + 2 * SPACE
        if x > SPACE and x + width > picture.width:
            x, row = SPACE, row + 1
        places.append((x, row, text))
        x += width
    height = LINE * (row + 1 + (left_over > 0)) + GAP
    sheet = Image.new("RGB", (picture.width, picture.height + height), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (x, line, text), (_, colour) in zip(places, shown):
        top = picture.height + GAP + line * LINE
        corners = (x, top + 2, x + SWATCH, top + 2 + SWATCH)
        draw.rectangle(corners, tuple(map(int, colour)), "black")
        draw_text(draw, (x + SWATCH + SPACE // 2, top), text, "black", TEXT)
    if left_over > 0:
        top = picture.height + GAP + (row + 1) * LINE
        draw_text(draw, (SPACE, top), f"and {left_over} more", "black", TEXT)
    return sheet


def draw_precision_curves(
    path: Union[str, Path], curves: Mapping[str, Tuple[np.ndarray, np.ndarray]], title: str = ""
) -> None:
    """Precision over recall: {name of a class: (recall, precision)} as curves in the classes'
    colours. Nothing for no class.
    """
    if not curves:
        return
    with with_letters_of(list(curves)):
        plt = pyplot()
        figure, axis = plt.subplots(figsize=(7, 5))
        colours = palette(len(curves)) / 255
        for (name, (recall, precision)), colour in zip(curves.items(), colours):
            axis.plot(recall, precision, color=colour, drawstyle="steps-post", label=name)
        axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02), title=title)
        axis.grid(alpha=0.3)
        legend = axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a dollar sign begins no formula
        figure.tight_layout()
        figure.savefig(path, dpi=90)
        plt.close(figure)


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """A copy of `picture` whose longer side is at most `side` pixels: a small one grows by a whole
    factor, so that its pixels stay visible.
    """
    factor = side // max(picture.size)
    if factor > 1:
        return picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    return smaller


def fitting(text: str, width: int) -> str:
    """`text`, cut so that it is at most `width` pixels wide."""
    if text_width(text, TEXT) <= width:
        return text
    while text and text_width(text + "…", TEXT) > width:
        text = text[:-1]
    return text + "…"
