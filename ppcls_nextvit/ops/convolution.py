"""2-D convolution in float32 on a CPU by oneDNN, which Paddle brings along and does not use for
eager convolutions; with its gradients.
"""

import functools
from typing import Optional, Tuple

import paddle
from paddle import Tensor

from .calling import check_float32, dense
from .onednn import has_onednn, multiplies_bfloat16

__all__ = ["conv2d"]

NAME = "nextvit_conv2d"


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    *,
    stride: Tuple[int, int] = (1, 1),
    padding: Tuple[int, int] = (0, 0),
    dilation: Tuple[int, int] = (1, 1),
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """The convolution of x [B, C, H, W] with weight [O, C / groups, h, w], plus bias [O], with
    `relu`, which needs a bias, no less than 0: [B, O, H', W']; all float32 on a CPU. stride,
    padding (zeros on both sides) and dilation are of height and width. Depthwise convolutions,
    which are bound by memory, stay in float32 within ops.multiplying.

    RuntimeError where the operator is not built; TypeError and ValueError name an argument of
    another type, shape or range.
    """
    if not has_onednn():
        raise RuntimeError("the compiled convolution is not built; run nextvit build-ops")
    inputs = (x, weight) if bias is None else (x, weight, bias)
    check_float32(dict(zip(("x", "weight", "bias"), inputs)))
    if relu and bias is None:
        raise ValueError("relu needs a bias")
    shapes = tuple(tuple(given.shape) for given in inputs)
    _check_shapes(shapes, tuple(stride), tuple(padding), tuple(dilation), groups)
    depthwise = groups == shapes[0][1] > 1
    settings = (
        list(stride),
        list(padding),
        list(dilation),
        groups,
        multiplies_bfloat16() and not depthwise,
    )
    wanted = (not x.stop_gradient, any(not given.stop_gradient for given in inputs[1:]))
    name = NAME + "_bias" * (bias is not None) + "_relu" * relu
    (out,) = paddle.base.core.eager._run_custom_op(name, *dense(inputs), *settings, *wanted)
    return out


@functools.lru_cache(1024)
def _check_shapes(
    shapes: Tuple[Tuple[int, ...], ...],
    stride: Tuple[int, ...],
    padding: Tuple[int, ...],
    dilation: Tuple[int, ...],
    groups: int,
) -> None:
    """ValueError unless they go together; a network asks for the same ones in every step."""
    for name, shape in zip(("x", "weight"), shapes):
        if len(shape) != 4:
            raise ValueError(f"{name} must have 4 axes; got shape {list(shape)}")
    x, weight = shapes[:2]
    channels, out_channels = x[1], weight[0]
    if groups < 1 or channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide the {channels} and {out_channels} channels; got {groups}"
        )
    if weight[1] != channels // groups or 0 in weight:
        raise ValueError(
            f"weight must have shape [., {channels // groups}, ., .] for x {list(x)} and "
            f"groups {groups}; got {list(weight)}"
        )
    if shapes[2:] not in ((), ((out_channels,),)):
        raise ValueError(f"bias must have shape [{out_channels}]; got {list(shapes[2])}")
    pairs = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1)}
    for name, (pair, least) in pairs.items():
        if len(pair) != 2 or min(pair) < least:
            raise ValueError(f"{name} must be two numbers of {least} or more; got {pair}")
    for axis in (0, 1):
        covered = dilation[axis] * (weight[2 + axis] - 1) + 1
        if x[2 + axis] + 2 * padding[axis] < covered:
            raise ValueError(
                f"x, padded, must not be smaller than the kernel, {covered}; got {list(x)}"
            )
