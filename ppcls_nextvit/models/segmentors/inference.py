"""From a network's logits to a label for each pixel: whole or by windows, at several scales,
mirrored; as in mmsegmentation.
"""

from dataclasses import dataclass
from typing import Any, Iterable, List, Literal, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ...schema import ConfigError, Registry
from ..resizing import resize
from . import winners

__all__ = ["Inference", "best_class", "segment", "view_logits", "window_starts"]

Size = Tuple[int, int]  # (height, width)

_INFERENCE = Registry("inference")


@_INFERENCE.register
@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a segmentor is asked.

    mode: 'whole' image, or overlapping windows ('slide') of `crop_size` (height, width) every
    `stride` pixels, whose logits are averaged.
    ratios: the scales, relative to the one of the evaluation transforms; flip: mirrored too. With
    more than one view of an image their probabilities are averaged.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop_size: Tuple[int, int] = (512, 512)
    stride: Tuple[int, int] = (341, 341)
    ratios: Tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        if not all(0 < step <= size for step, size in zip(self.stride, self.crop_size)):
            raise ValueError(
                f"stride must be from 1 to crop_size, or pixels are left out; got stride "
                f"{self.stride} and "
                f"crop_size {self.crop_size}"
            )
        if not self.ratios or min(self.ratios) <= 0:
            raise ValueError(f"ratios must be positive numbers; got {self.ratios}")

    @property
    def averages(self) -> bool:
        """Whether an image has more than one view."""
        return len(self.ratios) > 1 or self.flip

    @classmethod
    def from_yaml(
        cls, section: Any, min_size: int = 1, where: str = "Arch.inference"
    ) -> "Inference":
        """The Inference of a YAML mapping, or of None. ConfigError names the key below `where`.

        min_size: the smallest height and width that the model takes, and so of a window.
        """
        inference = _INFERENCE.build("Inference", section, where)
        if inference.mode == "slide" and min(inference.crop_size) < min_size:
            raise ConfigError(
                f"{where}.crop_size: the model needs {min_size} pixels or more, got "
                f"{list(inference.crop_size)}"
            )
        return inference


def window_starts(length: int, size: int, stride: int) -> List[int]:
    """Where the windows of a side begin: every `stride`, the last one moved back to end with the
    image.
    """
    count = max(length - size + stride - 1, 0) // stride + 1
    return [max(min(i * stride + size, length) - size, 0) for i in range(count)]


def view_logits(model: Any, images: Tensor, inference: Inference) -> Tensor:
    """images: [B, C, H, W] -> logits [B, num_classes, H, W], float32, of the whole images or
    averaged over the windows.
    """
    if inference.mode == "whole":
        return model(images).astype("float32")
    (height, width), (size_y, size_x) = images.shape[2:], inference.crop_size
    total = paddle.zeros([images.shape[0], model.num_classes, height, width])
    count = paddle.zeros([height, width])
    for top in window_starts(height, size_y, inference.stride[0]):
        for left in window_starts(width, size_x, inference.stride[1]):
            rows, columns = slice(top, top + size_y), slice(left, left + size_x)
            total[:, :, rows, columns] += model(images[:, :, rows, columns]).astype("float32")
            count[rows, columns] += 1
    return total / count


def mirrored(images: Tensor, shapes: Iterable[Size]) -> Tensor:
    """Images [B, C, H, W] flipped left to right within their shapes (height, width); what is padded
    stays at the right and bottom.
    """
    out = images.clone()
    for i, (height, width) in enumerate(shapes):
        out[i, :, :height, :width] = images[i, :, :height, :width].flip(-1)
    return out


def best_class(logits: Tensor, padded: Sequence[int], shape: Size, original: Size) -> Tensor:
    """The class of every pixel: logits [num_classes, h, w] resized to `padded`, cut to `shape`,
    resized to `original`, all (height, width); returns int64 `original`.

    On a CPU, whose resizing is slow, only what can win is resized, see `winners.best_class`.
    """
    if paddle.device.get_device() == "cpu":
        sizes: Any = (tuple(padded), tuple(shape), tuple(original))
        labels = winners.best_class(logits.numpy(), *sizes)
        return paddle.to_tensor(labels.astype(np.int64))
    scores = resize(logits.unsqueeze(0), padded)[:, :, : shape[0], : shape[1]]
    if tuple(shape) != tuple(original):
        scores = resize(scores, original)
    return scores[0].argmax(axis=0)


def segment(
    model: Any,
    views: Iterable[Tuple[Tensor, Sequence[Size]]],
    originals: Sequence[Size],
    inference: Inference,
) -> List[Tensor]:
    """The label of every pixel: for each of B images int64 [H, W], in its original size.

    model: a Segmentor in eval mode. originals: B times (height, width). inference: an Inference.
    views: per ratio of it (images [B, C, H, W], and B times the (height, width) that is image, not
    padding).
    """
    if inference.mode == "whole" and not inference.averages:
        [(images, shapes)] = views
        logits = model.decode(images).astype("float32")
        return [
            best_class(one, images.shape[2:], shape, original)
            for one, shape, original in zip(logits, shapes, originals)
        ]
    totals: List[Any] = [0.0] * len(originals)
    for images, shapes in views:
        for flip in (False, True)[: 1 + inference.flip]:
            logits = view_logits(model, mirrored(images, shapes) if flip else images, inference)
            for i, (shape, original) in enumerate(zip(shapes, originals)):
                scores = _at_original(logits[i : i + 1], shape, original)
                scores = F.softmax(scores, axis=1) if inference.averages else scores
                totals[i] = totals[i] + (scores.flip(-1) if flip else scores)
    return [total[0].argmax(axis=0) for total in totals]


def _at_original(logits: Tensor, shape: Size, original: Size) -> Tensor:
    """logits [1, num_classes, H, W], cut to `shape`, resized to `original`."""
    scores = logits[:, :, : shape[0], : shape[1]]
    return scores if tuple(shape) == tuple(original) else resize(scores, original)
