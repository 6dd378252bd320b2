"""Maps at other sizes: bilinear and nearest resizing, and averages over bins. For Paddle Inference
(see recording.py) as products and indices, which there are faster than interpolations, too.
"""

from typing import Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .recording import for_paddle_inference

__all__ = ["adaptive_average", "resize", "resize_like", "resize_nearest", "size_of"]


def resize(x: Tensor, size: Any) -> Tensor:
    """[B, C, H, W] -> [B, C, *size], bilinear with half-pixel centres (align_corners False). size:
    two numbers or a tensor of two, unknown while an export is traced.
    """
    if not for_paddle_inference() and not _to_one(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    height, width = paddle.shape(x)[2], paddle.shape(x)[3]
    return _products(x, _bilinear(size[0], height, 0), _bilinear(size[1], width, 1))


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """x: [B, C, h, w] -> [B, C, H, W], bilinear, the height and width of `other`."""
    return resize(x, size_of(other))


def size_of(x: Tensor) -> Any:
    """Height and width of a map [B, C, H, W]: two numbers or, where they are unknown while an
    export is traced, a tensor of two.
    """
    known = x.shape[2:]
    return known if min(known) >= 0 else paddle.shape(x)[2:]


def _to_one(x: Tensor, size: Any) -> bool:
    """Whether an axis shrinks to one position, which Paddle (3.3.1) takes from its beginning, not
    from its middle.
    """
    return paddle.in_dynamic_mode() and any(
        int(new) == 1 and length > 1 for new, length in zip(size, x.shape[2:])
    )


def resize_nearest(x: Tensor, size: Any) -> Tensor:
    """[B, C, H, W] -> [B, C, *size]: pixel i of `size` is i * H // size. size: as of `resize`."""
    if not for_paddle_inference():
        return F.interpolate(x, size=size, mode="nearest")
    rows, columns = (_int64(paddle.arange(length)) for length in (size[0], size[1]))
    rows = rows * _int64(paddle.shape(x)[2]) // _int64(size[0])
    columns = columns * _int64(paddle.shape(x)[3]) // _int64(size[1])
    return paddle.index_select(paddle.index_select(x, columns, axis=3), rows, axis=2)


def adaptive_average(x: Tensor, bins: int) -> Tensor:
    """[B, C, H, W] -> [B, C, bins, bins], equal to F.adaptive_avg_pool2d, as two products, which
    ONNX can express for any H and W.
    """
    size = size_of(x)
    height, width = size[0], size[1]
    if not for_paddle_inference():
        rows = paddle.matmul(_bin_weights(height, bins, 0), x)
        return paddle.matmul(rows, _bin_weights(width, bins, 0), transpose_y=True)
    return _products(x, _bin_weights(height, bins, 0), _bin_weights(width, bins, 1))


def _products(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x: [B, C, h, w], rows: [H, h], columns: [W, w + 1], whose last is not heeded -> [B, C, H, W].

    The column more is for a map of one column, over which no product can sum.
    """
    channels, height, width = x.shape[1], paddle.shape(x)[2], paddle.shape(x)[3]
    x = F.pad(x, [0, 1, 0, 0]).reshape([-1, width + 1])
    x = paddle.matmul(x, columns, transpose_y=True)
    x = paddle.matmul(rows, x.reshape([-1, height, paddle.shape(columns)[0]]))
    return x.reshape([-1, channels, paddle.shape(rows)[0], paddle.shape(columns)[0]])


def _bilinear(new: Any, length: Tensor, more: int) -> Tensor:
    """float32 [new, length + more]: row i has the shares of the positions around that of i. What
    lies beyond `length` has none.

    In whole numbers: a position times 2 * new is one.
    """
    new, length = _int64(new), _int64(length)
    nothing = paddle.zeros([1], "int64")
    position = (2 * paddle.arange(new, dtype="int64") + 1) * length - new
    position = paddle.minimum(paddle.maximum(position, nothing), 2 * new * (length - 1))
    apart = position.unsqueeze(1) - 2 * new * paddle.arange(length + more, dtype="int64")
    share = paddle.maximum(2 * new - paddle.maximum(apart, -apart), nothing)
    return share.astype("float32") / (2 * new).astype("float32")


def _int64(number: Any) -> Tensor:
    if isinstance(number, int):
        return paddle.full([], number, "int64")
    return number.astype("int64")


def _bin_weights(length: Any, bins: int, more: int) -> Tensor:
    """float32 [bins, length + more]: row i averages the positions from floor(i * length / bins) to
    ceil((i + 1) * length / bins).
    """
    index = paddle.arange(bins, dtype="int64").unsqueeze(1)
    position = paddle.arange(length + more, dtype="int64").unsqueeze(0)
    start, end = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = paddle.logical_and(position >= start, position < end).astype("float32")
    return inside / (end - start).astype("float32")
