"""COCO's json in contiguous arrays: read a few megabytes at a time, verified by whole columns, and
kept in a few hundred bytes an object, which worker processes share.

Files as programs write them go this way. Whatever it cannot do, and every complaint, is left to
`coco_json`, which reads the whole file and looks at one entry after the other.
"""

import contextlib
import gc
import logging
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from ...files import JSON_BYTES, MAX_PIXELS, UnreadableError, open_file
from ...schema import shown_text
from ..packed import PackedNames
from .coco_json import (
    KEYS,
    LARGEST,
    NO_NUMBERS,
    TOLERATED,
    Entry,
    annotations_by_image,
    disagreement,
    read_coco,
)
from .json_stream import sections_of
from .packed_objects import ObjectParts, ObjectsOfImages, PackedObjects, integers

__all__ = ["PackedCOCO", "PackedImages", "open_coco"]

log = logging.getLogger(__name__)


class PackedImages(NamedTuple):
    """ids: integers [N]. names: the files. sizes: int64 [N, 2], height and width."""

    ids: np.ndarray
    names: PackedNames
    sizes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[Entry]) -> "PackedImages":
        """Those of verified entries."""
        sizes = [(image["height"], image["width"]) for image in images]
        return cls(
            integers([image["id"] for image in images]),
            PackedNames.of([image["file_name"] for image in images]),
            np.array(sizes, np.int64).reshape(-1, 2),
        )

    def taken(self, numbers: np.ndarray) -> "PackedImages":
        """Those with these numbers."""
        return PackedImages(self.ids[numbers], self.names.taken(numbers), self.sizes[numbers])

    @classmethod
    def joined(cls, parts: Sequence["PackedImages"]) -> "PackedImages":
        """All of them, one after the other."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            PackedNames.joined([part.names for part in parts]),
            np.concatenate([part.sizes for part in parts]),
        )


class PackedCOCO(NamedTuple):
    """The images, their objects, and for each object the number of its image, int64 [N]."""

    images: PackedImages
    objects: PackedObjects
    image_of: np.ndarray

    def of_images(self, numbers: np.ndarray) -> ObjectsOfImages:
        """The objects of the images with these numbers."""
        places = np.full(len(self.images.ids), -1)
        places[numbers] = np.arange(len(numbers))
        place_of = places[self.image_of]
        rows = np.argsort(place_of, kind="stable")[np.count_nonzero(place_of < 0) :]
        counts = np.bincount(place_of[rows], minlength=len(numbers))
        return ObjectsOfImages(self.objects, rows, np.append(0, np.cumsum(counts)))


class COCOFile(NamedTuple):
    """A json whose structure is verified. objects: verifies the annotations, too; its errors and
    its warning are `annotations_by_image`'s.
    """

    categories: List[Entry]
    objects: Callable[[], PackedCOCO]


def open_coco(path: str) -> COCOFile:
    """The COCO json `path`, its structure verified; the errors are `read_coco`'s."""
    quick = _read_quickly(path)
    if quick is not None:
        return quick
    content = read_coco(path)

    def objects() -> PackedCOCO:
        annotations_by_image(content, path)
        images = PackedImages.of(content["images"])
        parts = ObjectParts()
        parts.add(content["annotations"])
        packed = parts.joined()
        places = _places(images.ids, packed.image_ids)
        assert places is not None  # every one was looked up
        return PackedCOCO(images, packed, places)

    return COCOFile(content["categories"], objects)


class _Complaint(Exception):
    """Something that the quick way leaves to the other."""


def _read_quickly(path: str) -> Optional[COCOFile]:
    """The file, annotations and all, or None."""
    try:
        with _no_collector():
            coco, categories = _read(path)
        warning = _check_objects(coco, categories, path)
    except (_Complaint, ValueError, OverflowError, RecursionError, UnreadableError, *NO_NUMBERS):
        return None

    def objects() -> PackedCOCO:
        if warning:
            log.warning("%s", warning)
        return coco

    return COCOFile(categories, objects)


def _read(path: str) -> Any:
    """(PackedCOCO, categories) of the file. Any of the errors above where something is odd."""
    images: List[PackedImages] = []
    categories: List[Entry] = []
    parts = ObjectParts()
    seen = set()
    with open_file(path) as file:
        if file.seek(0, 2) > JSON_BYTES:
            raise _Complaint("too large")
        file.seek(0)
        for section, entries in sections_of(file):
            seen.add(section)
            if section == "images":
                _check_images(entries)
                images.append(PackedImages.of(entries))
            elif section == "categories":
                _check_categories(entries)
                categories += entries
            elif section == "annotations":
                _check_annotations(entries)
                parts.add(entries)
    if not seen.issuperset(KEYS):
        raise _Complaint("a section is missing")
    packed, objects = PackedImages.joined(images), parts.joined()
    for ids in (packed.ids, objects.ids, integers([entry["id"] for entry in categories])):
        _require(len(np.unique(ids)) == len(ids))
    _require(len(packed.ids) and len(categories))
    places = _places(packed.ids, objects.image_ids)
    if places is None:
        raise _Complaint("an image that is not there")
    return PackedCOCO(packed, objects, places), categories


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the search for cycles, of which JSON has none: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _require(found: Any) -> None:
    if not found:
        raise _Complaint("something is odd")


def _types(values: Iterable[Any]) -> set:
    return set(map(type, values))


def _check_images(images: Sequence[Entry]) -> None:
    _require(_types(images) <= {dict})
    for image in images:
        width, height = image["width"], image["height"]
        _require(type(image["id"]) is int and type(image["file_name"]) is str)
        _require(type(width) is int and type(height) is int)
        _require(0 < width < LARGEST and 0 < height < LARGEST and width * height <= MAX_PIXELS)


def _check_categories(categories: Sequence[Entry]) -> None:
    _require(_types(categories) <= {dict})
    for category in categories:
        _require(type(category["id"]) is int and type(category["name"]) is str)


def _check_annotations(annotations: Sequence[Entry]) -> None:
    _require(_types(annotations) <= {dict})
    for key in ("id", "image_id", "category_id"):
        _require(_types(entry[key] for entry in annotations) <= {int})
    boxes = [entry["bbox"] for entry in annotations]
    _require(_types(boxes) <= {list} and set(map(len, boxes)) <= {4})
    numbers = [value for box in boxes for value in box]
    numbers += [entry["area"] for entry in annotations]
    _require(_types(numbers) <= {int, float})
    _require((np.abs(np.array(numbers, np.float64)) < LARGEST).all())
    _require({entry.get("iscrowd", 0) for entry in annotations} <= {0, 1})


def _places(ids: np.ndarray, wanted: np.ndarray) -> Optional[np.ndarray]:
    """Where each of `wanted` stands in `ids`, int64; None if one does not."""
    order = np.argsort(ids, kind="stable")
    at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
    found = order[at].astype(np.int64)
    return found if np.array_equal(ids[found], wanted) else None


def _check_objects(coco: PackedCOCO, categories: Sequence[Entry], path: str) -> str:
    """What `annotations_by_image` would warn of, '' for nothing. _Complaint for its errors."""
    objects = coco.objects
    _require(np.isin(objects.category_ids, [entry["id"] for entry in categories]).all())
    sizes = coco.images.sizes[coco.image_of]
    contradictions: Dict[int, str] = {}
    for row in _suspects(objects, sizes):
        image = {"height": int(sizes[row, 0]), "width": int(sizes[row, 1])}
        told = disagreement(objects.entry(row), image)
        if told:
            contradictions[row] = told
        if len(contradictions) > TOLERATED * len(objects):
            raise _Complaint("too many contradictions")
    if not contradictions:
        return ""
    row, told = next(iter(contradictions.items()))
    name = coco.images.names[int(coco.image_of[row])]
    first = f"{path}: annotation {objects.ids[row]} of {name}: {told}"
    return f"{shown_text(first)} ({len(contradictions)} annotations are like this)"


def _suspects(objects: PackedObjects, sizes: np.ndarray) -> Iterator[int]:
    """The numbers of objects that `disagreement` may find fault with, in their order; all others
    it finds none with. sizes: int64 [N, 2] of their images.
    """
    height, width = sizes[:, 0], sizes[:, 1]
    x, y, w, h = objects.boxes.T
    left, top, right, bottom = objects.bounds.T
    outside = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    apart = np.max(np.abs([left - x, top - y, right - x - w, bottom - y - h]), axis=0)
    longest = np.maximum(width, height)
    far = (np.minimum(left, top) < -longest) | (np.maximum(right, bottom) > 2 * longest)
    # of masks that are no polygons the bounds are not known, nan
    close = (apart <= 2) | (objects.crowds & ~np.isnan(apart))
    suspect = outside
    if objects.outlined:
        suspect = outside | far | objects.shapeless | ~close
    return map(int, np.flatnonzero(suspect))
