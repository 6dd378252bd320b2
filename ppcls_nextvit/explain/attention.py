"""What a pixel attends to: its rows of the attention layers' weights, and the same on the map of
tokens. The whole of the weights, which grows with the fourth power of an image's side, never is.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn

from ..models.api import Backbone
from .explanation import rounded

__all__ = ["BlockAttention", "attention", "attention_layers"]

LARGEST = 2**28  # bytes of the maps of one image


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

    The memory is that of the forward pass and of the points' own rows of weights. ValueError for a
    point outside of the image, a backbone without attention, and more maps than LARGEST.
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
    budget = _Budget(len(points), len(layers))
    readers = [_Reader(place, points, strides[place.stage - 1], budget) for place in layers]
    with contextlib.ExitStack() as stack, paddle.no_grad():
        for reader in readers:
            stack.callback(reader.place.layer.register_forward_post_hook(reader).remove)
        backbone.forward_features(x)
    return [[reader.found[i] for reader in readers] for i in range(len(points))]


class _Budget:
    """What the maps of all points and layers may take together."""

    def __init__(self, points: int, layers: int) -> None:
        self.points, self.layers, self.taken = points, layers, 0

    def take(self, count: int) -> None:
        """So many bytes more. ValueError when it is more than LARGEST."""
        self.taken += count
        if self.taken > LARGEST:
            raise ValueError(
                f"the maps of {self.points} points in {self.layers} blocks take more than "
                f"{LARGEST / 2**20:g} MiB; choose fewer points, a smaller image, or the last "
                f"block of each stage"
            )


class _Reader:
    """What the points attend to in one layer, read after each of its forward passes."""

    def __init__(
        self,
        place: AttentionPlace,
        points: Sequence[Tuple[int, int]],
        stride: int,
        budget: _Budget,
    ) -> None:
        self.place, self.points, self.stride, self.budget = place, points, stride, budget
        self.found: List[BlockAttention] = []

    def __call__(self, layer: nn.Layer, inputs: Any, output: Any) -> None:
        """Called after the layer's forward pass."""
        place, size = self.place, self.place.layer.map_size(*inputs)
        queries = [self._query(point, size) for point in self.points]
        rows, learnt = place.layer.rows(queries, *inputs)
        for i, query in enumerate(queries):
            weights = rows[:, i].astype("float32")
            maps = place.layer.on_tokens(weights, query, *inputs).numpy()
            found = BlockAttention(
                place.stage, place.block, divmod(query, size[1]), size, weights.numpy(), maps
            )
            if learnt is not None:
                own = learnt[:, i].astype("float32").numpy()
                found = replace(found, window=own.shape[1], learnt=own)
            self.found.append(found)
            self.budget.take(maps.nbytes)

    def _query(self, point: Tuple[int, int], size: Tuple[int, int]) -> int:
        """The cell of the map in which a point is."""
        column, row = (min(p // self.stride, side - 1) for p, side in zip(point, reversed(size)))
        return row * size[1] + column
