"""ChannelMapper: every map of a backbone to the same number of channels, and coarser maps beside
them.

Reference: ChannelMapper of mmdetection 3 with GroupNorm and without activations. Parameter names
equal the reference's, as `convs.0.conv.weight`, `extra_convs.0.gn.weight`.
"""

from typing import List, Sequence

from paddle import Tensor, nn

from ..layers import Conv2D, GroupNorm, PointwiseConv2D

__all__ = ["ChannelMapper"]

GROUPS = 32


class NormedConv(nn.Layer):
    """A convolution without bias (`conv`) and GroupNorm (`gn`); no activation."""

    def __init__(self, conv: nn.Conv2D, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.gn = GroupNorm(GROUPS, channels)
        nn.initializer.XavierUniform()(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, H', W']."""
        return self.gn(self.conv(x))


class ChannelMapper(nn.Layer):
    """in_channels: those of the backbone's maps, finest first. out_channels: a multiple of 32.
    num_outs: levels that come out; the first beyond the maps is made of the last map, each further
    one of the one before.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_outs: int) -> None:
        super().__init__()
        if num_outs < len(in_channels):
            raise ValueError(
                f"num_outs must be at least the number of maps, {len(in_channels)}; got {num_outs}"
            )
        if out_channels % GROUPS:
            raise ValueError(f"out_channels must be a multiple of {GROUPS}; got {out_channels}")
        self.convs = nn.LayerList(
            [
                NormedConv(PointwiseConv2D(channels, out_channels, bias_attr=False), out_channels)
                for channels in in_channels
            ]
        )
        extra = num_outs - len(in_channels)
        sources = [in_channels[-1], *[out_channels] * extra][:extra]
        self.extra_convs = nn.LayerList(
            [
                NormedConv(
                    Conv2D(channels, out_channels, 3, stride=2, padding=1, bias_attr=False),
                    out_channels,
                )
                for channels in sources
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> List[Tensor]:
        """maps: [B, C_i, H_i, W_i], finest first -> num_outs maps [B, out_channels, H_i, W_i], then
        each half the one before, rounded up.
        """
        outs = [conv(x) for conv, x in zip(self.convs, maps)]
        source = maps[-1]
        for conv in self.extra_convs:
            source = conv(source)
            outs.append(source)
        return outs
