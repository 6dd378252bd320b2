"""Joint transforms of the image's colours; annotations stay as they are."""

from typing import Tuple

import numpy as np

from ..evaluation import normalize
from ..registry import JOINT_TRANSFORMS, Sample
from .common import opencv

__all__ = ["Normalize", "PhotoMetricDistortion"]

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@JOINT_TRANSFORMS.register
class PhotoMetricDistortion:
    """Brightness, contrast, saturation and hue (degrees / 2), each changed in half of the cases;
    contrast before or after the other two.

    In bytes, as mmsegmentation does: every step is cut to 0..255 and truncated.
    """

    random = True

    def __init__(
        self,
        *,
        brightness_delta: int = 32,
        contrast_range: Tuple[float, ...] = (0.5, 1.5),
        saturation_range: Tuple[float, ...] = (0.5, 1.5),
        hue_delta: int = 18,
    ):
        if any(
            len(values) != 2 or not 0 <= values[0] <= values[1]
            for values in (contrast_range, saturation_range)
        ):
            raise ValueError(
                f"contrast_range and saturation_range: expected [low, high], got "
                f"{list(contrast_range)} and {list(saturation_range)}"
            )
        if brightness_delta < 0 or not 0 < hue_delta <= 90:
            raise ValueError(
                f"expected brightness_delta >= 0 and hue_delta from 1 to 90, got "
                f"{brightness_delta} and {hue_delta}"
            )
        self.brightness = brightness_delta
        self.contrast = contrast_range[0], contrast_range[1]
        self.saturation = saturation_range[0], saturation_range[1]
        self.hue = hue_delta

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        cv2, image = opencv(), sample["image"]

        def happens() -> bool:
            return rng.integers(2) == 1

        def contrast(image: np.ndarray) -> np.ndarray:
            return scaled(image, alpha=rng.uniform(*self.contrast)) if happens() else image

        if happens():
            image = scaled(image, beta=rng.uniform(-self.brightness, self.brightness))
        contrast_first = happens()
        if contrast_first:
            image = contrast(image)
        if happens():
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[:, :, 1] = scaled(hsv[:, :, 1], alpha=rng.uniform(*self.saturation))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if happens():
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + rng.integers(-self.hue, self.hue)) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return {**sample, "image": image if contrast_first else contrast(image)}


def scaled(pixels: np.ndarray, alpha: float = 1.0, beta: float = 0.0) -> np.ndarray:
    """pixels * alpha + beta, cut to 0..255 and truncated to bytes."""
    values = pixels.astype(np.float32) * np.float32(alpha) + np.float32(beta)
    return np.clip(values, 0, 255).astype(np.uint8)


@JOINT_TRANSFORMS.register
class Normalize:
    """(image - mean) / std per channel (RGB, in units of 0 to 255), in float32."""

    random = False

    def __init__(self, *, mean: Tuple[float, ...] = MEAN, std: Tuple[float, ...] = STD):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"mean and std need three values each, those of std above 0; got "
                f"mean={list(mean)}, std={list(std)}"
            )
        self.mean, self.std = mean, std

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return {**sample, "image": normalize(sample["image"], 1.0, self.mean, self.std)}
