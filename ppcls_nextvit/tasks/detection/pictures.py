"""Pictures of detections: boxes and masks on the image, and sheets that compare them with the
truth.
"""

from typing import Any, Mapping, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ...models.api import Instances
from .. import pictures
from ..fonts import draw_text, shortened
from ..pictures import palette

__all__ = ["comparison_sheet", "draw_boxes", "draw_objects"]

OPACITY = 0.45
TEXT = 11  # high, in pixels
NONE = np.zeros((0, 4), np.float32)  # boxes


def draw_objects(
    image: np.ndarray, found: Instances, names: Sequence[str], smallest: int = 512
) -> Image.Image:
    """The picture with what was found in it, by name and score; see draw_boxes."""
    named = zip(found.labels, found.scores)
    texts = [f"{shortened(names[label])} {score:.2f}" for label, score in named]
    masks = [mask.full() for mask in found.masks or ()]
    return draw_boxes(image, found.boxes, masks, texts, smallest)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: Sequence[np.ndarray],
    texts: Sequence[str] = (),
    smallest: int = 512,
) -> Image.Image:
    """The picture with its objects as a PIL image: mask, if there is one, box and text of every one
    in a colour of its own.

    image: uint8 [H, W, 3]; boxes: [n, 4]; masks: uint8 [n, H, W]. smallest: the side in pixels to
    which a small picture grows by whole factors.
    """
    factor = max(1, smallest // max(image.shape[:2]))
    pixels = _grown(image, factor).astype(np.float32)
    colours = palette(max(1, len(boxes)))
    for mask, colour in zip(masks, colours):
        inside = _grown(mask, factor) > 0
        pixels[inside] = (1 - OPACITY) * pixels[inside] + OPACITY * colour
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for i, (box, colour) in enumerate(zip(boxes, colours.tolist())):
        left, top, right, bottom = (factor * float(side) for side in box)
        draw.rectangle((left, top, right, bottom), outline=tuple(colour))
        if i < len(texts):
            place = (left + 2, top + 1)
            draw_text(draw, place, texts[i], "white", TEXT, stroke_width=1, stroke_fill="black")
    return picture


def comparison_sheet(
    rows: Sequence[Tuple[np.ndarray, Mapping[str, Any], Instances]],
    threshold: float,
    smallest: int = 256,
) -> Image.Image:
    """A PIL image with a row for each (image uint8 [H, W, 3], truth, found): the picture, its true
    objects, those that were found.

    truth: a sample with boxes and, if it has them, masks. threshold: the lowest score shown. smallest: as for
    draw_boxes.
    """
    drawn = []
    for image, truth, found in rows:
        shown = found.scoring(threshold)
        masks = [mask.full() for mask in shown.masks or ()]
        drawn.append(
            [
                draw_boxes(image, NONE, (), smallest=smallest),
                draw_boxes(image, truth["boxes"], truth.get("masks", ()), smallest=smallest),
                draw_boxes(image, shown.boxes, masks, smallest=smallest),
            ]
        )
    titles = ("image", "truth", f"prediction (score {threshold} or more)")
    return pictures.comparison_sheet(drawn, titles)


def _grown(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels.repeat(factor, 0).repeat(factor, 1)
