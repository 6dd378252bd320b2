"""Next-ViT in one file: stem -> four stages of NCB / NTB -> norm -> head; below, its export form.

Paper: Li et al. 2022, arXiv:2207.05501. Reference: bytedance/Next-ViT, classification/nextvit.py.
Tensors are NCHW; N = H * W tokens in raster order. Parameter names equal the reference's (BatchNorm
statistics carry Paddle's leaf names `_mean` and `_variance`, Linear weights are [in, out]).
"""

from dataclasses import dataclass, replace
from typing import List, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..folding import as_pointwise, fold_after, fold_before
from ..layers import (
    Conv2D,
    DropPath,
    Linear,
    PointwiseConv2D,
    activated,
    draw_truncated,
    make_divisible,
    pooled_from,
    product,
    recompute_block,
    swapped,
)
from ..registry import register_variants
from .base import BaseBackbone

NORM_EPS = 1e-5
# channels of one attention head, and of one group of the 3x3 convolution in MHCA
HEAD_DIM = 32
MIX_BLOCK_RATIO = 0.75  # share of an NTB's channels that E-MHSA makes; MHCA makes the rest
# per stage, K and V see N / sr**2 tokens; stage 1 has no NTB, so its 8 is never used
SR_RATIOS = (8, 4, 2, 1)


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

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return F.relu(self.norm(self.conv(x)))

    def fold_norms(self) -> None:
        """The norm into the convolution before it."""
        fold_after(self.conv, self.norm)
        self.norm = nn.Identity()


class PatchEmbed(nn.Layer):
    """Changes stride and channels at the start of a block: 2x2 average pool (stride 2), 1x1
    convolution, BatchNorm; else identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        return self.norm(self.conv(self.avgpool(x)))

    def fold_norms(self) -> None:
        """The norm, if there is one, into the convolution before it."""
        fold_after(self.conv, self.norm)
        self.norm = nn.Identity()


class MHCA(nn.Layer):
    """Multi-Head Convolutional Attention: a 3x3 convolution with one group per head, BatchNorm,
    ReLU, a 1x1 projection.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_conv3x3 = Conv2D(
            channels, channels, 3, padding=1, groups=channels // HEAD_DIM, bias_attr=False
        )
        self.norm = nn.BatchNorm2D(channels, epsilon=NORM_EPS)
        self.projection = PointwiseConv2D(channels, channels, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the same shape."""
        return self.projection(F.relu(self.norm(self.group_conv3x3(x))))

    def fold_norms(self) -> None:
        """The norm into the convolution before it."""
        fold_after(self.group_conv3x3, self.norm)
        self.norm = nn.Identity()


class Mlp(nn.Layer):
    """Two 1x1 convolutions with bias and a ReLU between them; dropout after each."""

    def __init__(self, channels: int, ratio: int, drop_rate: float) -> None:
        super().__init__()
        hidden = make_divisible(channels * ratio)
        self.conv1 = PointwiseConv2D(channels, hidden)
        self.conv2 = PointwiseConv2D(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the same shape."""
        return self.drop(self.conv2(self.drop(activated(self.conv1, x))))


class NCB(nn.Layer):
    """Next Convolution Block: MHCA, then an MLP of ratio 3, each a residual branch."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        drop_path_rate: float,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, out_channels, stride)
        self.mhca = MHCA(out_channels)
        self.norm = nn.BatchNorm2D(out_channels, epsilon=NORM_EPS)
        self.mlp = Mlp(out_channels, 3, drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)  # [B, C, H, W]
        x = self.drop_path.added(x, self.mhca(x))
        return self.drop_path.added(x, self.mlp(self.norm(x)))

    def fold_norms(self) -> None:
        """The pre-norm into the MLP."""
        fold_before(self.mlp.conv1, self.norm)
        self.norm = nn.Identity()


class SequencePool(nn.Layer):
    """Average over every `window` consecutive raster tokens; a remainder of N is not seen (as in
    the reference).
    """

    def __init__(self, sr_ratio: int) -> None:
        super().__init__()
        self.window = sr_ratio * sr_ratio

    def forward(self, x: Tensor) -> Tensor:
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

    def __init__(self, sr_ratio: int) -> None:
        super().__init__()
        self.sr_ratio = sr_ratio
        self.register_buffer("window", paddle.to_tensor([sr_ratio, sr_ratio], dtype="int32"))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> tokens [B, C, ceil(H / sr_ratio) * ceil(W / sr_ratio)]."""
        # [B, C, N / sr^2]
        return F.avg_pool2d(x, self.sr_ratio, stride=self.sr_ratio, ceil_mode=True).flatten(2)


class E_MHSA(nn.Layer):
    """Efficient Multi-Head Self Attention: queries from every token, keys and values from pooled
    tokens (paper, section on NTB).
    """

    def __init__(
        self,
        channels: int,
        sr_ratio: int,
        pool: str,
        attn_drop_rate: float,
        proj_drop_rate: float,
    ) -> None:
        super().__init__()
        self.num_heads = channels // HEAD_DIM
        self.scale = HEAD_DIM**-0.5
        self.q = Linear(channels, channels)
        self.k = Linear(channels, channels)
        self.v = Linear(channels, channels)
        self.proj = Linear(channels, channels)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        pool_class = WindowPool if pool == "window" else SequencePool
        self.sr = pool_class(sr_ratio) if sr_ratio > 1 else nn.Flatten(2)
        self.norm = nn.BatchNorm1D(channels, epsilon=NORM_EPS) if sr_ratio > 1 else nn.Identity()

    def heads(self, tokens: Tensor) -> Tensor:
        """[B, M, C] -> [B, heads, M, HEAD_DIM]."""
        return swapped(tokens.reshape([0, -1, self.num_heads, HEAD_DIM]))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> tokens [B, N, C]. K and V see N // sr_ratio**2 pooled tokens."""
        tokens, pooled = self.tokens(x)
        attention = self.attn_drop(self.weights(tokens, pooled))
        v = self.heads(self.v(pooled))
        out = swapped(product(attention, v)).flatten(2)  # [B, N, C]
        return self.proj_drop(self.proj(out))

    def tokens(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """[B, C, H, W] -> all tokens [B, N, C] and the pooled ones [B, M, C]."""
        return x.flatten(2).transpose([0, 2, 1]), self.norm(self.sr(x)).transpose([0, 2, 1])

    def weights(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """[B, N, C], [B, M, C] -> [B, heads, N, M]."""
        q, k = self.heads(self.q(tokens)), self.heads(self.k(pooled))
        return F.softmax(product(q, k, transpose_y=True) * self.scale, axis=-1)

    def rows(self, queries: Sequence[int], x: Tensor) -> Tuple[Tensor, None]:
        """See api.AttentionLayer."""
        tokens, pooled = self.tokens(x)
        chosen = paddle.index_select(tokens, paddle.to_tensor(queries), axis=1)
        return self.weights(chosen, pooled)[0], None

    def map_size(self, x: Tensor) -> Tuple[int, int]:
        """(height, width) of the map of queries."""
        return tuple(x.shape[2:])

    def on_tokens(self, weights: Tensor, query: int, x: Tensor) -> Tensor:
        """See api.AttentionLayer; the weight of a pooled token goes to those it is the mean of."""
        return pooled_from(self.sr, weights, x.shape[2:])

    def macs(self, x: Tensor, out: Tensor) -> int:
        """Multiply-adds of the two products for x [1, C, H, W]: N * M * C each, for N tokens and M
        pooled ones.
        """
        return 2 * x.size * self.sr(x).shape[-1]


class NTB(nn.Layer):
    """Next Transformer Block: E-MHSA makes MIX_BLOCK_RATIO of the channels, MHCA on its projection
    the rest; both are concatenated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        sr_ratio: int,
        pool: str,
        drop_path_rate: float,
        drop_rate: float,
        attn_drop_rate: float,
    ) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        x = self.patch_embed(x)  # [B, C_mhsa, H, W]
        tokens = self.e_mhsa(self.norm1(x))  # [B, N, C_mhsa]
        x = self.mhsa_drop_path.added(x, tokens.transpose([0, 2, 1]).reshape(paddle.shape(x)))
        local = self.projection(x)  # [B, C_mhca, H, W]
        local = self.mhca_drop_path.added(local, self.mhca(local))
        x = paddle.concat([x, local], axis=1)  # [B, C, H, W]
        return self.mlp_drop_path.added(x, self.mlp(self.norm2(x)))

    def fold_norms(self) -> None:
        """The pre-norms into E-MHSA's and the MLP's first layers."""
        attention = self.e_mhsa
        fold_before(attention.q, self.norm1)
        # they see norm1, the pool, then the pooled tokens' own norm
        fold_before(attention.k, self.norm1, attention.norm)
        fold_before(attention.v, self.norm1, attention.norm)
        fold_before(self.mlp.conv1, self.norm2)
        attention.norm = nn.Identity()
        self.norm1 = nn.Identity()
        self.norm2 = nn.Identity()


def stage_plan(depths: Sequence[int]) -> Tuple[Sequence[Tuple[type, int]], ...]:
    """Per stage, its blocks as (class, output channels): the paper's Next Hybrid Strategy."""
    return (
        [(NCB, 96)] * depths[0],
        [(NCB, 192)] * (depths[1] - 1) + [(NTB, 256)],
        ([(NCB, 384)] * 4 + [(NTB, 512)]) * (depths[2] // 5),
        [(NCB, 768)] * (depths[3] - 1) + [(NTB, 1024)],
    )


class NextViT(BaseBackbone):
    """Next-ViT: a classifier, or the backbone of a detector or segmentor. Any H and W of 32 or
    more, square or not.

    config: the variant, of which depths, stem_channels and drop_path_rate can be given otherwise
    (None: the variant's own). num_classes: 0 leaves the Linear out (forward then returns the pooled
    [B, 1024] features); None leaves out all that follows the stages: a backbone, whose forward
    returns the four maps.
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
    toy = {"depths": (1, 1, 5, 1)}

    def __init__(
        self,
        config: NextViTConfig,
        *,
        num_classes: Optional[int] = 1000,
        in_channels: int = 3,
        drop_path_rate: Optional[float] = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        depths: Optional[Tuple[int, int, int, int]] = None,
        stem_channels: Optional[Tuple[int, int, int]] = None,
        recompute: bool = False,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        extra_norms: bool = False,
    ) -> None:
        config = NextViTConfig(
            config.depths if depths is None else depths,
            config.drop_path_rate if drop_path_rate is None else drop_path_rate,
            config.stem_channels if stem_channels is None else stem_channels,
            config.pool,
        )
        for name, rate in (("drop_rate", drop_rate), ("attn_drop_rate", attn_drop_rate)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be in [0, 1); got {rate}")
        if extra_norms and num_classes is not None:
            raise ValueError(
                "extra_norms are for a backbone (num_classes=None); a classifier norms its last "
                "map alone"
            )
        super().__init__(
            num_classes, in_channels, config.drop_path_rate, recompute, frozen_stages, norm_eval
        )
        self.config = config
        c1, c2, c3 = config.stem_channels
        self.stem = nn.Sequential(
            ConvBNReLU(in_channels, c1, 2),
            ConvBNReLU(c1, c2, 1),
            ConvBNReLU(c2, c3, 1),
            ConvBNReLU(c3, c3, 2),
        )
        self.features = nn.Sequential(*_blocks(config, drop_rate, attn_drop_rate))
        self.stage_ends = tuple(int(end) - 1 for end in np.cumsum(config.depths))

        channels = self.stage_channels[-1]
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
                nn.Sequential(Linear(channels, num_classes)) if num_classes else nn.Identity()
            )
        self.apply(_initialise)
        self.hold_still()

    def stages(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """(name, prefixes of its keys) of the stem, stage 1 to 4 and the head; an extra norm
        belongs to the stage before it.
        """
        blocks = iter(range(sum(self.config.depths)))
        found: List[Tuple[str, Tuple[str, ...]]] = [("stem", ("stem.",))]
        for stage, depth in enumerate(self.config.depths):
            prefixes = [f"features.{next(blocks)}." for _ in range(depth)]
            if self.extra_norm_list:
                last = stage == len(self.extra_norm_list)
                prefixes.append("norm." if last else f"extra_norm_list.{stage}.")
            found.append((f"stage{stage + 1}", tuple(prefixes)))
        head = self.head_prefixes if self.extra_norm_list else ("norm.", *self.head_prefixes)
        return [*found, ("head", head)]

    def blocks(self) -> List[List[nn.Layer]]:
        """The NCBs and NTBs of each stage."""
        ends = [0, *(end + 1 for end in self.stage_ends)]
        return [list(self.features)[start:end] for start, end in zip(ends, ends[1:])]

    def forward_features(self, x: Tensor) -> List[Tensor]:
        """x: [B, in_channels, H, W] -> four maps, strides (4, 8, 16, 32), channels (96, 256, 512,
        1024), sizes rounded up.

        ValueError for an H or W below 32.
        """
        self.check_size(x)
        norms = [*self.extra_norm_list, self.norm] if self.extra_norm_list else []
        maps: List[Tensor] = []
        x = self.stem(x)
        for index, block in enumerate(self.features):
            x = recompute_block(block, x) if self.recompute and block.training else block(x)
            if index in self.stage_ends:
                x = norms[len(maps)](x) if norms else x
                maps.append(x)
        return maps

    def forward_head(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps of forward_features -> logits [B, num_classes]; without classes the pooled last
        map [B, 1024].
        """
        return self.proj_head(self.avgpool(self.norm(maps[-1])).flatten(1))

    def fold_norms(self) -> None:
        """The last norm, which commutes with the average pool, into the head. A model without a
        head keeps it.
        """
        if self.num_classes:
            fold_before(self.proj_head[0], self.norm)
            self.norm = nn.Identity()

    def export_form(self) -> "NextViT":
        """A new model in eval mode: the same numbers from fewer and cheaper operators, for every
        target alike.

        Every BatchNorm is folded. Attention stays channels-first: queries, keys with values, and
        the projection are 1x1 convolutions on maps, not products with tokens, so nothing is
        transposed but the operands of a product, which every runtime does within the product. The
        attention's scale is in the queries' weights. The head is a 1x1 convolution of the pooled
        map. A size is read at run time only where it is unknown while the graph is recorded: once
        per NTB.
        """
        form = self.fuse()
        with paddle.no_grad():
            for index, block in enumerate(form.features):
                if isinstance(block, NTB):
                    form.features[index] = MapNTB(block)
            if self.num_classes:
                form.avgpool = nn.Sequential(form.avgpool, as_pointwise(form.proj_head[0]))
                form.proj_head = nn.Identity()
        form.eval()
        return form


def _blocks(config: NextViTConfig, drop_rate: float, attn_drop_rate: float) -> List[nn.Layer]:
    """All blocks of a variant, stage by stage."""
    rates = np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist()
    blocks: List[nn.Layer] = []
    channels = config.stem_channels[-1]
    for stage, plan in enumerate(stage_plan(config.depths)):
        for position, (block, out_channels) in enumerate(plan):
            stride = 2 if stage and not position else 1
            rate = rates[len(blocks)]
            if block is NCB:
                blocks.append(NCB(channels, out_channels, stride, rate, drop_rate))
            else:
                ratio = SR_RATIOS[stage]
                attention = (ratio, config.pool, rate, drop_rate, attn_drop_rate)
                blocks.append(NTB(channels, out_channels, stride, *attention))
            channels = out_channels
    return blocks


def _initialise(layer: nn.Layer) -> None:
    """The reference's initialisation: convolutions and Linears truncated normal of std 0.02, biases
    0.
    """
    if isinstance(layer, (nn.Conv2D, nn.Linear)):
        draw_truncated(layer.weight)
        if layer.bias is not None:
            nn.initializer.Constant(0.0)(layer.bias)


class MapNTB(nn.Layer):
    """The export form of a fused NTB: its attention on maps."""

    def __init__(self, block: NTB) -> None:
        super().__init__()
        self.patch_embed = block.patch_embed
        self.projection = block.projection
        self.mhca = block.mhca
        self.mlp = block.mlp
        self.e_mhsa = MapE_MHSA(block.e_mhsa)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C, H', W'], halved where the block has a stride."""
        x = self.patch_embed(x)  # [B, C_mhsa, H, W]
        x = x + self.e_mhsa(x)
        local = self.projection(x)  # [B, C_mhca, H, W]
        local = local + self.mhca(local)
        x = paddle.concat([x, local], axis=1)  # [B, C, H, W]
        return x + self.mlp(x)


class MapE_MHSA(nn.Layer):
    """The export form of a fused E_MHSA: from a map [B, C, H, W] to a map of the same shape.

    The attention is kept as [M, N], so that values times it is the output, channels-first. The
    other way round, softmax(q^T k) over the last axis, Paddle's oneDNN (3.3.1) is wrong: for a
    transposed operand with one pooled token, and for one that is reshaped before.
    """

    keys_first = True  # of what `attn_drop` is called with

    def __init__(self, attention: E_MHSA) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.sr = attention.sr
        self.q = as_pointwise(attention.q, gain=attention.scale)
        self.kv = as_pointwise(attention.k, attention.v)
        self.proj = as_pointwise(attention.proj)
        self.attn_drop = nn.Identity()

    def pool(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> M pooled tokens, as a map [B, C, ., .]; see the two pools."""
        if isinstance(self.sr, SequencePool):
            window = (self.sr.window, 1)
            return F.avg_pool2d(x.reshape([0, x.shape[1], -1, 1]), window, stride=window)
        if isinstance(self.sr, WindowPool):
            return F.avg_pool2d(x, self.sr.sr_ratio, stride=self.sr.sr_ratio, ceil_mode=True)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> the same shape."""
        heads = self.num_heads
        # [B, heads, HEAD_DIM, N]
        q = self.q(x).reshape([0, heads, HEAD_DIM, -1])
        kv = self.kv(self.pool(x)).reshape([0, 2 * heads, HEAD_DIM, -1])
        # [B, heads, HEAD_DIM, M]
        k, v = paddle.split(kv, 2, axis=1)
        attention = F.softmax(k.transpose([0, 1, 3, 2]) @ q, axis=2)  # [B, heads, M, N]
        # [B, heads, HEAD_DIM, N]
        out = v @ self.attn_drop(attention)
        known = min(x.shape[1:]) > 0
        return self.proj(out.reshape([0, *x.shape[1:]] if known else paddle.shape(x)))


for _name, _config in VARIANTS.items():
    register_variants(
        NextViT,
        {_name: _config},
        further={
            # PaddleClas's names; the network is the same at every size
            f"{_name}_224": _config,
            f"{_name}_384": _config,
            f"{_name}_window_pool": replace(_config, pool="window"),
        },
    )
