"""labelme's json, a file for each image with polygons and rectangles."""

import json
import math
from collections import Counter
from pathlib import Path, PurePath
from typing import Any, Dict, List, Optional, Tuple

from ...data.images import image_size
from ...files import LABEL_BYTES, parsing, read_text
from ...schema import ConfigError, shown, shown_text
from ..own_data import OwnData, Search
from .objects import Annotated, Object, check_size, objects_data, polygon_box

__all__ = ["find_labelme"]

CORNERS = 32  # of the polygon that stands for a circle
AREAS = ("polygon", "rectangle", "circle")  # the types of shapes that have an inside


def find_labelme(search: Search) -> Optional[OwnData]:
    """*.json with `shapes`, beside the images or in a folder of their own. Shapes of one label and
    group_id are one object.
    """
    files = search.ending_in(".json")
    images: Dict[str, Annotated] = {}
    left_out: Counter = Counter()
    for file in files:
        if not images and PurePath(file).stem not in search.by_stem:
            continue
        content = _content(search.root / file)
        if not isinstance(content, dict) or "shapes" not in content:
            if images:
                left_out["json files that are not labelme's"] += 1
            continue
        found = _annotated(search, file, content, left_out)
        if found.image in images:
            raise ConfigError(f"{search.root / file}: a second file of {shown_text(found.image)}")
        images[found.image] = found
    if not images:
        return None
    left_out["images without a json file"] = max(len(search.files.images) - len(images), 0)
    notes = [f"left out: {count} {what}" for what, count in left_out.items() if count]
    return objects_data(search, "labelme", list(images.values()), notes=notes)


def _content(path: Path) -> Any:
    text = read_text(path, limit=LABEL_BYTES)
    if not text.strip():
        raise ConfigError(f"{path}: an empty file; expected labelme's json")
    with parsing(f"{path}: not a JSON file"):
        return json.loads(text)


def _annotated(search: Search, file: str, content: Dict[str, Any], left_out: Counter) -> Annotated:
    path = search.root / file
    image = _image(search, file, content)
    width, height = content.get("imageWidth"), content.get("imageHeight")
    if isinstance(width, int) and isinstance(height, int):
        size = check_size((width, height), str(path))
    else:
        size = image_size(str(search.root / image))
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ConfigError(f"{path}: shapes: expected a list of shapes, got {shown(shapes)}")
    groups: Dict[Any, List[Tuple[str, bool, List[float]]]] = {}
    for number, shape in enumerate(shapes):
        kind = shape.get("shape_type", "polygon")
        if kind not in AREAS:
            left_out[f"shapes of the type {shown_text(str(kind), 40)}, which have no inside"] += 1
            continue
        label = shape.get("label")
        if not isinstance(label, str) or not label.strip():
            raise ConfigError(f"{path}: shape {number}: expected a label, got {shown(label)}")
        group = shape.get("group_id")
        key = (label, group) if isinstance(group, (int, str)) else number
        points = _points(shape, kind, f"{path}: shape {number}")
        groups.setdefault(key, []).append((label, kind != "rectangle", points))
    return Annotated(image, size, [_object(members) for members in groups.values()])


def _image(search: Search, file: str, content: Dict[str, Any]) -> str:
    """The image of a labelme file: the one that it names, which must not be another's."""
    path, stem = search.root / file, PurePath(file).stem
    named = str(content.get("imagePath") or "").replace("\\", "/")
    named_stem = PurePath(named).stem
    own = search.image_called(stem, file)
    if own is not None:
        if named and named_stem != stem:
            raise ConfigError(
                f"{path}: names the image {shown_text(named)}, but is called as {shown_text(own)} "
                f"is; which one is meant?"
            )
        return own
    other = search.image_called(named_stem, file) if named else None
    if other is None:
        raise FileNotFoundError(f"{path}: its image, {shown_text(named or stem)}, is not there")
    return other


def _points(shape: Dict[str, Any], kind: str, where: str) -> List[float]:
    """[x, y, x, y, ...] of the polygon that a shape is."""
    points = shape.get("points")
    least = {"polygon": 3, "rectangle": 2, "circle": 2}[kind]
    if not isinstance(points, list) or not all(map(_is_point, points)) or len(points) < least:
        raise ConfigError(
            f"{where}: a {kind} of {least} points [x, y] or more was expected, got {shown(points)}"
        )
    if kind == "polygon" or len(points) > 2:
        return [float(value) for point in points for value in point]
    (x, y), (u, v) = points
    if kind == "rectangle":
        return [float(value) for value in (x, y, u, y, u, v, x, v)]
    radius = math.hypot(u - x, v - y)
    angles = [2 * math.pi * corner / CORNERS for corner in range(CORNERS)]
    return [
        value
        for angle in angles
        for value in (x + radius * math.cos(angle), y + radius * math.sin(angle))
    ]


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(value, (int, float)) and abs(value) < 1e9 for value in point)
    )


def _object(members: List[Tuple[str, bool, List[float]]]) -> Object:
    """One object of the shapes of a group; of rectangles alone it has no outline."""
    polygons = [points for _, _, points in members]
    outlined = any(drawn for _, drawn, _ in members)
    name = " ".join(members[0][0].split())
    return Object(name, polygon_box(polygons), polygons if outlined else None)
