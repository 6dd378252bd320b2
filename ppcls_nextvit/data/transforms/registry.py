"""The registries of transforms, and what a transform is."""

from typing import Any, Dict, Protocol, runtime_checkable

import numpy as np

from ...schema import Registry
from ..images import Picture

__all__ = ["JOINT_TRANSFORMS", "JointTransform", "TRANSFORMS", "Transform"]

TRANSFORMS = Registry("transform")
JOINT_TRANSFORMS = Registry("transform of detection and segmentation")

# an image with its annotations; ppcls_nextvit.data.transforms.joint describes the keys
Sample = Dict[str, Any]


class Transform(Protocol):
    """A transform of an image alone; an entry of TRANSFORMS builds one.

    An image is a PIL image in mode RGB, or an array [H, W, 3], uint8 before and float32 after
    NormalizeImage. A transform of evaluation does not look at `rng`.
    """

    def __call__(self, image: Picture, rng: np.random.Generator) -> Picture:
        """The transformed image. ValueError for an image that it cannot take."""


class JointTransform(Protocol):
    """A transform of an image together with its annotations; an entry of JOINT_TRANSFORMS builds
    one.

    random: whether it draws from `rng`; evaluation and prediction refuse it then.
    """

    random: bool

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The transformed sample; the one that came stays as it is. ValueError for a sample that it
        cannot take.
        """


@runtime_checkable
class ChangesSize(Protocol):
    """What a joint transform offers beside that if it changes the image's size."""

    def max_pixels(self, before: float) -> float:
        """Upper bound on the pixel count of an image of `before` pixels after this transform."""
