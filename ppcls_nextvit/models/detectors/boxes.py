"""Boxes: float32 [N, 4], (x1, y1, x2, y2) in pixels; a width is x2 - x1. Anchors, overlaps, delta
coding, suppression.

Reference: mmdetection (AnchorGenerator, DeltaXYWHBBoxCoder, bbox_overlaps, batched_nms). All of it
is Paddle operators on sizes that may be unknown, so that an export records it as it is.
"""

import math
from typing import Sequence

import numpy as np
import paddle
from paddle import Tensor
from paddle.vision.ops import nms

from ..recording import one_more

MAX_LOG_RATIO = abs(math.log(16 / 1000))  # of a decoded side to the coded one
EPS = 1e-6


def base_anchors(stride: int, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """float32 [len(ratios) * len(scales), 4] around (0, 0). ratios: height / width, at the area of
    (stride * scale)^2.
    """
    heights = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    sides = np.asarray(scales, np.float32)[None]
    h, w = (stride * heights * sides).reshape(-1), (stride * (1 / heights) * sides).reshape(-1)
    return np.stack([-0.5 * w, -0.5 * h, 0.5 * w, 0.5 * h], axis=-1)


def grid_anchors(base: np.ndarray, height: Tensor, width: Tensor, stride: int) -> Tensor:
    """[height * width * A, 4]: the A base anchors around each cell's (column * stride, row *
    stride), row by row.
    """
    x, y = (paddle.arange(size, dtype="float32") * stride for size in (width, height))
    y, x = paddle.meshgrid(y, x)
    shifts = paddle.stack([x, y, x, y], axis=-1).reshape([-1, 1, 4])
    return (paddle.to_tensor(base).unsqueeze(0) + shifts).reshape([-1, 4])


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """[K, 4], [N, 4] -> intersection over union [K, N]."""
    low = paddle.maximum(a[:, None, :2], b[None, :, :2])
    high = paddle.minimum(a[:, None, 2:], b[None, :, 2:])
    size = paddle.clip(high - low, min=0)
    intersection = size[..., 0] * size[..., 1]
    union = _area(a)[:, None] + _area(b)[None] - intersection
    return intersection / paddle.clip(union, min=EPS)


def _area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def encode(boxes: Tensor, targets: Tensor, stds: Sequence[float]) -> Tensor:
    """Deltas [N, 4] that turn `boxes` into `targets`: shifts of the centre in sides, logarithms of
    the sides' ratios; each over its std.
    """
    size, target_size = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + targets[:, 2:]) * 0.5 - (boxes[:, :2] + boxes[:, 2:]) * 0.5
    deltas = paddle.concat([shift / size, paddle.log(target_size / size)], axis=-1)
    return deltas / paddle.to_tensor(stds, dtype="float32")


def decode(boxes: Tensor, deltas: Tensor, stds: Sequence[float], limit: Tensor) -> Tensor:
    """The inverse of `encode`, cut to the image. boxes: [N, 4]; deltas: [N, C * 4]. limit: float32
    [4], the image's (w, h, w, h).

    Returns [N, C, 4].
    """
    deltas = deltas.reshape([-1, deltas.shape[1] // 4, 4]) * paddle.to_tensor(stds, dtype="float32")
    centre = ((boxes[:, :2] + boxes[:, 2:]) * 0.5).unsqueeze(1)
    size = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
    centre = centre + size * deltas[:, :, :2]
    half = size * paddle.exp(paddle.clip(deltas[:, :, 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO)) * 0.5
    decoded = paddle.concat([centre - half, centre + half], axis=-1)
    return paddle.minimum(paddle.clip(decoded, min=0), limit)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that survive, best score first; boxes of different `groups` (int64 [N])
    do not suppress each other.
    """
    boxes, scores, groups = one_more(boxes, scores, groups)  # whose score is none to keep
    # there may be no box
    largest = paddle.concat([boxes.flatten(), paddle.zeros([1])]).max()
    # moves the groups apart
    offset = groups.astype(boxes.dtype) * (largest + 1)
    order = paddle.argsort(scores, descending=True, stable=True)
    boxes = (boxes + offset.unsqueeze(-1))[order]
    if paddle.in_dynamic_mode():
        return order[nms(boxes, threshold)]
    return order[_recorded_nms(boxes, scores[order], threshold)]


def _recorded_nms(boxes, scores, threshold):
    """`nms` by the operator that ONNX has an equal of; Paddle2ONNX knows no other."""
    background, score_threshold, most, keep, normalized, eta = -1, 0.0, 2**31 - 1, -1, True, 1.0
    _, kept, _ = paddle._C_ops.multiclass_nms3(
        boxes.unsqueeze(0),
        scores.reshape([1, 1, -1]),
        None,
        score_threshold,
        most,
        keep,
        threshold,
        normalized,
        eta,
        background,
    )
    return kept.flatten()


def corners_of(boxes: Tensor) -> Tensor:
    """[..., 4], (cx, cy, w, h) -> (x1, y1, x2, y2), in the same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return paddle.concat([centre - half, centre + half], axis=-1)


def centres_of(boxes: Tensor) -> Tensor:
    """[..., 4], (x1, y1, x2, y2) -> (cx, cy, w, h), in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return paddle.concat([(low + high) * 0.5, high - low], axis=-1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union less the empty share of what encloses both (Rezatofighi et al. 2019,
    arXiv:1902.09630), in [-1, 1].

    a, b: [..., 4], (x1, y1, x2, y2), of shapes that broadcast -> [...].
    """
    inner = paddle.minimum(a[..., 2:], b[..., 2:]) - paddle.maximum(a[..., :2], b[..., :2])
    outer = paddle.maximum(a[..., 2:], b[..., 2:]) - paddle.minimum(a[..., :2], b[..., :2])
    intersection = paddle.clip(inner, min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    union = paddle.clip(areas[0] + areas[1] - intersection, min=EPS)
    enclosing = paddle.clip(paddle.clip(outer, min=0).prod(-1), min=EPS)
    return intersection / union - (enclosing - union) / enclosing


def inverse_sigmoid(x: Tensor, eps: float) -> Tensor:
    """The logits of shares, which are held `eps` off 0 and 1."""
    x = paddle.clip(x, 0, 1)
    return paddle.log(paddle.clip(x, min=eps) / paddle.clip(1 - x, min=eps))
