"""Feature Pyramid Network (Lin et al. 2017, arXiv:1612.03144), without norms or activations.

Reference: FPN of mmdetection and mmsegmentation. Parameter names equal the reference's, as
`lateral_convs.0.conv.weight`.
"""

from typing import List, Sequence

from paddle import Tensor, nn
from paddle.nn import functional as F

from ..layers import Conv2D, PointwiseConv2D
from ..resizing import resize_nearest, size_of


class ConvModule(nn.Layer):
    """A convolution under the name `conv`, as the reference's ConvModule has it; weight initialised
    by `initializer`, bias 0.
    """

    def __init__(self, conv: nn.Conv2D, initializer: nn.initializer.Initializer) -> None:
        super().__init__()
        self.conv = conv
        initializer(conv.weight)
        nn.initializer.Constant(0.0)(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, H, W]."""
        return self.conv(x)


class FPN(nn.Layer):
    """in_channels: those of the backbone's maps, finest first. num_outs: levels that come out;
    those beyond the maps halve the last.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, num_outs: int = 5
    ) -> None:
        super().__init__()
        if num_outs < len(in_channels):
            raise ValueError(
                f"num_outs must be at least the number of maps, {len(in_channels)}; got {num_outs}"
            )
        self.num_outs = num_outs
        xavier = nn.initializer.XavierUniform()
        self.lateral_convs = nn.LayerList(
            [
                ConvModule(PointwiseConv2D(channels, out_channels), xavier)
                for channels in in_channels
            ]
        )
        self.fpn_convs = nn.LayerList(
            [
                ConvModule(Conv2D(out_channels, out_channels, 3, padding=1), xavier)
                for _ in in_channels
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> List[Tensor]:
        """maps: [B, C_i, H_i, W_i], finest first -> num_outs maps [B, out_channels, H_i, W_i], then
        each half the one before.
        """
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps)]
        # top-down; any size, so not by a factor of 2
        for fine in range(len(laterals) - 2, -1, -1):
            coarse = resize_nearest(laterals[fine + 1], size_of(laterals[fine]))
            laterals[fine] = laterals[fine] + coarse
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals)]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return outs
