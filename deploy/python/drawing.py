"""Pictures of what was found: boxes and masks by name and score, labels with a legend; as
`nextvit infer` draws them. Needs numpy and Pillow.
"""

import colorsys
from collections.abc import Sequence
from typing import Optional

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
MARGIN = 2  # of the texts at boxes, in pixels
BRIGHT = 140  # of a colour, from which text on it is black
LONGEST = 40  # characters of a name at a box
MOST_ENTRIES = 40  # of a legend
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
    """`image`, uint8 [H, W, 3], with mask, box, name and score of every object in the colour of its
    class with a legend, or, of a single class, in one of its own. Texts stand apart and within the
    picture; one that finds no place is left out.
    """
    factor = max(1, SMALLEST // max(image.shape[:2]))
    pixels = _grown(image, factor).astype(np.float32)
    several = len(names) > 1
    colours = palette(len(names))[found.labels] if several else palette(max(1, len(found.boxes)))
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
    boxes = [[factor * float(side) for side in box] for box in found.boxes]
    for box, colour in zip(boxes, colours.tolist()):
        draw.rectangle(box, outline=tuple(colour))
    taken: list[tuple] = []
    for box, label, score, colour in zip(boxes, found.labels, found.scores, colours.tolist()):
        text = f"{shortened(names[label], LONGEST)} {score:.2f}"
        place = _free_place(text, box, picture.size, taken)
        if place is not None:
            taken.append(place)
            red, green, blue = colour
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < BRIGHT
            draw.rectangle(place, tuple(colour))
            at = (place[0] + MARGIN, place[1])
            draw_text(draw, at, text, "white" if dark else "black", OBJECT_TEXT)
    return _with_legend(picture, _classes(found.labels, names)) if several else picture


def _free_place(
    text: str, box: Sequence[float], size: tuple[int, int], taken: Sequence[tuple]
) -> Optional[tuple]:
    """Where the text of a box stands: above it, in its corners or below, moved into the picture of
    `size`; None where each of these touches one that is taken, or is too small.
    """
    width, height = round(text_width(text, OBJECT_TEXT)) + 2 * MARGIN, OBJECT_TEXT + 2 * MARGIN
    if width >= size[0] or height >= size[1]:
        return None
    left, top, right, bottom = box
    for x, y in (
        (left, top - height),
        (left, top + 1),
        (left, bottom + 1),
        (right - width, top - height),
        (left, bottom - height),
        (right - width, bottom + 1),
    ):
        x = min(max(x, 0), size[0] - width - 1)
        y = min(max(y, 0), size[1] - height - 1)
        place = (x, y, x + width, y + height)
        if not any(_touch(place, other) for other in taken):
            return place
    return None


def _touch(one: tuple, other: tuple) -> bool:
    across = one[0] <= other[2] and other[0] <= one[2]
    return across and one[1] <= other[3] and other[1] <= one[3]


def _classes(labels: np.ndarray, names: Sequence[str]) -> list[tuple]:
    """(name and number of objects, colour) of the classes that are there, most frequent first."""
    counts = np.bincount(labels.astype(int), minlength=len(names))
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    colours = palette(len(names))
    return [
        (f"{shortened(names[label], LONGEST)} ({counts[label]})", colours[label]) for label in order
    ]


def _with_legend(picture: Image.Image, entries: Sequence[tuple]) -> Image.Image:
    """`picture` above a legend of (text, RGB colour), in lines as wide as the picture."""
    if not entries:
        return picture
    left_over = len(entries) - MOST_ENTRIES
    places, x, row = [], GAP, 0
    for text, _ in entries[:MOST_ENTRIES]:
        text = _fitting(text, max(picture.width - SWATCH - 3 * GAP, 20))
        width = SWATCH + GAP // 2 + round(text_width(text, LEGEND_TEXT)) + 2 * GAP
        if x > GAP and x + width > picture.width:
            x, row = GAP, row + 1
        places.append((x, row, text))
        x += width
    height = LINE * (row + 1 + (left_over > 0)) + GAP // 2
    sheet = Image.new("RGB", (picture.width, picture.height + height), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (x, line, text), (_, colour) in zip(places, entries):
        top = picture.height + GAP // 2 + line * LINE
        corners = (x, top + 2, x + SWATCH, top + 2 + SWATCH)
        draw.rectangle(corners, tuple(map(int, colour)), "black")
        draw_text(draw, (x + SWATCH + GAP // 2, top), text, "black", LEGEND_TEXT)
    if left_over > 0:
        top = picture.height + GAP // 2 + (row + 1) * LINE
        draw_text(draw, (GAP, top), f"and {left_over} more", "black", LEGEND_TEXT)
    return sheet


def _fitting(text: str, width: int) -> str:
    """`text`, cut so that it is at most `width` pixels wide."""
    if text_width(text, LEGEND_TEXT) <= width:
        return text
    while text and text_width(text + "…", LEGEND_TEXT) > width:
        text = text[:-1]
    return text + "…"


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
