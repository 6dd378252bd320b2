"""Images with objects in COCO's json format: boxes, classes and masks."""

import logging
from collections import Counter
from typing import Any, List, Literal, NamedTuple, Optional, Tuple

import numpy as np

from ...files import JSON_BYTES, MASK_BYTES
from ...schema import ConfigError, shown_text
from ..images import ImageError
from ..remote import local_copy
from ..rle import mask_tools, polygons, run_lengths
from ..transforms.joint import padded
from .annotated import AnnotatedDataset, thinned
from .coco_json import TOLERATED, Entry, coco_index, touches
from .coco_packed import open_coco
from .files import open_files, remote_options
from .packed_objects import ObjectsOfImages
from .registry import DATASETS, Batch, ClassCounts, Sample

__all__ = ["COCODataset"]

log = logging.getLogger(__name__)


@DATASETS.register
class COCODataset(AnnotatedDataset):
    """The images of the folder or zip file `image_root` that the COCO json `annotation_path`
    describes. Both may be addresses, PROTOCOL://..., which are read as `remote` says.

    Class c is the category with the c-th smallest id. As in mmdetection, training leaves out images
    without any annotation (filter_empty) and those with a side below `min_size` pixels, and objects
    with a side below one pixel or no mask; crowds become `ignore_boxes`.
    In a json of boxes alone, where no annotation has a `segmentation`, objects need no mask, and
    samples have none (`outlined` is False).
    sample_num: take only so many images, at equal distances. A warning says what is left out.
    Raises FileNotFoundError, or ConfigError for a json with another structure, unknown ids, or
    masks, boxes and sizes that contradict each other (in more than 1 % of the annotations; else a
    warning names the first), and where training would leave out every object.
    """

    class_names: List[str]

    def __init__(
        self,
        class_num: Optional[int],
        *,
        image_root: str,
        annotation_path: str,
        mode: Literal["train", "val"],
        transform_ops: Optional[list] = None,
        filter_empty: bool = True,
        min_size: int = 32,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
        remote: Optional[dict] = None,
    ):
        with local_copy(annotation_path, remote_options(remote), JSON_BYTES) as path:
            file = open_coco(path)
            if class_num is not None and class_num != len(file.categories):
                raise ConfigError(
                    f"{path}: {len(file.categories)} categories, but the model has {class_num} "
                    f"classes; set Arch.class_num (training's and validation's json must have the "
                    f"same)"
                )
            coco = file.objects()
        categories = sorted(file.categories, key=lambda category: category["id"])
        self.annotation_path = annotation_path
        self.class_names = [category["name"] for category in categories]
        self.category_ids = [category["id"] for category in categories]
        _warn_of_equal_names(self.class_names, annotation_path)
        self.outlined = coco.objects.outlined
        used = np.arange(len(coco.images.ids))
        if mode == "train":
            has_objects = np.bincount(coco.image_of, minlength=len(used)) > 0
            large = coco.images.sizes.min(axis=1) >= min_size
            used = used[large & (has_objects | (not filter_empty))]
            if not len(used):
                raise ConfigError(
                    f"{annotation_path}: no image has an annotation and {min_size} pixels "
                    f"(filter_empty, min_size)"
                )
        used = np.array(thinned(used.tolist(), sample_num))
        images = coco.images.taken(used)
        self.annotations = coco.of_images(used)
        self.reasons = _reasons(self.annotations, images.sizes)
        self.counts = _counts(
            self.annotations,
            self.reasons if mode == "train" else np.full_like(self.reasons, LEARNT),
            self.category_ids,
            annotation_path,
        )
        _warn_of_boxes(self.annotations, self.reasons, images.sizes, annotation_path)
        self.image_ids = images.ids.tolist()
        self.sizes = images.sizes
        self.aspect_ratios = self.sizes[:, 1] / self.sizes[:, 0]
        super().__init__(
            class_num,
            annotation_path,
            open_files(image_root, remote),
            images.names,
            mode,
            transform_ops,
            bad_images,
        )

    def class_counts(self) -> ClassCounts:
        """The objects of each class; in training, those that are learnt."""
        return ClassCounts(self.counts.of_class, "objects", len(self))

    def _largest(self) -> float:
        return float(self.sizes.prod(axis=1).max())

    @property
    def annotation_bytes(self) -> int:
        """One for each mask; all but a hundredth of the images have no more."""
        return int(np.quantile(self.counts.of_image, 0.99, method="higher"))

    def image(self, index: int) -> np.ndarray:
        """An image as uint8 [H, W, 3], RGB. ImageError if it cannot be read, or has another size
        than the json says.
        """
        pixels = super().image(index)
        height, width = self.sizes[index]
        if pixels.shape[:2] != (height, width):
            raise ImageError(
                f"{self.name(index)}: {pixels.shape[1]} x {pixels.shape[0]} pixels, but "
                f"{self.annotation_path} says {width} x {height}{self.why_another_size(index)}"
            )
        return pixels

    def truth(self, index: int, shape: Tuple[int, int]) -> Sample:
        """boxes float32 [N, 4], labels int64 [N], ignore_boxes float32 [M, 4] and, where objects
        have outlines, masks uint8 [N, H, W] of an image of `shape` = (H, W).
        """
        height, width = shape
        boxes: List[List[float]] = []
        crowds: List[List[float]] = []
        labels, masks = [], []
        for annotation, reason in zip(self.annotations[index], self._reasons_of(index)):
            if reason != LEARNT:
                continue
            x, y, w, h = annotation["bbox"]
            if annotation["iscrowd"]:
                crowds.append([x, y, x + w, y + h])
            else:
                boxes.append([x, y, x + w, y + h])
                labels.append(self.category_ids.index(annotation["category_id"]))
                if self.outlined:
                    masks.append(run_lengths(annotation["segmentation"], height, width))
        if len(masks) * height * width > MASK_BYTES:
            raise ImageError(
                f"{self.name(index)}: the masks of {len(masks)} objects in {width} x {height} "
                f"pixels take more than the limit of {MASK_BYTES} bytes; cut the image into parts"
            )
        truth: Sample = {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64),
            "ignore_boxes": np.array(crowds, np.float32).reshape(-1, 4),
        }
        if self.outlined:
            pixels = (
                mask_tools().decode(masks).transpose(2, 0, 1)
                if masks
                else np.zeros((0, height, width), np.uint8)
            )
            truth["masks"] = np.ascontiguousarray(pixels)
        return truth

    def _reasons_of(self, index: int) -> np.ndarray:
        """Of the annotations of an image: why they are not learnt."""
        return self.reasons[self.annotations.starts[index] : self.annotations.starts[index + 1]]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """As AnnotatedDataset's, without objects of whose box a transform left nothing."""
        sample = super().load(index, rng)
        if self.training:
            kept = (sample["boxes"][:, 2:] > sample["boxes"][:, :2]).all(axis=1)
            # an edge and rounding left nothing of a box: no target for a loss
            if not kept.all():
                of_objects = sample.keys() & {"boxes", "labels", "masks"}
                sample.update({key: sample[key][kept] for key in of_objects})
        return sample

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """AnnotatedDataset's batch; in training with boxes float32 [N, 4], labels int64 [N], masks
        uint8 [N, H, W] (not of boxes alone) of all images together, counts int32 [B] (objects per
        image), ignore_boxes float32 [M, 4] and ignore_counts int32 [B]."""
        batch = super().collate(samples, rng)
        if self.training:
            size = batch["image"].shape[2:]
            for key in ("boxes", "labels", "ignore_boxes"):
                batch[key] = np.concatenate([sample[key] for sample in samples])
            if self.outlined:
                masks = [padded(sample["masks"], size) for sample in samples]
                batch["masks"] = np.concatenate(masks)
            for key, counted in (("counts", "boxes"), ("ignore_counts", "ignore_boxes")):
                batch[key] = np.array([len(sample[counted]) for sample in samples], np.int32)
        return batch

    def ground_truth(self) -> Any:
        """The annotations of these images as a pycocotools.coco.COCO, for its evaluation.

        They are numbered anew from 1: its evaluation takes the id 0 for "no object".
        """
        images = [
            {"id": number, "file_name": name, "height": int(height), "width": int(width)}
            for number, name, (height, width) in zip(self.image_ids, self.names, self.sizes)
        ]
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.category_ids, self.class_names)
        ]
        parts = [annotation for part in self.annotations for annotation in part]
        annotations = [{**annotation, "id": i} for i, annotation in enumerate(parts, 1)]
        return coco_index({"images": images, "categories": categories, "annotations": annotations})


def _warn_of_equal_names(class_names: List[str], path: str) -> None:
    name, count = Counter(class_names).most_common(1)[0]
    if count > 1:
        log.warning(
            "%s: %d categories are called %s; of figures by name you see one of theirs",
            shown_text(path),
            count,
            shown_text(name),
        )


def _warn_of_boxes(
    annotations: ObjectsOfImages, reasons: np.ndarray, sizes: np.ndarray, path: str
) -> None:
    """Warnings of boxes that are hardly meant as [left, top, width, height], and of areas that no
    mask in the box has; by the area evaluation tells small objects from large ones. Objects that
    `reasons` leave out are told of anyway.
    """
    x, y, w, h = annotations.objects.boxes[annotations.rows].T
    areas = annotations.objects.areas[annotations.rows]
    height, width = np.repeat(sizes, np.diff(annotations.starts), axis=0).T
    beyond = (x + w > width + ROUNDING) | (y + h > height + ROUNDING)
    for wrong, what in (
        (beyond, "boxes reach beyond their image; bbox must be [left, top, width, height]"),
        (areas > (w + ROUNDING) * (h + ROUNDING), "areas are larger than their box"),
    ):
        wrong &= reasons == LEARNT
        if np.count_nonzero(wrong) > TOLERATED * len(wrong):
            first = annotations.objects.ids[annotations.rows[np.argmax(wrong)]]
            told = (shown_text(path), np.count_nonzero(wrong), len(wrong), what, first)
            log.warning("%s: %d of %d %s; the first is annotation %d's", *told)


class ObjectCounts(NamedTuple):
    """How many objects there are, crowds apart: of each class int64 [classes], and of each image
    int64 [images].
    """

    of_class: np.ndarray
    of_image: np.ndarray


ROUNDING = 2  # pixels by which programs round
LEARNT = 0
REASONS = (
    "",
    "marked `ignore`",
    "of area 0",
    "a box with a side below one pixel",
    "a box outside the image",
    "no polygon of three points",
)


def _reasons(annotations: ObjectsOfImages, sizes: np.ndarray) -> np.ndarray:
    """Why training leaves out the objects of images of these `sizes`, as mmdetection does: for each
    of `annotations.rows` the first of the REASONS that holds, uint8, LEARNT for one that it takes.
    """
    objects, rows = annotations.objects, annotations.rows
    x, y, w, h = objects.boxes[rows].T
    height, width = np.repeat(sizes, np.diff(annotations.starts), axis=0).T
    found = [
        objects.ignored[rows],
        objects.areas[rows] <= 0,
        (w < 1) | (h < 1),
        (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0),
        objects.shapeless[rows] & objects.outlined,
    ]
    return np.select(found, range(1, len(REASONS)), LEARNT).astype(np.uint8)


def _counts(
    annotations: ObjectsOfImages, reasons: np.ndarray, category_ids: List[int], path: str
) -> ObjectCounts:
    """The objects of some images, those that `reasons` leave out apart, of which a warning tells.
    ConfigError if that is every object.
    """
    objects, rows = annotations.objects, annotations.rows
    single = ~objects.crowds[rows]
    kept = single & (reasons == LEARNT)
    lost = np.flatnonzero(single & (reasons != LEARNT))
    if len(lost):
        codes, firsts, counts = np.unique(reasons[lost], return_index=True, return_counts=True)
        why = "; ".join(
            f"{REASONS[codes[i]]}: {counts[i]}, the first is annotation "
            f"{objects.ids[rows[lost[firsts[i]]]]}"
            for i in np.argsort(firsts)
        )
        count = np.count_nonzero(single)
        told = f"{path}: {len(lost)} of {count} objects are left out of training ({why})"
        if not kept.any():
            raise ConfigError(f"{told}, so there is nothing to learn")
        log.warning("%s", shown_text(told))
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    classes = {number: label for label, number in enumerate(category_ids)}
    labels = [classes[number] for number in objects.category_ids[rows[kept]].tolist()]
    return ObjectCounts(
        np.bincount(np.array(labels, np.int64), minlength=len(category_ids)),
        np.bincount(images[kept], minlength=len(annotations)),
    )


def why_not_learnt(annotation: Entry, height: int, width: int) -> Optional[str]:
    """Of a single annotation of an image of that size what `_reasons` finds of all: why training
    leaves it out; None for one that it takes.
    """
    _, _, w, h = annotation["bbox"]
    segmentation = annotation["segmentation"]
    found = (
        annotation.get("ignore"),
        annotation["area"] <= 0,
        w < 1 or h < 1,
        not touches(annotation["bbox"], width, height),
        isinstance(segmentation, list) and not polygons(segmentation),
    )
    return next((why for why, holds in zip(REASONS[1:], found) if holds), None)
