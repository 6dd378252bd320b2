"""What Paddle takes several passes over memory for, or a slow one; float32 on a CPU."""

import math

import paddle
from paddle import Tensor

from .calling import are_float32, check_float32, check_instruction_set, dense
from .loading import is_loaded, require

__all__ = ["adamw_", "residual", "swap", "takes_pass"]

SCALARS = ("rate", "beta1_power", "beta2_power")
WRITTEN = ("parameter", "first", "second")


def takes_pass(*given: Tensor) -> bool:
    """Whether these operators are there and take tensors of these types and places."""
    return are_float32(*given) and is_loaded()


def adamw_(
    parameter: Tensor,
    gradient: Tensor,
    rate: Tensor,
    first: Tensor,
    second: Tensor,
    beta1_power: Tensor,
    beta2_power: Tensor,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    decay: float,
) -> None:
    """A step of AdamW, in place: parameter *= 1 - rate * decay; first and second become the
    averages of the gradient and of its square; parameter -= rate * first' / (sqrt(second') +
    epsilon), where first' and second' are the averages divided by 1 - the powers, which are then
    multiplied by beta1 and beta2.

    parameter, gradient, first and second have one shape; rate, beta1_power and beta2_power have one
    element. Bitwise the same for any number of threads.

    RuntimeError where the operators are not built; TypeError and ValueError name an argument of
    another type or shape, or one that is to be written and has gaps in memory.
    """
    require()
    check_instruction_set()
    given = {
        "parameter": parameter,
        "gradient": gradient,
        "rate": rate,
        "first": first,
        "second": second,
        "beta1_power": beta1_power,
        "beta2_power": beta2_power,
    }
    check_float32(given)
    shape = parameter.shape
    for name, x in given.items():
        if name in SCALARS:
            if math.prod(x.shape) != 1:
                raise ValueError(f"{name} must have one element; got shape {list(x.shape)}")
        elif x.shape != shape:
            raise ValueError(f"{name} must have shape {list(shape)}; got {list(x.shape)}")
        if name in WRITTEN and not x.is_contiguous():
            raise ValueError(f"{name} is written in place and must have no gaps in memory")
    # detached, it is the same memory: Paddle does not let a leaf be written that is differentiated
    inputs = dense([parameter.detach(), *list(given.values())[1:]])
    paddle.base.core.eager._run_custom_op("nextvit_adamw", *inputs, beta1, beta2, epsilon, decay)


def residual(x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
    """x + scale * branch, where `scale` [B] has one number for each of the B images of x and branch
    [B, ...], and no gradient.

    RuntimeError where the operators are not built; TypeError and ValueError name an argument of
    another type or shape.
    """
    require()
    given = {"x": x, "branch": branch, "scale": scale}
    check_float32(given)
    if not x.ndim or branch.shape != x.shape:
        raise ValueError(
            f"branch must have x's shape, of an axis or more; got {list(branch.shape)} and "
            f"{list(x.shape)}"
        )
    if list(scale.shape) != [x.shape[0]]:
        raise ValueError(f"scale must have shape [{x.shape[0]}]; got {list(scale.shape)}")
    (out,) = paddle.base.core.eager._run_custom_op("nextvit_residual", *dense(given.values()))
    return out


def swap(x: Tensor) -> Tensor:
    """x [A, B, C, D] -> [A, C, B, D], without gaps in memory.

    RuntimeError where the operators are not built; TypeError and ValueError for another type or
    number of axes.
    """
    require()
    check_float32({"x": x})
    if x.ndim != 4:
        raise ValueError(f"x must have 4 axes; got shape {list(x.shape)}")
    (out,) = paddle.base.core.eager._run_custom_op("nextvit_swap", *dense([x]))
    return out
