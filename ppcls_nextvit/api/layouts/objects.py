"""Images with objects, of whatever layout, as COCO json beside the configuration of the run."""

import json
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ...files import MAX_PIXELS
from ...schema import ConfigError, shown_text
from ..own_data import (
    EVALUATION,
    HERE,
    TRAIN,
    OwnData,
    Search,
    check_classes,
    evaluated,
    part_of,
)

__all__ = ["PARTS", "Annotated", "Object", "check_size", "held_out", "objects_data", "polygon_box"]

PARTS = ("train.json", "val.json")


class Object(NamedTuple):
    """One object. box: (left, top, width, height) in pixels. outline: polygons [x, y, x, y, ...].
    crowd: neither learnt nor counted, as VOC's difficult ones.
    """

    name: str
    box: Tuple[float, float, float, float]
    outline: Optional[List[List[float]]] = None
    crowd: bool = False


class Annotated(NamedTuple):
    """An image, its path relative to the root, with its objects. size: (width, height)."""

    image: str
    size: Tuple[int, int]
    objects: List[Object]


def objects_data(
    search: Search,
    layout: str,
    images: Sequence[Annotated],
    parts: Optional[Mapping[str, str]] = None,
    names: Optional[Sequence[str]] = None,
    notes: Sequence[str] = (),
) -> OwnData:
    """The OwnData of images with objects.

    parts: {image: its part}, of images of 'train' and of words of EVALUATION; None: as their
    folders say, else they are split. names: of the classes; None: those of the objects to train
    with, by the alphabet. ConfigError for a part without images or objects, and for classes that
    are evaluated alone.
    """
    said = list(notes)
    train, held, split = _parted(search, images, parts, said)
    for what, part in (("train with", train), ("evaluate on", held)):
        if not part:
            raise ConfigError(f"{search.root}: no images to {what}")
        if not any(image.objects for image in part):
            raise ConfigError(f"{search.root}: no object in the images to {what}")
    found = [{one.name for image in part for one in image.objects} for part in (train, held)]
    if names is None:
        check_classes(found[0], found[1], search.root)
        names = sorted(found[0])
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            f"{search.root}: {times} classes are called {shown_text(name)}; give each its own name"
        )
    masks = any(one.outline for image in train for one in image.objects)
    lists = dict(zip(PARTS, (_coco_text(part, names, masks) for part in (train, held))))
    sections = [
        {
            "name": "COCODataset",
            "image_root": str(search.root),
            "annotation_path": f"{HERE}/{name}",
            "mode": mode,
        }
        for name, mode in zip(PARTS, ("train", "val"))
    ]
    return OwnData(
        search.root,
        layout,
        len(names),
        list(names),
        sections[0],
        sections[1],
        (len(train), len(held)),
        lists=lists,
        holds="objects",
        masks=masks,
        split=split,
        notes=tuple(said),
    )


def _parted(
    search: Search,
    images: Sequence[Annotated],
    parts: Optional[Mapping[str, str]],
    said: List[str],
) -> Tuple[List[Annotated], List[Annotated], bool]:
    """(to train with, to evaluate on, whether they were chosen here); said gets a line of what is
    left out.
    """
    stated = {image.image: part_of(image.image) for image in images} if parts is None else parts
    counts = Counter(stated.get(image.image) for image in images)
    held = next((word for word in EVALUATION if counts[word]), None)
    if held is None or not counts[TRAIN[0]]:
        if search.whole:
            return list(images), list(images), True
        if held is not None:
            raise ConfigError(f"{search.root}: images of {held}/, but none of train/")
        chosen = held_out(search, [{one.name for one in image.objects} for image in images])
        train = [image for index, image in enumerate(images) if index not in chosen]
        return train, [images[index] for index in sorted(chosen)], True
    left = len(images) - counts[TRAIN[0]] - counts[held]
    if left:
        said.append(f"left out: {left} images that are neither of train nor of {held}")
    train = [image for image in images if stated.get(image.image) == TRAIN[0]]
    return train, [image for image in images if stated.get(image.image) == held], False


def held_out(search: Search, classes: Sequence[Set[str]]) -> Set[int]:
    """Which images evaluate, by the `classes` of each: by the rarest one in it, each group by
    itself, so that of no class all objects evaluate. ConfigError if none would.
    """
    counts = Counter(name for found in classes for name in found)
    groups: Dict[str, List[int]] = {}
    for index, found in enumerate(classes):
        rarest = min(sorted(found), key=lambda name: counts[name], default="")
        groups.setdefault(rarest, []).append(index)
    held = {
        groups[name][index]
        for number, name in enumerate(sorted(groups))
        for index in evaluated(len(groups[name]), number, search)
    }
    if not held:
        raise ConfigError(f"{search.root}: too few images to keep some to evaluate on")
    return held


def _coco_text(images: Sequence[Annotated], names: Sequence[str], masks: bool) -> str:
    numbers = {name: number for number, name in enumerate(names)}
    content = {
        "images": [
            {"id": number, "file_name": each.image, "width": each.size[0], "height": each.size[1]}
            for number, each in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": list(_annotations(images, numbers, masks)),
    }
    return json.dumps(content) + "\n"


def _annotations(
    images: Sequence[Annotated], numbers: Mapping[str, int], masks: bool
) -> Iterator[Dict[str, Any]]:
    """COCO's annotations; where objects have outlines, one without has its box's."""
    number = 0
    for image_id, image in enumerate(images, 1):
        for one in image.objects:
            number += 1
            left, top, width, height = one.box
            entry: Dict[str, Any] = {
                "id": number,
                "image_id": image_id,
                "category_id": numbers[one.name],
                "bbox": list(one.box),
                "area": width * height,
                "iscrowd": int(one.crowd),
            }
            if masks:
                right, bottom = left + width, top + height
                corners = [left, top, right, top, right, bottom, left, bottom]
                entry["segmentation"] = one.outline or [corners]
                entry["area"] = sum(map(_area, entry["segmentation"]))
            yield entry


def _area(polygon: Sequence[float]) -> float:
    """Of a polygon [x, y, x, y, ...], by the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]])
    return abs(sum(x * v - u * y for x, y, u, v in turned)) / 2


def polygon_box(polygons: Sequence[Sequence[float]]) -> Tuple[float, float, float, float]:
    """(left, top, width, height) that holds polygons [x, y, x, y, ...]."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def check_size(size: Tuple[int, int], where: str) -> Tuple[int, int]:
    """(width, height) as a label file says. ConfigError, beginning with `where`, for what no image
    has.
    """
    width, height = size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ConfigError(f"{where}: an image of {shown_text(f'{width} x {height}')} pixels")
    return width, height
