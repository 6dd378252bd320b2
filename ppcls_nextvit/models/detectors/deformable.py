"""Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159) and the encoder made of it.

Reference: MultiScaleDeformableAttention of mmcv 2 and DeformableDetrTransformerEncoder of
mmdetection 3; parameter names equal theirs. The maps of all levels are one list of tokens [B, S,
C], level by level, each row by row. Places are (x, y) in [0, 1] of a map's outer edges: the centre
of column j is (j + 0.5) / w. `shapes` are the levels' (height, width): integers, or scalar tensors
while a program of unknown sizes is recorded.
"""

import math
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ... import ops
from ...schema import nearest
from ..layers import Linear
from .transformer import FFN, initialise_transformer

__all__ = [
    "FORMS",
    "DeformableEncoder",
    "MultiScaleDeformableAttention",
    "Shapes",
    "cell_centres",
    "choose_form",
    "multi_scale_deformable_attention",
    "reference_points",
    "valid_cells",
    "valid_counts",
    "valid_ratios",
]

Shapes = Sequence[Tuple[Any, Any]]
# how samples are taken: 'compiled' by ops.deformable_attention, 'auto' so where it is built
FORMS = ("auto", "compiled", "grid_sample")


def multi_scale_deformable_attention(
    value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """The weighted sum of bilinear samples of every level's map, zero outside it.

    value: [B, S, heads, D]; locations: [B, Q, heads, levels, points, 2], (x, y); weights: [B, Q,
    heads, levels, points] -> [B, Q, heads * D], in the locations' type.
    """
    levels = range(len(shapes))
    places, shares = ([x[:, :, :, level] for level in levels] for x in (locations, weights))
    return _sampled(value, shapes, places, shares)


def _sampled(
    value: Tensor, shapes: Shapes, locations: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """The same, of each level's locations [B, Q, heads, points, 2] and weights [B, Q, heads,
    points].
    """
    _, _, heads, channels = value.shape
    queries = locations[0].shape[1]
    queries = queries if queries >= 0 else paddle.shape(locations[0])[1]
    value = value.astype(locations[0].dtype)
    start, parts = 0, []
    for (height, width), places, shares in zip(shapes, locations, weights):
        tokens = value[:, start : start + height * width]
        start = start + height * width
        maps = tokens.transpose([0, 2, 3, 1]).reshape([-1, channels, height, width])
        grid = (2 * places - 1).transpose([0, 2, 1, 3, 4]).flatten(0, 1)
        samples = F.grid_sample(maps, grid, align_corners=False)  # [B * heads, D, Q, points]
        shares = shares.transpose([0, 2, 1, 3]).flatten(0, 1).unsqueeze(1)
        parts.append((samples * shares.astype(samples.dtype)).sum(axis=-1))
    return paddle.add_n(parts).reshape([-1, heads * channels, queries]).transpose([0, 2, 1])


class MultiScaleDeformableAttention(nn.Layer):
    """Attention to a few points of each level, whose offsets and weights the query tells. No
    residual: the caller adds it.
    """

    def __init__(self, channels: int, heads: int = 8, levels: int = 4, points: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads, {heads}; got {channels}")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = Linear(channels, heads * levels * points * 2)
        self.attention_weights = Linear(channels, heads * levels * points)
        self.value_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)
        self.compiled = ops.is_loaded()
        self.initialise()

    def initialise(self) -> None:
        """Each head looks in a direction of its own, one to `points` cells far, evenly weighted."""
        zero = nn.initializer.Constant(0.0)
        for layer in (self.sampling_offsets, self.attention_weights):
            zero(layer.weight)
        zero(self.attention_weights.bias)
        self.sampling_offsets.bias.set_value(self._rays())
        for layer in (self.value_proj, self.output_proj):
            nn.initializer.XavierUniform()(layer.weight)
            zero(layer.bias)

    def _rays(self) -> np.ndarray:
        """The first offsets: [heads * levels * points * 2]."""
        angles = 2 * math.pi * np.arange(self.heads) / self.heads
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        rays /= np.abs(rays).max(axis=-1, keepdims=True)
        steps = np.arange(1, self.points + 1)[:, None]
        offsets = np.tile(rays[:, None, None] * steps, (1, self.levels, 1, 1))
        return offsets.reshape(-1).astype(paddle.get_default_dtype())

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        references: Tensor,
        shapes: Shapes,
        valid: Optional[Tensor] = None,
    ) -> Tensor:
        """query: [B, Q, C], position included; value: [B, S, C] -> [B, Q, C].

        references: where each query looks from on each level: points [B, Q, levels, 2], to which
        offsets count in cells, or boxes [B, Q, levels, 4], (cx, cy, w, h), in shares of the box.
        valid: bool [B, S]; where it is False, a token counts as zero.
        """
        value = self.value_proj(value)
        if valid is not None:
            value = value * valid.unsqueeze(-1).astype(value.dtype)
        # 0: as it was, known or not while a program is recorded
        value = value.reshape([0, 0, self.heads, value.shape[-1] // self.heads])
        kinds = [0, 0, self.heads, self.levels * self.points]
        weights = F.softmax(self.attention_weights(query).reshape(kinds), axis=-1)
        offsets = self.sampling_offsets(query).astype(references.dtype)
        if not paddle.in_dynamic_mode():
            return self.output_proj(self._recorded(value, shapes, references, offsets, weights))
        weights = weights.reshape([*kinds[:3], self.levels, self.points])
        offsets = offsets.reshape([*kinds[:3], self.levels, self.points, 2])
        locations = self._locations(references, offsets, shapes)
        return self.output_proj(self.sampled(value, shapes, locations, weights))

    def _recorded(self, value, shapes, references, offsets, weights):
        """`sampled` level by level: Core ML has no tensor of six axes. offsets: [B, Q, heads *
        levels * points * 2], weights: [B, Q, heads, levels * points].
        """
        of_all = offsets.reshape([0, 0, self.heads, self.levels * self.points, 2])
        cells, locations, shares = _widths_and_heights(shapes), [], []
        for level in range(self.levels):
            own = slice(level * self.points, (level + 1) * self.points)
            offsets = of_all[:, :, :, own]
            reference = references[:, :, level].unsqueeze([2, 3])  # [B, Q, 1, 1, 2 or 4]
            if reference.shape[-1] == 2:
                locations.append(reference + offsets / cells[level].astype(offsets.dtype))
            else:
                sides = reference[..., 2:]
                locations.append(reference[..., :2] + offsets / self.points * sides * 0.5)
            shares.append(weights[..., own])
        return _sampled(value, shapes, locations, shares)

    def sampled(self, value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        """See multi_scale_deformable_attention; by the compiled operator where it can be."""
        if not (self.compiled and paddle.in_dynamic_mode() and ops.takes(locations)):
            return multi_scale_deformable_attention(value, shapes, locations, weights)
        value, weights = value.astype(locations.dtype), weights.astype(locations.dtype)
        return ops.deformable_attention(value, shapes, locations, weights)

    def macs(
        self,
        query: Tensor,
        value: Tensor,
        references: Tensor,
        shapes: Shapes,
        valid: Optional[Tensor],
        out: Tensor,
    ) -> int:
        """Multiply-adds of sampling: of each sample its four neighbours, and its weight."""
        return 5 * out.size * self.levels * self.points

    def _locations(self, references, offsets, shapes):
        """[B, Q, heads, levels, points, 2]."""
        references = references.unsqueeze([2, 4])  # [B, Q, 1, levels, 1, 2 or 4]
        if references.shape[-1] == 2:
            cells = _widths_and_heights(shapes).unsqueeze(1)
            return references + offsets / cells.astype(offsets.dtype)
        return references[..., :2] + offsets / self.points * references[..., 2:] * 0.5


def choose_form(model: nn.Layer, name: str) -> None:
    """Every deformable attention in `model` takes its samples in this form, see FORMS.

    ValueError for an unknown name, and for 'compiled' where the operators are not built.
    """
    if name not in FORMS:
        raise ValueError(f"unknown sampling form {name!r}.{nearest(name, FORMS)}")
    if name == "compiled" and not ops.is_loaded():
        raise ValueError(
            "sampling_form 'compiled' needs the compiled operators; run nextvit build-ops, or "
            "choose 'auto'"
        )
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, MultiScaleDeformableAttention):
            layer.compiled = name != "grid_sample" and ops.is_loaded()


class DeformableEncoderLayer(nn.Layer):
    """Deformable attention, LayerNorm, FFN, LayerNorm."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(channels, heads, levels, points)
        self.ffn = FFN(channels, hidden)
        self.norms = nn.LayerList([nn.LayerNorm(channels) for _ in range(2)])

    def forward(self, x, position, references, shapes, valid=None):
        """x, position: [B, S, C] -> [B, S, C]; the rest as in MultiScaleDeformableAttention."""
        x = self.norms[0](x + self.self_attn(x + position, x, references, shapes, valid))
        return self.norms[1](x + self.ffn(x))


class DeformableEncoder(nn.Layer):
    """Layers in which every token of every level attends to points of all levels."""

    def __init__(
        self,
        channels: int = 256,
        heads: int = 8,
        levels: int = 4,
        points: int = 4,
        hidden: int = 2048,
        depth: int = 6,
        weights: Optional[nn.initializer.Initializer] = None,
    ) -> None:
        """weights: initialises the layers but for deformable attention; Xavier's uniform by
        default.
        """
        super().__init__()
        self.layers = nn.LayerList(
            [DeformableEncoderLayer(channels, heads, levels, points, hidden) for _ in range(depth)]
        )
        initialise_transformer(self, weights or nn.initializer.XavierUniform())
        for layer in self.layers:
            layer.self_attn.initialise()

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        references: Tensor,
        shapes: Shapes,
        valid: Optional[Tensor] = None,
    ) -> Tensor:
        """x: [B, S, C], the maps' tokens; position: [B or 1, S, C]; references: see
        `reference_points`; valid: bool [B, S] -> [B, S, C].
        """
        for layer in self.layers:
            x = layer(x, position, references, shapes, valid)
        return x


def valid_cells(shape: Tensor, padded: Tuple[Any, Any], size: Tuple[Any, Any]) -> Tensor:
    """bool [B, h, w]: which cells of a map of `size` (h, w) lie on the image, not its padding: the
    nearest pixel decides, as in the reference.

    shape: [B, 2], (height, width) of the images before padding to `padded` (height, width).
    """
    sides = []
    for axis in range(2):
        step = _quotient(padded[axis], size[axis])
        pixel = paddle.floor(paddle.arange(size[axis], dtype="float32") * step)
        sides.append(pixel.unsqueeze(0) < shape[:, axis : axis + 1].astype("float32"))
    return paddle.logical_and(sides[0].unsqueeze(2), sides[1].unsqueeze(1))


def valid_counts(valid: Sequence[Tensor]) -> Tensor:
    """How many columns and rows of each level's bool [B, h, w] are valid: [B, levels, 2]."""
    dtype = paddle.get_default_dtype()
    counts = []
    for cells in valid:
        lines = cells[:, 0].astype(dtype), cells[:, :, 0].astype(dtype)
        counts.append(paddle.concat([line.sum(-1, keepdim=True) for line in lines], axis=-1))
    return paddle.stack(counts, axis=1)


def valid_ratios(counts: Tensor, shapes: Shapes) -> Tensor:
    """`valid_counts` as shares of the levels' columns and rows: [B, levels, 2]."""
    # by a product in this order: Paddle Inference (3.3.1) would write a quotient over the counts,
    # of which others still have parts
    return 1 / _widths_and_heights(shapes).astype(counts.dtype) * counts


def cell_centres(size: Tuple[Any, Any], counts: Tensor) -> Tensor:
    """The cells' centres as (x, y), row by row: [B, h * w, 2], in shares of the valid part of a map
    of `size` (h, w), whose columns and rows are `counts` [B, 2].
    """
    y, x = ((paddle.arange(side, dtype="float32") + 0.5).astype(counts.dtype) for side in size)
    # by sums: what Paddle Inference (3.3.1) folds of a meshgrid is lost after the first run
    x, y = x.unsqueeze(0), y.unsqueeze(1)
    places = paddle.stack([x + 0 * y, y + 0 * x], axis=-1).flatten(0, 1)
    return places.unsqueeze(0) / counts.unsqueeze(1)


def reference_points(shapes: Shapes, counts: Tensor) -> Tensor:
    """Where the tokens of all levels look from on each level: [B, S, levels, 2].

    counts: [B, levels, 2], see `valid_counts`.
    """
    own = [cell_centres(size, counts[:, level]) for level, size in enumerate(shapes)]
    ratios = valid_ratios(counts, shapes)
    return paddle.concat(own, axis=1).unsqueeze(2) * ratios.unsqueeze(1)


def _widths_and_heights(shapes: Shapes) -> Tensor:
    """float32 [levels, 2]."""
    return _numbers([side for size in shapes for side in size[::-1]]).reshape([-1, 2])


def _quotient(dividend: Any, divisor: Any) -> Any:
    """In float32, as the reference's interpolation has it."""
    numbers = _numbers([dividend, divisor])
    return numbers[0] / numbers[1]


def _numbers(values: Sequence[Any]) -> Tensor:
    """float32 [len(values)] of integers or scalar tensors."""
    if all(isinstance(value, int) for value in values):
        return paddle.to_tensor(values, dtype="float32")
    tensors = [value if isinstance(value, Tensor) else paddle.to_tensor(value) for value in values]
    return paddle.stack([tensor.reshape([]).astype("float32") for tensor in tensors])
