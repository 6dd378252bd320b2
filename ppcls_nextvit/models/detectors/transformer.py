"""Parts of the transformers in query-based heads: attention with packed projections, feed-forward
networks, sine positions, initialisation.

Reference: MultiheadAttention and FFN of mmcv 2, MLP and SinePositionalEncoding of mmdetection 3;
parameter names equal theirs. Tokens are [B, N, C].
"""

import math
from typing import Optional

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..layers import Linear, swapped

__all__ = [
    "FFN",
    "MLP",
    "MultiheadAttention",
    "box_sines",
    "initialise_transformer",
    "sine_position",
]

POSITION_EPS = 1e-6


class MultiheadAttention(nn.Layer):
    """Attention under the name `attn`, as the reference wraps torch's. No residual: the caller adds
    it.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attn = PackedAttention(channels, heads)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, blocked: Optional[Tensor] = None
    ) -> Tensor:
        """See PackedAttention."""
        return self.attn(query, key, value, blocked)


class PackedAttention(nn.Layer):
    """Scaled dot-product attention whose three input projections are one parameter, in torch's
    layout: `in_proj_weight` [3 * channels, channels], rows of query, key, value.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads, {heads}; got {channels}")
        self.heads = heads
        self.in_proj_weight = self.create_parameter([3 * channels, channels])
        self.in_proj_bias = self.create_parameter([3 * channels], is_bias=True)
        self.out_proj = Linear(channels, channels)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, blocked: Optional[Tensor] = None
    ) -> Tensor:
        """query: [B, Q, C]; key, value: [B, K, C] -> [B, Q, C].

        blocked: bool, of a shape that broadcasts to [B, heads, Q, K]; True: this query does not see
        this key. No query may have all its keys blocked.
        """
        q, k, v = (self._split(self._projected(x, i)) for i, x in enumerate((query, key, value)))
        scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)  # [B, heads, Q, K]
        if blocked is not None:
            # added, which is faster than a choice of every score
            nothing, never = (paddle.full([1], x, scores.dtype) for x in (0.0, -math.inf))
            scores = scores + paddle.where(blocked, never, nothing)
        out = paddle.matmul(F.softmax(scores, axis=-1), v)  # [B, heads, Q, C / heads]
        return self.out_proj(swapped(out).flatten(2))

    def macs(
        self, query: Tensor, key: Tensor, value: Tensor, blocked: Optional[Tensor], out: Tensor
    ) -> int:
        """Multiply-adds of the input projections and the two products."""
        inputs = query.size + key.size + value.size
        return query.shape[-1] * inputs + 2 * query.size * key.shape[1]

    def _projected(self, x: Tensor, number: int) -> Tensor:
        """[B, N, C] -> [B, N, C], by the projection of query (0), key (1) or value (2).

        By slices: what Paddle Inference (3.3.1) makes of a parameter's chunks is lost after the
        first run.
        """
        channels = x.shape[-1]
        rows = slice(number * channels, (number + 1) * channels)
        weight, bias = self.in_proj_weight[rows], self.in_proj_bias[rows]
        return paddle.matmul(x, weight, transpose_y=True) + bias

    def _split(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, heads, N, C / heads]."""
        # 0: as it was, known or not while a program is recorded
        x = x.reshape([0, 0, self.heads, x.shape[-1] // self.heads])
        return swapped(x)


class FFN(nn.Layer):
    """Linear, ReLU, Linear, without residual. Keys: `layers.0.0`, `layers.1`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        first = nn.Sequential(Linear(channels, hidden), nn.ReLU())
        self.layers = nn.LayerList([first, Linear(hidden, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.layers[1](self.layers[0](x))


class MLP(nn.Layer):
    """`depth` Linears with ReLU between them. Keys: `layers.0`, ..."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, depth: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden] * (depth - 1), out_channels]
        self.layers = nn.LayerList([Linear(a, b) for a, b in zip(widths, widths[1:])])

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_channels] -> [..., out_channels]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def sine_position(valid: Tensor, features: int = 128, temperature: float = 10000.0) -> Tensor:
    """Sines of each cell's place among the valid ones: [B, h * w, 2 * features], those of y, then
    those of x; sine and cosine alternate.

    valid: bool [B, h, w], False where a map lies over padding. A place counts the valid cells up to
    it, from 1, as a share of its column's or row's.
    """
    cells = valid.astype(paddle.get_default_dtype())
    y, x = cells.cumsum(axis=1), cells.cumsum(axis=2)
    y = y / (y[:, -1:] + POSITION_EPS)
    x = x / (x[:, :, -1:] + POSITION_EPS)
    sines = [_sines(place, features, temperature) for place in (y, x)]
    return paddle.concat(sines, axis=-1).flatten(1, 2)


def box_sines(boxes: Tensor, features: int = 128, temperature: float = 10000.0) -> Tensor:
    """[B, Q, 4], (cx, cy, w, h) in [0, 1] -> [B, Q, 4 * features]: the sines of cy, cx, w, h."""
    sines = [_sines(boxes[..., i], features, temperature) for i in (1, 0, 2, 3)]
    return paddle.concat(sines, axis=-1)


def _sines(place: Tensor, features: int, temperature: float) -> Tensor:
    """[...], a full turn being 1 -> [..., features]: (sine, cosine) of ever longer waves."""
    waves = [2 * math.pi / temperature ** (2 * i / features) for i in range(features // 2)]
    angles = place.unsqueeze(-1) * paddle.to_tensor(waves, dtype=place.dtype)
    # a cosine as a sine: of sin and cos of one tensor, Paddle Inference (3.3.1) overwrites the
    # tensor by the first
    phases = paddle.to_tensor([0.0, math.pi / 2], dtype=place.dtype)
    return (angles.unsqueeze(-1) + phases).sin().flatten(-2)


def initialise_transformer(layer: nn.Layer, weights: nn.initializer.Initializer) -> None:
    """Set every parameter of more than one axis below `layer` by `weights`, and the biases of its
    Linears as torch does: uniform within 1 / sqrt(inputs). Attention's biases stay 0, norms as they
    are.
    """
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            weights(parameter)
    spared = {
        id(part.out_proj)
        for part in layer.sublayers(include_self=True)
        if isinstance(part, PackedAttention)
    }
    for part in layer.sublayers(include_self=True):
        if isinstance(part, nn.Linear) and part.bias is not None and id(part) not in spared:
            linear_default(part.bias, part.weight.shape[0])


def linear_default(parameter: Tensor, inputs: int) -> None:
    """torch's default of a Linear with so many inputs: uniform within 1 / sqrt(inputs)."""
    bound = inputs**-0.5
    nn.initializer.Uniform(-bound, bound)(parameter)
