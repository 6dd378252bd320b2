"""Decode heads: Semantic FPN's (Kirillov et al. 2019, arXiv:1901.02446), UPerNet's (Xiao et al.
2018, arXiv:1807.10221), and FCN's,
the auxiliary one. Reference: decode_heads of mmsegmentation 1.2; parameter names equal the
reference's.

Maps are [B, C, H, W]; every resize is bilinear with half-pixel centres (align_corners False). Heads
answer at the size of their finest map.
"""

import math
from typing import Sequence

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..layers import Conv2D, PointwiseConv2D
from ..resizing import adaptive_average, resize, resize_like

NORM_EPS = 1e-5


class ConvModule(nn.Layer):
    """Convolution without bias (`conv`), BatchNorm (`bn`), ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        if kernel_size == 1:
            self.conv = PointwiseConv2D(in_channels, out_channels, bias_attr=False)
        else:
            self.conv = Conv2D(
                in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_attr=False
            )
        self.bn = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)
        # He's, of the fan out
        nn.initializer.Normal(std=math.sqrt(2 / (out_channels * kernel_size**2)))(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, H, W]. ValueError in training if BatchNorm has one value
        per channel, as torch.
        """
        x = self.conv(x)
        # of a synchronised one the others have values too
        alone = self.bn.training and type(self.bn) is nn.BatchNorm2D
        if alone and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            raise ValueError(
                "a batch of one image leaves BatchNorm a single value per channel, which Paddle "
                "would pass on as it is: train with batch_size 2 or more and drop_last: True, or "
                "with use_sync_bn in several processes"
            )
        return F.relu(self.bn(x))


class DecodeHead(nn.Layer):
    """What all heads end in: dropout of whole channels, then a 1x1 convolution to the classes."""

    def __init__(self, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout2D(dropout)
        self.conv_seg = PointwiseConv2D(channels, num_classes)
        nn.initializer.Normal(std=0.01)(self.conv_seg.weight)
        nn.initializer.Constant(0.0)(self.conv_seg.bias)

    def classify(self, x: Tensor) -> Tensor:
        """x: [B, channels, H, W] -> logits [B, num_classes, H, W]."""
        return self.conv_seg(self.dropout(x))


class Doubling(nn.Layer):
    """Twice the height and width. By size, not by nn.Upsample's factor, over which Paddle2ONNX
    (2.1) ends the process.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, C, 2 * H, 2 * W]."""
        size = paddle.shape(x)[2:]
        return resize(x, size + size)  # times 2 would be computed in floats in ONNX


class FPNHead(DecodeHead):
    """Every level passes as many (3x3 convolution, x2 upsampling) as it takes to the finest level's
    stride; all are added.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        strides: Sequence[int],
        dropout: float,
    ):
        super().__init__(channels, num_classes, dropout)
        self.scale_heads = nn.LayerList()
        for stride in strides:
            doublings, layers = (stride // strides[0]).bit_length() - 1, []
            for i in range(max(1, doublings)):
                layers.append(ConvModule(channels if i else in_channels, channels, 3))
                if doublings:
                    layers.append(Doubling())
            self.scale_heads.append(nn.Sequential(*layers))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: one per stride, finest first -> logits [B, num_classes, H, W] at the finest map's
        size.
        """
        out = self.scale_heads[0](maps[0])
        for head, x in zip(self.scale_heads[1:], maps[1:]):
            # of another size where a map's odd side was rounded up
            out = out + resize_like(head(x), out)
        return self.classify(out)


class UPerHead(DecodeHead):
    """A pyramid of pools on the last map, a top-down path over all maps, and a fusion of its levels
    at the finest size.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        pool_scales: Sequence[int],
        dropout: float,
    ):
        super().__init__(channels, num_classes, dropout)
        self.pool_scales = tuple(pool_scales)
        *finer, last = in_channels
        # the reference keeps the pool, which has no parameters, as number 0 of each pair
        self.psp_modules = nn.LayerList(
            [nn.Sequential(nn.Identity(), ConvModule(last, channels, 1)) for _ in pool_scales]
        )
        self.bottleneck = ConvModule(last + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.LayerList([ConvModule(c, channels, 1) for c in finer])
        self.fpn_convs = nn.LayerList([ConvModule(channels, channels, 3) for _ in finer])
        self.fpn_bottleneck = ConvModule(len(in_channels) * channels, channels, 3)

    def pool_pyramid(self, x: Tensor) -> Tensor:
        """The last map [B, C, H, W] beside itself averaged in s x s bins, for every s of
        pool_scales -> [B, channels, H, W].
        """
        pools = [
            resize_like(conv(adaptive_average(x, scale)), x)
            for scale, conv in zip(self.pool_scales, self.psp_modules)
        ]
        return self.bottleneck(paddle.concat([x, *pools], axis=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: finest first -> logits [B, num_classes, H, W] at the finest map's size."""
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps)] + [
            self.pool_pyramid(maps[-1])
        ]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + resize_like(levels[i + 1], levels[i])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, levels)] + levels[-1:]
        fused = paddle.concat([outs[0], *(resize_like(x, outs[0]) for x in outs[1:])], axis=1)
        return self.classify(self.fpn_bottleneck(fused))


class FCNHead(DecodeHead):
    """One 3x3 convolution on one of the maps: the auxiliary head, of use in training only."""

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, in_index: int, dropout: float
    ):
        super().__init__(channels, num_classes, dropout)
        self.in_index = in_index
        self.convs = nn.Sequential(ConvModule(in_channels, channels, 3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: finest first -> logits [B, num_classes, H, W] at the size of map `in_index`."""
        return self.classify(self.convs(maps[self.in_index]))
