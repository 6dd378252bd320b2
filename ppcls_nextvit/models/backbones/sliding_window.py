"""Sliding-window attention of TransNeXt: the two products of every token with the window around it.

`scores` compares a query with the keys of its window, `mix` adds up the values of the window with
given weights. There are interchangeable forms of both, chosen by name in FORMS; their results agree
to rounding. Outside the image keys and values are zero: a score there is 0 (mask it), a value adds
nothing. Tensors are channels-last: q, k, v [B, H, W, heads, d]; scores and weights
[B, H, W, heads, window**2], neighbours in raster order. The compiled operator (ops/attention.py)
computes the whole attention instead.
"""

from typing import Any, Dict, Iterator, Optional, Protocol, Sequence, Tuple

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ... import ops
from ...schema import nearest
from ..layers import eager_on_cpu

__all__ = ["FORMS", "WindowForm", "chosen_form"]


class WindowForm(Protocol):
    """One way to compute the two products."""

    def scores(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """q, k [B, H, W, heads, d] -> the products of each query with the keys of its window,
        [B, H, W, heads, window**2].
        """

    def mix(self, weights: Tensor, v: Tensor, window: int) -> Tensor:
        """weights [B, H, W, heads, window**2], v [B, H, W, heads, d] -> the shape of v."""


class Native:
    """The reference's own: keys and values are copied window by window (unfold), window**2 times
    their size.
    """

    def scores(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        return (q.unsqueeze(-2) @ _unfolded(k, window)).squeeze(-2)

    def mix(self, weights: Tensor, v: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        return paddle.matmul(weights.unsqueeze(-2), _unfolded(v, window), transpose_y=True).squeeze(
            -2
        )


class Sliced:
    """window**2 shifted slices, one after the other: nothing is unfolded, for the result or for its
    gradient.
    """

    def scores(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        if paddle.in_dynamic_mode():
            return _Scores.apply(q, k, window)
        return _scores(q, k, window)

    def mix(self, weights: Tensor, v: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        if paddle.in_dynamic_mode():
            return _Mix.apply(weights, v, window)
        return _mix(weights, v, window)


FORMS: Dict[str, WindowForm] = {"native": Native(), "sliced": Sliced()}


def chosen_form(name: str) -> Tuple[bool, WindowForm]:
    """Of an attention_form: whether the compiled operator is used where it can be, and the form
    where it cannot.

    ValueError for an unknown name, and for 'compiled' where the operators are not built.
    """
    if name in FORMS:
        return False, FORMS[name]
    if name not in ("auto", "compiled"):
        names = ("auto", "compiled", *FORMS)
        raise ValueError(f"unknown attention form {name!r}.{nearest(name, names)}")
    if name == "compiled" and not ops.is_loaded():
        raise ValueError(
            "attention_form 'compiled' needs the compiled operators; run nextvit build-ops, or "
            "choose 'auto'"
        )
    return ops.is_loaded(), FORMS["sliced"]


def _unfolded(x: Tensor, window: int) -> Tensor:
    """[B, H, W, heads, d] -> [B, H, W, heads, d, window**2]."""
    _, height, width, heads, d = x.shape
    maps = x.reshape([-1, height * width, heads * d]).transpose([0, 2, 1])
    maps = maps.reshape([-1, heads * d, height, width])
    columns = F.unfold(maps, window, paddings=window // 2)  # [B, C * window**2, N]
    columns = columns.reshape([-1, heads, d, window**2, height * width])
    columns = columns.transpose([0, 4, 1, 2, 3])  # [B, N, heads, d, window**2]
    return columns.reshape([-1, height, width, heads, d, window**2])


def _slices(x: Tensor, window: int) -> Iterator[Tensor]:
    """The window**2 neighbours of every token: for each its tensor, of the shape of x
    [B, H, W, heads, d].
    """
    padded, eager = _padded(x, window // 2), eager_on_cpu(x)
    for row in range(window):
        for column in range(window):
            if eager:
                yield paddle.crop(padded, x.shape, [0, row, column, 0, 0])
            else:
                down, right = row + 1 - window or None, column + 1 - window or None
                yield padded[:, row:down, column:right]


def _padded(x: Tensor, reach: int) -> Tensor:
    """[B, H, W, heads, d] with `reach` zeros around height and width."""
    if paddle.in_dynamic_mode():
        return F.pad(x, [0, 0, reach, reach, reach, reach, 0, 0, 0, 0])
    # in a program oneDNN pads other axes than it is told to
    row = paddle.zeros_like(x[:, :1])
    x = paddle.concat([row] * reach + [x] + [row] * reach, axis=1)
    column = paddle.zeros_like(x[:, :, :1])
    return paddle.concat([column] * reach + [x] + [column] * reach, axis=2)


def _scores(q: Tensor, k: Tensor, window: int) -> Tensor:
    return _neighbours_last([(q * part).sum(-1) for part in _slices(k, window)])


def _mix(weights: Tensor, v: Tensor, window: int) -> Tensor:
    total = None
    for weight, part in zip(_neighbours_first(weights), _slices(v, window)):
        # in this order: the other way round Paddle's broadcasting is 20 times slower
        share = part * weight.unsqueeze(-1)
        if total is None:
            total = share
        else:
            # within a PyLayer nothing keeps it
            total = total.add_(share) if paddle.in_dynamic_mode() else total + share
    return total


def _turned(weights: Tensor, window: int) -> Tensor:
    """What each token gives its neighbours, from what each takes of them: entry z of a token is
    entry window**2 - 1 - z of its neighbour z. Both are [B, H, W, heads, window**2].
    """
    return _neighbours_last([part[..., -1 - z] for z, part in enumerate(_slices(weights, window))])


def _neighbours_first(weights: Tensor) -> Sequence[Tensor]:
    """[..., n] -> n times [...]."""
    if not eager_on_cpu(weights):
        return paddle.unbind(weights, axis=-1)
    *outer, n = weights.shape
    # a matrix is transposed fast
    return weights.reshape([-1, n]).transpose([1, 0]).reshape([n, *outer]).unbind()


def _neighbours_last(products: Sequence[Tensor]) -> Tensor:
    """n times [...] -> [..., n]."""
    if not eager_on_cpu(products[0]):
        return paddle.stack(products, axis=-1)
    n, shape = len(products), products[0].shape
    return paddle.stack(products).reshape([n, -1]).transpose([1, 0]).reshape([*shape, n])


class _Scores(PyLayer):
    """`_scores`, which keeps q and k alone for its gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, window: int) -> Tensor:
        """See _scores."""
        ctx.save_for_backward(q, k)
        ctx.window = window
        return _scores(q, k, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """The gradients of q and k; None for what has none."""
        (q, k), window = ctx.saved_tensor(), ctx.window
        of_q = None if q.stop_gradient else _mix(grad, k, window)
        of_k = None if k.stop_gradient else _mix(_turned(grad, window), q, window)
        return of_q, of_k


class _Mix(PyLayer):
    """`_mix`, which keeps weights and v alone for its gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, v: Tensor, window: int) -> Tensor:
        """See _mix."""
        ctx.save_for_backward(weights, v)
        ctx.window = window
        return _mix(weights, v, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """The gradients of weights and v; None for what has none."""
        (weights, v), window = ctx.saved_tensor(), ctx.window
        of_weights = None if weights.stop_gradient else _scores(grad, v, window)
        of_v = None if v.stop_gradient else _mix(_turned(weights, window), grad, window)
        return of_weights, of_v
