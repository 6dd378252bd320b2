"""Pictures of label maps: coloured over the image with a legend, as palette PNG, and sheets that
compare them with the truth.
"""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from .. import pictures
from ..fonts import draw_text, shortened, text_width
from ..pictures import LINE, TEXT, palette, with_legend

__all__ = [
    "class_areas",
    "comparison_sheet",
    "draw_labels",
    "label_png",
    "overlay",
    "wrong_pixels",
]

OPACITY = 0.55
BACKGROUND = "background"  # a class of this name is left uncoloured
UNLABELLED = 255
SMALLEST = 256  # pixels of the longer side of a picture on a sheet
SWATCH, GAP = 12, 8  # of the legend, in pixels
WRONG = (255, 60, 0)


def class_areas(labels: np.ndarray, names: Sequence[str]) -> List[Dict[str, Any]]:
    """[{class_id, label_name, pixels, share}, ...] of the classes in `labels` [H, W], largest
    first.
    """
    counts = np.bincount(labels.reshape(-1), minlength=len(names))[: len(names)]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [
        {
            "class_id": i,
            "label_name": names[i],
            "pixels": int(counts[i]),
            "share": float(counts[i] / labels.size),
        }
        for i in order
    ]


def overlay(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """image: uint8 [H, W, 3]; labels: [H, W] -> uint8 [H, W, 3], each pixel mixed with its class's
    colour; background and 255 stay.
    """
    coloured = labels != UNLABELLED
    if BACKGROUND in names:
        coloured &= labels != names.index(BACKGROUND)
    colours = palette(len(names))[labels[coloured]]
    out = image.copy()
    mixed = (1 - OPACITY) * image[coloured] + OPACITY * colours
    out[coloured] = np.round(mixed).astype(np.uint8)
    return out


def draw_labels(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """The picture under its labels with a legend of its classes at the right, largest first, as a
    PIL image.
    """
    lines = _legend(class_areas(labels, names), max(1, image.shape[0] // LINE))
    colours = palette(len(names))
    longest = max((text_width(text, TEXT) for _, text in lines), default=0)
    width = GAP * 3 + SWATCH + round(longest)
    sheet = Image.new("RGB", (image.shape[1] + width, max(image.shape[0], LINE)), "white")
    sheet.paste(Image.fromarray(overlay(image, labels, names)), (0, 0))
    draw, left = ImageDraw.Draw(sheet), image.shape[1] + GAP
    for row, (label, text) in enumerate(lines):
        if label is not None:
            top = row * LINE + (LINE - SWATCH) // 2
            corners = (left, top, left + SWATCH, top + SWATCH)
            draw.rectangle(corners, tuple(colours[label].tolist()), "black")
        draw_text(draw, (left + SWATCH + GAP, row * LINE + 1), text, "black", TEXT)
    return sheet


def _legend(areas: List[Dict[str, Any]], rows: int) -> List[Tuple[Any, str]]:
    """(class, text) of each line of a legend of at most `rows` lines; what is left over is counted
    in the last, whose class is None.
    """
    shown = [area for area in areas if area["label_name"] != BACKGROUND]
    lines = [
        (area["class_id"], f"{shortened(area['label_name'])} {100 * area['share']:.1f} %")
        for area in shown
    ]
    if len(lines) <= rows:
        return lines
    return [*lines[: rows - 1], (None, f"and {len(lines) - rows + 1} more")]


def wrong_pixels(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """bool [H, W]: which labelled pixels have another label than the true one."""
    return (truth != UNLABELLED) & (truth != found)


def _marked(image: np.ndarray, wrong: np.ndarray) -> Image.Image:
    """The picture in grey with its wrong pixels in red, and their share."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    grey[wrong] = WRONG
    picture = _grown(Image.fromarray(grey))
    text = f"{100 * wrong.mean():.1f} % wrong"
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, round(text_width(text, TEXT)) + GAP, LINE), "black")
    draw_text(draw, (GAP // 2, 1), text, "white", TEXT)
    return picture


def comparison_sheet(
    rows: Sequence[Tuple[np.ndarray, np.ndarray, np.ndarray]],
    names: Sequence[str],
    wrong: bool = False,
) -> Image.Image:
    """rows: [(image uint8 [H, W, 3], true labels, predicted labels), ...] -> a PIL image, a row
    each: picture, truth, prediction and, if asked for, what is `wrong` in it, under it a legend.
    Small pictures grow by whole factors to SMALLEST pixels.
    """
    drawn = [
        [
            _grown(Image.fromarray(picture))
            for picture in (image, overlay(image, truth, names), overlay(image, found, names))
        ]
        for image, truth, found in rows
    ]
    titles = ["image", "truth", "prediction"]
    if wrong:
        titles.append("wrong pixels")
        for row, (image, truth, found) in zip(drawn, rows):
            row.append(_marked(image, wrong_pixels(truth, found)))
    sheet = pictures.comparison_sheet(drawn, titles)
    labels = [part for _, truth, found in rows for part in (truth, found)]
    seen = {int(label) for part in labels for label in np.unique(part)} - {UNLABELLED}
    colours = palette(len(names))
    shown = [label for label in sorted(seen) if names[label] != BACKGROUND]
    entries = [(shortened(names[label], 40), colours[label]) for label in shown]
    return with_legend(sheet, entries)


def _grown(picture: Image.Image) -> Image.Image:
    factor = max(1, SMALLEST // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def label_png(labels: np.ndarray, num_classes: int) -> Image.Image:
    """`labels` [H, W] as a PIL palette image: pixel values are class ids, colours those of
    `palette`.
    """
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(palette(num_classes).reshape(-1).tolist())
    return image
