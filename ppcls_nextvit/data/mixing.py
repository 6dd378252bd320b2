"""Mixing the images of a batch: `op(batch, rng)`, where batch is {image: float32 [B, 3, H, W],
label: int64 [B]}.

An op mixes in place and adds label_b, int64 [B], and lam, float32 [B]: the target of an image is
lam * onehot(label) + (1 - lam) * onehot(label_b). Where nothing was drawn lam is 1. Smoothing of
the targets is the loss's affair.
"""

import math
from typing import Any, Dict, List, Literal, Optional, Protocol, Tuple, Union

import numpy as np

from ..schema import ConfigError, Registry, named_entries, shown

__all__ = ["BATCH_TRANSFORMS", "BatchTransform", "cutmix", "cutmix_box", "mixup"]

BATCH_TRANSFORMS = Registry("batch transform")

Batch = Dict[str, np.ndarray]
Order = Union[np.ndarray, slice]  # which image each one is mixed with


class BatchTransform(Protocol):
    """What an entry of BATCH_TRANSFORMS builds; see the module's docstring."""

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch, mixed in place, with label_b and lam."""


def labelled(batch: Batch, order: Order, lam: float) -> Batch:
    """`batch` with label_b = its labels in the order `order`, and lam for every image."""
    size = len(batch["label"])
    return {**batch, "label_b": batch["label"][order], "lam": np.full(size, lam, np.float32)}


def unmixed(batch: Batch) -> Batch:
    """`batch` with lam = 1."""
    return labelled(batch, slice(None), 1.0)


def mixup(batch: Batch, order: Order, lam: float) -> Batch:
    """lam * image + (1 - lam) * image[order] (Zhang et al. 2017, arXiv:1710.09412)."""
    image = batch["image"]
    # a copy, so that `image` can be overwritten
    other = image[order] * np.float32(1 - lam)
    image *= np.float32(lam)
    image += other
    return labelled(batch, order, lam)


def cutmix_box(
    height: int, width: int, lam: float, rng: np.random.Generator
) -> Tuple[int, int, int, int]:
    """(top, bottom, left, right) of a rectangle with the share 1 - lam of the area around a uniform
    centre, clipped to the image.
    """
    side = math.sqrt(1 - lam)
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return max(y - half_h, 0), min(y + half_h, height), max(x - half_w, 0), min(x + half_w, width)


def cutmix(batch: Batch, order: Order, lam: float, rng: np.random.Generator) -> Batch:
    """One rectangle of every image from image[order] (Yun et al. 2019, arXiv:1905.04899); lam
    becomes the share that is left.
    """
    image = batch["image"]
    height, width = image.shape[-2:]
    top, bottom, left, right = cutmix_box(height, width, lam, rng)
    image[:, :, top:bottom, left:right] = image[order][:, :, top:bottom, left:right]
    return labelled(batch, order, 1 - (bottom - top) * (right - left) / (height * width))


def _positive(alpha: float) -> float:
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    return alpha


@BATCH_TRANSFORMS.register
class MixupOperator:
    """Mixup with a random permutation of the batch, lam from Beta(alpha, alpha). PaddleClas's."""

    def __init__(self, *, alpha: float = 1.0):
        self.alpha = _positive(alpha)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return mixup(batch, rng.permutation(len(batch["label"])), rng.beta(self.alpha, self.alpha))


@BATCH_TRANSFORMS.register
class CutmixOperator:
    """CutMix with a random permutation of the batch, lam from Beta(alpha, alpha). PaddleClas's."""

    def __init__(self, *, alpha: float = 0.2):
        self.alpha = _positive(alpha)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return cutmix(
            batch, rng.permutation(len(batch["label"])), rng.beta(self.alpha, self.alpha), rng
        )


@BATCH_TRANSFORMS.register
class TimmMixup:
    """timm's Mixup in mode batch, which the official recipe uses: with probability `prob` the batch
    is mixed with its reverse, by CutMix with probability `switch_prob`, else by mixup (an alpha of
    0 switches that one off)."""

    def __init__(
        self,
        *,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: Literal["batch"] = "batch",
    ):
        if (
            min(mixup_alpha, cutmix_alpha) < 0
            or max(mixup_alpha, cutmix_alpha) == 0
            or not (0 <= prob <= 1 and 0 <= switch_prob <= 1)
        ):
            raise ValueError(
                "expected alphas of 0 or more, one of them above 0, and probabilities from 0 to "
                "1; got "
                f"mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}, prob={prob}, "
                f"switch_prob={switch_prob}"
            )
        self.mixup_alpha, self.cutmix_alpha, self.prob = mixup_alpha, cutmix_alpha, prob
        self.cutmix_share = switch_prob if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        if rng.random() >= self.prob:
            return unmixed(batch)
        if rng.random() < self.cutmix_share:
            return cutmix(
                batch, slice(None, None, -1), rng.beta(self.cutmix_alpha, self.cutmix_alpha), rng
            )
        return mixup(batch, slice(None, None, -1), rng.beta(self.mixup_alpha, self.mixup_alpha))


@BATCH_TRANSFORMS.register
class OpSampler:
    """One of the named operators per batch, each with its own `prob`; none with the probability
    that is left. PaddleClas's.
    """

    def __init__(
        self, *, MixupOperator: Optional[dict] = None, CutmixOperator: Optional[dict] = None
    ):
        self.ops: List[BatchTransform] = []
        self.probs: List[float] = []
        for name, arguments in (
            ("MixupOperator", MixupOperator),
            ("CutmixOperator", CutmixOperator),
        ):
            if arguments is None:
                continue
            arguments = dict(arguments)
            prob = arguments.pop("prob", None)
            if not isinstance(prob, (int, float)) or isinstance(prob, bool) or not 0 <= prob <= 1:
                raise ValueError(
                    f"{name}.prob: expected a probability from 0 to 1, got {shown(prob)}"
                )
            self.ops.append(BATCH_TRANSFORMS.build(name, arguments, f"OpSampler.{name}"))
            self.probs.append(prob)
        if sum(self.probs) > 1 + 1e-9:
            raise ValueError(f"the probabilities {self.probs} add up to more than 1")

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        drawn = int(np.searchsorted(np.cumsum(self.probs), rng.random(), side="right"))
        return self.ops[drawn](batch, rng) if drawn < len(self.ops) else unmixed(batch)


def mixing_op(ops: Any, where: str) -> Optional[BatchTransform]:
    """The op of PaddleClas's list [{name: {key: value}}], None where it is empty. ConfigError for
    more than one: labels are mixed once.
    """
    built = [
        BATCH_TRANSFORMS.build(name, arguments, place)
        for name, arguments, place in named_entries(ops, where)
    ]
    if len(built) > 1:
        raise ConfigError(
            f"{where}: {len(built)} operators; give one, and OpSampler to draw one of several for "
            f"each batch"
        )
    return built[0] if built else None
