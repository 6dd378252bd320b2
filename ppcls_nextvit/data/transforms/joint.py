"""Transforms of an image together with what is drawn on it (boxes, masks, label maps), and what
sets of such images share.

A sample is a dict; `transform(sample, rng)` returns another, rng being a numpy Generator. Its keys,
where H, W are the image's:

    image         uint8 [H, W, 3], RGB; float32 after Normalize
    boxes         float32 [N, 4]: left, top, right, bottom in pixels; labels int64 [N]; masks uint8 [N, H, W], 0 or 1    (detection)
    ignore_boxes  float32 [M, 4]: crowds                                                                                 (detection)
    segmentation  uint8 [H, W], IGNORE where nothing is to be learnt                                                     (segmentation)
    scale         (y, x): resized by these factors; flip: whether mirrored; shape: (height, width) before padding

The transforms do what those of the same names do in mmdetection 2 and mmsegmentation 0.x, on whose
recipes the published weights were trained; a draw has the same distribution, not the same bits.
Pixels are OpenCV's (extra `cv2`).
"""

from typing import List, Literal, Optional, Union

import numpy as np

from ...schema import ConfigError, Registry, named_entries
from ..images import ImageError
from .evaluation import normalize

__all__ = [
    "DENSE_TRANSFORMS",
    "DensePipeline",
    "IGNORE",
    "counted_pixels",
    "fixed_pipeline",
    "rescaled_size",
]


DENSE_TRANSFORMS = Registry("transform of detection and segmentation")
IGNORE = 255  # the label of a pixel that neither loss nor metric counts
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def opencv():
    """The module cv2. ImportError names the extra."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "detection and segmentation need OpenCV, whose pixels the recipes were trained on: "
            "install ppcls_nextvit[cv2]"
        ) from error
    return cv2


def rescaled_size(height, width, scale):
    """(height, width) of the largest image within `scale`, in proportion: long side at most
    max(scale), short side at most min(scale).
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


@DENSE_TRANSFORMS.register
class Resize:
    """To the largest size within `scale` = [longer, shorter side] in proportion; without keep_ratio
    to [width, height].

    With several scales one is drawn (multiscale_mode value), or both sides between the extremes of
    two scales (range). With ratio_range = [low, high] the one scale is multiplied by a factor drawn
    from it. Boxes are cut to the image.
    """

    def __init__(
        self,
        *,
        scale: Union[List[int], List[List[int]]],
        ratio_range: Optional[List[float]] = None,
        multiscale_mode: Literal["value", "range"] = "value",
        keep_ratio: bool = True,
    ):
        self.scales = [scale] if scale and isinstance(scale[0], int) else scale
        if not self.scales or any(len(one) != 2 or min(one) < 1 for one in self.scales):
            raise ValueError(
                f"scale: expected [longer, shorter side] or a list of such pairs, 1 or more; got "
                f"{scale}"
            )
        if multiscale_mode == "range" and len(self.scales) != 2:
            raise ValueError(f"multiscale_mode: range needs two scales, got {scale}")
        if ratio_range is not None and (
            len(self.scales) > 1
            or len(ratio_range) != 2
            or not 0 < ratio_range[0] <= ratio_range[1]
        ):
            raise ValueError(
                f"ratio_range: expected [low, high] with 0 < low <= high and a single scale; got "
                f"{ratio_range} and {scale}"
            )
        self.ratio_range, self.between, self.keep_ratio = (
            ratio_range,
            multiscale_mode == "range",
            keep_ratio,
        )
        self.random = len(self.scales) > 1 or ratio_range is not None
        opencv()

    def pixels(self, before):
        """At most so many pixels has an image after this."""
        return (
            max(a * b for a, b in self.scales)
            * (self.ratio_range[1] if self.ratio_range else 1) ** 2
        )

    def draw(self, rng):
        """The scale for one image."""
        if self.ratio_range is not None:
            factor = rng.uniform(*self.ratio_range)
            return [int(side * factor) for side in self.scales[0]]
        if self.between:
            return [
                int(rng.integers(min(sides), max(sides) + 1))
                for sides in zip(*(sorted(scale)[::-1] for scale in self.scales))
            ]
        return (
            self.scales[rng.integers(len(self.scales))] if len(self.scales) > 1 else self.scales[0]
        )

    def __call__(self, sample, rng):
        cv2, (old_height, old_width) = opencv(), sample["image"].shape[:2]
        scale = self.draw(rng)
        height, width = (
            rescaled_size(old_height, old_width, scale) if self.keep_ratio else scale[::-1]
        )
        y, x = height / old_height, width / old_width

        def nearest(pixels):
            return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)

        result = {
            **sample,
            "image": cv2.resize(sample["image"], (width, height), interpolation=cv2.INTER_LINEAR),
            "scale": (sample["scale"][0] * y, sample["scale"][1] * x),
        }
        for key in sample.keys() & {"boxes", "ignore_boxes"}:
            result[key] = clipped(sample[key] * np.float32([x, y, x, y]), height, width)
        if "masks" in sample:
            result["masks"] = np.array(
                [nearest(mask) for mask in sample["masks"]], np.uint8
            ).reshape(-1, height, width)
        if "segmentation" in sample:
            result["segmentation"] = nearest(sample["segmentation"])
        return result


def clipped(boxes, height, width):
    """`boxes` cut to an image of that size."""
    return np.clip(boxes, 0, np.float32([width, height, width, height]))


@DENSE_TRANSFORMS.register
class RandomFlip:
    """Mirrored left to right with probability `prob`."""

    random = True

    def __init__(self, *, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: expected 0 to 1, got {prob}")
        self.prob = prob

    def __call__(self, sample, rng):
        if rng.random() >= self.prob:
            return sample
        width = sample["image"].shape[1]
        result = {
            **sample,
            "image": np.ascontiguousarray(sample["image"][:, ::-1]),
            "flip": not sample["flip"],
        }
        for key in sample.keys() & {"boxes", "ignore_boxes"}:
            left, top, right, bottom = sample[key].T
            result[key] = np.stack([width - right, top, width - left, bottom], axis=1)
        for key in sample.keys() & {"masks", "segmentation"}:
            result[key] = np.ascontiguousarray(sample[key][..., ::-1])
        return result


@DENSE_TRANSFORMS.register
class RandomCrop:
    """A random part of `size` = [height, width], or as much of it as the image has.

    crop_type absolute_range: height and width are each drawn between the two numbers of `size`.
    Objects outside are dropped, boxes cut; an image without objects may remain (mmdetection's
    allow_negative_crop: True). cat_max_ratio: another part is drawn, up to ten times, while a
    single label has that share or more of the pixels that are not IGNORE.
    """

    random = True

    def __init__(
        self,
        *,
        size: List[int],
        crop_type: Literal["absolute", "absolute_range"] = "absolute",
        cat_max_ratio: float = 1.0,
    ):
        if len(size) != 2 or min(size) < 1 or (crop_type == "absolute_range" and size[0] > size[1]):
            raise ValueError(
                f"size: expected [height, width], for absolute_range [smallest, largest], 1 or "
                f"more; got {size}"
            )
        if not 0 < cat_max_ratio <= 1:
            raise ValueError(f"cat_max_ratio: expected above 0 and at most 1, got {cat_max_ratio}")
        self.size, self.between, self.cat_max_ratio = (
            size,
            crop_type == "absolute_range",
            cat_max_ratio,
        )

    def pixels(self, before):
        """At most so many pixels has an image of `before` pixels afterwards."""
        return min(before, self.size[1] * (self.size[1] if self.between else self.size[0]))

    def __call__(self, sample, rng):
        height, width = sample["image"].shape[:2]
        h, w = min(self.size[0], height), min(self.size[1], width)
        if self.between:
            h, w = (
                int(rng.integers(min(side, self.size[0]), min(side, self.size[1]) + 1))
                for side in (height, width)
            )

        def draw():
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))

        top, left = draw()
        if self.cat_max_ratio < 1 and "segmentation" in sample:
            for _ in range(10):
                if self.is_mixed(sample["segmentation"][top : top + h, left : left + w]):
                    break
                top, left = draw()
        part = np.s_[..., top : top + h, left : left + w]
        result = {**sample, "image": sample["image"][part[1:]]}
        for key in sample.keys() & {"boxes", "ignore_boxes"}:
            result[key] = clipped(sample[key] - np.float32([left, top, left, top]), h, w)
        for key in sample.keys() & {"masks", "segmentation"}:
            result[key] = sample[key][part]
        for boxes, others in (("boxes", ("labels", "masks")), ("ignore_boxes", ())):
            if boxes in sample:
                inside = (result[boxes][:, 2:] > result[boxes][:, :2]).all(axis=1)
                result.update(
                    {key: result[key][inside] for key in (boxes, *others) if key in result}
                )
        return result

    def is_mixed(self, labels):
        """Whether no label has `cat_max_ratio` or more of the counted pixels."""
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
        return np.count_nonzero(counts) > 1 and counts.max() < self.cat_max_ratio * counts.sum()


@DENSE_TRANSFORMS.register
class AutoAugment:
    """One of the `policies`, each a list of transforms, drawn with equal chances."""

    random = True

    def __init__(self, *, policies: List[list]):
        if not policies:
            raise ValueError("policies: expected one or more lists of transforms, got none")
        self.policies = [
            DensePipeline(policy, f"AutoAugment.policies.{i}") for i, policy in enumerate(policies)
        ]

    def pixels(self, before):
        """At most so many pixels has an image of `before` pixels after any of the policies."""
        return max(policy.pixels(before) for policy in self.policies)

    def __call__(self, sample, rng):
        return self.policies[rng.integers(len(self.policies))].apply(sample, rng)


@DENSE_TRANSFORMS.register
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
        contrast_range: List[float] = (0.5, 1.5),
        saturation_range: List[float] = (0.5, 1.5),
        hue_delta: int = 18,
    ):
        if any(
            len(values) != 2 or not 0 <= values[0] <= values[1]
            for values in (contrast_range, saturation_range)
        ):
            raise ValueError(
                f"contrast_range and saturation_range: expected [low, high], got {contrast_range} "
                f"and {saturation_range}"
            )
        if brightness_delta < 0 or not 0 < hue_delta <= 90:
            raise ValueError(
                f"expected brightness_delta >= 0 and hue_delta from 1 to 90, got "
                f"{brightness_delta} and {hue_delta}"
            )
        self.brightness, self.contrast = brightness_delta, contrast_range
        self.saturation, self.hue = saturation_range, hue_delta

    def __call__(self, sample, rng):
        cv2, image = opencv(), sample["image"]

        def happens():
            return rng.integers(2) == 1

        def contrast(image):
            return changed(image, alpha=rng.uniform(*self.contrast)) if happens() else image

        if happens():
            image = changed(image, beta=rng.uniform(-self.brightness, self.brightness))
        contrast_first = happens()
        if contrast_first:
            image = contrast(image)
        if happens():
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[:, :, 1] = changed(hsv[:, :, 1], alpha=rng.uniform(*self.saturation))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if happens():
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + rng.integers(-self.hue, self.hue)) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return {**sample, "image": image if contrast_first else contrast(image)}


def changed(pixels, alpha=1.0, beta=0.0):
    """pixels * alpha + beta, cut to 0..255 and truncated to bytes."""
    return np.clip(pixels.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(
        np.uint8
    )


@DENSE_TRANSFORMS.register
class Normalize:
    """(image - mean) / std per channel (RGB, in units of 0 to 255), in float32."""

    random = False

    def __init__(self, *, mean: List[float] = MEAN, std: List[float] = STD):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"mean and std need three values each, those of std above 0; got mean={mean}, "
                f"std={std}"
            )
        self.mean, self.std = mean, std

    def __call__(self, sample, rng):
        return {**sample, "image": normalize(sample["image"], 1.0, self.mean, self.std)}


@DENSE_TRANSFORMS.register
class Pad:
    """Zeros (labels: IGNORE) added at the right and at the bottom, up to `size` = [height, width]
    or to multiples of `size_divisor`.

    A larger image stays. After Normalize, zero is the mean colour.
    """

    random = False

    def __init__(self, *, size: Optional[List[int]] = None, size_divisor: Optional[int] = None):
        if (size is None) == (size_divisor is None):
            raise ValueError(f"give either size or size_divisor, got {size} and {size_divisor}")
        if min(size or [size_divisor]) < 1 or (size and len(size) != 2):
            raise ValueError(
                f"expected size = [height, width] or size_divisor, 1 or more; got "
                f"{size or size_divisor}"
            )
        self.size, self.divisor = size, size_divisor

    def __call__(self, sample, rng):
        shape = sample["image"].shape[:2]
        target = (
            [-(-side // self.divisor) * self.divisor for side in shape]
            if self.divisor
            else [*map(max, shape, self.size)]
        )
        result = {
            **sample,
            "shape": shape,
            "image": padded(sample["image"].transpose(2, 0, 1), target).transpose(1, 2, 0),
        }
        for key, fill in (("masks", 0), ("segmentation", IGNORE)):
            if key in sample:
                result[key] = padded(sample[key], target, fill)
        return result


def padded(array, shape, fill=0):
    """`array` [..., h, w] in the upper left corner of one of [..., *shape]."""
    height, width = array.shape[-2:]
    if (height, width) == tuple(shape):
        return array
    result = np.full((*array.shape[:-2], *shape), fill, array.dtype)
    result[..., :height, :width] = array
    return result


class DensePipeline:
    """A list of transforms, [{name: {key: value}}, ...]: `pipeline(sample, rng, name)` -> sample.
    ConfigError names `where`.

    random: whether chance has a part in it.
    """

    def __init__(self, transform_ops, where="transform_ops"):
        self.transforms = [
            (name, DENSE_TRANSFORMS.build(name, arguments, place))
            for name, arguments, place in named_entries(transform_ops, where)
        ]
        self.random = any(transform.random for _, transform in self.transforms)
        names = [name for name, _ in self.transforms]
        for later in ("Resize", "PhotoMetricDistortion", "AutoAugment"):
            if "Normalize" in names and later in names[names.index("Normalize") :]:
                raise ConfigError(f"{where}: {later} needs uint8 pixels; put it before Normalize")
        if "Pad" in names[:-1] and any(
            name not in ("Pad", "Normalize") for name in names[names.index("Pad") :]
        ):
            raise ConfigError(
                f"{where}: Pad must come last (but for Normalize), or the padding would be taken "
                f"for a part of the image"
            )

    def pixels(self, before):
        """At most about so many pixels has an image of `before` pixels afterwards."""
        for _, transform in self.transforms:
            before = transform.pixels(before) if hasattr(transform, "pixels") else before
        return before

    def apply(self, sample, rng):
        """The transformed sample, keys and shapes as in the module's docstring. ValueError for what
        a transform cannot take.
        """
        for _, transform in self.transforms:
            sample = transform(sample, rng)
        return sample

    def __call__(self, sample, rng, name):
        """The transformed sample. ImageError, beginning with `name`, for a sample that a transform
        cannot take.
        """
        try:
            return self.apply(sample, rng)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error


def counted_pixels(label, ignore_index):
    """label: integers, an array or tensor [..., H, W] -> bool: neither IGNORE, with which the
    transforms pad, nor `ignore_index`.
    """
    return (label != ignore_index) & (label != IGNORE)


def fixed_pipeline(transform_ops, where):
    """The DensePipeline of evaluation or prediction. ConfigError if chance has a part in it."""
    pipeline = DensePipeline(transform_ops, where)
    if pipeline.random:
        raise ConfigError(
            f"{where}: evaluation and prediction leave nothing to chance; keep Resize to one "
            f"scale, Normalize and Pad"
        )
    return pipeline
