"""Sets of images with objects in COCO's json format: boxes, classes and masks (polygons, or run
lengths plain or compressed).
"""

import contextlib
import io
import json
import logging
import math
from collections import Counter
from typing import Literal, Optional

import numpy as np

from ...schema import ConfigError
from ..images import ImageError
from ..transforms.joint import padded
from .files import open_files
from .annotated import AnnotatedDataset, thinned
from .registry import DATASETS

__all__ = ["COCODataset", "coco_index", "mask_tools"]

KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "segmentation"),
}
IDS = ("id", "image_id", "category_id")
LARGEST = 1e9  # of a number of a box, an area or a size
# share of annotations that may contradict their image or themselves: large sets have some
TOLERATED = 0.01

log = logging.getLogger(__name__)


def mask_tools():
    """The module pycocotools.mask. ImportError names the extra."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            "masks in COCO's format need pycocotools: install ppcls_nextvit[det]"
        ) from error
    return mask


def coco_index(content):
    """The parsed json `content` as a pycocotools.coco.COCO. ImportError names the extra."""
    mask_tools()
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco


def read_coco(path):
    """The content of a COCO json with its structure verified: keys, types, unique ids, references.
    ConfigError names file and entry.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise FileNotFoundError(
            f"annotation_path: {path}: cannot be read: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        # of json's and of UTF-8's decoder
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    for section, keys in KEYS.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(
                f"{path}: not a COCO file: expected a mapping in which {section!r} is a list of "
                f"mappings"
            )
        if not entries and section != "annotations":
            raise ConfigError(f"{path}: {section!r} is empty")
        for number, entry in enumerate(entries):
            missing = [key for key in keys if key not in entry]
            if missing:
                raise ConfigError(
                    f"{path}: {section}[{number}] (id {entry.get('id')}) has no {missing[0]!r}"
                )
            for key in IDS:
                if key in keys and not isinstance(entry[key], int):
                    raise ConfigError(
                        f"{path}: {section}[{number}]: the {key} must be an integer, got "
                        f"{entry[key]!r}"
                    )
        id, count = max(
            Counter(entry["id"] for entry in entries).items(),
            key=lambda item: item[1],
            default=(None, 0),
        )
        if count > 1:
            raise ConfigError(f"{path}: {section} has the id {id} {count} times")
    for category in content["categories"]:
        if not isinstance(category["name"], str):
            raise ConfigError(
                f"{path}: category {category['id']}: expected a name, got {category['name']!r}"
            )
    for image in content["images"]:
        if not isinstance(image["file_name"], str):
            raise ConfigError(
                f"{path}: image {image['id']}: expected a file_name, got {image['file_name']!r}"
            )
        if not all(
            isinstance(image[key], int) and 0 < image[key] < LARGEST for key in ("width", "height")
        ):
            raise ConfigError(
                f"{path}: image {image['id']}: expected width and height in pixels, got "
                f"{image['width']!r} and "
                f"{image['height']!r}"
            )
    return content


def are_numbers(values, count):
    """Whether `values` is a list of `count` numbers of ordinary size."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, (int, float)) and abs(v) < LARGEST for v in values)
    )


def polygons(segmentation):
    """Those of the polygons that have three points, [x, y, x, y, x, y], or more."""
    return [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]


def mask_bounds(segmentation, height, width):
    """(left, top, right, bottom) of a mask in any of COCO's formats, None for an empty one.
    ValueError if it is not of this image.
    """
    if isinstance(segmentation, list):
        parts = polygons(segmentation)
        if not parts:
            return None
        xs, ys = (
            [x for polygon in parts for x in polygon[::2]],
            [y for polygon in parts for y in polygon[1::2]],
        )
        bounds = min(xs), min(ys), max(xs), max(ys)
        if (
            min(bounds[:2]) < -max(width, height)
            or max(bounds[2:]) > 2 * max(width, height)
            or math.isnan(sum(xs) + sum(ys))
        ):
            raise ValueError(
                f"a polygon from {bounds[:2]} to {bounds[2:]} in an image of {width} x {height} "
                f"pixels"
            )
        return bounds
    left, top, w, h = mask_tools().toBbox(run_lengths(segmentation, height, width)).tolist()
    return (left, top, left + w, top + h) if w and h else None


def run_lengths(segmentation, height, width):
    """pycocotools' compressed run lengths of a mask in any of COCO's formats. ValueError if it is
    not of this image.
    """
    tools = mask_tools()
    if isinstance(segmentation, list):
        return tools.merge(tools.frPyObjects(polygons(segmentation), height, width))
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise ValueError("expected polygons, or run lengths as {size, counts}")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"a mask of size {segmentation['size']} in an image of height {height} and width "
            f"{width}"
        )
    counts = segmentation["counts"]
    # pycocotools trusts such a text, to the point of a crash
    if isinstance(counts, str):
        counts = decompressed(counts.encode())
    if not all(isinstance(count, int) for count in counts):
        raise ValueError("run lengths must be whole numbers")
    if sum(counts) != height * width or min(counts) < 0:
        raise ValueError(f"run lengths that add up to {sum(counts)} pixels of {height * width}")
    return tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def decompressed(text):
    """The run lengths in COCO's compressed bytes: 5-bit digits from '0' on, lowest first; from the
    fourth number on less the one two before. ValueError for other bytes."""
    counts, value, shift = [], 0, 0
    for digit in text:
        digit -= 48
        if not 0 <= digit < 64:
            raise ValueError(f"{text[:20]!r}... is not COCO's compressed form of run lengths")
        value |= (digit & 31) << shift
        shift += 5
        # the last digit, whose highest bit is the sign
        if not digit & 32:
            value -= (digit & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift or not counts:
        raise ValueError(f"{text[:20]!r}... ends in the middle of a number")
    return counts


def disagreement(annotation, image):
    """What is wrong between an annotation's box, its mask and its image, in words, or None.
    ValueError for a malformed mask.
    """
    x, y, w, h = annotation["bbox"]
    width, height = image["width"], image["height"]
    if w > 0 and h > 0 and not (x < width and y < height and x + w > 0 and y + h > 0):
        return (
            f"its box {annotation['bbox']} (left, top, width, height) lies outside the image "
            f"of {width} x {height} pixels"
        )
    if isinstance(annotation["segmentation"], list) and not polygons(annotation["segmentation"]):
        return "its segmentation has no polygon of three points, [x, y, x, y, x, y], or more"
    bounds = mask_bounds(annotation["segmentation"], height, width)
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
            f"{annotation['bbox']} (left, top, width, "
            "height) elsewhere"
        )
    return None


class Packed:
    """A sequence of JSON values in one piece of memory, which worker processes share; objects they
    would copy, page by page, by counting references to them."""

    def __init__(self, values):
        texts = [json.dumps(value).encode() for value in values]
        self.text, self.ends = b"".join(texts), np.cumsum([0, *map(len, texts)])

    def __len__(self):
        return len(self.ends) - 1

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(i)
        return json.loads(self.text[self.ends[i] : self.ends[i + 1]])


@DATASETS.register
class COCODataset(AnnotatedDataset):
    """The images of the folder or zip file `image_root` that the COCO json `annotation_path`
    describes.

    Class c is the category with the c-th smallest id. As in mmdetection, training leaves out images
    without any annotation (filter_empty) and those with a side below `min_size` pixels, and objects
    with a side below one pixel or no mask; crowds become `ignore_boxes`.
    sample_num: take only so many images, at equal distances.
    Raises FileNotFoundError, or ConfigError for a json with another structure, unknown ids, or
    masks, boxes and sizes that contradict each other (in more than 1 % of the annotations; else a
    warning names the first).
    """

    def __init__(
        self,
        class_num,
        *,
        image_root: str,
        annotation_path: str,
        mode: Literal["train", "val"],
        transform_ops: Optional[list] = None,
        filter_empty: bool = True,
        min_size: int = 32,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
    ):
        self.annotation_path, content = annotation_path, read_coco(annotation_path)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.class_names, self.category_ids = (
            [c["name"] for c in categories],
            [c["id"] for c in categories],
        )
        if class_num is not None and class_num != len(categories):
            raise ConfigError(
                f"{annotation_path}: {len(categories)} categories, but the model has {class_num} "
                f"classes; set Arch.class_num"
            )
        of_image, images = self._annotations_by_image(content), content["images"]
        if mode == "train":
            images = [
                image
                for image in images
                if min(image["width"], image["height"]) >= min_size
                and (of_image[image["id"]] or not filter_empty)
            ]
            if not images:
                raise ConfigError(
                    f"{annotation_path}: no image has an annotation and {min_size} pixels "
                    f"(filter_empty, min_size)"
                )
        images = thinned(images, sample_num)
        self.image_ids, self.annotations = (
            [image["id"] for image in images],
            Packed(of_image[image["id"]] for image in images),
        )
        self.sizes = np.array([(image["height"], image["width"]) for image in images])
        self.aspect_ratios = self.sizes[:, 1] / self.sizes[:, 0]
        super().__init__(
            open_files(image_root),
            [image["file_name"] for image in images],
            mode,
            transform_ops,
            bad_images,
        )

    def _annotations_by_image(self, content):
        """{image id: its annotations}, each annotation verified."""
        images, categories = (
            {image["id"]: image for image in content["images"]},
            set(self.category_ids),
        )
        of_image, wrong = {id: [] for id in images}, []
        for annotation in content["annotations"]:
            where = f"{self.annotation_path}: annotation {annotation['id']}"
            if annotation["image_id"] not in images:
                raise ConfigError(
                    f"{where}: image_id {annotation['image_id']!r} is not among the images"
                )
            if annotation["category_id"] not in categories:
                raise ConfigError(
                    f"{where}: category_id {annotation['category_id']!r} is not among the "
                    f"categories"
                )
            if not are_numbers(annotation["bbox"], 4) or not are_numbers([annotation["area"]], 1):
                raise ConfigError(
                    f"{where}: expected bbox [left, top, width, height] and an area, got "
                    f"{annotation['bbox']!r} and "
                    f"{annotation['area']!r}"
                )
            if annotation.setdefault("iscrowd", 0) not in (0, 1):
                raise ConfigError(f"{where}: iscrowd must be 0 or 1, got {annotation['iscrowd']!r}")
            image = images[annotation["image_id"]]
            try:
                contradiction = disagreement(annotation, image)
            except TypeError as error:
                raise ConfigError(
                    f"{where}: segmentation: expected polygons [[x, y, x, y, x, y, ...], ...] or "
                    f"run lengths "
                    f"{{size, counts}}, got {annotation['segmentation']!r:.80}"
                ) from error
            except ValueError as error:
                raise ConfigError(f"{where}: segmentation: {error}") from error
            if contradiction:
                wrong.append(f"{where} of {image['file_name']}: {contradiction}")
            of_image[image["id"]].append(annotation)
        if len(wrong) > TOLERATED * len(content["annotations"]):
            raise ConfigError(
                f"{wrong[0]} ({len(wrong)} of {len(content['annotations'])} annotations are like "
                f"this)"
            )
        if wrong:
            log.warning("%s (%d annotations are like this)", wrong[0], len(wrong))
        return of_image

    def image(self, i):
        """Image i as uint8 [H, W, 3], RGB. ImageError if it cannot be read, or has another size
        than the json says.
        """
        pixels, (height, width) = super().image(i), self.sizes[i]
        if pixels.shape[:2] != (height, width):
            raise ImageError(
                f"{self.name(i)}: {pixels.shape[1]} x {pixels.shape[0]} pixels, but "
                f"{self.annotation_path} says "
                f"{width} x {height}"
            )
        return pixels

    def truth(self, i, shape):
        """boxes float32 [N, 4], labels int64 [N], masks uint8 [N, H, W] and ignore_boxes float32
        [M, 4] of image i; shape: its (H, W).
        """
        height, width = shape
        boxes, labels, masks, crowds = [], [], [], []
        for annotation in self.annotations[i]:
            x, y, w, h = annotation["bbox"]
            inside = x < width and y < height and x + w > 0 and y + h > 0
            drawn = not isinstance(annotation["segmentation"], list) or polygons(
                annotation["segmentation"]
            )
            if (
                annotation.get("ignore")
                or annotation["area"] <= 0
                or w < 1
                or h < 1
                or not inside
                or not drawn
            ):
                continue
            box = [x, y, x + w, y + h]
            if annotation["iscrowd"]:
                crowds.append(box)
            else:
                boxes.append(box)
                labels.append(self.category_ids.index(annotation["category_id"]))
                masks.append(run_lengths(annotation["segmentation"], height, width))
        pixels = (
            mask_tools().decode(masks).transpose(2, 0, 1)
            if masks
            else np.zeros((0, height, width), np.uint8)
        )
        return {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64),
            "masks": np.ascontiguousarray(pixels),
            "ignore_boxes": np.array(crowds, np.float32).reshape(-1, 4),
        }

    def load(self, i, rng):
        """As AnnotatedDataset's, without objects of whose box a transform left nothing."""
        sample = super().load(i, rng)
        if self.training:
            kept = (sample["boxes"][:, 2:] > sample["boxes"][:, :2]).all(axis=1)
            # an edge and rounding left nothing of a box: no target for a loss
            if not kept.all():
                sample.update({key: sample[key][kept] for key in ("boxes", "labels", "masks")})
        return sample

    def collate(self, samples, rng):
        """AnnotatedDataset's batch; in training with boxes float32 [N, 4], labels int64 [N], masks
        uint8 [N, H, W] of all images together, counts int32 [B] (objects per image), ignore_boxes
        float32 [M, 4] and ignore_counts int32 [B]."""
        batch = super().collate(samples, rng)
        if self.training:
            size = batch["image"].shape[2:]
            batch.update(
                {
                    key: np.concatenate([sample[key] for sample in samples])
                    for key in ("boxes", "labels", "ignore_boxes")
                }
            )
            batch["masks"] = np.concatenate([padded(sample["masks"], size) for sample in samples])
            batch["counts"] = np.array([len(sample["boxes"]) for sample in samples], np.int32)
            batch["ignore_counts"] = np.array(
                [len(sample["ignore_boxes"]) for sample in samples], np.int32
            )
        return batch

    def ground_truth(self):
        """The annotations of these images as a pycocotools.coco.COCO, for its evaluation."""
        images = [
            {"id": id, "file_name": name, "height": int(height), "width": int(width)}
            for id, name, (height, width) in zip(self.image_ids, self.names, self.sizes)
        ]
        categories = [
            {"id": id, "name": name} for id, name in zip(self.category_ids, self.class_names)
        ]
        return coco_index(
            {
                "images": images,
                "categories": categories,
                "annotations": [a for part in self.annotations for a in part],
            }
        )
