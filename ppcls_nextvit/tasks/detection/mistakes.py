"""What a detector got wrong on evaluation images, one object at a time, and pictures of it."""

from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ...models.api import Instances
from ..fonts import shortened
from ..pictures import captioned_sheet

__all__ = ["Mistake", "mistakes", "mistakes_sheet", "overlaps"]

SAME = 0.5  # IoU of boxes, from which a found object is a true one
NEAR = 0.1  # from which it is there, but elsewhere
SIDE = 160  # pixels of a thumbnail
LEAST = 48  # pixels of an image that a thumbnail shows at least, across
WRONG, TRUE = (255, 60, 0), (0, 200, 80)


@dataclass(frozen=True)
class Mistake:
    """An object of image `index` that was found and is not there, or is there and was missed.

    box: (x1, y1, x2, y2) in pixels. weight: by which the worst are chosen, the score or the area.
    """

    index: int
    box: np.ndarray
    weight: float
    text: Tuple[str, str]


def mistakes(
    index: int, truth: Mapping[str, Any], found: Instances, names: Sequence[str]
) -> Tuple[List[Mistake], List[Mistake]]:
    """(found wrongly, missed) in an image. As in COCO's metric, the objects that were found take
    the best free true one of their class, the most confident first; one that lies in a crowd is no
    mistake.
    """
    wrong = []
    free = np.ones(len(truth["labels"]), bool)
    for box, score, label in zip(found.boxes, found.scores, found.labels):
        shared = overlaps(box, truth["boxes"])
        own = truth["labels"] == label
        fitting = own & free & (shared >= SAME)
        if fitting.any():
            free[np.argmax(np.where(fitting, shared, -1))] = False
        elif not _in_crowd(box, truth["ignore_boxes"]):
            name = f"{shortened(names[label], 40)} {score:.2f}"
            why = _reason(shared, own, truth["labels"], names)
            wrong.append(Mistake(index, box, float(score), (name, why)))
    missed = []
    for box, label in zip(truth["boxes"][free], truth["labels"][free]):
        width, height = (box[2:] - box[:2]).tolist()
        size = f"{width:.0f} x {height:.0f} pixels"
        text = (shortened(names[label], 40), size)
        missed.append(Mistake(index, box, width * height, text))
    return wrong, missed


def _reason(shared: np.ndarray, own: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> str:
    """Why a found object is wrong: its IoU with the true ones, which of them are of its class."""
    if (own & (shared >= SAME)).any():
        return "found twice"
    if (shared >= SAME).any():
        return f"is: {shortened(names[labels[np.argmax(shared)]], 40)}"
    if (own & (shared >= NEAR)).any():
        return f"IoU {shared[own].max():.2f}"
    return "nothing there"


def _in_crowd(box: np.ndarray, crowds: np.ndarray) -> bool:
    """Whether at least half of a box lies in one of the regions `crowds` [n, 4]."""
    low, high = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    return bool((inside >= SAME * max((box[2:] - box[:2]).prod(), 1e-9)).any())


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The IoU of a box [4] with boxes [n, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return both / np.maximum(areas - both, 1e-9)


def mistakes_sheet(
    found: Sequence[Mistake],
    most: int,
    image: Callable[[int], np.ndarray],
    truth: Callable[[int], np.ndarray],
) -> Image.Image:
    """The `most` of them of the largest weight as thumbnails: the object in red, true objects in
    green. image: uint8 [H, W, 3] of an index; truth: its true boxes.
    """
    worst = sorted(found, key=lambda mistake: -mistake.weight)[:most]
    pictures = [_thumbnail(image(each.index), each.box, truth(each.index)) for each in worst]
    return captioned_sheet(pictures, [each.text for each in worst])


def _thumbnail(image: np.ndarray, box: np.ndarray, true: np.ndarray) -> Image.Image:
    """The square around `box`, twice as large as it, SIDE pixels across."""
    height, width = image.shape[:2]
    across = min(max(2 * float((box[2:] - box[:2]).max()), LEAST), max(height, width))
    left, top = (
        min(max(float(low + high) / 2 - across / 2, 0), max(limit - across, 0))
        for low, high, limit in ((box[0], box[2], width), (box[1], box[3], height))
    )
    region = (left, top, left + across, top + across)
    scaled = Image.fromarray(image).transform(
        (SIDE, SIDE), Image.Transform.EXTENT, region, Image.Resampling.BILINEAR
    )
    draw, origin = ImageDraw.Draw(scaled), np.array([left, top, left, top])
    for rectangle, colour in [*((each, TRUE) for each in true), (box, WRONG)]:
        corners = ((rectangle - origin) * SIDE / across).tolist()
        draw.rectangle(corners, outline=colour, width=2)
    return scaled
