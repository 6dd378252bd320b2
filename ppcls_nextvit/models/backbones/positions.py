"""Where the queries and the pooled keys of a TransNeXt stage stand to one another, at any size.

The position bias of a query and a key depends on their distance in height and on that in width. One
axis knows nothing of the other: the reference's table, every pair of distances that occurs, is the
outer product of two short lists. All here follows from sizes; nothing is a weight, nothing is
saved.

Sizes are ints, for which numpy computes constants, or scalar int64 tensors while a program is
recorded for any size, in which the same lines are computed then.
"""

from functools import lru_cache
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ..layers import eager_on_cpu
from .tokens import Size

__all__ = ["Places", "find_places", "pooled_size"]

# axes kept at a time, of less than 1 MB each: a dataset with a thousand image sizes must not fill
# the memory
CACHED_AXES = 128
# values of a bias that are made at a time on a CPU, in its cache
CACHED_VALUES = 2**18


class Axis(NamedTuple):
    """Height or width of a map of Q queries and K keys, as arrays or tensors."""

    # float32 [U]: the distances that occur, in logarithmic units, rising
    coordinates: Any
    # shares of a bias, to be added up: (int64 [Q, K] into coordinates, weight float32 [Q, K] or
    # None for 1)
    taps: Sequence[Tuple[Any, Any]]
    # float32 [Q, window]: 1 for a neighbour within the image, 0 outside; None without a window
    inside: Any
    distances: Size  # U


class Places(NamedTuple):
    """A map of size[0] x size[1] queries and pool[0] x pool[1] keys, N and P in all."""

    size: Tuple[Size, Size]
    pool: Tuple[Size, Size]
    rows: Axis
    columns: Axis
    table: Tensor  # float32 [U_rows, U_columns, 2]: every pair of distances
    # float32 [N, window**2]: 0 for a neighbour in the image, -inf outside; None without a window
    mask: Any
    lengths: Tensor  # float32 [N, 1], without a window [1]: ln of the number of a query's keys

    def is_exact(self) -> bool:
        """Whether every query and key have one pair of the table, without interpolation."""
        axes = (self.rows, self.columns)
        return all(len(axis.taps) == 1 and axis.taps[0][1] is None for axis in axes)

    def spread(self, table_bias: Tensor) -> Tensor:
        """The bias of the table's pairs, [heads, U_rows, U_columns] -> that of every query and key,
        [heads, N, P].
        """
        heads = table_bias.shape[0]
        parts = []
        for index, weight in self.rows.taps:
            part = paddle.gather(table_bias, index.flatten(), axis=1)
            if weight is not None:
                part = part * weight.reshape([-1, 1]).astype(part.dtype)
            parts.append(part)
        # [heads * H, K_rows * U_columns]
        by_row = sum(parts[1:], parts[0]).reshape([heads, self.size[0], -1]).flatten(0, 1)
        places = self._column_places()
        count = self.size[1] * self.pool[0] * self.pool[1]
        if eager_on_cpu(by_row):
            rows = max(CACHED_VALUES // count, 1)
            last = len(by_row) % rows
            sections = [rows] * (len(by_row) // rows) + [last] * bool(last)
            parts = [_taken(part, places) for part in paddle.split(by_row, sections)]
        else:
            parts = [_taken(by_row, places)]
        return paddle.concat(parts).reshape([heads, -1, self.pool[0] * self.pool[1]])

    def of_query(self, query: int) -> "Places":
        """Those of one query, as on a map of 1 x 1 tokens. Sizes must be ints."""
        places = divmod(query, self.size[1])
        rows, columns = (_of_query(*part) for part in zip((self.rows, self.columns), places))
        mask, lengths = self.mask, self.lengths
        if mask is not None:
            mask, lengths = mask[query : query + 1], lengths[query : query + 1]
        return Places((1, 1), self.pool, rows, columns, _pairs(rows, columns), mask, lengths)

    def _column_places(self) -> Sequence[Tuple[Tensor, Optional[Tensor]]]:
        """The taps of the columns, as int64 [W * P] into a row of K_rows * U_columns, and weights
        [W * P].
        """
        # [1, K_rows, 1], as many axes as what is added: oneDNN adds fewer wrongly
        starts = (paddle.arange(self.pool[0]) * self.columns.distances).reshape([1, -1, 1])
        found = []
        for index, weight in self.columns.taps:
            # [W, K_rows, K_columns]
            place = starts + index.unsqueeze(1)
            if weight is not None:
                weight = (weight.unsqueeze(1) + paddle.zeros_like(starts, "float32")).flatten()
            found.append((place.flatten(), weight))
        return found

    def as_map(self, x: Tensor) -> Tensor:
        """[B, N, ...] -> [B, H, W, ...]."""
        return x.reshape([0, *self.size, *x.shape[2:]])

    def pooled(self, x: Tensor) -> Tensor:
        """Adaptive average pooling: [B, C, N] -> [B, C, P]."""
        channels = x.shape[1]
        x = x.reshape([0, channels, *self.size])
        if isinstance(self.size[0], int):
            x = F.adaptive_avg_pool2d(x, self.pool)
        else:
            down, across = (_averages(*axis) for axis in zip(self.size, self.pool))
            x = paddle.matmul(paddle.matmul(down, x), across, transpose_y=True)
        # no flatten, of which Paddle2ONNX makes four operators
        return x.reshape([0, channels, -1])


def _taken(rows: Tensor, places: Sequence[Tuple[Tensor, Optional[Tensor]]]) -> Tensor:
    """[n, m] -> [n, W * P]: the weighted sum of what stands at `places`."""
    parts = []
    for index, weight in places:
        part = paddle.gather(rows, index, axis=1)
        parts.append(part if weight is None else part * weight.astype(part.dtype))
    return sum(parts[1:], parts[0])


def pooled_size(size: Tuple[Size, Size], ratio: int) -> Tuple[Size, Size]:
    """Of a map whose keys are pooled by `ratio` in height and width; at least 1 x 1."""
    height, width = (side // ratio for side in size)
    if isinstance(height, int):
        return max(height, 1), max(width, 1)
    return paddle.clip(height, min=1), paddle.clip(width, min=1)


def find_places(
    size: Tuple[Size, Size],
    pool: Tuple[Size, Size],
    unit: int,
    window: int = 0,
    trained: Optional[Tuple[int, int]] = None,
) -> Places:
    """The Places of a map of `size` whose keys are pooled to `pool`.

    unit: the distance from the first token of an axis to the last in pretraining. window: side of
    the window of neighbours, which are keys too; 0: none are. trained: (queries, keys) along each
    axis of the map for which the bias is computed, to be interpolated from there (bilinear over
    keys, then over queries); None: computed for this map.
    """
    axes = []
    for queries, keys in zip(size, pool):
        known = isinstance(queries, int)
        make = _known_axis if known else _recorded_axis
        axes.append(make(queries, keys, unit, window, trained))
    rows, columns = axes
    table = _pairs(rows, columns)
    keys = pool[0] * pool[1]
    if isinstance(keys, int):
        count = paddle.to_tensor([keys], dtype="float32")
    else:
        count = keys.astype("float32").reshape([1])
    if not window:
        return Places(size, pool, rows, columns, table, None, paddle.log(count))
    # [H, W, window, window]
    inside = rows.inside[:, None, :, None] * columns.inside[None, :, None, :]
    inside = inside.reshape([-1, window**2])
    lengths = paddle.log(inside.sum(-1, keepdim=True) + count)
    return Places(size, pool, rows, columns, table, paddle.log(inside), lengths)


def _pairs(rows: Axis, columns: Axis) -> Tensor:
    """Every pair of their distances, [U_rows, U_columns, 2]."""
    return paddle.stack(paddle.meshgrid(rows.coordinates, columns.coordinates), axis=-1)


def _known_axis(*sizes: Any) -> Axis:
    """_axis as tensors."""
    return _converted(_constant_axis(*sizes), paddle.to_tensor)


def _converted(axis: Axis, convert: Callable[[Any], Any]) -> Axis:
    """`axis` with `convert` of each of its arrays or tensors."""
    taps = [(convert(i), None if weight is None else convert(weight)) for i, weight in axis.taps]
    inside = None if axis.inside is None else convert(axis.inside)
    return Axis(convert(axis.coordinates), taps, inside, axis.distances)


def _of_query(axis: Axis, place: int) -> Axis:
    """The query at `place` of an Axis of tensors, without the distances of others."""
    own = _converted(axis, lambda tensor: tensor.numpy())
    taps = [
        (i[place, None], None if weight is None else weight[place, None]) for i, weight in own.taps
    ]
    return _converted(_without_unused(own._replace(taps=taps, inside=None)), paddle.to_tensor)


@lru_cache(CACHED_AXES)
def _constant_axis(
    queries: int, keys: int, unit: int, window: int, trained: Optional[Tuple[int, int]]
) -> Axis:
    """_axis as arrays, without the distances that no query and key have."""
    return _without_unused(_axis(np, queries, keys, unit, window, trained))


def _without_unused(axis: Axis) -> Axis:
    """An Axis of arrays without the distances that no query and key have."""
    used = np.unique(np.concatenate([index.ravel() for index, _ in axis.taps]))
    taps = [(np.searchsorted(used, index), weight) for index, weight in axis.taps]
    return Axis(axis.coordinates[used], taps, axis.inside, len(used))


def _recorded_axis(*sizes: Any) -> Axis:
    """_axis in the program that is recorded."""
    return _axis(paddle, *sizes)


def _axis(
    xp: Any, queries: Any, keys: Any, unit: int, window: int, trained: Optional[Tuple[int, int]]
) -> Axis:
    """The Axis by numpy or by paddle, whichever `xp` is."""
    inside = _inside(xp, queries, window) if window else None
    if trained is None or (xp is np and trained == (queries, keys)):
        coordinates, index, distances = _distances(xp, queries, keys, unit)
        return Axis(coordinates, [(index, None)], inside, distances)
    coordinates, index, distances = _distances(np, *trained, unit)
    take = np.take
    if xp is paddle:
        take = paddle.gather
        coordinates, index = paddle.to_tensor(coordinates), paddle.to_tensor(index)
    taps = []
    for query, query_share in _nearest(xp, queries, trained[0]):
        for key, key_share in _nearest(xp, keys, trained[1]):
            place = take(take(index, query, axis=0), key, axis=1)
            taps.append((place, query_share[:, None] * key_share[None, :]))
    return Axis(coordinates, taps, inside, distances)


def _distances(xp: Any, queries: Any, keys: Any, unit: int) -> Tuple[Any, Any, Any]:
    """(coordinates, index [Q, K] into them, how many they are) of queries and the keys that
    adaptive average pooling makes of them: each stands in the middle of its queries.
    """
    start, end = _windows(xp, queries, keys)
    # positions are doubled, and so whole: a key's first query plus its last
    centres = start + end - 1
    distances = 2 * xp.arange(queries)[:, None] - centres[None, :]
    # keys of equally many queries stand a whole number of queries apart
    uneven = queries % keys
    step = 2 - (min(uneven, 1) if xp is np else paddle.clip(uneven, max=1))
    lowest = -centres[-1]
    count = (2 * (queries - 1) - centres[0] - lowest) // step + 1
    steps = (lowest + step * xp.arange(count)).astype("float32") / 2 / unit * 8
    # float64 rounds as the reference does; a program stays in the types that all engines have
    magnitude = (xp.abs(steps) + 1).astype("float64" if xp is np else "float32")
    coordinates = xp.sign(steps) * xp.log2(magnitude).astype("float32") / 3
    return coordinates, (distances - lowest) // step, count


def _averages(queries: Tensor, keys: Tensor) -> Tensor:
    """float32 [K, Q]: the share of each query in each key."""
    start, end = _windows(paddle, queries, keys)
    place = paddle.arange(queries).unsqueeze(0)
    inside = (place >= start.unsqueeze(-1)) & (place < end.unsqueeze(-1))
    return inside.astype("float32") / (end - start).unsqueeze(-1).astype("float32")


def _windows(xp: Any, queries: Any, keys: Any) -> Tuple[Any, Any]:
    """Adaptive average pooling's first query of each key, and the one after its last: [K], [K]."""
    key = xp.arange(keys)
    return key * queries // keys, ((key + 1) * queries + keys - 1) // keys


def _nearest(xp: Any, count: Any, trained: int) -> Sequence[Tuple[Any, Any]]:
    """Bilinear interpolation from `trained` places to `count`: twice (place int64 [count], its
    share float32 [count]), borders replicated.
    """
    if xp is np:
        scale = np.float32(trained) / np.float32(count)
    else:
        scale = trained / count.astype("float32")
    source = (xp.arange(count).astype("float32") + 0.5) * scale - 0.5
    source = source.clip(0) if xp is np else paddle.clip(source, min=0)
    first = xp.floor(source).astype("int64")
    second = (first + 1).clip(0, trained - 1)
    share = source - first.astype("float32")
    return (first, 1 - share), (second, share)


def _inside(xp: Any, queries: Any, window: int) -> Any:
    """float32 [Q, window]: 1 where a neighbour is within the image, 0 outside."""
    reach = xp.arange(window) - window // 2
    place = xp.arange(queries)[:, None] + reach[None, :]
    return ((place >= 0) & (place < queries)).astype("float32")
