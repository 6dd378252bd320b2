"""Between maps, tokens and heads: the layouts of a channels-last network.

A map is [B, C, H, W], tokens are [B, N, C] in raster order, heads split the channels:
[B, N, heads, d]. On a CPU, eagerly, Paddle (3.3.1) permutes, slices and broadcasts some layouts 20
to 90 times slower than others; the detours of these functions avoid that, and a recorded program
has the plain operator.
"""

from typing import Sequence, Tuple, Union

import paddle
from paddle import Tensor, nn

from ..layers import eager_on_cpu, product, swapped

__all__ = [
    "ChannelsFirstConv2D",
    "ChannelsLastLinear",
    "GatedLinear",
    "Size",
    "added",
    "halves",
    "heads_first",
    "heads_last",
    "in_float32",
    "map_size",
    "split_heads",
    "unit",
]

Size = Union[int, Tensor]


class GatedLinear(nn.Linear):
    """Linear that takes tokens and gives its outputs in two halves, channels first."""

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """x: [B, N, C_in] -> twice [B, C_out / 2, N]."""
        weights, biases = paddle.split(self.weight, 2, axis=1), paddle.split(self.bias, 2)
        gate, value = (
            added(product(weight, x, transpose_x=True, transpose_y=True), bias.unsqueeze(-1))
            for weight, bias in zip(weights, biases)
        )
        return gate, value

    def macs(self, x: Tensor, halves: Tuple[Tensor, Tensor]) -> int:
        """Multiply-adds of both products for x [1, N, C_in]."""
        return x.size * self.weight.shape[1]


class ChannelsLastLinear(nn.Linear):
    """Linear that takes channels first and gives tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, N] -> [B, N, C_out]."""
        return added(product(x, self.weight, transpose_x=True), self.bias)


class ChannelsFirstConv2D(nn.Conv2D):
    """1x1 convolution that takes tokens and gives channels first."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, N, C_in] -> [B, C_out, N]."""
        out = product(self.weight.flatten(1), x, transpose_y=True)
        return added(out, self.bias.unsqueeze(-1))


def added(of: Tensor, other: Tensor) -> Tensor:
    """What a matrix product has just given, plus `other`, broadcast. Eagerly in its place: memory
    for one more tensor of its size takes longer than the sum.
    """
    other = other.astype(of.dtype)
    return of.add_(other) if paddle.in_dynamic_mode() else of + other


def map_size(x: Tensor) -> Tuple[Size, Size]:
    """(H, W) of a map [B, C, H, W]: ints, or scalar tensors where a program is recorded for any."""
    height, width = x.shape[2:]
    if height >= 0 and width >= 0:
        return height, width
    shape = paddle.shape(x).astype("int64")
    return shape[2], shape[3]


def split_heads(x: Tensor, d: int) -> Tensor:
    """[B, N, heads * d] -> [B, N, heads, d]."""
    return x.reshape([0, -1, x.shape[-1] // d, d])


def heads_first(x: Tensor) -> Tensor:
    """[B, N, heads, d] -> [B, heads, N, d]."""
    return swapped(x)


def heads_last(x: Tensor) -> Tensor:
    """[B, heads, N, d] -> [B, N, heads, d]."""
    return swapped(x)


def halves(x: Tensor) -> Sequence[Tensor]:
    """[B, N, 2 * C] -> twice [B, N, C]."""
    if not eager_on_cpu(x):
        return paddle.split(x, 2, axis=-1)
    batch, n, channels = x.shape
    size = [batch, n, channels // 2]
    return [paddle.crop(x, size, [0, 0, start]) for start in (0, channels // 2)]


def in_float32(x: Tensor) -> Tensor:
    """`x`, of a half-precision type in float32: for what automatic mixed precision must not
    round.
    """
    return x.astype("float32") if x.dtype in (paddle.float16, paddle.bfloat16) else x


def unit(x: Tensor) -> Tensor:
    """`x` divided by its length along the last axis, in float32 or more; zero stays zero."""
    x = in_float32(x)
    squares = (x * x).sum(-1, keepdim=True)
    return x * paddle.rsqrt(paddle.clip(squares, min=1e-24))
