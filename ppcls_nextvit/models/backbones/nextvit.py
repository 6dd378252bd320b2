"""Next-ViT in one file: stem -> four stages of NCB / NTB -> norm -> head.

Paper: Li et al. 2022, arXiv:2207.05501. Reference: bytedance/Next-ViT, classification/nextvit.py.
Tensors are NCHW; N = H * W tokens in raster order. Parameter names equal the reference's (BatchNorm
statistics carry Paddle's leaf names `_mean` and `_variance`, Linear weights are [in, out]).
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ..layers import BATCH_NORMS, Conv2D, DropPath, PointwiseConv2D, make_divisible, recompute_block

NORM_EPS = 1e-5
# channels of one attention head, and of one group of the 3x3 convolution in MHCA
HEAD_DIM = 32
MIX_BLOCK_RATIO = 0.75  # share of an NTB's channels that E-MHSA makes; MHCA makes the rest
# per stage, K and V see N / sr**2 tokens; stage 1 has no NTB, so its 8 is never used
SR_RATIOS = (8, 4, 2, 1)
MIN_INPUT_SIZE = 32


@dataclass(frozen=True)
class NextViTConfig:
    """What tells one Next-ViT from another (paper, table of variants)."""

    depths: Tuple[int, int, int, int]
    # 0 at the first block, this at the last, linear between
    drop_path_rate: float
    stem_channels: Tuple[int, int, int] = (64, 32, 64)
    # E-MHSA's pool: 'sequence' is the published one, 'window' needs training anew
    pool: str = "sequence"

    def __post_init__(self):
        if len(self.depths) != 4 or min(self.depths) < 1 or self.depths[2] % 5:
            raise ValueError(
                "depths must be four positive numbers, the third a multiple of 5 (stage 3 repeats "
                f"4 NCB + 1 NTB); got depths={tuple(self.depths)}"
            )
        if len(self.stem_channels) != 3 or min(self.stem_channels) < 1:
            raise ValueError(
                f"stem_channels must be three positive numbers; got {tuple(self.stem_channels)}"
            )
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must be in [0, 1); got {self.drop_path_rate}")
        if self.pool not in ("sequence", "window"):
            raise ValueError(f"pool must be 'sequence' or 'window'; got {self.pool!r}")


VARIANTS = {
    "NextViT_small": NextViTConfig(depths=(3, 4, 10, 3), drop_path_rate=0.1),
    "NextViT_base": NextViTConfig(depths=(3, 4, 20, 3), drop_path_rate=0.2),
    "NextViT_large": NextViTConfig(depths=(3, 4, 30, 3), drop_path_rate=0.2),
}


class ConvBNReLU(nn.Layer):
    """3x3 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv = Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)

    def forward(self, x):
        """x: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return F.relu(self.norm(self.conv(x)))


class PatchEmbed(nn.Layer):
    """Changes stride and channels at the start of a block: 2x2 average pool (stride 2), 1x1
    convolution, BatchNorm; else identity.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        changes = stride == 2 or in_channels != out_channels
        # exclusive=True (Paddle's default) == torch count_include_pad=False: an odd border averages
        # what is there
        self.avgpool = nn.AvgPool2D(2, stride=2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.conv = (
            PointwiseConv2D(in_channels, out_channels, bias_attr=False)
            if changes
            else nn.Identity()
        )
        self.norm = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS) if changes else nn.Identity()

    def forward(self, x):
        """x: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return self.norm(self.conv(self.avgpool(x)))


class MHCA(nn.Layer):
    """Multi-Head Convolutional Attention: a 3x3 convolution with one group per head, BatchNorm,
    ReLU, a 1x1 projection.
    """

    def __init__(self, channels):
        super().__init__()
        self.group_conv3x3 = Conv2D(
            channels, channels, 3, padding=1, groups=channels // HEAD_DIM, bias_attr=False
        )
        self.norm = nn.BatchNorm2D(channels, epsilon=NORM_EPS)
        self.projection = PointwiseConv2D(channels, channels, bias_attr=False)

    def forward(self, x):
        """x: [B, C, H, W] -> the same shape."""
        return self.projection(F.relu(self.norm(self.group_conv3x3(x))))


class Mlp(nn.Layer):
    """Two 1x1 convolutions with bias and a ReLU between them; dropout after each."""

    def __init__(self, channels, ratio, drop_rate):
        super().__init__()
        hidden = make_divisible(channels * ratio)
        self.conv1 = PointwiseConv2D(channels, hidden)
        self.conv2 = PointwiseConv2D(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x):
        """x: [B, C, H, W] -> the same shape."""
        return self.drop(self.conv2(self.drop(F.relu(self.conv1(x)))))


class NCB(nn.Layer):
    """Next Convolution Block: MHCA, then an MLP of ratio 3, each a residual branch."""

    def __init__(self, in_channels, out_channels, stride, drop_path_rate, drop_rate):
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, out_channels, stride)
        self.mhca = MHCA(out_channels)
        self.norm = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)
        self.mlp = Mlp(out_channels, 3, drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x):
        """x: [B, C_in, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)  # [B, C, H, W]
        x = x + self.drop_path(self.mhca(x))
        return x + self.drop_path(self.mlp(self.norm(x)))


class SequencePool(nn.Layer):
    """Average over every `window` consecutive raster tokens; a remainder of N is not seen (as in
    the reference).
    """

    def __init__(self, sr_ratio):
        super().__init__()
        self.window = sr_ratio * sr_ratio

    def forward(self, x):
        """x: [B, C, H, W] -> tokens [B, C, H * W // sr_ratio**2]."""
        # [B, C, N, 1]; 4-D, which oneDNN's bfloat16 pool needs
        tokens = x.flatten(2).unsqueeze(-1)
        # [B, C, N // window]
        return F.avg_pool2d(tokens, (self.window, 1), stride=(self.window, 1)).squeeze(-1)


class WindowPool(nn.Layer):
    """Average over sr x sr squares of the map: what the paper's picture suggests and the published
    weights do not use.

    The buffer `window` has no other use than to be in the state dict: weights of the other kind
    cannot load unnoticed.
    """

    def __init__(self, sr_ratio):
        super().__init__()
        self.sr_ratio = sr_ratio
        self.register_buffer("window", paddle.to_tensor([sr_ratio, sr_ratio], dtype="int32"))

    def forward(self, x):
        """x: [B, C, H, W] -> tokens [B, C, ceil(H / sr_ratio) * ceil(W / sr_ratio)]."""
        # [B, C, N / sr^2]
        return F.avg_pool2d(x, self.sr_ratio, stride=self.sr_ratio, ceil_mode=True).flatten(2)


class E_MHSA(nn.Layer):
    """Efficient Multi-Head Self Attention: queries from every token, keys and values from pooled
    tokens (paper, section on NTB).
    """

    def __init__(self, channels, sr_ratio, pool, attn_drop_rate, proj_drop_rate):
        super().__init__()
        self.num_heads = channels // HEAD_DIM
        self.scale = HEAD_DIM**-0.5
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        pools = {"sequence": SequencePool, "window": WindowPool}
        self.sr = pools[pool](sr_ratio) if sr_ratio > 1 else nn.Flatten(2)
        self.norm = nn.BatchNorm1D(channels, epsilon=NORM_EPS) if sr_ratio > 1 else nn.Identity()

    def heads(self, tokens):
        """[B, M, C] -> [B, heads, M, HEAD_DIM]."""
        return tokens.reshape([0, -1, self.num_heads, HEAD_DIM]).transpose([0, 2, 1, 3])

    def forward(self, x):
        """x: [B, C, H, W] -> tokens [B, N, C]. K and V see N // sr_ratio**2 pooled tokens."""
        tokens = x.flatten(2).transpose([0, 2, 1])  # [B, N, C]
        pooled = self.norm(self.sr(x)).transpose([0, 2, 1])  # [B, M, C]
        q, k, v = self.heads(self.q(tokens)), self.heads(self.k(pooled)), self.heads(self.v(pooled))
        # [B, heads, N, M]
        attention = F.softmax(paddle.matmul(q, k, transpose_y=True) * self.scale, axis=-1)
        # [B, N, C]
        out = paddle.matmul(self.attn_drop(attention), v).transpose([0, 2, 1, 3]).flatten(2)
        return self.proj_drop(self.proj(out))


class NTB(nn.Layer):
    """Next Transformer Block: E-MHSA makes MIX_BLOCK_RATIO of the channels, MHCA on its projection
    the rest; both are concatenated.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        stride,
        sr_ratio,
        pool,
        drop_path_rate,
        drop_rate,
        attn_drop_rate,
    ):
        super().__init__()
        mhsa_channels = make_divisible(int(out_channels * MIX_BLOCK_RATIO))
        mhca_channels = out_channels - mhsa_channels
        self.patch_embed = PatchEmbed(in_channels, mhsa_channels, stride)
        self.norm1 = nn.BatchNorm2D(mhsa_channels, epsilon=NORM_EPS)
        self.e_mhsa = E_MHSA(mhsa_channels, sr_ratio, pool, attn_drop_rate, drop_rate)
        self.mhsa_drop_path = DropPath(drop_path_rate * MIX_BLOCK_RATIO)
        self.projection = PatchEmbed(mhsa_channels, mhca_channels)
        self.mhca = MHCA(mhca_channels)
        self.mhca_drop_path = DropPath(drop_path_rate * (1 - MIX_BLOCK_RATIO))
        self.norm2 = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)
        self.mlp = Mlp(out_channels, 2, drop_rate)
        self.mlp_drop_path = DropPath(drop_path_rate)

    def forward(self, x):
        """x: [B, C_in, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)  # [B, C_mhsa, H, W]
        tokens = self.mhsa_drop_path(self.e_mhsa(self.norm1(x)))  # [B, N, C_mhsa]
        x = x + tokens.transpose([0, 2, 1]).reshape(paddle.shape(x))
        local = self.projection(x)  # [B, C_mhca, H, W]
        local = local + self.mhca_drop_path(self.mhca(local))
        x = paddle.concat([x, local], axis=1)  # [B, C, H, W]
        return x + self.mlp_drop_path(self.mlp(self.norm2(x)))


def stage_plan(depths):
    """Per stage, its blocks as (class, output channels): the paper's Next Hybrid Strategy."""
    return (
        [(NCB, 96)] * depths[0],
        [(NCB, 192)] * (depths[1] - 1) + [(NTB, 256)],
        ([(NCB, 384)] * 4 + [(NTB, 512)]) * (depths[2] // 5),
        [(NCB, 768)] * (depths[3] - 1) + [(NTB, 1024)],
    )


class NextViT(nn.Layer):
    """Next-ViT: a classifier, or the backbone of a detector or segmentor. Any H and W of 32 or
    more, square or not.

    config: the variant. num_classes: 0 leaves the Linear out (forward then returns the pooled [B,
    1024] features); None leaves out all
    that follows the stages: a backbone, whose forward returns the four maps.
    recompute: trade time for memory, block by block, in training.
    frozen_stages: the stem and the first so many stages neither train nor change their statistics;
    0 freezes nothing.
    norm_eval: BatchNorm statistics stay as they are in training too, while weights and biases
    train.
    extra_norms, for a backbone: a BatchNorm after every stage, whose output the next stage consumes
    too (reference: segmentation/nextvit.py). The last is `norm`, as in the published files; the
    fourth of their list is never used and not built.
    """

    stage_channels = (96, 256, 512, 1024)
    stage_strides = (4, 8, 16, 32)

    def __init__(
        self,
        config,
        num_classes=1000,
        in_channels=3,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        recompute=False,
        frozen_stages=0,
        norm_eval=False,
        extra_norms=False,
    ):
        super().__init__()
        if (num_classes or 0) < 0 or in_channels < 1:
            raise ValueError(
                f"num_classes must be 0 or more and in_channels 1 or more; got {num_classes} and "
                f"{in_channels}"
            )
        for name, rate in (("drop_rate", drop_rate), ("attn_drop_rate", attn_drop_rate)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be in [0, 1); got {rate}")
        if not 0 <= frozen_stages <= 4:
            raise ValueError(
                f"frozen_stages must be from 0 (nothing) to 4 (stem and all stages); got "
                f"{frozen_stages}"
            )
        if extra_norms and num_classes is not None:
            raise ValueError(
                "extra_norms are for a backbone (num_classes=None); a classifier norms its last "
                "map alone"
            )
        self.config, self.num_classes, self.in_channels, self.recompute = (
            config,
            num_classes,
            in_channels,
            recompute,
        )
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        c1, c2, c3 = config.stem_channels
        self.stem = nn.Sequential(
            ConvBNReLU(in_channels, c1, 2),
            ConvBNReLU(c1, c2, 1),
            ConvBNReLU(c2, c3, 1),
            ConvBNReLU(c3, c3, 2),
        )

        rates = np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist()
        blocks, channels = [], c3
        for stage, plan in enumerate(stage_plan(config.depths)):
            for position, (block, out_channels) in enumerate(plan):
                stride, rate = (2 if stage and not position else 1), rates[len(blocks)]
                if block is NCB:
                    blocks.append(NCB(channels, out_channels, stride, rate, drop_rate))
                else:
                    blocks.append(
                        NTB(
                            channels,
                            out_channels,
                            stride,
                            SR_RATIOS[stage],
                            config.pool,
                            rate,
                            drop_rate,
                            attn_drop_rate,
                        )
                    )
                channels = out_channels
        self.features = nn.Sequential(*blocks)
        self.stage_ends = tuple(int(end) - 1 for end in np.cumsum(config.depths))

        self.extra_norm_list = nn.LayerList(
            [nn.BatchNorm2D(c, epsilon=NORM_EPS) for c in self.stage_channels[:-1]]
            if extra_norms
            else []
        )
        if extra_norms or num_classes is not None:
            self.norm = nn.BatchNorm2D(channels, epsilon=NORM_EPS)
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2D(1)
            self.proj_head = (
                nn.Sequential(nn.Linear(channels, num_classes)) if num_classes else nn.Identity()
            )
        self.apply(_initialise)
        for parameter in (
            parameter for layer in self._frozen() for parameter in layer.parameters()
        ):
            parameter.stop_gradient = True

    def _frozen(self):
        """The layers that `frozen_stages` holds still."""
        if not self.frozen_stages:
            return []
        last = self.stage_ends[self.frozen_stages - 1]
        norms = (
            [*self.extra_norm_list, self.norm][: self.frozen_stages] if self.extra_norm_list else []
        )
        return [self.stem, *self.features[: last + 1], *norms]

    def train(self, mode=True):
        """Training mode, but for what `frozen_stages` and `norm_eval` hold still. Returns self.

        A Layer sets the mode of those below it without calling their train(): whoever holds a
        backbone calls this one's in its own.
        """
        if not mode:
            return self.eval()
        super().train()
        held = [layer for part in self._frozen() for layer in part.sublayers(include_self=True)]
        if self.norm_eval:
            held += [layer for layer in self.sublayers() if isinstance(layer, BATCH_NORMS)]
        for layer in held:
            # not eval(), which would set Paddle's global tracer to evaluation
            layer.training = False
        return self

    def forward_features(self, x):
        """x: [B, in_channels, H, W] -> four maps, strides (4, 8, 16, 32), channels (96, 256, 512,
        1024), sizes rounded up.

        ValueError for an H or W below 32.
        """
        height, width = x.shape[2:]
        # negative: unknown while an export is traced
        if 0 <= height < MIN_INPUT_SIZE or 0 <= width < MIN_INPUT_SIZE:
            raise ValueError(
                f"the input must be at least {MIN_INPUT_SIZE} x {MIN_INPUT_SIZE} pixels; got "
                f"{height} x {width}"
            )
        norms = (
            [*self.extra_norm_list, self.norm]
            if self.extra_norm_list
            else [nn.Identity()] * len(self.stage_ends)
        )
        x = self.stem(x)
        maps = []
        for index, block in enumerate(self.features):
            x = recompute_block(block, x) if self.recompute and block.training else block(x)
            if index in self.stage_ends:
                x = norms[len(maps)](x)
                maps.append(x)
        return maps

    def forward(self, x):
        """x: [B, in_channels, H, W] -> logits [B, num_classes]; of a backbone,
        forward_features(x).
        """
        maps = self.forward_features(x)
        if self.num_classes is None:
            return maps
        return self.proj_head(self.avgpool(self.norm(maps[-1])).flatten(1))


def _initialise(layer):
    """The reference's initialisation: convolutions and Linears truncated normal of std 0.02, biases
    0.
    """
    if isinstance(layer, (nn.Conv2D, nn.Linear)):
        nn.initializer.TruncatedNormal(std=0.02)(layer.weight)
        if layer.bias is not None:
            nn.initializer.Constant(0.0)(layer.bias)
