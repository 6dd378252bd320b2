"""What a pixel attends to: the weights of the attention layers' own forward passes, and the same on
the map of tokens.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn

from ..models.api import Backbone
from .explanation import rounded

__all__ = ["BlockAttention", "attention", "attention_layers"]


class AttentionPlace(NamedTuple):
    """An attention layer (models/api.py: AttentionLayer) and where it is; stage and block count
    from 1, block within the stage.
    """

    stage: int
    block: int
    layer: Any


@dataclass(frozen=True)
class BlockAttention:
    """What one query of one block attends to.

    query: (row, column) in the map of `size` (height, width). weights: float32 [heads, K], each
    head's softmax over all keys. window: how many of the keys, the first, are its neighbours.
    learnt: float32 [heads, window], what the block adds to those after the softmax; None where
    there is no such thing. maps: float32 [heads, height, width], the weights where the keys come
    from; they sum to 1.
    """

    stage: int
    block: int
    query: Tuple[int, int]
    size: Tuple[int, int]
    weights: np.ndarray
    maps: np.ndarray
    window: int = 0
    learnt: Optional[np.ndarray] = None

    @property
    def name(self) -> str:
        """stage1.block2."""
        return f"stage{self.stage}.block{self.block}"

    def numbers(self) -> Dict[str, Any]:
        """What JSON says: besides the mean map, the mean distance of what is attended to, in shares
        of the map's diagonal, and the share of the window, by head.
        """
        height, width = self.size
        rows, columns = np.mgrid[:height, :width]
        distance = np.hypot(rows - self.query[0], columns - self.query[1])
        told = {
            "block": self.name,
            "query": list(self.query),
            "size": list(self.size),
            "keys": self.weights.shape[1],
            "mean_distance": rounded((self.maps * distance).sum((1, 2)) / np.hypot(height, width)),
            "map": rounded(self.maps.mean(0)),
        }
        if self.window:
            told["window_share"] = rounded(self.weights[:, : self.window].sum(1))
        return told


def attention_layers(backbone: Backbone) -> List[AttentionPlace]:
    """The attention layers of a backbone, in the order of the forward pass."""
    found = []
    for stage, blocks in enumerate(backbone.blocks(), 1):
        for block, part in enumerate(blocks, 1):
            layers = (layer for layer in part.sublayers() if hasattr(layer, "on_tokens"))
            found += [AttentionPlace(stage, block, layer) for layer in layers]
    return found


def chosen_layers(backbone: Backbone, every_block: bool) -> List[AttentionPlace]:
    """All of them, or the last of each stage. ValueError for a backbone that has none."""
    layers = attention_layers(backbone)
    if not layers:
        raise ValueError(
            f"{type(backbone).__name__} has no attention that could be shown: its blocks have no "
            f"layer with `on_tokens`"
        )
    if every_block:
        return layers
    return list({place.stage: place for place in layers}.values())


def attention(
    backbone: Backbone,
    x: Tensor,
    points: Sequence[Tuple[int, int]],
    every_block: bool = False,
) -> List[List[BlockAttention]]:
    """For each of `points`, (x, y) in pixels of the image x [1, C, H, W], what it attends to, block
    by block: the last with attention of each stage, or every one.

    The memory is that of one forward pass in which the chosen layers do without compiled operators;
    of their weights the points' rows alone are kept. ValueError for a point outside of the image
    and a backbone without attention.
    """
    height, width = x.shape[2:]
    for column, row in points:
        if not (0 <= column < width and 0 <= row < height):
            raise ValueError(
                f"the point ({column}, {row}) is outside of the image as the model sees it, which "
                f"is {width} x {height} pixels; x is from 0 to {width - 1}, y from 0 to "
                f"{height - 1}"
            )
    layers = chosen_layers(backbone, every_block)
    strides = backbone.stage_strides
    readers = [_Reader(place, points, strides[place.stage - 1]) for place in layers]
    with contextlib.ExitStack() as stack, paddle.no_grad():
        for reader in readers:
            stack.enter_context(reader.reading())
        backbone.forward_features(x)
    return [[reader.found[i] for reader in readers] for i in range(len(points))]


class _Reader:
    """Reads one layer while it works: rows of its weights, and its inputs."""

    def __init__(
        self, place: AttentionPlace, points: Sequence[Tuple[int, int]], stride: int
    ) -> None:
        self.place, self.points, self.stride = place, points, stride
        self.found: List[BlockAttention] = []
        self._rows: List[Tensor] = []
        self._mixed: List[Tensor] = []
        self._size, self._queries = (0, 0), [0]

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        layer = self.place.layer
        compiled, form = getattr(layer, "compiled", None), getattr(layer, "form", None)
        hooks = [
            layer.register_forward_pre_hook(self._begin),
            layer.attn_drop.register_forward_pre_hook(self._weights),
            layer.register_forward_post_hook(self._end),
        ]
        if compiled:
            layer.compiled = False
        if form is not None:
            layer.form = _ReadForm(form, self)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            if compiled:
                layer.compiled = compiled
            if form is not None:
                layer.form = form

    def _begin(self, layer: nn.Layer, inputs: Any) -> None:
        height, width = self._size = layer.map_size(*inputs)
        cells = [
            (min(y // self.stride, height - 1), min(x // self.stride, width - 1))
            for x, y in self.points
        ]
        self._queries = [row * width + column for row, column in cells]

    def _weights(self, layer: nn.Layer, inputs: Any) -> None:
        self._rows = [inputs[0][0, :, query] for query in self._queries]

    def mixed(self, weights: Tensor) -> None:
        """Take what a form mixes the values of the windows with, [1, H, W, heads, window**2]."""
        flat = weights.flatten(1, 2)
        self._mixed = [flat[0, query] for query in self._queries]

    def _end(self, layer: nn.Layer, inputs: Any, output: Any) -> None:
        for i, query in enumerate(self._queries):
            weights = self._rows[i].astype("float32")
            maps = layer.on_tokens(weights, query, *inputs)
            learnt, window = None, 0
            if self._mixed:
                window = self._mixed[i].shape[1]
                learnt = (self._mixed[i].astype("float32") - weights[:, :window]).numpy()
            self.found.append(
                BlockAttention(
                    self.place.stage,
                    self.place.block,
                    divmod(query, self._size[1]),
                    self._size,
                    weights.numpy(),
                    maps.numpy(),
                    window,
                    learnt,
                )
            )


class _ReadForm:
    """A WindowForm that tells a reader the weights which it is given."""

    def __init__(self, form: Any, reader: _Reader) -> None:
        self.form, self.reader = form, reader

    def scores(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        return self.form.scores(q, k, window)

    def mix(self, weights: Tensor, v: Tensor, window: int) -> Tensor:
        """See WindowForm."""
        self.reader.mixed(weights)
        return self.form.mix(weights, v, window)
