"""Mask2Former's pixel decoder: deformable attention over the three coarser maps of a backbone, and
mask features at the size of the finest.

Cheng et al. 2022, arXiv:2112.01527; reference: MSDeformAttnPixelDecoder of mmdetection 3, whose
parameter names these are. Levels stand coarsest first. Padding takes part, as in the reference.
"""

from typing import Any, List, NamedTuple, Sequence, Tuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..detectors.deformable import DeformableEncoder, reference_points, valid_counts
from ..detectors.dino_head import height_width
from ..detectors.transformer import sine_position
from ..layers import Conv2D, PointwiseConv2D
from ..necks.channel_mapper import GROUPS, NormedConv
from ..resizing import resize_like

__all__ = ["LEVELS", "Memory", "PixelDecoder"]

LEVELS = 3  # of the backbone's four maps; the finest becomes mask features


class Memory(NamedTuple):
    """One level for the transformer decoder."""

    tokens: Tensor  # [B, h * w, C], row by row
    position: Tensor  # [1, h * w, C]: sines of the tokens' places
    size: Tuple[Any, Any]  # (h, w): integers, or scalar tensors while a program is recorded


class PixelDecoder(nn.Layer):
    """in_channels: of the backbone's four maps, finest first. channels: of all that comes out, a
    multiple of 32 and of `heads`. hidden: of the feed-forward networks.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        heads: int,
        points: int,
        hidden: int,
        depth: int,
    ) -> None:
        super().__init__()
        if channels % GROUPS:
            raise ValueError(f"channels must be a multiple of {GROUPS}; got {channels}")
        finest, *coarser = in_channels
        self.input_convs = nn.LayerList(
            [NormedConv(PointwiseConv2D(width, channels), channels) for width in coarser[::-1]]
        )
        weights = nn.initializer.XavierNormal()
        self.encoder = DeformableEncoder(channels, heads, LEVELS, points, hidden, depth, weights)
        normal = nn.initializer.Normal(0.0, 1.0)
        self.level_encoding = nn.Embedding(LEVELS, channels, weight_attr=normal)
        lateral = PointwiseConv2D(finest, channels, bias_attr=False)
        self.lateral_convs = nn.LayerList([NormedConv(lateral, channels)])
        output = Conv2D(channels, channels, 3, padding=1, bias_attr=False)
        self.output_convs = nn.LayerList([NormedConv(output, channels)])
        self.mask_feature = PointwiseConv2D(channels, channels)
        for conv, inputs in (
            (lateral, finest),
            (output, 9 * channels),
            (self.mask_feature, channels),
        ):
            # Caffe2's Xavier
            bound = (3 / inputs) ** 0.5
            nn.initializer.Uniform(-bound, bound)(conv.weight)

    def forward(self, maps: Sequence[Tensor]) -> Tuple[Tensor, List[Memory]]:
        """maps: [B, C_i, H_i, W_i], four, finest first -> (mask features [B, C, H_0, W_0], the
        levels' Memory, coarsest first).
        """
        levels = [conv(x) for conv, x in zip(self.input_convs, maps[:0:-1])]
        sizes = [height_width(x) for x in levels]
        cells = [paddle.ones([1, *size], dtype="bool") for size in sizes]
        positions = [sine_position(x, levels[0].shape[1] // 2) for x in cells]
        tokens = self.encoder(
            paddle.concat([x.flatten(2).transpose([0, 2, 1]) for x in levels], axis=1),
            paddle.concat(
                [x + code for x, code in zip(positions, self.level_encoding.weight)], axis=1
            ),
            reference_points(sizes, valid_counts(cells)),
            sizes,
        )
        memories, start = [], 0
        for position, (height, width) in zip(positions, sizes):
            own = tokens[:, start : start + height * width]
            memories.append(Memory(own, position, (height, width)))
            start = start + height * width
        return self.mask_features(maps[0], own, levels[-1]), memories

    def mask_features(self, finest: Tensor, tokens: Tensor, like: Tensor) -> Tensor:
        """[B, C, H, W] of the backbone's finest map [B, C_0, H, W] and the tokens of the finest
        level, which has the height and width of `like`.
        """
        (lateral,), (output,) = self.lateral_convs, self.output_convs
        memory = tokens.transpose([0, 2, 1]).reshape(paddle.shape(like))
        x = lateral(finest)
        return self.mask_feature(F.relu(output(x + resize_like(memory, x))))
