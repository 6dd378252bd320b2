"""Pictures of detections: boxes and masks on the image, by class, and sheets that compare them with
the truth.
"""

from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ...models.api import Instances
from .. import pictures
from ..fonts import draw_text, shortened, text_width
from ..pictures import palette, with_legend
from .mistakes import overlaps

__all__ = ["comparison_sheet", "draw_boxes", "draw_objects"]

OPACITY = 0.45
TEXT, MARGIN = 11, 2  # of the texts at boxes, in pixels
BRIGHT = 140  # of a colour, from which text on it is black
NONE = np.zeros((0, 4), np.float32)  # boxes
SAME = 0.3  # IoU of boxes, from which a found object is a true one and has its colour
Rectangle = Tuple[float, float, float, float]


def draw_objects(
    image: np.ndarray, found: Instances, names: Sequence[str], smallest: int = 512
) -> Image.Image:
    """The picture with what was found in it, by name and score, in the colours of the classes with
    a legend; of a single class in a colour for each object. See draw_boxes.
    """
    named = zip(found.labels, found.scores)
    texts = [f"{shortened(names[label], 40)} {score:.2f}" for label, score in named]
    masks = [mask.full() for mask in found.masks or ()]
    colours = _colours(found.labels, len(names))
    drawn = draw_boxes(image, found.boxes, masks, texts, smallest, colours)
    return with_legend(drawn, _legend(found.labels, names))


def _colours(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """uint8 [n, 3]: of the objects' classes, or of the objects where there is one class."""
    if num_classes > 1:
        return palette(num_classes)[labels]
    return palette(max(1, len(labels)))


def _legend(labels: np.ndarray, names: Sequence[str]) -> List[Tuple[str, Sequence[int]]]:
    """(name and number of objects, colour) of the classes that are there, the most frequent first;
    none where there is one class.
    """
    if len(names) < 2:
        return []
    counts = np.bincount(labels.astype(int), minlength=len(names))
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    colours = palette(len(names))
    return [(f"{shortened(names[label], 40)} ({counts[label]})", colours[label]) for label in order]


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: Sequence[np.ndarray],
    texts: Sequence[str] = (),
    smallest: int = 512,
    colours: Optional[np.ndarray] = None,
) -> Image.Image:
    """The picture with its objects as a PIL image: mask, if there is one, box and text of every
    one. A text stands where it is within the picture and on no other, or not at all; those of the
    first objects are placed first.

    image: uint8 [H, W, 3]; boxes: [n, 4]; masks: uint8 [n, H, W]. smallest: the side in pixels to
    which a small picture grows by whole factors. colours: uint8 [n, 3]; None: one each.
    """
    factor = max(1, smallest // max(image.shape[:2]))
    pixels = _grown(image, factor).astype(np.float32)
    if colours is None:
        colours = palette(max(1, len(boxes)))
    for mask, colour in zip(masks, colours):
        inside = _grown(mask, factor) > 0
        pixels[inside] = (1 - OPACITY) * pixels[inside] + OPACITY * colour
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for box, colour in zip(boxes, colours.tolist()):
        draw.rectangle([factor * float(side) for side in box], outline=tuple(colour))
    taken: List[Rectangle] = []
    for box, colour, text in zip(boxes, colours.tolist(), texts):
        place = _free_place(text, [factor * float(side) for side in box], picture.size, taken)
        if place is not None:
            taken.append(place)
            red, green, blue = colour
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < BRIGHT
            draw.rectangle(place, tuple(colour))
            at = (place[0] + MARGIN, place[1])
            draw_text(draw, at, text, "white" if dark else "black", TEXT)
    return picture


def _free_place(
    text: str, box: Sequence[float], size: Tuple[int, int], taken: Sequence[Rectangle]
) -> Optional[Rectangle]:
    """Where the text of a box stands: above it, in its corners or below, moved into the picture of
    `size`; None where each of these touches one that is taken, or is too small.
    """
    width, height = round(text_width(text, TEXT)) + 2 * MARGIN, TEXT + 2 * MARGIN
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


def _touch(one: Rectangle, other: Rectangle) -> bool:
    across = one[0] <= other[2] and other[0] <= one[2]
    return across and one[1] <= other[3] and other[1] <= one[3]


def comparison_sheet(
    rows: Sequence[Tuple[np.ndarray, Mapping[str, Any], Instances]],
    threshold: float,
    smallest: int = 256,
    names: Sequence[str] = ("",),
) -> Image.Image:
    """A PIL image with a row for each (image uint8 [H, W, 3], truth, found): the picture, its true
    objects, those that were found; an object has one colour in both, its class's or, of a single
    class, its own.

    truth: a sample with boxes, labels and, if it has them, masks. threshold: the lowest score
    shown. smallest: as for draw_boxes. names: of the classes, for the legend.
    """
    drawn, labels = [], []
    for image, truth, found in rows:
        shown = found.scoring(threshold)
        masks = [mask.full() for mask in shown.masks or ()]
        true_colours, found_colours = _colours_of_both(truth, shown, len(names))
        drawn.append(
            [
                draw_boxes(image, NONE, (), smallest=smallest),
                draw_boxes(
                    image, truth["boxes"], truth.get("masks", ()), (), smallest, true_colours
                ),
                draw_boxes(image, shown.boxes, masks, (), smallest, found_colours),
            ]
        )
        labels += [truth["labels"], shown.labels]
    titles = ("image", "truth", f"prediction (score {threshold} or more)")
    sheet = pictures.comparison_sheet(drawn, titles)
    entries = _legend(np.concatenate(labels), names) if labels else []
    return with_legend(sheet, [(text.rpartition(" (")[0], colour) for text, colour in entries])


def _colours_of_both(
    truth: Mapping[str, Any], found: Instances, num_classes: int
) -> Tuple[np.ndarray, np.ndarray]:
    """(colours of the true objects, of the found ones), uint8 [n, 3] each. Of a single class a
    found object has the colour of the true one that it overlaps most, or, below SAME, a new one.
    """
    if num_classes > 1:
        return _colours(truth["labels"], num_classes), _colours(found.labels, num_classes)
    true_boxes = truth["boxes"]
    colours = palette(max(1, len(true_boxes) + len(found.boxes)))
    free = set(range(len(true_boxes)))
    chosen = []
    for number, box in enumerate(found.boxes):
        shared = overlaps(box, true_boxes)
        best = max(free, key=lambda index: shared[index], default=None)
        if best is not None and shared[best] >= SAME:
            free.discard(best)
            chosen.append(best)
        else:
            chosen.append(len(true_boxes) + number)
    return colours[: max(1, len(true_boxes))], colours[chosen]


def _grown(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels.repeat(factor, 0).repeat(factor, 1)
