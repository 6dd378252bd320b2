"""The export form of TransNeXt's blocks: the same function, as inference engines like it.

What follows from the size of the map alone (the position bias, the scale of the queries, the share
of the query embedding, the border's mask) is folded into tensors when that size is known, and is
computed in the program, by the same lines, when any size goes. Heads come before tokens throughout,
queries, keys and values are one product, and the MLP is made of convolutions.
"""

import contextlib
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from .positions import Places, find_places, pooled_size
from .tokens import Size

__all__ = ["ExportedAggregatedAttention", "ExportedAttention", "ExportedGLU"]

# A score whose exponential is 0 in all types; half precision, quantisers and Core ML take it better
# than -inf.
NEVER = -1e4


class Folded(NamedTuple):
    """What an attention needs of the size of its map, of N queries and P pooled keys. scale and
    shift have N = 1 where all queries see equally many keys.
    """

    scale: Tensor  # [heads, N, 1]: a unit query times this, plus
    shift: Tensor  # [heads, N, d]: is what its product with a unit key makes a score
    far: Tensor  # [heads, N, P]: bias of the pooled keys
    near: Optional[Tensor] = None  # [heads, N, window**2]: bias of the window
    inside: Optional[Tensor] = None  # [N, window**2]: 1, outside the map 0


class ExportedAttention(nn.Layer):
    """The export form of an Attention: every token sees every other."""

    window = 0
    # why static.save_program writes no .pdmodel of a model with this layer
    no_pdmodel = "Paddle (3.3.1) has no form in it for TransNeXt's sums, exponentials and GELU"

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        # arrays, which are no part of a program
        temperature = F.softplus(attention.temperature)  # [heads, 1, 1]
        self.scales = [array(temperature), array(temperature * attention.query_embedding)]
        self.cpb = [array(p) for part in ("fc1", "fc2") for p in parameters_of(attention, part)]
        self.qkv = merged(self.projections(attention))
        self.proj = copied(attention.proj)
        self.attn_drop = nn.Identity()

    def projections(self, attention: Any) -> List[nn.Linear]:
        """The Linears of queries, keys and values."""
        return [attention.qkv]

    def pool_size(self, size: Tuple[Size, Size]) -> Tuple[Size, Size]:
        """Of the keys of a map of `size`, which are not pooled."""
        return size

    @staticmethod
    def find_places(size: Tuple[Size, Size], *arguments: Any) -> Places:
        """positions.find_places; of a known size, computed now."""
        with computed_now(size):
            return find_places(size, *arguments)

    def fold(self, places: Places) -> Folded:
        """What `places` mean here."""
        scale, shift = (paddle.to_tensor(part) for part in self.scales)
        # [N or 1, 1]
        lengths = places.lengths.reshape([-1, 1])
        weight1, bias1, weight2, bias2 = (paddle.to_tensor(part) for part in self.cpb)
        hidden = F.relu(paddle.matmul(places.table, weight1) + bias1)
        table = (paddle.matmul(hidden, weight2) + bias2).transpose([2, 0, 1])
        return Folded(scale * lengths, shift * lengths, places.spread(table))

    def folded(self, places: Places) -> Folded:
        """`fold(places)`; of a known size while a program is recorded, as constants of it."""
        if paddle.in_dynamic_mode() or not isinstance(places.size[0], int):
            return self.fold(places)
        sides = "_".join(map(str, (*places.size, *places.pool)))
        names = {part: f"{part}_{sides}" for part in Folded._fields}
        if names["scale"] not in self._buffers:
            with computed_now(places.size):
                parts = self.fold(places)._asdict()
            for part, value in parts.items():
                self.register_buffer(names[part], value)
        return Folded(**{part: getattr(self, name) for part, name in names.items()})

    def heads(self, x: Tensor) -> Tensor:
        """[B, n, k * heads * d] -> [B, k * heads, n, d]."""
        x = x.reshape([0, -1, x.shape[-1] // self.d, self.d])
        return x.transpose([0, 2, 1, 3])

    @property
    def d(self) -> int:
        """Channels of a head."""
        return self.scales[1].shape[-1]

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """x: tokens [B, N, C] -> the same shape."""
        folded = self.folded(places)
        qk, v = paddle.split(self.heads(self.qkv(x)), [2 * self.num_heads, self.num_heads], axis=1)
        q, k = paddle.split(unit(qk), 2, axis=1)
        scores = paddle.matmul(q * folded.scale + folded.shift, k, transpose_y=True)
        weights = self.attn_drop(F.softmax(scores + folded.far, axis=-1))
        return self.joined(paddle.matmul(weights, v))

    def joined(self, out: Tensor) -> Tensor:
        """[B, heads, N, d] -> [B, N, C], projected."""
        return self.proj(out.transpose([0, 2, 1, 3]).reshape([0, -1, self.num_heads * self.d]))


class ExportedAggregatedAttention(ExportedAttention):
    """The export form of an AggregatedAttention.

    A neighbour of a token stands a fixed number of tokens from it in raster order: keys and values
    are never seen as a map, and a window is window**2 plain slices of the tokens. Slices that cross
    the left or right border are wrong there, and what pads the ends is arbitrary: there the bias is
    NEVER, and the share of the query is made 0.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__(attention)
        self.window = attention.window
        self.sr_ratio, self.fixed_pool_size = attention.sr_ratio, attention.fixed_pool_size
        self.sr = copied(attention.sr)
        self.kv = copied(attention.kv)
        self.norm = attention.norm
        self.local_bias = array(attention.relative_pos_bias_local.unsqueeze(1))
        self.add_parameter("learnable_tokens", attention.learnable_tokens)
        self.add_parameter("learnable_bias", attention.learnable_bias)

    def projections(self, attention: Any) -> List[nn.Linear]:
        return [attention.q, attention.kv]

    def pool_size(self, size: Tuple[Size, Size]) -> Tuple[Size, Size]:
        """Of the pooled keys of a map of `size`."""
        if self.fixed_pool_size:
            return self.fixed_pool_size, self.fixed_pool_size
        return pooled_size(size, self.sr_ratio)

    def fold(self, places: Places) -> Folded:
        """See ExportedAttention."""
        near = paddle.to_tensor(self.local_bias) + paddle.clip(places.mask, min=NEVER)
        inside = paddle.exp(places.mask)
        return super().fold(places)._replace(near=near, inside=inside)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """x: tokens [B, N, C] -> the same shape."""
        folded, heads = self.folded(places), self.num_heads
        qk, v = paddle.split(self.heads(self.qkv(x)), [2 * heads, heads], axis=1)
        q, k = paddle.split(unit(qk), 2, axis=1)
        pooled_k, pooled_v = paddle.split(self.heads(self.kv(self.pooled(x, places))), 2, axis=1)
        scaled = q * folded.scale + folded.shift

        keys = self.shifted(k, places)
        near = paddle.concat([(scaled * key).sum(-1, keepdim=True) for key in keys], axis=-1)
        far = paddle.matmul(scaled, unit(pooled_k), transpose_y=True)
        scores = paddle.concat([near + folded.near, far + folded.far], axis=-1)
        weights = F.softmax(scores, axis=-1)
        near, far = weights[..., : self.window**2], weights[..., self.window**2 :]

        learnt = paddle.matmul(q, self.learnable_tokens) + self.learnable_bias
        near = paddle.split(near + learnt * folded.inside, self.window**2, axis=-1)
        out = paddle.matmul(far, pooled_v)
        for weight, value in zip(near, self.shifted(v, places)):
            out = out + value * weight
        return self.joined(out)

    def shifted(self, x: Tensor, places: Places) -> Iterator[Tensor]:
        """[B, heads, N, d] -> for each neighbour in raster order that of every token, the same
        shape.
        """
        height, width = places.size
        reach = self.window // 2
        ends = reach * width + reach
        anything = x[:, :, :1].tile([1, 1, ends, 1])
        padded = paddle.concat([anything, x, anything], axis=2)
        for row in range(self.window):
            for column in range(self.window):
                start = row * width + column
                yield padded[:, :, start : start + height * width]

    def pooled(self, x: Tensor, places: Places) -> Tensor:
        """Tokens [B, N, C] -> [B, P, C]."""
        x = F.gelu(self.sr(x)).transpose([0, 2, 1])
        return self.norm(places.pooled(x).transpose([0, 2, 1]))


class ExportedGLU(nn.Layer):
    """The export form of a ConvolutionalGLU."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.fc1, self.fc2 = pointwise(mlp.fc1), pointwise(mlp.fc2)
        self.dwconv = mlp.dwconv.dwconv

    def forward(self, x: Tensor, size: Tuple[Size, Size]) -> Tensor:
        """x: tokens [B, N, C] of a map of `size` -> the same shape."""
        channels = x.shape[-1]
        x = x.transpose([0, 2, 1]).reshape([0, channels, *size])
        gate, value = paddle.split(self.fc1(x), 2, axis=1)
        x = self.fc2(F.gelu(self.dwconv(gate)) * value)
        return x.reshape([0, channels, -1]).transpose([0, 2, 1])


def unit(x: Tensor) -> Tensor:
    """`x` divided by its length along the last axis."""
    return x * paddle.rsqrt(paddle.clip((x * x).sum(-1, keepdim=True), min=1e-24))


def array(x: Tensor) -> np.ndarray:
    """The values of a tensor."""
    return x.detach().numpy()


def parameters_of(attention: Any, part: str) -> Tuple[Tensor, Tensor]:
    """Weight and bias of a Linear of the MLP that makes the position bias."""
    linear = getattr(attention, f"cpb_{part}")
    return linear.weight, linear.bias


def copied(linear: Any) -> nn.Linear:
    """A plain Linear with the weights of one, or of a 1x1 convolution."""
    weight = linear.weight if linear.weight.ndim == 2 else linear.weight.flatten(1).T
    made = nn.Linear(*weight.shape)
    made.weight.set_value(weight)
    made.bias.set_value(linear.bias)
    return made


def merged(linears: List[nn.Linear]) -> nn.Linear:
    """The Linear whose outputs are those of `linears`, one after the other."""
    weight = paddle.concat([linear.weight for linear in linears], axis=1)
    made = nn.Linear(*weight.shape)
    made.weight.set_value(weight)
    made.bias.set_value(paddle.concat([linear.bias for linear in linears]))
    return made


def pointwise(linear: nn.Linear) -> nn.Conv2D:
    """The 1x1 convolution that a Linear is."""
    made = nn.Conv2D(*linear.weight.shape, 1)
    made.weight.set_value(linear.weight.T.unsqueeze([-1, -1]))
    made.bias.set_value(linear.bias)
    return made


@contextlib.contextmanager
def computed_now(size: Tuple[Size, Size]) -> Iterator[None]:
    """Operators on tensors run at once, also while a program is recorded, if `size` is known."""
    if paddle.in_dynamic_mode() or not isinstance(size[0], int):
        yield
        return
    with paddle.base.dygraph.guard(paddle.CPUPlace()), paddle.no_grad():
        yield
