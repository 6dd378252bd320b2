"""Products of matrices in float32 on a CPU by oneDNN, with their gradients. Paddle's own take a
slow path on AMD processors.
"""

from typing import Optional

import paddle
from paddle import Tensor

from .calling import check_types, dense
from .onednn import has_onednn, multiplies_bfloat16

__all__ = ["matmul"]

NAME = "nextvit_product"


def matmul(
    x: Tensor,
    y: Tensor,
    bias: Optional[Tensor] = None,
    *,
    transpose_x: bool = False,
    transpose_y: bool = False,
) -> Tensor:
    """The products of x [..., R, I] and y [..., I, C] (transposed: [..., I, R], [..., C, I]), plus
    bias [C]: [..., R, C]; all float32 on a CPU. The leading axes are equal, or one of both is a
    matrix, which all products share. Within ops.multiplying, products with a shared matrix are of
    values rounded to bfloat16.

    RuntimeError where the operator is not built; TypeError and ValueError name an argument of
    another type or shape.
    """
    if not has_onednn():
        raise RuntimeError("the compiled product is not built; run nextvit build-ops")
    _check(x, y, bias, transpose_x, transpose_y)
    inputs = (x, y) if bias is None else (x, y, bias)
    bfloat16 = multiplies_bfloat16() and 2 in (x.ndim, y.ndim)
    wanted = [not given.stop_gradient for given in inputs] + [False] * (bias is None)
    (out,) = paddle.base.core.eager._run_custom_op(
        NAME if bias is None else f"{NAME}_bias",
        *dense(inputs),
        transpose_x,
        transpose_y,
        bfloat16,
        *wanted,
    )
    return out


def _check(
    x: Tensor, y: Tensor, bias: Optional[Tensor], transpose_x: bool, transpose_y: bool
) -> None:
    named = {"x": x, "y": y} if bias is None else {"x": x, "y": y, "bias": bias}
    if x.dtype != paddle.float32:
        raise TypeError(f"x must be float32; got {str(x.dtype).rpartition('.')[2]}")
    check_types(named)
    for name in ("x", "y"):
        if named[name].ndim < 2:
            raise ValueError(f"{name} must have 2 axes or more; got {list(named[name].shape)}")
    before, after = list(x.shape[:-2]), list(y.shape[:-2])
    if before and after and before != after:
        raise ValueError(
            f"x and y must have the same leading axes; got {list(x.shape)} and {list(y.shape)}"
        )
    inner = x.shape[-2 if transpose_x else -1]
    if inner != y.shape[-1 if transpose_y else -2] or not inner:
        raise ValueError(
            f"the axes that are summed must be of one length; got {list(x.shape)} and "
            f"{list(y.shape)}, transposed: {transpose_x}, {transpose_y}"
        )
    columns = y.shape[-2 if transpose_y else -1]
    if bias is not None and list(bias.shape) != [columns]:
        raise ValueError(f"bias must have shape [{columns}]; got {list(bias.shape)}")
