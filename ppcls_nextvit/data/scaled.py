"""JPEG files that are decoded no larger than they are needed.

libjpeg computes an image of 1/2, 1/4 or 1/8 of the width and height from the file's frequencies, in
a fraction of the time that all pixels take. A part that is to become smaller by at least so much is
decoded so and resized from there; the result differs a little from that of all pixels.
"""

import math
from typing import Optional, Tuple, Union

from PIL import Image, ImageFile

from .images import ACROSS, Picture, Source, bytes_of, decode_upright, open_image, use_picture
from .notes import orientation_of

__all__ = ["Box", "Region", "ScalableJpeg", "open_scalable"]

Box = Tuple[int, int, int, int]  # left, top, width, height
Region = Tuple[float, float, float, float]  # left, top, right, bottom

REDUCTIONS = (8, 4, 2)
# by EXIF's orientation: which axes of the upright image, x and y, run against the stored ones
REVERSED = {
    2: (True, False),
    3: (True, True),
    4: (False, True),
    6: (True, False),
    7: (True, True),
    8: (False, True),
}


class ScalableJpeg:
    """A JPEG file of which the header was read. size: (width, height) of the upright image."""

    def __init__(self, data: bytes, name: str, size: Tuple[int, int], turned: int):
        self.data = data
        self.name = name
        self.size = size
        self.turned = turned

    def part(self, box: Box, wanted: Tuple[int, int]) -> Tuple[Image.Image, Region]:
        """(pixels, where the rectangle `box` is in them), decoded so that the rectangle has at
        least `wanted` = (width, height) pixels, if the file does. ImageError for a damaged file.
        """
        left, top, width, height = box
        share = min(width / wanted[0], height / wanted[1])
        reduction = next((one for one in REDUCTIONS if one <= share), 1)
        image = decode_upright(self.data, self.name, reduction).image
        # the last pixel of a stored row stands for fewer: where rows are turned it is the first
        for axis, against in enumerate(REVERSED.get(self.turned, (False, False))):
            surplus = reduction * image.size[axis] - self.size[axis]
            if against and axis == 0:
                left += surplus
            elif against:
                top += surplus
        x, y = left / reduction, top / reduction
        right, bottom = (left + width) / reduction, (top + height) / reduction
        x0, y0 = math.floor(x), math.floor(y)
        pixels = image.crop((x0, y0, math.ceil(right), math.ceil(bottom)))
        return pixels, (x - x0, y - y0, right - x0, bottom - y0)


def open_scalable(source: Source, name: Optional[str] = None) -> Union[Picture, ScalableJpeg]:
    """A JPEG file, not decoded yet; of another format the image, as `open_image` gives it, whose
    arguments and errors these are. Damage behind the header shows when pixels are asked for.
    """
    data, name = bytes_of(source, name)

    def header(image: ImageFile.ImageFile) -> Optional[ScalableJpeg]:
        if image.format != "JPEG":
            return None
        turned = orientation_of(image.info)
        across = turned in ACROSS
        size = (image.height, image.width) if across else image.size
        return ScalableJpeg(data, name, size, turned)

    return use_picture(data, name, header) or open_image(data, name)
