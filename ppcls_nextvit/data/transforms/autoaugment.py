"""RandAugment with timm's operations, magnitudes and configuration string
(timm/data/auto_augment.py; Cubuk et al. 2019, arXiv:1909.13719).

An operation is a pair: `level(m, sign)` turns the magnitude m in [0, 1] (1 is timm's 10) and a
random sign into the argument of `apply(image, argument, fill, resample)`, which maps a PIL image to
a PIL image.
"""

import re
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..images import Picture, as_pil
from .evaluation import PIL_FILTERS, Resizer
from .registry import TRANSFORMS

__all__ = [
    "OPERATIONS",
    "RAND_DECREASING",
    "RAND_INCREASING",
    "RAND_WEIGHTS",
    "TimmAutoAugment",
    "apply_operation",
    "parse_rand",
]

Apply = Callable[[Image.Image, Any, Any, Any], Image.Image]


def _affine(matrix: Callable) -> Apply:
    """apply() of a shear or shift: `matrix(argument, width, height)` gives Pillow's six
    coefficients (output -> input coordinates).
    """

    def apply(image: Image.Image, argument: Any, fill: Any, resample: Any) -> Image.Image:
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix(argument, *image.size),
            resample=resample,
            fillcolor=fill,
        )

    return apply


def _enhance(enhancer: Callable) -> Apply:
    return lambda image, factor, fill, resample: enhancer(image).enhance(factor)


def _solarize_add(image: Image.Image, add: int, fill: Any, resample: Any) -> Image.Image:
    table = [min(255, v + add) if v < 128 else v for v in range(256)]
    return image.point(table * 3)


def _posterize(image: Image.Image, bits: int, fill: Any, resample: Any) -> Image.Image:
    # ImageOps.posterize of newer Pillow refuses the 0 bits of magnitude 10
    mask = 0xFF00 >> bits & 0xFF
    return image.point([v & mask for v in range(256)] * 3)


class Operation(NamedTuple):
    """How a magnitude becomes an argument, and what is done with it; see the module's docstring."""

    level: Callable[[float, int], Any]
    apply: Apply


def _plain(function: Callable[[Image.Image], Image.Image]) -> Operation:
    return Operation(lambda m, sign: None, lambda image, argument, fill, resample: function(image))


def _solarize(image: Image.Image, threshold: int, fill: Any, resample: Any) -> Image.Image:
    return ImageOps.solarize(image, threshold)


def _two_sided(m: float, sign: int) -> float:
    """Enhancement factor that leaves 1 in either direction as m grows; timm keeps it at 0.1 or
    more.
    """
    return max(0.1, 1 + sign * 0.9 * m)


def _one_sided(m: float, sign: int) -> float:
    return 0.1 + 1.8 * m


OPERATIONS = {
    "AutoContrast": _plain(ImageOps.autocontrast),
    "Equalize": _plain(ImageOps.equalize),
    "Invert": _plain(ImageOps.invert),
    # degrees
    "Rotate": Operation(
        lambda m, sign: sign * 30 * m,
        lambda image, degrees, fill, resample: image.rotate(
            degrees, resample=resample, fillcolor=fill
        ),
    ),
    # bits kept
    "Posterize": Operation(lambda m, sign: int(4 * m), _posterize),
    "PosterizeIncreasing": Operation(lambda m, sign: 4 - int(4 * m), _posterize),
    # threshold
    "Solarize": Operation(lambda m, sign: min(256, int(256 * m)), _solarize),
    "SolarizeIncreasing": Operation(lambda m, sign: 256 - min(256, int(256 * m)), _solarize),
    "SolarizeAdd": Operation(lambda m, sign: min(128, int(110 * m)), _solarize_add),
    "ShearX": Operation(
        lambda m, sign: sign * 0.3 * m, _affine(lambda a, w, h: (1, a, 0, 0, 1, 0))
    ),
    "ShearY": Operation(
        lambda m, sign: sign * 0.3 * m, _affine(lambda a, w, h: (1, 0, 0, a, 1, 0))
    ),
    "TranslateXRel": Operation(
        lambda m, sign: sign * 0.45 * m, _affine(lambda a, w, h: (1, 0, a * w, 0, 1, 0))
    ),
    "TranslateYRel": Operation(
        lambda m, sign: sign * 0.45 * m, _affine(lambda a, w, h: (1, 0, 0, 0, 1, a * h))
    ),
}
for _name in ("Color", "Contrast", "Brightness", "Sharpness"):
    OPERATIONS[_name] = Operation(_one_sided, _enhance(getattr(ImageEnhance, _name)))
    OPERATIONS[_name + "Increasing"] = Operation(_two_sided, _enhance(getattr(ImageEnhance, _name)))

RAND_DECREASING = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
RAND_INCREASING = tuple(
    name + "Increasing" if name + "Increasing" in OPERATIONS else name for name in RAND_DECREASING
)
RAND_WEIGHTS = {
    "Rotate": 3,
    "ShearX": 2,
    "ShearY": 2,
    "TranslateXRel": 1,
    "TranslateYRel": 1,
    "ColorIncreasing": 0.25,
    "SharpnessIncreasing": 0.25,
    "AutoContrast": 0.25,
    "SolarizeIncreasing": 0.05,
    "SolarizeAdd": 0.05,
    "ContrastIncreasing": 0.05,
    "BrightnessIncreasing": 0.05,
    "Equalize": 0.05,
    "PosterizeIncreasing": 0.05,
    "Invert": 0.05,
}


def apply_operation(
    name: str,
    image: Image.Image,
    magnitude: float,
    sign: int = 1,
    fill: Tuple[int, ...] = (124, 116, 104),
    resample: Image.Resampling = PIL_FILTERS["bicubic"],
) -> Image.Image:
    """Operation `name` on the PIL image `image` at timm's `magnitude` (0 to 10), in the direction
    `sign` (1 or -1) where it has one.
    """
    operation = OPERATIONS[name]
    return operation.apply(image, operation.level(magnitude / 10, sign), fill, resample)


class RandConfig(NamedTuple):
    """What `parse_rand` read: operations, how many of them, how strong."""

    names: Tuple[str, ...]
    # None: drawn evenly, with replacement; else without replacement
    weights: Optional[np.ndarray]
    magnitude: float = 10.0
    magnitude_std: float = 0.0  # inf: uniform from 0 to magnitude
    magnitude_max: float = 10.0
    layers: int = 2
    probability: float = 0.5


def parse_rand(config_str: str) -> RandConfig:
    """timm's 'rand-m9-mstd0.5-inc1' as RandConfig.

    Parts after 'rand', in any order: mN magnitude, nN operations per image, pX probability of each,
    mstdX standard deviation of the magnitude (over 100: uniform), mmaxN its upper bound, inc1
    operations that grow with the magnitude, tweights weighted choice. ValueError for anything
    else.
    """
    policy, *parts = config_str.split("-")
    if policy != "rand":
        raise ValueError(
            f"config_str: {config_str!r} is not supported; expected RandAugment's 'rand-...', as "
            f"rand-m9-mstd0.5-inc1"
        )
    values = {}
    weighted = False
    for part in parts:
        match = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d+\.?\d*|\.\d+)|tweights", part)
        if not match:
            raise ValueError(
                f"config_str: {part!r} in {config_str!r} is not understood; expected m, n, p, "
                f"mstd, mmax or inc "
                "with a number, or tweights"
            )
        if part == "tweights":
            weighted = True
        else:
            values[match.group(1)] = float(match.group(2))
    std = values.get("mstd", 0.0)
    names = RAND_INCREASING if values.get("inc") else RAND_DECREASING
    weights = None
    if weighted:
        names = tuple(RAND_WEIGHTS)
        weights = np.array(list(RAND_WEIGHTS.values()), float)
        weights /= weights.sum()
    layers = int(values.get("n", 2))
    if not 1 <= layers <= len(names) or values.get("p", 0.5) > 1:
        raise ValueError(f"config_str: {config_str!r} needs 1 <= n <= {len(names)} and p <= 1")
    return RandConfig(
        names,
        weights,
        values.get("m", 10.0),
        float("inf") if std > 100 else std,
        values.get("mmax", 10.0),
        layers,
        values.get("p", 0.5),
    )


@TRANSFORMS.register
class TimmAutoAugment:
    """RandAugment as timm does it (parse_rand tells the string). Pixels without source are filled
    with `mean`. uint8 images.

    img_size is PaddleClas's key; only the absolute shifts of policies other than 'rand' would read
    it.
    """

    def __init__(
        self,
        *,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: str = "bicubic",
        img_size: Union[int, List[int]] = 224,
        mean: Tuple[float, ...] = (0.485, 0.456, 0.406),
    ):
        self.config = parse_rand(config_str)
        self.filters = [PIL_FILTERS[name] for name in Resizer(interpolation, "pil").names]
        self.fill = tuple(min(255, round(255 * x)) for x in mean)

    def __call__(self, image: Picture, rng: np.random.Generator) -> Image.Image:
        config, picture = self.config, as_pil(image)
        chosen = rng.choice(
            len(config.names), config.layers, replace=config.weights is None, p=config.weights
        )
        for i in chosen:
            if rng.random() >= config.probability:
                continue
            magnitude = self.draw_magnitude(rng)
            sign = 1 if rng.random() < 0.5 else -1
            resample = self.draw_filter(rng)
            picture = apply_operation(
                config.names[i], picture, magnitude, sign, self.fill, resample
            )
        return picture

    def draw_magnitude(self, rng: np.random.Generator) -> float:
        """The strength of one operation, 0 to magnitude_max."""
        config = self.config
        if np.isinf(config.magnitude_std):
            magnitude = rng.uniform(0, config.magnitude)
        else:
            magnitude = rng.normal(config.magnitude, config.magnitude_std)
        return float(np.clip(magnitude, 0, config.magnitude_max))

    def draw_filter(self, rng: np.random.Generator) -> Image.Resampling:
        """The interpolation of one operation."""
        if len(self.filters) == 1:
            return self.filters[0]
        return self.filters[rng.integers(len(self.filters))]
