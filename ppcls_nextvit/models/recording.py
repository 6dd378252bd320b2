"""For which runtime a program is recorded, where that changes what is recorded.

Paddle Inference (3.3.1) computes on CPUs with oneDNN, which it turns on by itself. There it cannot
read an interpolation's attributes; a product reads a map of four axes in another order than a
convolution left it in, and sums wrongly over an axis of one; operators on float64 are taken for
float32's; and most operators end, or end the process, at a tensor without elements. What is
recorded for it keeps clear of that.
"""

import contextlib
from contextvars import ContextVar
from typing import Callable, Iterator, Tuple

import paddle
from paddle import Tensor

__all__ = ["for_paddle_inference", "one_more", "paddle_inference", "with_one_more"]

_paddle_inference = ContextVar("paddle_inference", default=False)


@contextlib.contextmanager
def paddle_inference() -> Iterator[None]:
    """Within it programs are recorded for Paddle Inference."""
    token = _paddle_inference.set(True)
    try:
        yield
    finally:
        _paddle_inference.reset(token)


def for_paddle_inference() -> bool:
    """Whether a program is being recorded for Paddle Inference."""
    return _paddle_inference.get()


def one_more(*given: Tensor) -> Tuple[Tensor, ...]:
    """Each of `given`, [N, ...]; recorded for Paddle Inference with a row of zeros more, so that
    there is one where N is 0.
    """
    if not for_paddle_inference():
        return given
    return tuple(paddle.concat([x, paddle.zeros([1, *x.shape[1:]], dtype=x.dtype)]) for x in given)


def with_one_more(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """function(*given), of tensors [N, ...] a tensor [N, ...], row by row; recorded for Paddle
    Inference it sees `one_more`, of which nothing is returned.
    """
    out = function(*one_more(*given))
    if not for_paddle_inference():
        return out
    return paddle.gather(out, paddle.arange(paddle.shape(given[0])[0]))
