"""Products of matrices in float32 on a CPU by oneDNN, with their gradients. Paddle's own take a
slow path on AMD processors.
"""

import functools
from typing import Optional, Tuple

import paddle
from paddle import Tensor

from .calling import check_float32, dense
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
    inputs = (x, y) if bias is None else (x, y, bias)
    check_float32(dict(zip(("x", "y", "bias"), inputs)))
    shapes = tuple(tuple(given.shape) for given in inputs)
    _check_shapes(shapes, transpose_x, transpose_y)
    bfloat16 = multiplies_bfloat16() and 2 in (len(shapes[0]), len(shapes[1]))
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


@functools.lru_cache(1024)
def _check_shapes(
    shapes: Tuple[Tuple[int, ...], ...], transpose_x: bool, transpose_y: bool
) -> None:
    """ValueError unless they go together; a network asks for the same ones in every step."""
    for name, shape in zip(("x", "y"), shapes):
        if len(shape) < 2:
            raise ValueError(f"{name} must have 2 axes or more; got {list(shape)}")
    x, y = shapes[:2]
    if x[:-2] and y[:-2] and x[:-2] != y[:-2]:
        raise ValueError(f"x and y must have the same leading axes; got {list(x)} and {list(y)}")
    inner = x[-2 if transpose_x else -1]
    if inner != y[-1 if transpose_y else -2] or not inner:
        raise ValueError(
            f"the axes that are summed must be of one length; got {list(x)} and {list(y)}, "
            f"transposed: {transpose_x}, {transpose_y}"
        )
    columns = y[-2 if transpose_y else -1]
    if shapes[2:] not in ((), ((columns,),)):
        raise ValueError(f"bias must have shape [{columns}]; got {list(shapes[2])}")
