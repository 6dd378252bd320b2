"""Masks in COCO's formats (polygons, or run lengths plain or compressed): read through pycocotools,
and written without it.

Run lengths count a mask's pixels down its columns: the first number is of background, then they
alternate. Written are those of masks that are known by the part that is not all background;
pycocotools would need them in full, which takes twice the time at 1080 x 1920.
"""

import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..models.api import ImageMask

__all__ = ["decompressed", "encode_mask", "mask_bounds", "mask_tools", "polygons", "run_lengths"]


def mask_tools() -> Any:
    """The module pycocotools.mask. ImportError names the extra."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            "masks in COCO's format need pycocotools: install ppcls_nextvit[det]"
        ) from error
    return mask


def polygons(segmentation: List[List[float]]) -> List[List[float]]:
    """Those of the polygons that have three points, [x, y, x, y, x, y], or more."""
    return [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]


def mask_bounds(
    segmentation: Any, height: int, width: int
) -> Optional[Tuple[float, float, float, float]]:
    """(left, top, right, bottom) of a mask in any of COCO's formats, None for an empty one.
    ValueError if it is not of this image.
    """
    if isinstance(segmentation, list):
        return _polygon_bounds(polygons(segmentation), height, width)
    left, top, w, h = mask_tools().toBbox(run_lengths(segmentation, height, width)).tolist()
    return (left, top, left + w, top + h) if w and h else None


def _polygon_bounds(
    parts: List[List[float]], height: int, width: int
) -> Optional[Tuple[float, float, float, float]]:
    if not parts:
        return None
    xs = [x for polygon in parts for x in polygon[::2]]
    ys = [y for polygon in parts for y in polygon[1::2]]
    bounds = min(xs), min(ys), max(xs), max(ys)
    longest = max(width, height)
    far = min(bounds[:2]) < -longest or max(bounds[2:]) > 2 * longest
    if far or math.isnan(sum(xs) + sum(ys)):
        raise ValueError(
            f"a polygon from {bounds[:2]} to {bounds[2:]} in an image of {width} x {height} pixels"
        )
    return bounds


def run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """pycocotools' compressed run lengths of a mask in any of COCO's formats. ValueError if it is
    not of this image.
    """
    tools = mask_tools()
    if isinstance(segmentation, list):
        return tools.merge(tools.frPyObjects(polygons(segmentation), height, width))
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise ValueError("expected polygons, or run lengths as {size, counts}")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"a mask of size {segmentation['size']} in an image of height {height} and width "
            f"{width}"
        )
    counts = segmentation["counts"]
    most = 2 * height * width + 2  # numbers: a run of each pixel, and an empty one before it
    # pycocotools trusts such a text, to the point of a crash
    if isinstance(counts, str):
        counts = decompressed(counts.encode(), most)
    if len(counts) > most:
        raise ValueError(f"{len(counts)} run lengths for {height * width} pixels")
    if not all(isinstance(count, int) for count in counts):
        raise ValueError("run lengths must be whole numbers")
    if sum(counts) != height * width or min(counts) < 0:
        raise ValueError(f"run lengths that add up to {sum(counts)} pixels of {height * width}")
    return tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def decompressed(text: bytes, most: float = math.inf) -> List[int]:
    """The run lengths in COCO's compressed bytes: 5-bit digits from '0' on, lowest first; from the
    fourth number on less the one two before. ValueError for other bytes, and for more numbers than
    `most`.
    """
    counts: List[int] = []
    value = shift = 0
    for byte in text:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{text[:20]!r}... is not COCO's compressed form of run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if shift > 60:  # a number that no image has pixels for
            raise ValueError(f"{text[:20]!r}... is not COCO's compressed form of run lengths")
        # the last digit, whose highest bit is the sign
        if not digit & 32:
            value -= (digit & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
            if len(counts) > most:
                raise ValueError(f"more than {most:g} run lengths")
    if shift or not counts:
        raise ValueError(f"{text[:20]!r}... ends in the middle of a number")
    return counts


def encode_mask(mask: ImageMask) -> Dict[str, Any]:
    """{size: [height, width], counts: str}: what pycocotools' encode gives of the full mask."""
    rows = max(mask.part.shape[0], 1)
    at = np.flatnonzero(mask.part.T)
    # in the whole image, down its columns
    pixels = (mask.left + at // rows) * mask.height + mask.top + at % rows
    counts = _counts(pixels, mask.height * mask.width)
    return {"size": [int(mask.height), int(mask.width)], "counts": _compressed(counts)}


def _counts(pixels: np.ndarray, total: int) -> List[int]:
    """The run lengths of the object that has those `pixels`, in order, of `total`."""
    if not len(pixels):
        return [total]
    breaks = np.flatnonzero(np.diff(pixels) != 1)
    starts = pixels[np.append(0, breaks + 1)]
    ends = pixels[np.append(breaks, len(pixels) - 1)] + 1
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(np.concatenate([[0], edges, [total]])).tolist()
    return counts if counts[-1] else counts[:-1]


def _compressed(counts: List[int]) -> str:
    """The inverse of `decompressed`."""
    text = bytearray()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            digit, value = value & 31, value >> 5
            # the top bit of the last digit is the sign
            more = value != (-1 if digit & 16 else 0)
            text.append((digit | 32 if more else digit) + 48)
            if not more:
                break
    return text.decode("ascii")
