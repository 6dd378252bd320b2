"""One colour for each class, the same wherever a task draws it."""

import colorsys

import numpy as np

__all__ = ["palette"]

# of a turn: hues of neighbouring classes lie far apart, whatever their number
GOLDEN_ANGLE = 0.381966


def palette(num_classes):
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
