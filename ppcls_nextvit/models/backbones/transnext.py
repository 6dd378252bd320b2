"""TransNeXt in one file: four stages of patch embedding, blocks and norm, then the head.

Paper: Shi 2024, arXiv:2311.17132. Reference: DaiShiResearch/TransNeXt. Within a stage there are
tokens [B, N, C] of a map of H * W = N places in raster order, and P pooled ones. Parameter names
equal the reference's (Linear weights are [in, out]). Where the tokens stand to one another is in
positions.py, the window around each in sliding_window.py.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ... import ops
from ...schema import nearest
from ..layers import (
    Conv2D,
    DropPath,
    Linear,
    draw_truncated,
    eager_on_cpu,
    pooled_from,
    recompute_block,
)
from ..registry import register_variants
from .base import BaseBackbone
from .positions import Places, find_places, pooled_size
from .sliding_window import chosen_form
from .tokens import (
    ChannelsFirstConv2D,
    ChannelsLastLinear,
    GatedLinear,
    Size,
    added,
    halves,
    heads_first,
    heads_last,
    in_float32,
    map_size,
    split_heads,
    unit,
)
from .transnext_export import ExportedAggregatedAttention, ExportedAttention, ExportedGLU

HEAD_DIM = 24
MLP_RATIOS = (8, 8, 4, 4)
NORM_EPS = 1e-6  # of blocks and stages; the norms of patch embeddings and of pooled keys have 1e-5
CPB_CHANNELS = 512  # hidden ones of the MLP that makes a position bias of a distance
# distances that it takes at a time on a CPU: its hidden values then stay in the cache
CPB_ROWS = 1024
TEMPERATURE = math.log(math.exp(1 / 0.24) - 1)  # softplus makes 1 / 0.24 of it
NEVER_DECAYED = ("query_embedding", "relative_pos_bias_local", "cpb", "temperature")
WINDOWS = (3, 5, 7)
POSITION_BIASES = ("extrapolation", "interpolation")


@dataclass(frozen=True)
class TransNeXtConfig:
    """What tells one TransNeXt from another (paper, table of variants)."""

    channels: Tuple[int, int, int, int]
    depths: Tuple[int, int, int, int]
    # 0 at the first block, this at the last, linear between
    drop_path_rate: float
    # keys are pooled by these in height and width; 1: full attention, without a window
    sr_ratios: Tuple[int, int, int, int] = (8, 4, 2, 1)
    pretrain_size: int = 224  # pixels

    def __post_init__(self):
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ValueError(f"depths must be four positive numbers; got {tuple(self.depths)}")
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must be in [0, 1); got {self.drop_path_rate}")
        if self.pretrain_size < 64:
            raise ValueError(
                "pretrain_size must be 64 or more, two tokens of the last stage: the unit of the "
                f"position bias is the distance of the first token and the last; got "
                f"{self.pretrain_size}"
            )


VARIANTS = {
    "TransNeXt_micro": TransNeXtConfig((48, 96, 192, 384), (2, 2, 15, 2), 0.15),
    "TransNeXt_tiny": TransNeXtConfig((72, 144, 288, 576), (2, 2, 15, 2), 0.25),
    "TransNeXt_small": TransNeXtConfig((72, 144, 288, 576), (5, 5, 22, 5), 0.45),
    "TransNeXt_base": TransNeXtConfig((96, 192, 384, 768), (5, 5, 23, 5), 0.6),
    # aggregated attention in all four stages
    "TransNeXt_micro_AAAA": TransNeXtConfig(
        (48, 96, 192, 384), (2, 2, 15, 2), 0.15, sr_ratios=(16, 8, 4, 2), pretrain_size=256
    ),
}


class BlockOptions(NamedTuple):
    """What all blocks of a model share; see TransNeXt."""

    window: int
    attention_form: str
    fixed_pool_size: Optional[int]
    drop_rate: float
    attn_drop_rate: float


class PatchEmbed(nn.Layer):
    """Convolution to half the height and width (the first: a quarter), then LayerNorm."""

    def __init__(self, in_channels: int, channels: int, first: bool) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.proj = Conv2D(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tuple[Size, Size]]:
        """x: [B, C_in, H, W] -> (tokens [B, N, C], (height, width) of their map)."""
        x = self.proj(x)
        tokens = x.reshape([0, x.shape[1], -1]).transpose([0, 2, 1])
        return self.norm(tokens), map_size(x)


class DWConv(nn.Layer):
    """3x3 depthwise convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = Conv2D(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, size: Tuple[Size, Size]) -> Tensor:
        """x: [B, C, N] of a map of `size` -> the same shape."""
        return self.dwconv(x.reshape([0, x.shape[1], *size])).flatten(2)


class ConvolutionalGLU(nn.Layer):
    """The MLP: one half of fc1's channels, convolved, is the gate of the other half."""

    def __init__(self, channels: int, ratio: int, drop_rate: float) -> None:
        super().__init__()
        hidden = 2 * channels * ratio // 3
        self.fc1 = GatedLinear(channels, 2 * hidden)
        self.dwconv = DWConv(hidden)
        self.fc2 = ChannelsLastLinear(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, size: Tuple[Size, Size]) -> Tensor:
        """x: tokens [B, N, C] of a map of `size` -> the same shape."""
        gate, value = self.fc1(x)  # [B, hidden, N]
        gated = F.gelu(self.dwconv(gate, size)) * value
        return self.drop(self.fc2(self.drop(gated)))


class CosineAttention(nn.Layer):
    """What both attentions share: a score is the cosine of a query and a key, times a learnt
    temperature and the logarithm of the number of keys, plus a bias by their distance.
    """

    window = 0  # side, in tokens, of what is seen beside the pooled map
    find_places = staticmethod(find_places)

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.num_heads = channels // HEAD_DIM
        self.compiled, self.form = chosen_form(options.attention_form)
        self.temperature = self.parameter([1, 1], value=TEMPERATURE)
        self.query_embedding = self.parameter([1, HEAD_DIM], std=0.02)
        self.attn_drop = nn.Dropout(options.attn_drop_rate)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(options.drop_rate)
        self.cpb_fc1 = Linear(2, CPB_CHANNELS)
        self.cpb_fc2 = Linear(CPB_CHANNELS, self.num_heads)

    def parameter(self, shape: List[int], std: float = 0.0, value: float = 0.0) -> Tensor:
        """A new parameter [heads, *shape]: normal around 0, or the same value everywhere."""
        normal, constant = nn.initializer.Normal(std=std), nn.initializer.Constant(value)
        return self.create_parameter(
            [self.num_heads, *shape], default_initializer=normal if std else constant
        )

    def map_size(self, x: Tensor, places: Places) -> Tuple[Size, Size]:
        """(height, width) of the map of queries."""
        return places.size

    def scaled(self, q: Tensor, lengths: Tensor) -> Tensor:
        """Unit queries -> those whose product with a unit key is its score, without bias; both
        [B, N, heads, HEAD_DIM]. lengths: see Places.
        """
        temperature = F.softplus(in_float32(self.temperature)).squeeze(-1)  # [heads, 1]
        scale = temperature * lengths.astype(temperature.dtype).unsqueeze(-1)
        if eager_on_cpu(q):
            # Paddle's multiplying is slow unless all but the last axis agree
            scale = scale.expand([*q.shape[:3], 1]).contiguous()
        return (q + in_float32(self.query_embedding).squeeze(1)) * scale

    def position_bias(self, places: Places) -> Tensor:
        """[heads, N, P], in float32 or more."""
        if self.compiles_position_bias(places):
            return self.compiled_position_bias(places)
        table = places.table.astype(self.cpb_fc1.weight.dtype)
        parts = [table]
        if eager_on_cpu(table):
            rows = max(CPB_ROWS // table.shape[1], 1)
            parts = [table[start : start + rows] for start in range(0, len(table), rows)]
        bias = [self.cpb_fc2(F.relu(self.cpb_fc1(part))) for part in parts]
        return places.spread(in_float32(paddle.concat(bias)).transpose([2, 0, 1]))

    def compiles_position_bias(self, places: Places) -> bool:
        """Whether the compiled operator makes the position bias here."""
        takes = self.compiled and paddle.in_dynamic_mode() and ops.takes(self.cpb_fc1.weight)
        return takes and places.is_exact()

    def hidden_macs(self, places: Places) -> int:
        """Multiply-adds of the position bias's MLP that its layers do not count themselves, since
        the compiled operator takes their place.
        """
        if not self.compiles_position_bias(places):
            return 0
        distances = places.table.size // 2
        return distances * (self.cpb_fc1.weight.size + self.cpb_fc2.weight.size)

    def compiled_position_bias(self, places: Places) -> Tensor:
        """The same as position_bias by the compiled operator, for places whose index is exact."""
        dtype = self.cpb_fc1.weight.dtype
        return ops.position_bias(
            places.rows.coordinates.astype(dtype),
            places.columns.coordinates.astype(dtype),
            places.rows.taps[0][0],
            places.columns.taps[0][0],
            weight_1=self.cpb_fc1.weight,
            bias_1=self.cpb_fc1.bias,
            weight_2=self.cpb_fc2.weight,
            bias_2=self.cpb_fc2.bias,
        )


class AggregatedAttention(CosineAttention):
    """Every token sees the window around it and the pooled map, in one softmax. The weights of the
    window then gain a share that depends on the query alone.
    """

    def __init__(self, channels: int, sr_ratio: int, options: BlockOptions) -> None:
        super().__init__(channels, options)
        self.sr_ratio = sr_ratio
        self.fixed_pool_size = options.fixed_pool_size
        window = self.window = options.window
        self.q = Linear(channels, channels)
        self.kv = Linear(channels, 2 * channels)
        self.sr = ChannelsFirstConv2D(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.relative_pos_bias_local = self.parameter([window**2], std=0.0004)
        self.learnable_tokens = self.parameter([HEAD_DIM, window**2], std=0.02)
        self.learnable_bias = self.parameter([1, window**2])

    def pool_size(self, size: Tuple[Size, Size]) -> Tuple[Size, Size]:
        """Of the pooled keys of a map of `size`."""
        if self.fixed_pool_size:
            return self.fixed_pool_size, self.fixed_pool_size
        return pooled_size(size, self.sr_ratio)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """x: tokens [B, N, C] -> the same shape."""
        q, kv, pooled_kv = self.q(x), self.kv(x), self.kv(self.pooled(x, places))
        dropping = self.training and self.attn_drop.p > 0
        if self.compiled and not dropping and paddle.in_dynamic_mode() and ops.takes(q):
            out = self.compiled_attention(q, kv, pooled_kv, places)
        else:
            out = self.composed_attention(q, kv, pooled_kv, places)
        return self.proj_drop(self.proj(out))

    def compiled_attention(
        self, q: Tensor, kv: Tensor, pooled_kv: Tensor, places: Places
    ) -> Tensor:
        """Queries [B, N, C], keys and values [B, N, 2 * C], pooled ones [B, P, 2 * C] -> [B, N, C]
        by the compiled operator.
        """
        return ops.aggregated_attention(
            q,
            kv,
            pooled_kv,
            size=places.size,
            window=self.window,
            embedding=self.query_embedding.squeeze(1),
            temperature=F.softplus(self.temperature).flatten(),
            lengths=places.lengths.flatten().astype(q.dtype),
            local_bias=self.relative_pos_bias_local,
            position_bias=self.position_bias(places).astype(q.dtype),
            tokens=self.learnable_tokens,
            token_bias=self.learnable_bias.squeeze(1),
        )

    def composed_attention(
        self, q: Tensor, kv: Tensor, pooled_kv: Tensor, places: Places
    ) -> Tensor:
        """The same as compiled_attention by operators of Paddle, in any type."""
        q = unit(split_heads(q, HEAD_DIM))  # [B, N, heads, HEAD_DIM]
        k, v = self.keys_and_values(kv)
        pooled_k, pooled_v = (heads_first(part) for part in self.keys_and_values(pooled_kv))
        scaled = self.scaled(q, places.lengths)

        near = self.form.scores(places.as_map(scaled), places.as_map(k), self.window)
        near = heads_first(near.flatten(1, 2))  # [B, heads, N, window**2]
        far = paddle.matmul(heads_first(scaled), pooled_k, transpose_y=True)  # [B, heads, N, P]
        weights = self.attn_drop(self.weights(near, far, places))
        near, far = paddle.split(weights, [self.window**2, -1], axis=-1)

        near = heads_last(near + self.learnt(q)).astype(v.dtype)
        near = self.form.mix(places.as_map(near), places.as_map(v), self.window).flatten(1, 2)
        far = heads_last(paddle.matmul(far.astype(v.dtype), pooled_v))
        return (near + far).flatten(2)

    def weights(self, near: Tensor, far: Tensor, places: Places) -> Tensor:
        """Scores of the windows [B, heads, N, window**2] and of the pooled keys [B, heads, N, P],
        both without bias -> the weights, one after the other.
        """
        local = in_float32(self.relative_pos_bias_local).unsqueeze(1)
        near = near + (local + places.mask.astype(local.dtype))
        far = added(in_float32(far), self.position_bias(places))
        return F.softmax(paddle.concat([near, far], axis=-1), axis=-1)

    def learnt(self, q: Tensor) -> Tensor:
        """What unit queries [B, N, heads, HEAD_DIM] alone add to the weights of their windows,
        [B, heads, N, window**2].
        """
        # with as many axes as the queries, for Paddle's gradient
        tokens = self.learnable_tokens.astype(q.dtype).unsqueeze(0)
        return paddle.matmul(heads_first(q), tokens) + self.learnable_bias

    def rows(self, queries: Sequence[int], x: Tensor, places: Places) -> Tuple[Tensor, Tensor]:
        """See api.AttentionLayer."""
        k = self.keys_and_values(self.kv(x))[0]
        pooled_k = heads_first(self.keys_and_values(self.kv(self.pooled(x, places)))[0])
        weights, learnt = [], []
        for query in queries:
            own = places.of_query(query)
            q = unit(split_heads(self.q(x[:, query : query + 1]), HEAD_DIM))
            scaled = heads_first(self.scaled(q, own.lengths))
            around = paddle.index_select(k, self.neighbours(query, places.size), axis=1)
            near = paddle.matmul(scaled, heads_first(around), transpose_y=True)
            far = paddle.matmul(scaled, pooled_k, transpose_y=True)
            weights.append(self.weights(near, far, own)[0])
            learnt.append(self.learnt(q)[0])
        return paddle.concat(weights, axis=1), paddle.concat(learnt, axis=1)

    def neighbours(self, query: int, size: Tuple[int, int]) -> Tensor:
        """The tokens of the window around one, in raster order, [window**2]; for those outside of
        the map, which the mask hides, the nearest.
        """
        reach = np.arange(self.window) - self.window // 2
        rows, columns = ((i + reach).clip(0, s - 1) for i, s in zip(divmod(query, size[1]), size))
        return paddle.to_tensor((rows[:, None] * size[1] + columns).ravel())

    def keys_and_values(self, kv: Tensor) -> Tuple[Tensor, Tensor]:
        """[B, n, 2 * C] -> unit keys and values, each [B, n, heads, HEAD_DIM]."""
        k, v = (split_heads(half, HEAD_DIM) for half in halves(kv))
        return unit(k), v

    def on_tokens(self, weights: Tensor, query: int, x: Tensor, places: Places) -> Tensor:
        """See api.AttentionLayer; the weight of a pooled key goes to the tokens that it is the mean
        of, those of the window to its own.
        """
        (height, width), window = places.size, self.window
        near, far = paddle.split(weights, [window**2, -1], axis=-1)
        tokens = pooled_from(places.pooled, far, [height * width]).reshape([-1, height, width])
        reach, (row, column) = window // 2, divmod(query, width)
        # a border of `reach`, where the neighbours outside are
        map_ = F.pad(tokens.unsqueeze(0), [reach] * 4)[0]
        map_[:, row : row + window, column : column + window] += near.reshape([-1, window, window])
        return map_[:, reach : reach + height, reach : reach + width]

    def pooled(self, x: Tensor, places: Places) -> Tensor:
        """Tokens [B, N, C] -> [B, P, C]."""
        return self.norm(places.pooled(F.gelu(self.sr(x))).transpose([0, 2, 1]))

    def macs(self, x: Tensor, places: Places, out: Tensor) -> int:
        """Multiply-adds of x [1, N, C]: pooling, the products with the window (scores, the share of
        the query, values) and with the P pooled tokens (scores, values).
        """
        pooled = places.pool[0] * places.pool[1]
        return x.size * (1 + 3 * self.window**2 + 2 * pooled) + self.hidden_macs(places)


class Attention(CosineAttention):
    """Every token sees every other."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__(channels, options)
        self.qkv = Linear(channels, 3 * channels)

    def pool_size(self, size: Tuple[Size, Size]) -> Tuple[Size, Size]:
        """Of the keys of a map of `size`, which are not pooled."""
        return size

    def on_tokens(self, weights: Tensor, query: int, x: Tensor, places: Places) -> Tensor:
        """See api.AttentionLayer."""
        return weights.reshape([-1, *places.size])

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """x: tokens [B, N, C] -> the same shape."""
        q, k, v = self.parts(x)
        weights = self.attn_drop(self.weights(q, k, places))
        out = heads_last(paddle.matmul(weights.astype(v.dtype), heads_first(v)))
        return self.proj_drop(self.proj(out.flatten(2)))

    def parts(self, x: Tensor) -> Sequence[Tensor]:
        """Tokens [B, N, C] -> queries, keys and values, each [B, N, heads, HEAD_DIM]."""
        return paddle.unbind(self.qkv(x).reshape([0, -1, 3, self.num_heads, HEAD_DIM]), axis=2)

    def weights(self, q: Tensor, k: Tensor, places: Places) -> Tensor:
        """Queries and keys [B, n, heads, HEAD_DIM] -> [B, heads, n of queries, n of keys]."""
        q = heads_first(self.scaled(unit(q), places.lengths))
        scores = paddle.matmul(q, heads_first(unit(k)), transpose_y=True)
        return F.softmax(added(in_float32(scores), self.position_bias(places)), axis=-1)

    def rows(self, queries: Sequence[int], x: Tensor, places: Places) -> Tuple[Tensor, None]:
        """See api.AttentionLayer."""
        q, k, _ = self.parts(x)
        found = [self.weights(q[:, i : i + 1], k, places.of_query(i)) for i in queries]
        return paddle.concat(found, axis=2)[0], None

    def macs(self, x: Tensor, places: Places, out: Tensor) -> int:
        """Multiply-adds of the two products for x [1, N, C]."""
        return 2 * x.size * x.shape[1] + self.hidden_macs(places)


class Block(nn.Layer):
    """Attention, then the MLP, each a residual branch after a norm."""

    def __init__(
        self,
        channels: int,
        sr_ratio: int,
        mlp_ratio: int,
        drop_path_rate: float,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, epsilon=NORM_EPS)
        if sr_ratio == 1:
            self.attn: CosineAttention = Attention(channels, options)
        else:
            self.attn = AggregatedAttention(channels, sr_ratio, options)
        self.norm2 = nn.LayerNorm(channels, epsilon=NORM_EPS)
        self.mlp = ConvolutionalGLU(channels, mlp_ratio, options.drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """x: tokens [B, N, C] -> the same shape."""
        x = self.drop_path.added(x, self.attn(self.norm1(x), places))
        return self.drop_path.added(x, self.mlp(self.norm2(x), places.size))


class TransNeXt(BaseBackbone):
    """TransNeXt: a classifier, or the backbone of a detector or segmentor. Any H and W of 32 or
    more, square or not: the tables that depend on the size are made for each as it comes.

    config: the variant, of which depths, drop_path_rate and pretrain_size can be given otherwise
    (None: the variant's own). num_classes: 0 leaves the Linear out (forward then returns the pooled
    features [B, C]); None leaves out the head: a backbone, whose forward returns the four maps.
    pretrain_size: pixels of the square images of the first training, the unit of the position bias;
    further training of the weights at another size keeps it.
    position_bias: 'extrapolation' computes it for each size anew; 'interpolation' computes it for
    maps of a square image of table_size pixels (the size of training) and interpolates it from
    there. Both agree at table_size, which extrapolation has no use for.
    fixed_pool_size: in evaluation, pool the keys of every aggregated attention to so many rows and
    columns at any image size, for a cost that is linear in the pixels.
    window: 3, 5 or 7 tokens; 3 is the published one. attention_form: 'auto', 'compiled' or a name
    of sliding_window.FORMS, which differ in speed and memory, not in results: 'auto' takes the
    compiled operator on a CPU where it is built (`nextvit build-ops`), else the sliced form.
    recompute: trade time for memory, block by block, in training.
    frozen_stages: the first patch embedding and the first so many stages do not train; 0 freezes
    nothing. norm_eval: changes nothing, as there are no statistics that training moves.
    """

    head_prefixes = ("head.",)
    body_prefixes = tuple(
        f"{part}{stage}." for stage in (1, 2, 3, 4) for part in ("patch_embed", "block", "norm")
    )
    toy = {"depths": (1, 1, 1, 1)}

    def __init__(
        self,
        config: TransNeXtConfig,
        *,
        num_classes: Optional[int] = 1000,
        in_channels: int = 3,
        drop_path_rate: Optional[float] = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        depths: Optional[Tuple[int, int, int, int]] = None,
        pretrain_size: Optional[int] = None,
        position_bias: str = "extrapolation",
        table_size: Optional[int] = None,
        fixed_pool_size: Optional[int] = None,
        window: int = 3,
        attention_form: str = "auto",
        recompute: bool = False,
        frozen_stages: int = 0,
        norm_eval: bool = False,
    ) -> None:
        config = replace(
            config,
            depths=config.depths if depths is None else depths,
            drop_path_rate=config.drop_path_rate if drop_path_rate is None else drop_path_rate,
            pretrain_size=config.pretrain_size if pretrain_size is None else pretrain_size,
        )
        for name, rate in (("drop_rate", drop_rate), ("attn_drop_rate", attn_drop_rate)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{name} must be in [0, 1); got {rate}")
        if window not in WINDOWS:
            raise ValueError(f"window must be one of {WINDOWS}; got {window}")
        super().__init__(
            num_classes, in_channels, config.drop_path_rate, recompute, frozen_stages, norm_eval
        )
        self.config = config
        self.stage_channels = config.channels
        self.table_size = _table_size(position_bias, table_size)
        self.fixed_pool_size = fixed_pool_size
        if fixed_pool_size is not None:
            self.min_size = _least_size(fixed_pool_size, config.sr_ratios)
        self._build_stages(
            BlockOptions(window, attention_form, fixed_pool_size, drop_rate, attn_drop_rate)
        )
        if num_classes is not None:
            channels = config.channels[-1]
            self.head = Linear(channels, num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)
        self.hold_still()

    def _build_stages(self, options: BlockOptions) -> None:
        config = self.config
        rates = iter(np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())
        before = self.in_channels
        for i, channels in enumerate(config.channels):
            blocks = [
                Block(channels, config.sr_ratios[i], MLP_RATIOS[i], next(rates), options)
                for _ in range(config.depths[i])
            ]
            self.add_sublayer(f"patch_embed{i + 1}", PatchEmbed(before, channels, first=i == 0))
            self.add_sublayer(f"block{i + 1}", nn.LayerList(blocks))
            self.add_sublayer(f"norm{i + 1}", nn.LayerNorm(channels, epsilon=NORM_EPS))
            before = channels

    def stages(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """(name, prefixes of its keys) of the stem, which is the first patch embedding, stage 1 to
        4 and the head.
        """
        parts = [(f"patch_embed{i}.", f"block{i}.", f"norm{i}.") for i in (1, 2, 3, 4)]
        found: List[Tuple[str, Tuple[str, ...]]] = [
            ("stem", parts[0][:1]),
            ("stage1", parts[0][1:]),
        ]
        found += [(f"stage{i}", parts[i - 1]) for i in (2, 3, 4)]
        return [*found, ("head", self.head_prefixes)]

    def no_weight_decay(self) -> Set[str]:
        """The parameters that the reference never decays, by their names."""
        names = [name for name, _ in self.named_parameters()]
        return {name for name in names if any(part in name for part in NEVER_DECAYED)}

    def train(self, mode: bool = True) -> "TransNeXt":
        """As BaseBackbone's. ValueError for training with a fixed_pool_size."""
        if mode:
            self._check_trainable()
        super().train(mode)
        return self

    def _check_trainable(self) -> None:
        if self.fixed_pool_size is not None:
            raise ValueError(
                "fixed_pool_size is for evaluation, with weights that were trained without it; "
                "leave it out, or call eval()"
            )

    def blocks(self) -> List[List[nn.Layer]]:
        """The Blocks of each stage."""
        return [list(self._part("block", i)) for i in range(len(self.stage_strides))]

    def forward_features(self, x: Tensor) -> List[Tensor]:
        """x: [B, in_channels, H, W] -> four maps, strides (4, 8, 16, 32), sizes rounded up.

        ValueError for an H or W below min_size, and in training with a fixed_pool_size.
        """
        self.check_size(x)
        if self.training:
            self._check_trainable()
        maps: List[Tensor] = []
        for i in range(len(self.stage_strides)):
            x, size = self._part("patch_embed", i)(x)
            blocks = self._part("block", i)
            places = self._places(i, size, blocks[0].attn)
            for block in blocks:
                if self.recompute and block.training:
                    x = recompute_block(block, x, places)
                else:
                    x = block(x, places)
            x = self._part("norm", i)(x).transpose([0, 2, 1])
            x = x.reshape([0, self.stage_channels[i], *size])
            maps.append(x)
        return maps

    def _part(self, name: str, stage: int) -> nn.Layer:
        return getattr(self, f"{name}{stage + 1}")

    def _places(self, stage: int, size: Tuple[Size, Size], attention: CosineAttention) -> Places:
        """Of the tokens of a stage's map of `size`."""
        stride, trained = self.stage_strides[stage], None
        if self.table_size is not None:
            side = self.table_size // stride
            trained = (side, max(side // self.config.sr_ratios[stage], 1))
        unit_length = self.config.pretrain_size // stride - 1
        return attention.find_places(
            size, attention.pool_size(size), unit_length, attention.window, trained
        )

    def forward_head(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps of forward_features -> logits [B, num_classes]; without classes the mean of the
        last map's tokens, [B, C].
        """
        return self.head(maps[-1].reshape([0, self.stage_channels[-1], -1]).mean(-1))

    def export_form(self) -> "TransNeXt":
        """A new model in eval mode: the same function without unfolded windows."""
        form = copy.deepcopy(self)
        form.eval()
        with paddle.no_grad():
            for layer in form.sublayers():
                if isinstance(layer, Block):
                    aggregated = isinstance(layer.attn, AggregatedAttention)
                    made = ExportedAggregatedAttention if aggregated else ExportedAttention
                    layer.attn, layer.mlp = made(layer.attn), ExportedGLU(layer.mlp)
        return form


def _table_size(position_bias: str, table_size: Optional[int]) -> Optional[int]:
    """The side of the images whose bias is interpolated; None for none. ValueError for arguments
    that do not fit each other.
    """
    if position_bias not in POSITION_BIASES:
        raise ValueError(
            f"unknown position_bias {position_bias!r}.{nearest(position_bias, POSITION_BIASES)}"
        )
    if position_bias == "extrapolation":
        return None
    if table_size is None or table_size < 32:
        raise ValueError(
            "position_bias 'interpolation' needs table_size, the side in pixels of the images that "
            f"the weights were trained on, 32 or more; got {table_size}"
        )
    return table_size


def _least_size(fixed_pool_size: int, sr_ratios: Sequence[int]) -> int:
    """The smallest image whose maps are larger than the pool in every stage that pools."""
    if fixed_pool_size < 1:
        raise ValueError(f"fixed_pool_size must be 1 or more; got {fixed_pool_size}")
    strides = [
        stride
        for stride, ratio in zip(BaseBackbone.stage_strides, sr_ratios, strict=True)
        if ratio > 1
    ]
    return max(BaseBackbone.min_size, strides[-1] * fixed_pool_size + 1)


def _initialise(layer: nn.Layer) -> None:
    """The reference's initialisation: Linears truncated normal of std 0.02, convolutions normal by
    their outputs, biases 0.
    """
    if isinstance(layer, nn.Linear):
        draw_truncated(layer.weight)
    elif isinstance(layer, nn.Conv2D):
        outputs = layer.weight.shape[0] * math.prod(layer.weight.shape[2:]) // layer._groups
        nn.initializer.Normal(std=math.sqrt(2 / outputs))(layer.weight)
    else:
        return
    nn.initializer.Constant(0.0)(layer.bias)


register_variants(
    TransNeXt,
    VARIANTS,
    # the recipes' names; the network is the same at every size
    further={
        "TransNeXt_micro_AAAA_256": VARIANTS["TransNeXt_micro_AAAA"],
        **{f"{name}_224": VARIANTS[name] for name in VARIANTS if not name.endswith("_AAAA")},
        **{f"{name}_384": VARIANTS[name] for name in ("TransNeXt_small", "TransNeXt_base")},
    },
)
