"""Pascal VOC's XML, a file for each image, as VOC's own folders or beside the images."""

import math
from pathlib import Path, PurePath
from typing import Dict, List, Optional
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ...data.images import image_size
from ...data.lists import numbered_lines
from ...files import LABEL_BYTES, UnreadableError, parsing, read_file
from ...schema import ConfigError, shown, shown_text
from ..own_data import EVALUATION, TRAIN, OwnData, Search, parts_of_images
from .objects import Annotated, Object, check_size, objects_data

__all__ = ["find_voc", "read_xml"]

LISTS = "ImageSets/Main"
DEEPEST = 20  # elements in each other; VOC's have 5


def find_voc(search: Search) -> Optional[OwnData]:
    """Annotations/*.xml and JPEGImages/ with ImageSets/Main/{train,val}.txt, or *.xml beside the
    images. Without a list the folders' names say which part an image is of, or they are split.
    """
    files = search.ending_in(".xml")
    if not files:
        return None
    images: Dict[str, Annotated] = {}
    of_stem: Dict[str, List[str]] = {}
    others = 0
    for file in files:
        root = read_xml(search.root / file)
        if root.tag != "annotation":
            others += 1
            continue
        found = _annotated(search, file, root)
        if found.image in images:
            raise ConfigError(f"{search.root / file}: a second file of {shown_text(found.image)}")
        images[found.image] = found
        of_stem.setdefault(PurePath(file).stem, []).append(found.image)
    if not images:
        return None
    notes = [f"left out: {others} XML files that are not VOC's"] if others else []
    bare = len(search.files.images) - len(images)
    if bare > 0:
        notes.append(f"left out: {bare} images without an XML file")
    parts = _listed(search.root, of_stem)
    return objects_data(search, "voc", list(images.values()), parts, notes=notes)


def read_xml(path: Path) -> Element:
    """The root of an XML file. ConfigError for one that is damaged, larger than LABEL_BYTES, nested
    deeper than DEEPEST, or that has a document type: entities are nothing that data need.
    """
    try:
        data = read_file(path, LABEL_BYTES)
    except UnreadableError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__
    if not data.strip():
        raise ConfigError(f"{path}: an empty file; expected VOC's XML")
    builder, depth = TreeBuilder(), [0]

    def start(tag: str, attributes: Dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > DEEPEST:
            raise ConfigError(f"{path}: elements nested deeper than {DEEPEST}")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        depth[0] -= 1
        builder.end(tag)

    def refuse(*given: object) -> None:
        raise ConfigError(f"{path}: has a document type (<!DOCTYPE>), which is not read; remove it")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    with parsing(f"{path}: not an XML file"):
        parser.Parse(data, True)
        return builder.close()


def _annotated(search: Search, file: str, root: Element) -> Annotated:
    path = search.root / file
    named = (root.findtext("filename") or "").replace("\\", "/").rpartition("/")[2]
    stem = PurePath(file).stem
    image = search.image_called(stem, file)
    named_stem = PurePath(named).stem
    if named and named_stem != stem and named_stem in search.by_stem:
        if image is not None:
            raise ConfigError(
                f"{path}: names the image {shown_text(named)}, but is called as "
                f"{shown_text(image)} is; which one is meant?"
            )
        image = search.image_called(named_stem, file)
    if image is None:
        raise FileNotFoundError(
            f"{path}: no image is called {shown_text(stem)}.* or {shown_text(named)!r}"
        )
    stated = tuple(_number(root, f"size/{side}", path, 0.0) for side in ("width", "height"))
    size = (int(stated[0]), int(stated[1]))
    if not all(size):  # some programs do not say
        size = image_size(str(search.root / image))
    objects = [
        _object(one, f"{path}: object {number}")
        for number, one in enumerate(root.iter("object"), 1)
    ]
    return Annotated(image, check_size(size, str(path)), objects)


def _object(element: Element, where: str) -> Object:
    """VOC counts pixels from 1, and the last one belongs to the box."""
    name = " ".join((element.findtext("name") or "").split())
    if not name:
        raise ConfigError(f"{where}: has no name")
    left, top, right, bottom = (
        _number(element, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    if right < left or bottom < top:
        raise ConfigError(
            f"{where}: expected xmin <= xmax and ymin <= ymax, got {left:g}, {top:g}, {right:g}, "
            f"{bottom:g}"
        )
    box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Object(name, box, crowd=difficult)


def _number(element: Element, path: str, where: object, missing: Optional[float] = None) -> float:
    text = (element.findtext(path) or "").strip()
    if not text and missing is not None:
        return missing
    try:
        value = math.nan if "_" in text else float(text)  # Python's own 1_000
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise ConfigError(f"{where}: {path}: expected a number of pixels, got {shown(text)}")
    return value


def _listed(root: Path, of_stem: Dict[str, List[str]]) -> Optional[Dict[str, str]]:
    """{image: its part} by VOC's lists of names; None without lists to train and to evaluate."""
    folder = root / LISTS
    words = [word for word in (TRAIN[0], *EVALUATION) if (folder / f"{word}.txt").is_file()]
    if TRAIN[0] not in words or len(words) < 2:
        return None
    listed: Dict[str, List[str]] = {}
    for word in words:
        path = folder / f"{word}.txt"
        for number, line in numbered_lines(path):
            stem = line.split()[0]
            images = of_stem.get(stem)
            if not images:
                raise ConfigError(f"{path}:{number}: no XML file is called {shown_text(stem)}.xml")
            listed.setdefault(word, []).append(images[0])
    return parts_of_images(listed, folder)
