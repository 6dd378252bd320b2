"""A list of joint transforms as one function from sample to sample."""

from typing import Any, List, Tuple

import numpy as np

from ....schema import ConfigError, named_entries
from ...images import ImageError
from ..registry import JOINT_TRANSFORMS, ChangesSize, JointTransform, Sample

__all__ = ["AutoAugment", "JointPipeline", "fixed_pipeline"]

NEED_BYTES = ("Resize", "PhotoMetricDistortion", "AutoAugment")


class JointPipeline:
    """A list of transforms, [{name: {key: value}}, ...]: `pipeline(sample, rng, name)` -> sample.
    ConfigError names `where`.

    random: whether chance has a part in it.
    """

    def __init__(self, transform_ops: Any, where: str = "transform_ops"):
        self.transforms: List[Tuple[str, JointTransform]] = [
            (name, JOINT_TRANSFORMS.build(name, arguments, place))
            for name, arguments, place in named_entries(transform_ops, where)
        ]
        self.random = any(transform.random for _, transform in self.transforms)
        _check_order([name for name, _ in self.transforms], where)

    def max_pixels(self, before: float) -> float:
        """Upper bound, about, on the pixel count of an image of `before` pixels afterwards."""
        for _, transform in self.transforms:
            if isinstance(transform, ChangesSize):
                before = transform.max_pixels(before)
        return before

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The transformed sample. ValueError for what a transform cannot take."""
        for _, transform in self.transforms:
            sample = transform(sample, rng)
        return sample

    def __call__(self, sample: Sample, rng: np.random.Generator, name: str) -> Sample:
        """The transformed sample. ImageError, beginning with `name`, for a sample that a transform
        cannot take.
        """
        try:
            return self.apply(sample, rng)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error


def _check_order(names: List[str], where: str) -> None:
    """ConfigError for a list in which a transform comes too late, or Pad too early."""
    after_normalize = names[names.index("Normalize") :] if "Normalize" in names else []
    for name in NEED_BYTES:
        if name in after_normalize:
            raise ConfigError(f"{where}: {name} needs uint8 pixels; put it before Normalize")
    after_pad = names[names.index("Pad") :] if "Pad" in names else []
    if not set(after_pad) <= {"Pad", "Normalize"}:
        raise ConfigError(
            f"{where}: Pad must come last (but for Normalize), or the padding would be taken "
            f"for a part of the image"
        )


def fixed_pipeline(transform_ops: Any, where: str) -> JointPipeline:
    """The JointPipeline of evaluation or prediction. ConfigError if chance has a part in it."""
    pipeline = JointPipeline(transform_ops, where)
    if pipeline.random:
        raise ConfigError(
            f"{where}: evaluation and prediction leave nothing to chance; keep Resize to one "
            f"scale, Normalize and Pad"
        )
    return pipeline


@JOINT_TRANSFORMS.register
class AutoAugment:
    """One of the `policies`, each a list of transforms, drawn with equal chances."""

    random = True

    def __init__(self, *, policies: List[list]):
        if not policies:
            raise ValueError("policies: expected one or more lists of transforms, got none")
        self.policies = [
            JointPipeline(policy, f"AutoAugment.policies.{i}") for i, policy in enumerate(policies)
        ]

    def max_pixels(self, before: float) -> float:
        """Upper bound on the pixel count after any of the policies."""
        return max(policy.max_pixels(before) for policy in self.policies)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.policies[rng.integers(len(self.policies))].apply(sample, rng)
