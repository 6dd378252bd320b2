"""The random transforms of training that change pixels where they are: colours, erased rectangles.
`transform(image, rng)` with a numpy Generator; names and keys are PaddleClas's.
"""

import math
from typing import Literal, Sequence, Tuple

import numpy as np
from PIL import Image, ImageEnhance

from ..images import Picture, as_array, as_pil
from .registry import TRANSFORMS

__all__ = ["erase"]


@TRANSFORMS.register
class ColorJitter:
    """Brightness, contrast, saturation (factors uniform in 1 -+ value) and hue (a shift uniform in
    -+ value turns, at most 0.5), in random order, with probability `prob`. As torchvision's.
    """

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

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        if rng.random() >= self.prob:
            return image
        picture = as_pil(image)
        for i in rng.permutation(4):
            if i == 3 and self.hue:
                turn = int(rng.uniform(-self.hue, self.hue) * 255) % 256
                picture = shifted_hue(picture, turn)
            elif i < 3 and self.ranges[i][1]:
                enhancer, strength = self.ranges[i]
                factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
                picture = enhancer(picture).enhance(factor)
        return picture


def shifted_hue(image: Image.Image, turn: int) -> Image.Image:
    """`image` with its hue turned by `turn` 256ths."""
    h, s, v = image.convert("HSV").split()
    # uint8 wraps round
    turned = Image.fromarray(np.asarray(h) + np.uint8(turn))
    return Image.merge("HSV", (turned, s, v)).convert("RGB")


def erase(
    image: np.ndarray,
    area: Tuple[float, float],
    ratio: float,
    attempts: int,
    mode: Literal["const", "rand", "pixel"],
    mean: Sequence[float],
    rng: np.random.Generator,
    log_aspect: bool = True,
    share: int = 1,
) -> None:
    """Fill one random rectangle of the float image [H, W, C] in place. Nothing happens if none of
    the attempts fits.

    area: (low, high) share of the image's area, divided by `share`; ratio: smallest height / width,
    the largest is its inverse.
    mode: 'pixel' unit normal noise, 'rand' one normal colour, 'const' the colour `mean`.
    """
    height, width, _ = image.shape
    bounds = (math.log(ratio), -math.log(ratio)) if log_aspect else (ratio, 1 / ratio)
    for _ in range(attempts):
        target = rng.uniform(*area) * height * width / share
        aspect = rng.uniform(*bounds)
        aspect = math.exp(aspect) if log_aspect else aspect
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            part = image[top : top + h, left : left + w]
            part[:] = _filling(part.shape, mode, mean, rng)
            return


def _filling(
    shape: Tuple[int, ...], mode: str, mean: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """What `erase` puts into a rectangle of `shape` [h, w, channels]."""
    if mode == "const":
        return np.asarray(mean[: shape[2]], np.float32)
    h, w, channels = shape
    drawn = (channels, h, w) if mode == "pixel" else (channels, 1, 1)
    return rng.standard_normal(drawn, np.float32).transpose(1, 2, 0)


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
        mean: Tuple[float, ...] = (0.0, 0.0, 0.0),
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
                f"EPSILON={EPSILON}, sl={sl}, sh={sh}, r1={r1}, max_count={max_count}, "
                f"mean={list(mean)}"
            )
        self.probability = EPSILON
        self.area = (sl, sh)
        self.ratio = r1
        self.mean = mean
        self.attempts = attempt
        self.log_aspect = use_log_aspect
        self.mode = mode
        self.max_count = max_count

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        if rng.random() >= self.probability:
            return image
        pixels = as_array(image)
        if pixels.dtype != np.float32:
            raise ValueError("RandomErasing needs normalised pixels; put NormalizeImage before it")
        count = int(rng.integers(1, self.max_count + 1))
        for _ in range(count):
            erase(
                pixels,
                self.area,
                self.ratio,
                self.attempts,
                self.mode,
                self.mean,
                rng,
                self.log_aspect,
                share=count,
            )
        return pixels
