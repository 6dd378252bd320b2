"""Reading and verifying COCO's json files: structure, types, references, and whether boxes, masks
and sizes agree.
"""

import contextlib
import io
import json
import logging
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence

from ...files import JSON_BYTES, MAX_PIXELS, parsing, read_text
from ...schema import ConfigError, shown, shown_text
from ..rle import mask_bounds, mask_tools, polygons

__all__ = ["annotations_by_image", "coco_index", "has_outlines", "read_coco"]

Entry = Dict[str, Any]

KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
}
IDS = ("id", "image_id", "category_id")
# what comes of a mask that is made of something else than numbers
NO_NUMBERS = (TypeError, KeyError, AttributeError, OverflowError)
LARGEST = 1e9  # of a number of a box, an area or a size
# share of annotations that may contradict their image or themselves: large datasets have some
TOLERATED = 0.01

log = logging.getLogger(__name__)


def coco_index(content: Dict[str, Any]) -> Any:
    """The parsed json `content` as a pycocotools.coco.COCO. ImportError names the extra."""
    mask_tools()
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco


def read_coco(path: str) -> Dict[str, List[Entry]]:
    """The content of a COCO json with its structure verified: keys, types, unique ids.
    ConfigError names file and entry, FileNotFoundError a file that cannot be read.
    """
    content = _parsed(path)
    for section, keys in KEYS.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(
                f"{path}: not a COCO file: expected a mapping in which {section!r} is a list of "
                f"mappings"
            )
        if not entries and section != "annotations":
            raise ConfigError(f"{path}: {shown(section)} is empty")
        _check_entries(entries, keys, f"{path}: {section}")
    for category in content["categories"]:
        _check_category(category, path)
    for image in content["images"]:
        _check_image(image, path)
    return content


def _parsed(path: str) -> Any:
    text = read_text(path, f"annotation_path: {path}", JSON_BYTES)
    with parsing(f"{path}: not a JSON file"):
        return json.loads(text)


def _check_entries(entries: List[Entry], keys: Sequence[str], where: str) -> None:
    """ConfigError for an entry that lacks one of `keys`, for an id that is no integer, and for one
    that is given twice.
    """
    ids = [key for key in IDS if key in keys]
    for number, entry in enumerate(entries):
        missing = [key for key in keys if key not in entry]
        if missing:
            raise ConfigError(
                f"{where}[{number}] (id {shown(entry.get('id'))}) has no {shown(missing[0])}"
            )
        for key in ids:
            if not isinstance(entry[key], int):
                raise ConfigError(
                    f"{where}[{number}]: the {key} must be an integer, got {shown(entry[key])}"
                )
    for number, count in Counter(entry["id"] for entry in entries).most_common(1):
        if count > 1:
            raise ConfigError(f"{where} has the id {number} {count} times")


def _check_category(category: Entry, path: str) -> None:
    if not isinstance(category["name"], str):
        raise ConfigError(
            f"{path}: category {category['id']}: expected a name, got {shown(category['name'])}"
        )


def _check_image(image: Entry, path: str) -> None:
    where = f"{path}: image {image['id']}"
    if not isinstance(image["file_name"], str):
        raise ConfigError(f"{where}: expected a file_name, got {shown(image['file_name'])}")
    width, height = image["width"], image["height"]
    if not all(isinstance(side, int) and 0 < side < LARGEST for side in (width, height)):
        raise ConfigError(
            f"{where}: expected width and height in pixels, got {shown(width)} and {shown(height)}"
        )
    if width * height > MAX_PIXELS:
        raise ConfigError(
            f"{where}: {width} x {height} pixels are more than the limit of {MAX_PIXELS}"
        )


def has_outlines(annotations: Sequence[Entry]) -> bool:
    """Whether objects have masks (`segmentation`), or boxes alone: none has one then."""
    return not annotations or any(annotation.get("segmentation") for annotation in annotations)


def annotations_by_image(content: Dict[str, List[Entry]], path: str) -> Dict[int, List[Entry]]:
    """{image id: its annotations} of what `read_coco` gave, each annotation verified and with
    `iscrowd` and `segmentation`, which is None in a file of boxes alone.

    ConfigError for a malformed annotation, for an id that is not there, and where more than
    TOLERATED of the annotations contradict themselves or their image; else a warning names the
    first of them.
    """
    images = {image["id"]: image for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    of_image: Dict[int, List[Entry]] = {number: [] for number in images}
    contradictions = []
    outlined = has_outlines(content["annotations"])
    for annotation in content["annotations"]:
        annotation["segmentation"] = (annotation.get("segmentation") or []) if outlined else None
        where = f"{path}: annotation {annotation['id']}"
        if annotation["image_id"] not in images:
            raise ConfigError(
                f"{where}: image_id {shown(annotation['image_id'])} is not among the images"
            )
        if annotation["category_id"] not in categories:
            raise ConfigError(
                f"{where}: category_id {shown(annotation['category_id'])} is not among the "
                f"categories"
            )
        _check_values(annotation, where)
        image = images[annotation["image_id"]]
        contradiction = _contradiction(annotation, image, where)
        if contradiction:
            contradictions.append(f"{where} of {image['file_name']}: {contradiction}")
        of_image[image["id"]].append(annotation)
    if len(contradictions) > TOLERATED * len(content["annotations"]):
        raise ConfigError(
            f"{contradictions[0]} ({len(contradictions)} of {len(content['annotations'])} "
            f"annotations are like this)"
        )
    if contradictions:
        told = shown_text(contradictions[0])
        log.warning("%s (%d annotations are like this)", told, len(contradictions))
    return of_image


def _check_values(annotation: Entry, where: str) -> None:
    """ConfigError for a box, an area or an `iscrowd` of another kind; `iscrowd` is 0 if missing."""
    bbox, area = annotation["bbox"], annotation["area"]
    if not _are_numbers(bbox, 4) or not _are_numbers([area], 1):
        raise ConfigError(
            f"{where}: expected bbox [left, top, width, height] and an area, got {shown(bbox)} and "
            f"{shown(area)}"
        )
    if annotation.setdefault("iscrowd", 0) not in (0, 1):
        raise ConfigError(f"{where}: iscrowd must be 0 or 1, got {shown(annotation['iscrowd'])}")


def _are_numbers(values: Any, count: int) -> bool:
    """Whether `values` is a list of `count` numbers of ordinary size."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and abs(value) < LARGEST for value in values)
    )


def _contradiction(annotation: Entry, image: Entry, where: str) -> Optional[str]:
    """`disagreement` of the annotation and its image. ConfigError for a malformed mask."""
    try:
        return disagreement(annotation, image)
    except ValueError as error:
        raise ConfigError(f"{where}: segmentation: {error}") from error
    except NO_NUMBERS as error:
        raise ConfigError(
            f"{where}: segmentation: expected polygons [[x, y, x, y, x, y, ...], ...] or run "
            f"lengths {{size, counts}}, got {shown(annotation['segmentation'], 80)}"
        ) from error


def disagreement(annotation: Entry, image: Entry) -> Optional[str]:
    """What is wrong between an annotation's box, its mask and its image, in words, or None.
    TypeError or ValueError for a malformed mask.
    """
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    segmentation = annotation["segmentation"]
    if w > 0 and h > 0 and not touches(annotation["bbox"], width, height):
        return (
            f"its box {annotation['bbox']} (left, top, width, height) lies outside the image "
            f"of {width} x {height} pixels"
        )
    if segmentation is None:
        return None
    if isinstance(segmentation, list) and not polygons(segmentation):
        return "its segmentation has no polygon of three points, [x, y, x, y, x, y], or more"
    bounds = mask_bounds(segmentation, height, width)
    if bounds is None or annotation.get("iscrowd"):
        return None
    left, top, right, bottom = bounds
    overlap = max(0, min(right, x + w) - max(left, x)) * max(0, min(bottom, y + h) - max(top, y))
    union = w * h + (right - left) * (bottom - top) - overlap
    apart = max(abs(left - x), abs(top - y), abs(right - x - w), abs(bottom - y - h))
    # 2 pixels: masks of tiny objects are coarse
    if apart > 2 and overlap < 0.5 * union:
        return (
            f"its mask extends over x {left:g} to {right:g}, y {top:g} to {bottom:g}, its box "
            f"{annotation['bbox']} (left, top, width, height) elsewhere"
        )
    return None


def touches(bbox: Sequence[float], width: int, height: int) -> bool:
    """Whether a box (left, top, width, height) has a part in an image of that size."""
    x, y, w, h = bbox
    return x < width and y < height and x + w > 0 and y + h > 0
