"""The random transforms of training: `transform(image, rng)` with a numpy Generator. Names and keys
are PaddleClas's.

They enter the registry TRANSFORMS beside those of ppcls_nextvit.preprocess, whose module docstring
says what an image is.
"""

import math
from typing import List, Literal, Optional

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..images import as_array, as_pil, size_of
from .evaluation import TRANSFORMS, Backend, Resizer, Size, pair

__all__ = ["erase", "random_resized_box"]


def crop(image, left, top, width, height):
    """That rectangle of a PIL image or an array [H, W, 3]."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def _ordered(name, values):
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ValueError(f"{name}: expected [low, high] with 0 < low <= high, got {values}")
    return tuple(values)


def random_resized_box(width, height, scale, ratio, rng):
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
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


@TRANSFORMS.register
class RandomResizedCrop:
    """A random part of the image, resized to `size` = [height, width]: timm's and torchvision's,
    which the official recipe uses.
    """

    def __init__(
        self,
        *,
        size: Size,
        scale: List[float] = (0.08, 1.0),
        ratio: List[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        backend: Backend = "pil",
    ):
        self.height, self.width = pair(size)
        self.scale, self.ratio = _ordered("scale", scale), _ordered("ratio", ratio)
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image, rng):
        box = random_resized_box(*size_of(image), self.scale, self.ratio, rng)
        return self.resizer(crop(image, *box), (self.width, self.height), rng)


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
        self.scale, self.ratio = (
            _ordered("scale", scale or (0.08, 1.0)),
            _ordered("ratio", ratio or (3 / 4, 4 / 3)),
        )
        self.log_aspect = use_log_aspect
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image, rng):
        width, height = size_of(image)
        aspect = (
            math.exp(rng.uniform(*np.log(self.ratio)))
            if self.log_aspect
            else rng.uniform(*self.ratio)
        )
        # share of the area that this ratio can cover
        largest = min(width / height / aspect, height / width * aspect)
        area = (
            width * height * rng.uniform(min(self.scale[0], largest), min(self.scale[1], largest))
        )
        w = min(width, max(1, int(math.sqrt(area * aspect))))
        h = min(height, max(1, int(math.sqrt(area / aspect))))
        box = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
        return self.resizer(crop(image, *box), self.size, rng)


@TRANSFORMS.register
class RandCropImageV2:
    """A random `size` = [width, height] rectangle, not resized. ValueError for an image that is
    smaller (put Pad or ResizeImage before).
    """

    def __init__(self, *, size: Size):
        self.width, self.height = pair(size)

    def __call__(self, image, rng):
        width, height = size_of(image)
        if width < self.width or height < self.height:
            raise ValueError(
                f"the image is {width} x {height}, smaller than the crop of {self.width} x "
                f"{self.height}"
            )
        left, top = (
            int(rng.integers(width - self.width + 1)),
            int(rng.integers(height - self.height + 1)),
        )
        return crop(image, left, top, self.width, self.height)


def flip(image, code):
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

    def __call__(self, image, rng):
        return flip(image, self.code) if rng.random() < 0.5 else image


@TRANSFORMS.register
class RandomHorizontalFlip:
    """Mirrored left to right with probability `prob`."""

    def __init__(self, *, prob: float = 0.5):
        self.prob = prob

    def __call__(self, image, rng):
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

    def __call__(self, image, rng):
        return ImageOps.expand(as_pil(image), self.padding, (self.fill,) * 3)


@TRANSFORMS.register
class ColorJitter:
    """Brightness, contrast, saturation (factors uniform in 1 -+ value) and hue (a shift uniform in
    -+ value turns, at most 0.5),

    in random order, with probability `prob`. As torchvision's."""

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ):
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise ValueError(
                f"expected values of 0 or more, hue up to 0.5; got {brightness}, {contrast}, "
                f"{saturation}, hue {hue}"
            )
        self.ranges = (
            (ImageEnhance.Brightness, brightness),
            (ImageEnhance.Contrast, contrast),
            (ImageEnhance.Color, saturation),
        )
        self.hue, self.prob = hue, prob

    def __call__(self, image, rng):
        if rng.random() >= self.prob:
            return image
        image = as_pil(image)
        for i in rng.permutation(4):
            if i == 3 and self.hue:
                h, s, v = image.convert("HSV").split()
                shift = np.uint8(int(rng.uniform(-self.hue, self.hue) * 255) % 256)
                # uint8 wraps round
                image = Image.merge("HSV", (Image.fromarray(np.asarray(h) + shift), s, v)).convert(
                    "RGB"
                )
            elif i < 3 and self.ranges[i][1]:
                enhancer, strength = self.ranges[i]
                image = enhancer(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
        return image


def erase(image, area, ratio, attempts, mode, mean, rng, log_aspect=True, share=1):
    """Fill one random rectangle of the float image [H, W, 3] in place. Nothing happens if none of
    the attempts fits.

    area: (low, high) share of the image's area, divided by `share`; ratio: smallest height / width,
    the largest is its inverse.
    mode: 'pixel' unit normal noise, 'rand' one normal colour, 'const' the colour `mean`.
    """
    height, width, channels = image.shape
    bounds = (math.log(ratio), -math.log(ratio)) if log_aspect else (ratio, 1 / ratio)
    for _ in range(attempts):
        target = rng.uniform(*area) * height * width / share
        aspect = rng.uniform(*bounds)
        aspect = math.exp(aspect) if log_aspect else aspect
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            shape = {"pixel": (channels, h, w), "rand": (channels, 1, 1), "const": None}[mode]
            fill = (
                np.asarray(mean, np.float32)
                if shape is None
                else rng.standard_normal(shape, np.float32).transpose(1, 2, 0)
            )
            image[top : top + h, left : left + w] = fill
            return


@TRANSFORMS.register
class RandomErasing:
    """With probability EPSILON, rectangles of the normalised image are replaced (Zhong et al. 2017,
    arXiv:1708.04896; `erase`).

    sl, sh: smallest and largest share of the area; r1: smallest aspect ratio; max_count: up to so
    many rectangles, the area divided among them, as timm's recount. The defaults are PaddleClas's;
    timm's recipe is EPSILON 0.25, sl 0.02, sh 1/3, r1 0.3, attempt 10, use_log_aspect, mode pixel.
    """

    def __init__(
        self,
        *,
        EPSILON: float = 0.5,
        sl: float = 0.02,
        sh: float = 0.4,
        r1: float = 0.3,
        mean: List[float] = (0.0, 0.0, 0.0),
        attempt: int = 100,
        use_log_aspect: bool = False,
        mode: Literal["const", "rand", "pixel"] = "const",
        max_count: int = 1,
    ):
        if not (
            0 <= EPSILON <= 1
            and 0 < sl <= sh <= 1
            and 0 < r1 <= 1
            and max_count >= 1
            and len(mean) == 3
        ):
            raise ValueError(
                "expected EPSILON in [0, 1], 0 < sl <= sh <= 1, 0 < r1 <= 1, max_count >= 1 and "
                "three values of mean; got "
                f"EPSILON={EPSILON}, sl={sl}, sh={sh}, r1={r1}, max_count={max_count}, mean={mean}"
            )
        self.probability, self.area, self.ratio, self.mean = EPSILON, (sl, sh), r1, mean
        self.attempts, self.log_aspect, self.mode, self.max_count = (
            attempt,
            use_log_aspect,
            mode,
            max_count,
        )

    def __call__(self, image, rng):
        if rng.random() >= self.probability:
            return image
        image = as_array(image)
        if image.dtype != np.float32:
            raise ValueError("RandomErasing needs normalised pixels; put NormalizeImage before it")
        count = int(rng.integers(1, self.max_count + 1))
        for _ in range(count):
            erase(
                image,
                self.area,
                self.ratio,
                self.attempts,
                self.mode,
                self.mean,
                rng,
                self.log_aspect,
                share=count,
            )
        return image
