"""The random transforms of training that move pixels: crops, mirroring, padding.
`transform(image, rng)` with a numpy Generator; names and keys are PaddleClas's.
"""

import math
from typing import List, Literal, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageOps

from ..images import Picture, as_pil, size_of
from ..scaled import Box, ScalableJpeg
from .evaluation import Backend, Resizer, Size, crop, pair
from .registry import TRANSFORMS

__all__ = ["random_resized_box"]


def _ordered(name: str, values: Sequence[float]) -> Tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ValueError(f"{name}: expected [low, high] with 0 < low <= high, got {list(values)}")
    return values[0], values[1]


def random_resized_box(
    width: int,
    height: int,
    scale: Tuple[float, float],
    ratio: Tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """(left, top, width, height) of a rectangle with a share of the area in `scale` and width /
    height in `ratio` (log-uniform).

    As torchvision and timm: ten attempts, then the largest central rectangle whose ratio is in
    range.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = rng.uniform(*scale) * width * height
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random_box(width, height, w, h, rng)
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def random_box(width: int, height: int, w: int, h: int, rng: np.random.Generator) -> Box:
    """A rectangle of w x h pixels anywhere in an image of width x height."""
    left = int(rng.integers(width - w + 1))
    top = int(rng.integers(height - h + 1))
    return left, top, w, h


@TRANSFORMS.register
class RandomResizedCrop:
    """A random part of the image, resized to `size` = [height, width]: timm's and torchvision's,
    which the official recipe uses.
    """

    def __init__(
        self,
        *,
        size: Size,
        scale: Tuple[float, ...] = (0.08, 1.0),
        ratio: Tuple[float, ...] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        backend: Backend = "pil",
    ):
        self.height, self.width = pair(size)
        self.scale = _ordered("scale", scale)
        self.ratio = _ordered("ratio", ratio)
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image: Union[Picture, ScalableJpeg], rng: np.random.Generator) -> Picture:
        width, height = size_of(image)
        box = random_resized_box(width, height, self.scale, self.ratio, rng)
        return self.resizer.part(image, box, (self.width, self.height), rng)


@TRANSFORMS.register
class RandCropImage:
    """A random part of the image, resized to `size` = [width, height], drawn as PaddleClas does:
    one draw, no second attempt.

    It differs from RandomResizedCrop in two ways: the aspect ratio is uniform (unless
    use_log_aspect), and an area too large for the drawn
    ratio is cut to what fits. Without `backend: pil` OpenCV resizes, as in PaddleClas.
    """

    def __init__(
        self,
        *,
        size: Size,
        scale: Optional[List[float]] = None,
        ratio: Optional[List[float]] = None,
        interpolation: str = "bilinear",
        use_log_aspect: bool = False,
        backend: Backend = "cv2",
    ):
        self.size = pair(size)
        self.scale = _ordered("scale", scale or (0.08, 1.0))
        self.ratio = _ordered("ratio", ratio or (3 / 4, 4 / 3))
        self.log_aspect = use_log_aspect
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image: Union[Picture, ScalableJpeg], rng: np.random.Generator) -> Picture:
        width, height = size_of(image)
        aspect = (
            math.exp(rng.uniform(*np.log(self.ratio)))
            if self.log_aspect
            else rng.uniform(*self.ratio)
        )
        # share of the area that this ratio can cover
        largest = min(width / height / aspect, height / width * aspect)
        share = rng.uniform(min(self.scale[0], largest), min(self.scale[1], largest))
        area = width * height * share
        w = min(width, max(1, int(math.sqrt(area * aspect))))
        h = min(height, max(1, int(math.sqrt(area / aspect))))
        box = random_box(width, height, w, h, rng)
        return self.resizer.part(image, box, self.size, rng)


@TRANSFORMS.register
class RandCropImageV2:
    """A random `size` = [width, height] rectangle, not resized. ValueError for an image that is
    smaller (put Pad or ResizeImage before).
    """

    def __init__(self, *, size: Size):
        self.width, self.height = pair(size)

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        width, height = size_of(image)
        if width < self.width or height < self.height:
            raise ValueError(
                f"the image is {width} x {height}, smaller than the crop of {self.width} x "
                f"{self.height}"
            )
        return crop(image, random_box(width, height, self.width, self.height, rng))


def flip(image: Picture, code: int) -> Picture:
    """Mirrored along x (code 1), y (0) or both (-1)."""
    if isinstance(image, Image.Image):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if code else image
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if code < 1 else image
    image = image[:, ::-1] if code else image
    return image[::-1] if code < 1 else image


@TRANSFORMS.register
class RandFlipImage:
    """Mirrored in half of the cases: flip_code 1 left to right, 0 top to bottom, -1 both."""

    def __init__(self, *, flip_code: Literal[-1, 0, 1] = 1):
        self.code = flip_code

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        return flip(image, self.code) if rng.random() < 0.5 else image


@TRANSFORMS.register
class RandomHorizontalFlip:
    """Mirrored left to right with probability `prob`."""

    def __init__(self, *, prob: float = 0.5):
        self.prob = prob

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        return flip(image, 1) if rng.random() < self.prob else image


@TRANSFORMS.register
class Pad:
    """`padding` pixels of the value `fill` on all four sides."""

    def __init__(
        self,
        *,
        padding: int,
        fill: int = 0,
        padding_mode: Literal["constant"] = "constant",
        backend: Backend = "pil",
    ):
        if padding < 0 or not 0 <= fill <= 255:
            raise ValueError(
                f"expected padding >= 0 and fill from 0 to 255, got {padding} and {fill}"
            )
        self.padding, self.fill = padding, fill

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        return ImageOps.expand(as_pil(image), self.padding, (self.fill,) * 3)
