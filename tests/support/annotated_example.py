"""A small colour picture with six objects and a label map, for the tests of the transforms of
detection and segmentation.
"""

import numpy as np
from PIL import Image

from .paths import NUCLEI

BOXES = (
    (3.5, 4.25, 30, 20.5),
    (40, 10, 60.75, 50),
    (70, 30, 127.5, 90),
    (10, 60, 25, 94),
    (90, 2, 110, 22),
    (-2, 30, 8, 41),
)


def example():
    """A sample of 96 x 128 pixels. Its colours are three grey tiles, its masks ellipses in the
    boxes, its labels the masks' numbers % 3, with a strip to ignore."""
    tiles = [
        np.asarray(Image.open(NUCLEI / "images" / "training" / f"0_{i}.png")) for i in range(3)
    ]
    image = np.ascontiguousarray(np.stack(tiles, axis=-1)[:96])
    y, x = np.mgrid[:96, :128] + 0.5
    masks = np.array(
        [
            ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
            for x1, y1, x2, y2 in BOXES
        ]
    )
    segmentation = np.zeros((96, 128), np.uint8)
    for number, mask in enumerate(masks):
        segmentation[mask] = number % 3
    segmentation[:, 100:104] = 255
    return {
        "image": image,
        "boxes": np.array(BOXES, np.float32),
        "labels": np.arange(6) % 4,
        "masks": masks.astype(np.uint8),
        "ignore_boxes": np.array([[50, 60, 70, 80]], np.float32),
        "segmentation": segmentation,
        "scale": (1.0, 1.0),
        "flip": False,
    }
