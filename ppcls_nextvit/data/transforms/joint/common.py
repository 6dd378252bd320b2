"""What the joint transforms share: the label that is ignored, OpenCV, padding."""

from typing import Any, Sequence

import numpy as np

__all__ = ["IGNORE", "counted_pixels", "opencv", "padded"]

IGNORE = 255  # the label of a pixel that neither loss nor metric counts


def opencv() -> Any:
    """The module cv2. ImportError names the extra."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "detection and segmentation need OpenCV, whose pixels the recipes were trained on: "
            "install ppcls_nextvit[cv2]"
        ) from error
    return cv2


def counted_pixels(label: Any, ignore_index: int) -> Any:
    """label: integers, an array or tensor [..., H, W] -> bool: neither IGNORE, with which the
    transforms pad, nor `ignore_index`.
    """
    return (label != ignore_index) & (label != IGNORE)


def padded(array: np.ndarray, shape: Sequence[int], fill: int = 0) -> np.ndarray:
    """`array` [..., h, w] in the upper left corner of one of [..., *shape]."""
    height, width = array.shape[-2:]
    if (height, width) == tuple(shape):
        return array
    result = np.full((*array.shape[:-2], *shape), fill, array.dtype)
    result[..., :height, :width] = array
    return result
