"""The annotated objects of a dataset in contiguous arrays."""

import functools
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..rle import polygons
from .coco_json import LARGEST, Entry

__all__ = ["ObjectParts", "ObjectsOfImages", "PackedObjects", "integers"]

HUNDREDTHS = 100  # of a pixel: what annotation programs round coordinates to


def integers(values: Sequence[int]) -> np.ndarray:
    """int64 [N]; of numbers beyond, an array of Python's."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


@dataclass(frozen=True)
class PackedObjects:
    """N annotated objects.

    ids, image_ids, category_ids: integers [N]. boxes: float64 [N, 4], left, top, width, height.
    whole: bool [N, 4], which of these were written without a point. areas: float64 [N]. crowds,
    ignored, shapeless (without a polygon of three points or run lengths): bool [N]. bounds: float64
    [N, 4], left, top, right, bottom of the polygons, nan without. masks: their segmentation.
    """

    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    whole: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    ignored: np.ndarray
    shapeless: np.ndarray
    bounds: np.ndarray
    masks: "PackedMasks"

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def outlined(self) -> bool:
        """Whether they have masks, or boxes alone: none has one then."""
        return not len(self) or len(self.masks.texted) > 0 or bool(self.masks.first_polygons[-1])

    def entry(self, row: int) -> Entry:
        """One of them as COCO's json has it; of its optional keys those that are read."""
        box = zip(self.boxes[row].tolist(), self.whole[row].tolist())
        entry = {
            "id": int(self.ids[row]),
            "image_id": int(self.image_ids[row]),
            "category_id": int(self.category_ids[row]),
            "bbox": [int(value) if whole else value for value, whole in box],
            "area": float(self.areas[row]),
            "iscrowd": int(self.crowds[row]),
            "segmentation": self.masks[row] if self.outlined else None,
        }
        return {**entry, "ignore": 1} if self.ignored[row] else entry


class _Polygons(NamedTuple):
    """The polygons of some objects. counts: int32 [objects], of polygons. lengths: int32
    [polygons], of numbers. numbers: x, y, x, y, ...: int32 in hundredths, or float64.
    """

    counts: np.ndarray
    lengths: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, masks: Sequence[List[List[float]]], numbers: np.ndarray) -> "_Polygons":
        """Those of plain `masks`, and all their numbers."""
        parts = list(chain.from_iterable(masks))
        lengths = np.fromiter(map(len, parts), np.int32, len(parts))
        counts = np.fromiter(map(len, masks), np.int32, len(masks))
        return cls(counts, lengths, numbers)

    def bounds(self) -> np.ndarray:
        """float64 [objects, 4]: left, top, right, bottom of `polygons`, nan without."""
        valid = (self.lengths >= 6) & (self.lengths % 2 == 0)
        numbers = self.numbers[np.repeat(valid, self.lengths)]
        of_object = np.repeat(np.arange(len(self.counts)), self.counts)[valid]
        points = np.bincount(of_object, self.lengths[valid] // 2, len(self.counts)).astype(np.int64)
        some = points > 0
        starts = (np.cumsum(points) - points)[some]
        bounds = np.full((len(self.counts), 4), np.nan)
        if len(starts):
            for axis, values in enumerate((numbers[::2], numbers[1::2])):
                bounds[some, axis] = np.minimum.reduceat(values, starts)
                bounds[some, axis + 2] = np.maximum.reduceat(values, starts)
        return bounds


def _smaller(numbers: np.ndarray) -> np.ndarray:
    """`numbers` as int32 hundredths where that is what they are to the last bit."""
    rounded = np.rint(numbers * HUNDREDTHS)
    if (np.abs(rounded) < 2**31).all() and np.array_equal(rounded / HUNDREDTHS, numbers):
        return rounded.astype(np.int32)
    return numbers


class PackedMasks(Sequence[Any]):
    """Segmentations in COCO's formats: polygons as numbers, all others as JSON."""

    def __init__(self, blocks: Sequence[_Polygons], texts: Dict[int, bytes]):
        """texts: those of objects that are no plain polygons, by number."""
        self.blocks = [block.numbers for block in blocks]
        none = np.zeros(0, np.int64)
        counts = np.concatenate([none, *(block.counts for block in blocks)])
        lengths = np.concatenate([none, *(block.lengths for block in blocks)])
        self.first_polygons = np.append(0, np.cumsum(counts)).astype(np.int64)
        self.first_numbers = np.append(0, np.cumsum(lengths)).astype(np.int64)
        self.block_starts = np.cumsum([0, *map(len, self.blocks)])
        self.texted = np.array(sorted(texts), np.int64)
        ordered = [texts[row] for row in self.texted.tolist()]
        self.text = b"".join(ordered)
        self.text_ends = np.cumsum([0, *map(len, ordered)])

    def __len__(self) -> int:
        return len(self.first_polygons) - 1

    def __getitem__(self, row: Any) -> Any:
        place = int(np.searchsorted(self.texted, row))
        if place < len(self.texted) and self.texted[place] == row:
            return json.loads(self.text[self.text_ends[place] : self.text_ends[place + 1]])
        first, last = self.first_polygons[row : row + 2].tolist()
        if first == last:
            return []
        edges = self.first_numbers[first : last + 1]
        # all numbers of an object are in one block
        block = int(np.searchsorted(self.block_starts[1:-1], edges[0], "right"))
        start = self.block_starts[block]
        numbers = self.blocks[block][edges[0] - start : edges[-1] - start]
        values = (numbers / HUNDREDTHS if numbers.dtype == np.int32 else numbers).tolist()
        ends = (edges - edges[0]).tolist()
        return [values[begin:end] for begin, end in zip(ends, ends[1:])]


class ObjectParts:
    """Collects objects from annotations, some at a time."""

    def __init__(self) -> None:
        self.columns: List[Tuple[np.ndarray, ...]] = []
        self.polygons: List[_Polygons] = []
        self.texts: Dict[int, bytes] = {}
        self.count = 0

    def add(self, annotations: Sequence[Entry]) -> None:
        """Add annotations whose keys and types are verified, but for what polygons are made of.
        ValueError, TypeError or OverflowError for a box or an area that is no number.
        """
        masks: List[Any] = [entry.get("segmentation") or [] for entry in annotations]
        odd: Dict[int, Any] = {}
        numbers = _numbers_of(masks)
        if numbers is None:
            odd = {row: mask for row, mask in enumerate(masks) if _numbers_of([mask]) is None}
            masks = [[] if row in odd else mask for row, mask in enumerate(masks)]
            numbers = _numbers_of(masks)
            assert numbers is not None
        parts = _Polygons.of(masks, numbers)
        bounds = parts.bounds()
        shapeless = np.isnan(bounds[:, 0])
        for row, mask in odd.items():
            self.texts[self.count + row] = json.dumps(mask).encode()
            shapeless[row] = isinstance(mask, list) and not polygons(mask)
        boxes = list(chain.from_iterable(entry["bbox"] for entry in annotations))
        self.columns.append(
            (
                integers([entry["id"] for entry in annotations]),
                integers([entry["image_id"] for entry in annotations]),
                integers([entry["category_id"] for entry in annotations]),
                np.array(boxes, np.float64).reshape(-1, 4),
                np.array([type(value) is not float for value in boxes], bool).reshape(-1, 4),
                np.array([entry["area"] for entry in annotations], np.float64),
                np.array([bool(entry.get("iscrowd", 0)) for entry in annotations], bool),
                np.array([bool(entry.get("ignore")) for entry in annotations], bool),
                shapeless,
                bounds,
            )
        )
        self.polygons.append(parts._replace(numbers=_smaller(numbers)))
        self.count += len(annotations)

    def joined(self) -> PackedObjects:
        """All that were added."""
        if not self.columns:
            self.add([])
        columns: List[Any] = [np.concatenate(column) for column in zip(*self.columns)]
        columns.append(PackedMasks(self.polygons, self.texts))
        return PackedObjects(*columns)


def _numbers_of(masks: Sequence[Any]) -> Optional[np.ndarray]:
    """The numbers, float64, of lists of lists of numbers of ordinary size; None if any of `masks`
    is something else.
    """
    if not set(map(type, masks)) <= {list}:
        return None
    parts = list(chain.from_iterable(masks))
    if not set(map(type, parts)) <= {list}:
        return None
    values = list(chain.from_iterable(parts))
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        return None
    return numbers if (np.abs(numbers) < LARGEST).all() else None


class ObjectsOfImages:
    """For each of some images the annotations of its objects, in their order.

    rows: the numbers of all these objects among `objects`, image by image. starts: int64 [images +
    1], where each image's begin.
    """

    def __init__(self, objects: PackedObjects, rows: np.ndarray, starts: np.ndarray):
        self.objects = objects
        self.rows = rows
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> List[Entry]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = self.rows[self.starts[index] : self.starts[index + 1]]
        return [self.objects.entry(row) for row in rows.tolist()]

    def __iter__(self) -> Iterator[List[Entry]]:
        return (self[index] for index in range(len(self)))
