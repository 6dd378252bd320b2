"""Masks of detections: from a grid over the box to the pixels of the image, and their run-length
code. numpy alone.
"""

import numpy as np

THRESHOLD = 0.5


def paste(mask, box, height, width):
    """A mask's pixels in an image: (bool [h, w], top, left), the part of `height` x `width` beyond
    which all is background.

    mask: float [m, m], probabilities on a grid over `box` (x1, y1, x2, y2, in pixels). Bilinear, 0
    outside the grid, foreground from THRESHOLD; reference: mmdetection's FCNMaskHead. The grid is
    upright, so that rows and columns are interpolated one after the other.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    rows, top = _interpolation(y1, y2, height, len(mask))
    columns, left = _interpolation(x1, x2, width, len(mask))
    return rows @ mask @ columns.T >= THRESHOLD, top, left


def _interpolation(low, high, size, cells):
    """(float32 [n, cells], first): what each of the n pixels from `first` takes of the cells that
    lie evenly from `low` to `high`.
    """
    first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, size)
    if high <= low or last <= first:
        return np.zeros((0, cells), np.float32), min(first, size)
    # in cells, 0: the centre of the first
    places = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
    return np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None).astype(
        np.float32
    ), first


def full(pasted, height, width):
    """uint8 [height, width] of 0 and 1 of what `paste` returned."""
    part, top, left = pasted
    out = np.zeros((height, width), np.uint8)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def encode_rle(pasted, height, width):
    """{size: [height, width], counts: str}: the mask that `paste` returned in COCO's compressed
    run-length code, which reads columns.
    """
    part, top, left = pasted
    at = np.flatnonzero(part.T)
    # in the whole image, down its columns
    pixels = (left + at // max(part.shape[0], 1)) * height + top + at % max(part.shape[0], 1)
    starts = np.flatnonzero(np.diff(pixels, prepend=-2) != 1)
    edges = (
        np.stack(
            [pixels[starts], pixels[np.append(starts[1:], len(pixels)) - 1] + 1], axis=1
        ).reshape(-1)
        if len(pixels)
        else []
    )
    counts = np.diff(np.concatenate([[0], edges, [height * width]])).astype(int).tolist()
    if len(pixels) and counts[-1] == 0:
        counts.pop()
    return {"size": [int(height), int(width)], "counts": _compress(counts)}


def _compress(counts):
    """COCO's text for run lengths: each less the one two before (from the fourth), in 5-bit digits,
    lowest first, from '0' on.
    """
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
