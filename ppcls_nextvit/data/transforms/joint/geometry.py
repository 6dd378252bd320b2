"""Joint transforms that move pixels, with boxes, masks and labels: resizing, mirroring, cropping,
padding.
"""

from typing import List, Literal, Optional, Sequence, Tuple, Union

import numpy as np

from ..registry import JOINT_TRANSFORMS, Sample
from .common import IGNORE, opencv, padded

__all__ = ["Pad", "RandomCrop", "RandomFlip", "Resize", "rescaled_size"]

BOXES = {"boxes", "ignore_boxes"}


def rescaled_size(height: int, width: int, scale: Sequence[int]) -> Tuple[int, int]:
    """(height, width) of the largest image within `scale`, in proportion: long side at most
    max(scale), short side at most min(scale).
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """`boxes` [N, 4] cut to an image of that size."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


@JOINT_TRANSFORMS.register
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
        self.scales = _scales(scale)
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
        self.ratio_range = ratio_range and (ratio_range[0], ratio_range[1])
        self.between = multiscale_mode == "range"
        self.keep_ratio = keep_ratio
        self.random = len(self.scales) > 1 or ratio_range is not None
        opencv()

    def max_pixels(self, before: float) -> float:
        """Upper bound on the image's pixel count after this transform."""
        factor = self.ratio_range[1] if self.ratio_range else 1
        return max(a * b for a, b in self.scales) * factor**2

    def draw(self, rng: np.random.Generator) -> List[int]:
        """The scale for one image."""
        if self.ratio_range is not None:
            factor = rng.uniform(*self.ratio_range)
            return [int(side * factor) for side in self.scales[0]]
        if self.between:
            longest_first = [sorted(scale, reverse=True) for scale in self.scales]
            return [int(rng.integers(min(sides), max(sides) + 1)) for sides in zip(*longest_first)]
        if len(self.scales) > 1:
            return self.scales[rng.integers(len(self.scales))]
        return self.scales[0]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        cv2 = opencv()
        old_height, old_width = sample["image"].shape[:2]
        scale = self.draw(rng)
        height, width = (
            rescaled_size(old_height, old_width, scale) if self.keep_ratio else scale[::-1]
        )
        y, x = height / old_height, width / old_width

        def nearest(pixels: np.ndarray) -> np.ndarray:
            return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)

        result = {
            **sample,
            "image": cv2.resize(sample["image"], (width, height), interpolation=cv2.INTER_LINEAR),
            "scale": (sample["scale"][0] * y, sample["scale"][1] * x),
        }
        factors = np.array([x, y, x, y], np.float32)
        for key in sample.keys() & BOXES:
            result[key] = clipped(sample[key] * factors, height, width)
        if "masks" in sample:
            masks = [nearest(mask) for mask in sample["masks"]]
            result["masks"] = np.array(masks, np.uint8).reshape(-1, height, width)
        if "segmentation" in sample:
            result["segmentation"] = nearest(sample["segmentation"])
        return result


def _scales(scale: Union[List[int], List[List[int]]]) -> List[List[int]]:
    """One scale or a list of them as a list of pairs. ValueError for anything else."""
    numbers = [side for side in scale if isinstance(side, int)]
    pairs = [one for one in scale if not isinstance(one, int)]
    scales = [numbers] if numbers and not pairs else pairs
    if not scales or any(len(one) != 2 or min(one) < 1 for one in scales):
        raise ValueError(
            f"scale: expected [longer, shorter side] or a list of such pairs, 1 or more; got "
            f"{scale}"
        )
    return scales


@JOINT_TRANSFORMS.register
class RandomFlip:
    """Mirrored left to right with probability `prob`."""

    random = True

    def __init__(self, *, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: expected 0 to 1, got {prob}")
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.prob:
            return sample
        width = sample["image"].shape[1]
        result = {
            **sample,
            "image": np.ascontiguousarray(sample["image"][:, ::-1]),
            "flip": not sample["flip"],
        }
        for key in sample.keys() & BOXES:
            left, top, right, bottom = sample[key].T
            result[key] = np.stack([width - right, top, width - left, bottom], axis=1)
        for key in sample.keys() & {"masks", "segmentation"}:
            result[key] = np.ascontiguousarray(sample[key][..., ::-1])
        return result


@JOINT_TRANSFORMS.register
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
        self.size = size
        self.between = crop_type == "absolute_range"
        self.cat_max_ratio = cat_max_ratio

    def max_pixels(self, before: float) -> float:
        """Upper bound on the pixel count of an image of `before` pixels after this transform."""
        return min(before, self.size[1] * (self.size[1] if self.between else self.size[0]))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        top, left, height, width = self.draw(sample, rng)
        part = np.s_[..., top : top + height, left : left + width]
        result = {**sample, "image": sample["image"][part[1:]]}
        shift = np.array([left, top, left, top], np.float32)
        for key in sample.keys() & BOXES:
            result[key] = clipped(sample[key] - shift, height, width)
        for key in sample.keys() & {"masks", "segmentation"}:
            result[key] = sample[key][part]
        _drop_objects_outside(result)
        return result

    def draw(self, sample: Sample, rng: np.random.Generator) -> Tuple[int, int, int, int]:
        """(top, left, height, width) of the part that is kept."""
        image_height, image_width = sample["image"].shape[:2]
        if self.between:
            height, width = (
                int(rng.integers(min(side, self.size[0]), min(side, self.size[1]) + 1))
                for side in (image_height, image_width)
            )
        else:
            height, width = min(self.size[0], image_height), min(self.size[1], image_width)

        def place() -> Tuple[int, int]:
            top = int(rng.integers(image_height - height + 1))
            left = int(rng.integers(image_width - width + 1))
            return top, left

        top, left = place()
        if self.cat_max_ratio < 1 and "segmentation" in sample:
            for _ in range(10):
                if self.is_mixed(sample["segmentation"][top : top + height, left : left + width]):
                    break
                top, left = place()
        return top, left, height, width

    def is_mixed(self, labels: np.ndarray) -> bool:
        """Whether no label has `cat_max_ratio` or more of the counted pixels."""
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
        if np.count_nonzero(counts) < 2:
            return False
        return bool(counts.max() < self.cat_max_ratio * counts.sum())


def _drop_objects_outside(sample: Sample) -> None:
    """Remove from `sample` the objects and crowds of whose boxes nothing is left."""
    for boxes, others in (("boxes", ("labels", "masks")), ("ignore_boxes", ())):
        if boxes in sample:
            inside = (sample[boxes][:, 2:] > sample[boxes][:, :2]).all(axis=1)
            for key in (boxes, *others):
                if key in sample:
                    sample[key] = sample[key][inside]


@JOINT_TRANSFORMS.register
class Pad:
    """Zeros (labels: IGNORE) added at the right and at the bottom, up to `size` = [height, width]
    or to multiples of `size_divisor`.

    A larger image stays. After Normalize, zero is the mean colour.
    """

    random = False

    def __init__(self, *, size: Optional[List[int]] = None, size_divisor: Optional[int] = None):
        if (size is None) == (size_divisor is None):
            raise ValueError(f"give either size or size_divisor, got {size} and {size_divisor}")
        given = [size_divisor] if size_divisor is not None else size or []
        if min(given, default=0) < 1 or (size is not None and len(size) != 2):
            raise ValueError(
                f"expected size = [height, width] or size_divisor, 1 or more; got "
                f"{size_divisor if size is None else size}"
            )
        self.size = size
        self.divisor = size_divisor

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        shape = sample["image"].shape[:2]
        target = self.target(shape)
        image = padded(sample["image"].transpose(2, 0, 1), target).transpose(1, 2, 0)
        result = {**sample, "shape": shape, "image": image}
        for key, fill in (("masks", 0), ("segmentation", IGNORE)):
            if key in sample:
                result[key] = padded(sample[key], target, fill)
        return result

    def target(self, shape: Tuple[int, int]) -> List[int]:
        """[height, width] after this transform of an image of (height, width)."""
        if self.divisor is not None:
            return [-(-side // self.divisor) * self.divisor for side in shape]
        return [max(side, least) for side, least in zip(shape, self.size or shape)]
