"""2-D convolution in float32 on a CPU by oneDNN, which Paddle brings along and does not use for
eager convolutions; with its gradients.
"""

from typing import Optional, Tuple

import paddle
from paddle import Tensor

from .calling import check_types, dense
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
    _check(x, weight, bias, groups)
    if relu and bias is None:
        raise ValueError("relu needs a bias")
    pairs = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1)}
    for name, (pair, least) in pairs.items():
        if len(pair) != 2 or min(pair) < least:
            raise ValueError(f"{name} must be two numbers of {least} or more; got {pair}")
    for axis in (0, 1):
        covered = dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        if x.shape[2 + axis] + 2 * padding[axis] < covered:
            raise ValueError(
                f"x, padded, must not be smaller than the kernel, {covered}; got {list(x.shape)}"
            )
    inputs = (x, weight) if bias is None else (x, weight, bias)
    depthwise = groups == x.shape[1] > 1
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


def _check(x: Tensor, weight: Tensor, bias: Optional[Tensor], groups: int) -> None:
    for name, given in (("x", x), ("weight", weight)):
        if given.ndim != 4:
            raise ValueError(f"{name} must have 4 axes; got shape {list(given.shape)}")
    named = {"x": x, "weight": weight} if bias is None else {"x": x, "weight": weight, "bias": bias}
    if x.dtype != paddle.float32:
        raise TypeError(f"x must be float32; got {str(x.dtype).rpartition('.')[2]}")
    check_types(named)
    channels, out_channels = x.shape[1], weight.shape[0]
    if groups < 1 or channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide the {channels} and {out_channels} channels; got {groups}"
        )
    if weight.shape[1] != channels // groups or not weight.size:
        raise ValueError(
            f"weight must have shape [., {channels // groups}, ., .] for x {list(x.shape)} and "
            f"groups {groups}; got {list(weight.shape)}"
        )
    if bias is not None and list(bias.shape) != [out_channels]:
        raise ValueError(f"bias must have shape [{out_channels}]; got {list(bias.shape)}")
