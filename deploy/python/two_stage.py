"""A two-stage detector that goes out as several programs, joined: what chooses between them, in
numpy. Needs numpy; the same file lies in deploy/python and ppcls_nextvit/export.

The first program gives an image's maps and, of each anchor, how likely an object is there and how
its box differs; the second classifies pooled regions; the third outlines them. Which regions, and
which of the boxes stay, is decided here, in float32, as mmdetection 2 does.
"""

import math
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

PLACE = "Model.two_stage"  # in export.json
LARGEST = 1 << 20  # of a number of boxes, or a side of a map
MOST_ROWS, MOST_CELLS = 1000, 64  # of what a program takes at once
MAX_LOG_RATIO = abs(math.log(16 / 1000))  # of a decoded side to the coded one
NARROWEST, EPS = 1e-3, 1e-6

# {name: array} -> {name: array}
Run = Callable[[Dict[str, np.ndarray]], Mapping[str, Any]]


class Level(NamedTuple):
    """A map's cells, and the boxes around the origin that each cell has its own copies of."""

    stride: int
    grid: Tuple[int, int]  # rows, columns
    anchors: np.ndarray  # float32 [A, 4]


class TwoStage:
    """`two_stage(image, shape, scale)` -> (objects [n, 6], masks [n, m, m]) of one image.

    settings: what export.json has in Model.two_stage. first: {image: [1, 3, H, W]} -> objectness
    [1, N], deltas [1, N, 4], map0 [1, C, h, w], map1, ... boxes: {regions: [rows, C, 7, 7]} ->
    logits [rows, classes + 1], deltas [rows, classes * 4]. masks: {regions: [rows, C, 14, 14]} ->
    logits [rows, classes, m, m]. ValueError, one line, for settings that are none, and for programs
    that give something else.
    """

    def __init__(self, settings: Any, first: Run, boxes: Run, masks: Run):
        self.first, self.boxes, self.masks = first, boxes, masks
        levels = _get(settings, "levels", list)
        self.levels = [_level(entry, f"levels.{i}") for i, entry in enumerate(levels)]
        self.maps = _whole(settings, "maps", max(len(self.levels), 1))
        self.finest = _number(settings, "finest_scale", 1, LARGEST)
        self.per_level, self.proposals = (
            _whole(settings, f"proposals.{name}", LARGEST) for name in ("per_level", "count")
        )
        self.overlap = _number(settings, "proposals.nms_threshold", 0, 1)
        self.cells, self.mask_cells = (
            _whole(settings, f"{name}.cells", MOST_CELLS) for name in ("boxes", "masks")
        )
        self.rows, self.mask_rows = (
            _whole(settings, f"{name}.rows", MOST_ROWS) for name in ("boxes", "masks")
        )
        self.stds = _numbers(settings, "boxes.stds", (4,))
        self.least = _number(settings, "boxes.score_threshold", 0, 1)
        self.box_overlap = _number(settings, "boxes.nms_threshold", 0, 1)
        self.most = _whole(settings, "boxes.count", LARGEST)

    def __call__(
        self, image: np.ndarray, shape: np.ndarray, scale: np.ndarray
    ) -> Tuple[np.ndarray, np.ndarray]:
        """image: float32 [1, 3, H, W]; shape: [1, 2], its (height, width) before padding; scale:
        [1, 2], the (y, x) factors of its resize. objects: (label, score, x1, y1, x2, y2) each, best
        first, in pixels of the original; masks: probabilities on a grid over each box.
        """
        # (x, y, x, y)
        limit, factors = (np.float32(np.reshape(pair, 2)[[1, 0, 1, 0]]) for pair in (shape, scale))
        found = self.first({"image": image})
        maps = [_given(found, f"map{i}", 4)[0].transpose(1, 2, 0) for i in range(self.maps)]
        proposals = self._proposals(
            _given(found, "objectness", 2)[0], _given(found, "deltas", 3)[0], limit
        )
        boxes, scores, labels = self._boxes(maps, proposals, limit, factors)
        masks = self._masks(maps, boxes * factors, labels)
        return np.column_stack([np.float32(labels), scores, boxes]), masks

    def _proposals(self, objectness, deltas, limit):
        """Boxes [n, 4] that may be objects, best first. objectness: [N], deltas: [N, 4]."""
        counts = [grid[0] * grid[1] * len(anchors) for _, grid, anchors in self.levels]
        if len(objectness) != sum(counts) or deltas.shape != (len(objectness), 4):
            raise ValueError(
                f"the program gives {len(objectness)} scores and {list(deltas.shape)} deltas; the "
                f"description has {sum(counts)} anchors; export again"
            )
        boxes, scores, groups, start = [], [], [], 0
        for index, (level, count) in enumerate(zip(self.levels, counts)):
            score = _sigmoid(objectness[start : start + count])
            order = np.argsort(-score, kind="stable")[: self.per_level]
            anchors = anchors_at(level, order)
            boxes.append(decoded(anchors, deltas[start + order], limit)[:, 0])
            scores.append(score[order])
            groups.append(np.full(len(order), index))
            start += count
        box, score, group = (np.concatenate(parts) for parts in (boxes, scores, groups))
        real = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        box, score, group = box[real], score[real], group[real]
        return box[survivors(box, score, group, self.overlap, self.proposals)]

    def _boxes(self, maps, proposals, limit, factors):
        """(boxes [n, 4] in the original, scores [n], labels [n]), best first."""
        regions = self._pooled(maps, proposals, self.cells)
        logits, deltas = _in_rows(self.boxes, regions, self.rows, ("logits", "deltas"))
        if deltas.ndim != 2 or deltas.shape[1] != 4 * (logits.shape[1] - 1):
            raise ValueError(
                f"the program of the boxes gives {list(logits.shape)} scores and "
                f"{list(deltas.shape)} deltas, which do not go together; export again"
            )
        shares = _softmax(logits)[:, :-1]
        stds = np.tile(self.stds, deltas.shape[1] // 4)
        boxes = decoded(proposals, deltas * stds, limit) / factors
        proposal, labels = np.nonzero(shares > np.float32(self.least))
        scores, boxes = shares[proposal, labels], boxes[proposal, labels]
        kept = survivors(boxes, scores, labels, self.box_overlap, self.most)
        return boxes[kept], scores[kept], labels[kept]

    def _masks(self, maps, boxes, labels):
        """[n, m, m], probabilities. boxes: [n, 4], in the image that was seen."""
        regions = self._pooled(maps, boxes, self.mask_cells)
        (logits,) = _in_rows(self.masks, regions, self.mask_rows, ("logits",))
        if len(labels) and (logits.ndim != 4 or logits.shape[1] <= labels.max()):
            raise ValueError(
                f"the program of the masks gives {list(logits.shape)}; expected the masks of more "
                f"than {labels.max()} classes; export again"
            )
        return _sigmoid(logits[np.arange(len(labels)), labels])

    def _pooled(self, maps, boxes, cells):
        strides = [level.stride for level in self.levels[: self.maps]]
        return roi_align(maps, strides, boxes, cells, self.finest)


def anchors_at(level: Level, places: np.ndarray) -> np.ndarray:
    """Of a level's anchors, cell by cell, row by row, those at `places`: float32 [n, 4]."""
    cell, kind = np.divmod(places, len(level.anchors))
    y, x = np.divmod(cell, level.grid[1])
    shift = np.stack([x, y, x, y], axis=-1).astype(np.float32) * np.float32(level.stride)
    return level.anchors[kind] + shift


def decoded(boxes: np.ndarray, deltas: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """float32 [n, classes, 4]: boxes [n, 4] changed by deltas [n, classes * 4], shifts in sides and
    logarithms of the sides' ratios, and cut to `limit`, the image's (w, h, w, h).
    """
    deltas = deltas.reshape(len(boxes), deltas.shape[1] // 4, 4)
    centre = ((boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5))[:, None]
    size = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centre = centre + size * deltas[..., :2]
    ratio = np.exp(np.clip(deltas[..., 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO, dtype=np.float32))
    half = size * ratio * np.float32(0.5)
    return np.clip(np.concatenate([centre - half, centre + half], axis=-1), 0, limit)


def survivors(
    boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, overlap: float, count: int
) -> np.ndarray:
    """Indices of the `count` best boxes that no better one of their group (int [n]) covers by more
    than `overlap`, their intersection over union; best first.
    """
    order = np.argsort(-scores, kind="stable")
    # moves the groups apart
    offset = groups.astype(np.float32) * (boxes.max(initial=0) + np.float32(1))
    x1, y1, x2, y2 = (boxes + offset[:, None])[order].T
    area, left, kept = (x2 - x1) * (y2 - y1), np.ones(len(order), bool), []
    for i, index in enumerate(order):
        if not left[i]:
            continue
        kept.append(index)
        if len(kept) == count:
            break
        width = np.minimum(x2[i], x2[i:]) - np.maximum(x1[i], x1[i:])
        height = np.minimum(y2[i], y2[i:]) - np.maximum(y1[i], y1[i:])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid="ignore"):  # of two without an area
            left[i:] &= ~(shared / (area[i] + area[i:] - shared) > np.float32(overlap))
    return np.array(kept, np.int64)


def roi_align(
    maps: Sequence[np.ndarray],
    strides: Sequence[int],
    boxes: np.ndarray,
    cells: int,
    finest_scale: float,
) -> np.ndarray:
    """RoIAlign float32 [n, C, cells, cells] of boxes [n, 4], each from the map [h, w, C] that suits
    its size; sampling points as many as it has pixels. The points of a cell stand in rows and
    columns, so that the two axes are summed one after the other.

    finest_scale: the root of the area, in pixels, up to which (times 2) a box reads the first map.
    """
    low, high = boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + np.float32(NARROWEST))
    side = np.sqrt((high - low).prod(axis=1))
    levels = np.floor(np.log2(side / np.float32(finest_scale) + np.float32(EPS)))
    levels = np.clip(levels, 0, len(maps) - 1).astype(np.int64)
    out = np.empty((len(boxes), maps[0].shape[2], cells, cells), np.float32)
    for i, level in enumerate(levels):
        x, scale = maps[level], np.float32(1 / strides[level])
        columns, rows = (
            _shares(low[i, axis] * scale, high[i, axis] * scale, x.shape[1 - axis], cells)
            for axis in (0, 1)
        )
        seen = np.ascontiguousarray(x[rows[1], columns[1]], np.float32)
        pooled = rows[0] @ seen.reshape(len(seen), -1)
        out[i] = (columns[0] @ pooled.reshape(cells, *seen.shape[1:])).transpose(2, 0, 1)
    return out


def _shares(low: float, high: float, size: int, cells: int) -> Tuple[np.ndarray, slice]:
    """(float32 [cells, n], the n positions of `size` that it is of): what each of the cells from
    `low` to `high` takes of them.
    """
    low = low - np.float32(0.5)
    step = np.float32((high - np.float32(0.5) - low) / cells)
    points = max(int(np.ceil(step)), 1)
    inside = (np.arange(points, dtype=np.float32) + np.float32(0.5)) * step / np.float32(points)
    places = (low + np.arange(cells, dtype=np.float32) * step)[:, None] + inside
    seen = (places >= -1) & (places <= size)
    places = np.clip(places, 0, size - 1)
    first, last = int(places.min()), min(int(places.max()) + 2, size)
    near = 1 - np.abs(places[..., None] - np.arange(first, last, dtype=np.float32))
    shares = np.maximum(near, 0) * seen[..., None]
    return shares.mean(axis=1, dtype=np.float32), slice(first, last)


def _in_rows(run: Run, regions: np.ndarray, rows: int, names: Sequence[str]) -> List[np.ndarray]:
    """The outputs `names` of a program that takes `rows` regions at once, of all `regions`."""
    parts: List[List[np.ndarray]] = []
    # one run more than none, which tells the outputs' shapes
    for start in range(0, max(len(regions), 1), rows):
        given = regions[start : start + rows]
        filled = np.zeros((rows, *regions.shape[1:]), np.float32)
        filled[: len(given)] = given
        outputs = run({"regions": filled})
        parts.append([_given(outputs, name)[: len(given)] for name in names])
    return [np.concatenate(found) for found in zip(*parts)]


def _given(outputs: Mapping[str, Any], name: str, axes: Optional[int] = None) -> np.ndarray:
    """The output `name` in float32. ValueError where there is none, of so many axes."""
    if name not in outputs:
        raise ValueError(f"the program gives no {name!r}; export again")
    array = np.asarray(outputs[name], np.float32)
    if axes not in (None, array.ndim) or not np.isfinite(array).all():
        raise ValueError(
            f"the program gives {name!r} as {list(array.shape)}; expected {axes or array.ndim} "
            f"axes of finite numbers"
        )
    return array


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _level(entry: Any, place: str) -> Level:
    anchors = _get(entry, "anchors", list, place)
    grid = _numbers(entry, "grid", (2,), place)
    if not all(1 <= side <= LARGEST and side == int(side) for side in grid):
        raise _wrong(f"{place}.grid", "rows and columns", grid.tolist())
    stride = _whole(entry, "stride", LARGEST, place)
    boxes = _numbers(entry, "anchors", (max(len(anchors), 1), 4), place)
    return Level(stride, (int(grid[0]), int(grid[1])), boxes)


def _get(settings: Any, name: str, kind: Any, place: str = "") -> Any:
    """The value at `name`, keys with dots between. ValueError where it is no `kind`."""
    value = settings
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) or value == []:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        words = {list: "a list", int: "a whole number", float: "a number"}
        raise _wrong(f"{place}.{name}".strip("."), words[kinds[-1]], value)
    return value


def _number(settings: Any, name: str, low: float, high: float) -> float:
    value = _get(settings, name, (int, float))
    if not low <= value <= high:
        raise _wrong(name, f"a number from {low:g} to {high:g}", value)
    return float(value)


def _whole(settings: Any, name: str, high: int, place: str = "") -> int:
    value = _get(settings, name, int, place)
    if not 1 <= value <= high:
        raise _wrong(f"{place}.{name}".strip("."), f"a whole number from 1 to {high}", value)
    return value


def _numbers(settings: Any, name: str, shape: Tuple[int, ...], place: str = "") -> np.ndarray:
    value = _get(settings, name, list, place)
    try:
        array = np.array(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        array = np.array(np.nan, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise _wrong(f"{place}.{name}".strip("."), f"{' x '.join(map(str, shape))} numbers", value)
    return array


def _wrong(place: str, expected: str, found: Any) -> ValueError:
    return ValueError(f"{PLACE}.{place}: expected {expected}, got {str(found)[:60]!r}")
