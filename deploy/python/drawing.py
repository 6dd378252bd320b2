"""Pictures of what was found: boxes and masks by name and score, labels with a legend; as
`nextvit infer` draws them. Needs numpy and Pillow.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from fonts import draw_text, shortened, text_width
from labels import class_areas
from objects import Objects
from PIL import Image, ImageDraw

# of a turn: hues of neighbouring classes lie far apart, whatever their number
GOLDEN_ANGLE = 0.381966
OBJECT_OPACITY, LABEL_OPACITY = 0.45, 0.55
OBJECT_TEXT, LEGEND_TEXT = 11, 13  # high, in pixels
SMALLEST = 512  # to which side, in pixels, a small picture grows by whole factors
LINE, SWATCH, GAP = 18, 12, 8  # of a legend, in pixels
BACKGROUND = "background"  # a class of this name is left uncoloured


def palette(count: int) -> np.ndarray:
    """uint8 [count, 3]: one RGB colour a class, the same whatever the number of classes."""
    rows = [
        colorsys.hls_to_rgb(
            i * GOLDEN_ANGLE % 1.0, (0.5, 0.35, 0.68)[i // 7 % 3], (0.9, 0.6)[i // 21 % 2]
        )
        for i in range(count)
    ]
    return np.round(255 * np.array(rows)).astype(np.uint8)


def draw_objects(image: np.ndarray, found: Objects, names: Sequence[str]) -> Image.Image:
    """`image`, uint8 [H, W, 3], with mask, box, name and score of every object in a colour of its
    own.
    """
    factor = max(1, SMALLEST // max(image.shape[:2]))
    pixels = _grown(image, factor).astype(np.float32)
    colours = palette(max(1, len(found.boxes)))
    for mask, colour in zip(found.masks or (), colours):
        rows, columns = mask.part.shape
        area = pixels[
            factor * mask.top : factor * (mask.top + rows),
            factor * mask.left : factor * (mask.left + columns),
        ]
        inside = _grown(mask.part, factor)
        area[inside] = (1 - OBJECT_OPACITY) * area[inside] + OBJECT_OPACITY * colour
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for box, label, score, colour in zip(found.boxes, found.labels, found.scores, colours.tolist()):
        left, top, right, bottom = (factor * float(side) for side in box)
        draw.rectangle((left, top, right, bottom), outline=tuple(colour))
        text = f"{shortened(names[label])} {score:.2f}"
        place = (left + 2, top + 1)
        draw_text(draw, place, text, "white", OBJECT_TEXT, stroke_width=1, stroke_fill="black")
    return picture


def _grown(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels.repeat(factor, 0).repeat(factor, 1)


def draw_labels(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """`image`, uint8 [H, W, 3], under its labels, with a legend of the classes, largest first."""
    lines = _legend(class_areas(labels, names), max(1, image.shape[0] // LINE))
    colours = palette(len(names))
    longest = max((text_width(text, LEGEND_TEXT) for _, text in lines), default=0)
    width = GAP * 3 + SWATCH + round(longest)
    sheet = Image.new("RGB", (image.shape[1] + width, max(image.shape[0], LINE)), "white")
    sheet.paste(Image.fromarray(overlay(image, labels, names)), (0, 0))
    draw, left = ImageDraw.Draw(sheet), image.shape[1] + GAP
    for row, (label, text) in enumerate(lines):
        if label is not None:
            top = row * LINE + (LINE - SWATCH) // 2
            corners = (left, top, left + SWATCH, top + SWATCH)
            draw.rectangle(corners, tuple(colours[label].tolist()), "black")
        draw_text(draw, (left + SWATCH + GAP, row * LINE + 1), text, "black", LEGEND_TEXT)
    return sheet


def overlay(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """uint8 [H, W, 3]: each pixel mixed with its class's colour; the background's stay."""
    coloured = np.ones(labels.shape, bool)
    if BACKGROUND in names:
        coloured = labels != list(names).index(BACKGROUND)
    out = image.copy()
    mixed = (1 - LABEL_OPACITY) * image[coloured]
    mixed += LABEL_OPACITY * palette(len(names))[labels[coloured]]
    out[coloured] = np.round(mixed).astype(np.uint8)
    return out


def _legend(areas: list[dict], rows: int) -> list[tuple]:
    """(class, text) of at most `rows` lines; what is left over is counted in the last, whose class
    is None.
    """
    lines = [
        (area["class_id"], f"{shortened(area['label_name'])} {100 * area['share']:.1f} %")
        for area in areas
        if area["label_name"] != BACKGROUND
    ]
    if len(lines) <= rows:
        return lines
    return [*lines[: rows - 1], (None, f"and {len(lines) - rows + 1} more")]


def label_picture(labels: np.ndarray, count: int) -> Image.Image:
    """`labels` as a palette picture whose pixel values are class numbers; of more than 256 classes
    one of 16-bit grey.
    """
    if count > 256:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette(count).reshape(-1).tolist())
    return image
