"""What the pictures of all tasks share: one colour for each class, pictures and texts that fit, and
sheets that compare predictions with the truth.
"""

import colorsys
from typing import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .fonts import draw_text, text_width

__all__ = ["LINE", "TEXT", "comparison_sheet", "fitted", "fitting", "palette"]

# of a turn: hues of neighbouring classes lie far apart, whatever their number
GOLDEN_ANGLE = 0.381966
LINE, GAP = 18, 4  # of text, and between pictures, in pixels
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
