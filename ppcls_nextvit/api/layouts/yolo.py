"""YOLO's label files: a text for each image with lines `class x y width height`, or `class x y x y
...` of an outline, as shares of the image; and its data.yaml, of which only values are read.
"""

import os
from pathlib import Path, PurePath
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...config.reading import read_yaml
from ...data.datasets.files import EXTENSIONS, is_image_name
from ...data.images import image_size
from ...data.lists import numbered_lines
from ...files import LABEL_BYTES, read_text
from ...schema import ConfigError, shown, shown_text
from ..own_data import (
    EVALUATION,
    NAME_FILES,
    TRAIN,
    OwnData,
    Search,
    class_names_in,
    parts_of_images,
)
from .objects import Annotated, Object, objects_data, polygon_box

__all__ = ["find_yolo"]

SLACK = 0.01  # by which programs round beyond the image
MOST_CLASSES = 10_000


class Settings(NamedTuple):
    """What data.yaml says. path: of the file. names: of the classes, or None. images: {part: images
    as paths relative to the root}, or None.
    """

    path: Path
    names: Optional[List[str]]
    images: Optional[Dict[str, List[str]]]


class Labels(NamedTuple):
    """The objects of an image: (class, box, outline or None) each."""

    image: str
    size: Tuple[int, int]
    objects: List[Tuple[int, Tuple[float, float, float, float], Optional[List[float]]]]


def find_yolo(search: Search) -> Optional[OwnData]:
    """images/ and labels/ with folders or lists for the parts, as data.yaml says, or a text beside
    each image. An image without a text has no object.
    """
    texts = {name for name in search.ending_in(".txt") if PurePath(name).name not in NAME_FILES}
    settings = _settings(search)
    listed = None if settings is None else settings.images
    images = (
        search.files.images
        if listed is None
        else [image for part in listed.values() for image in part]
    )
    label_of = {image: label for image in images if (label := _label_file(image, texts))}
    if not label_of:
        if settings is not None:
            raise ConfigError(
                f"{settings.path}: none of its {len(images)} images has a label file, which lies "
                f"in labels/ where the image lies in images/, or beside it"
            )
        return None
    names = class_names_in(search.root) if settings is None else settings.names
    found = [
        Labels(image, size, _lines(search.root / label, size) if label else [])
        for image in images
        for label, size in [(label_of.get(image), image_size(str(search.root / image)))]
    ]
    last = max((one[0] for each in found for one in each.objects), default=0)
    called = names or [str(number) for number in range(last + 1)]
    _check_numbers(found, label_of, called, search.root)
    notes = []
    bare = len(images) - len(label_of)
    if bare:
        notes.append(f"{bare} of {len(images)} images have no label file, so no object")
    spare = [
        label
        for label in texts
        if "labels" in PurePath(label).parts and PurePath(label).stem not in search.by_stem
    ]
    if spare:
        told = shown_text(min(spare))
        notes.append(f"left out: {len(spare)} label files without an image, the first is {told}")
    outlined = all(outline for each in found for _, _, outline in each.objects)
    if not outlined and any(outline for each in found for _, _, outline in each.objects):
        notes.append("some objects have boxes alone, so no outline is used")
    annotated = [
        Annotated(
            each.image,
            each.size,
            [
                Object(called[number], box, [outline] if outline and outlined else None)
                for number, box, outline in each.objects
            ],
        )
        for each in found
    ]
    parts = None
    if settings is not None and listed is not None:
        parts = parts_of_images(listed, settings.path)
    return objects_data(search, "yolo", annotated, parts, called, notes)


def _label_file(image: str, texts: set) -> Optional[str]:
    """The text of an image: in labels/ for images/, the last folder of that name, or beside it."""
    path = PurePath(image)
    folders = list(path.parts[:-1])
    candidates = [path.with_suffix(".txt")]
    if "images" in folders:
        at = len(folders) - 1 - folders[::-1].index("images")
        folders[at] = "labels"
        candidates.insert(0, PurePath(*folders, path.with_suffix(".txt").name))
    return next((str(each) for each in candidates if str(each) in texts), None)


def _lines(path: Path, size: Tuple[int, int]) -> List[Tuple[int, Any, Any]]:
    """The objects of a label file, in pixels. ConfigError names the line that is wrong."""
    read_text(path, limit=LABEL_BYTES)
    return [_object(line, size, f"{path}:{number}") for number, line in numbered_lines(path)]


def _object(line: str, size: Tuple[int, int], where: str) -> Tuple[int, Any, Any]:
    words = line.split()
    try:
        if "_" in line:  # Python's own 1_000
            raise ValueError(line)
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        number, values = -1, []
    if number < 0 or len(values) < 4 or len(values) % 2 or len(values) > 1_000_000:
        raise ConfigError(
            f"{where}: expected `class x y width height`, or `class x y x y x y ...` of an outline "
            f"of three points or more, got {shown_text(line, 80)!r}"
        )
    if not all(-SLACK <= value <= 1 + SLACK for value in values):
        raise ConfigError(
            f"{where}: expected shares of the image, from 0 to 1, got {shown_text(line, 80)!r}"
        )
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        left, right = (min(max(side, 0.0), 1.0) * width for side in (x - w / 2, x + w / 2))
        top, bottom = (min(max(side, 0.0), 1.0) * height for side in (y - h / 2, y + h / 2))
        return number, (left, top, right - left, bottom - top), None
    sides = [width, height] * (len(values) // 2)
    outline = [min(max(value, 0.0), 1.0) * side for value, side in zip(values, sides)]
    return number, polygon_box([outline]), outline


def _check_numbers(
    found: Sequence[Labels], label_of: Dict[str, str], names: Sequence[str], root: Path
) -> None:
    for each in found:
        for number, _, _ in each.objects:
            if number >= len(names):
                raise ConfigError(
                    f"{root / label_of[each.image]}: class {shown(number)}, but there are "
                    f"{len(names)} names, of classes 0 to {len(names) - 1}"
                )


# data.yaml.


def _settings(search: Search) -> Optional[Settings]:
    """What a YAML in the root with `names` says; None without one."""
    found = {}
    for path in sorted([*search.root.glob("*.yaml"), *search.root.glob("*.yml")]):
        content = read_yaml(path)
        if "names" in content and {"train", "val"} & set(content):
            found[path] = content
    if len(found) > 1:
        first, second, *_ = found
        raise ConfigError(f"{first} and {second}: which is meant? Leave one of them")
    if not found:
        return None
    ((path, content),) = found.items()
    return Settings(path, _names(content, path), _images(content, path, search))


def _names(content: Dict[str, Any], path: Path) -> List[str]:
    names = content["names"]
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len(names) > MOST_CLASSES:
        raise ConfigError(
            f"{path}: names: expected a list of the classes' names, or their numbers from 0 on "
            f"with the names, got {shown(names)}"
        )
    if "nc" in content and content["nc"] != len(names):
        raise ConfigError(f"{path}: nc is {shown(content['nc'])}, but there are {len(names)} names")
    return [str(name) for name in names]


def _images(content: Dict[str, Any], path: Path, search: Search) -> Optional[Dict[str, List[str]]]:
    """{part: its images}; None where only one part is named, which is then split."""
    parts = {}
    for part in (TRAIN[0], *EVALUATION):
        given = content.get(part)
        if given:
            places = given if isinstance(given, list) else [given]
            parts[part] = [image for place in places for image in _at(place, content, path, search)]
    return parts if TRAIN[0] in parts and len(parts) > 1 else None


def _at(place: Any, content: Dict[str, Any], path: Path, search: Search) -> List[str]:
    """The images of a folder or a list that data.yaml names."""
    if not isinstance(place, str):
        raise ConfigError(f"{path}: expected the path of a folder or a list, got {shown(place)}")
    tail = place.replace("\\", "/")
    while tail.startswith(("../", "./")):  # as Roboflow writes them, beside data.yaml all the same
        tail = tail.partition("/")[2]
    base = str(content.get("path") or "")
    candidates = [search.root / base / place, search.root / place, search.root / tail]
    # os.path takes a path that is too long for one that is not there
    found = next((each for each in candidates if os.path.exists(each)), None)
    if found is None:
        raise FileNotFoundError(f"{path}: {shown_text(place)}: no such folder or list")
    if found.is_dir():
        below = Path(_relative(found, search.root, path))
        return [image for image in search.files.images if PurePath(image).is_relative_to(below)]
    lines = [line.strip() for _, line in numbered_lines(found)]
    images = []
    for line in lines:
        beside = [found.parent / line, search.root / line]
        image = next(
            (each for each in beside if os.path.isfile(each) and is_image_name(each.name)), None
        )
        if image is None:
            raise FileNotFoundError(
                f"{found}: {shown_text(line)}: no such image (they end in {' '.join(EXTENSIONS)})"
            )
        images.append(_relative(image, search.root, found))
    return images


def _relative(place: Path, root: Path, where: Path) -> str:
    """`place` as seen from the root. ConfigError for one outside."""
    whole, base = place.resolve(), root.resolve()
    if not whole.is_relative_to(base):
        raise ConfigError(f"{where}: {shown_text(place)} lies outside {root}; give its folder")
    return str(whole.relative_to(base))
