"""Images with a label for every pixel, stored as PNG files."""

import logging
import os
from typing import List, Literal, Optional, Sequence, Tuple

import numpy as np
from PIL import ImageFile

from ...schema import ConfigError, shown_text
from ..images import ImageError, use_picture
from ..lists import read_pair_list
from ..packed import PackedNames
from ..remote import local_copy
from ..transforms.joint import IGNORE
from .annotated import AnnotatedDataset, thinned
from .files import EXTENSIONS, Files, is_image_name, open_files, remote_options
from .registry import DATASETS, Batch, ClassCounts, Sample

__all__ = ["ADE20KDataset", "SegmentationDataset"]


log = logging.getLogger(__name__)

MOST_CLASSES = IGNORE  # that the pixels of label PNGs, of 8 bits, tell apart
LABELS_LOOKED_AT = 200  # of which the classes are counted before a run: about a second


class LabelledPixels(AnnotatedDataset):
    """What the datasets of segmentation share. class_num: of the model, None: unknown; source: what
    says which images there are; labels: names of the label PNGs. ConfigError for more than
    MOST_CLASSES.
    """

    annotation_bytes = 1

    def __init__(
        self,
        class_num: Optional[int],
        source: str,
        files: Files,
        names: List[str],
        labels: List[str],
        mode: str,
        transform_ops: Optional[list],
        reduce_zero_label: bool,
        sample_num: Optional[int],
        bad_images: Optional[dict],
    ):
        if class_num is not None and class_num > MOST_CLASSES:
            raise ConfigError(
                f"{source}: the model has {class_num} classes, and label PNGs of 8 bits tell "
                f"{MOST_CLASSES} apart; {IGNORE} is no class"
            )
        names = thinned(names, sample_num)
        super().__init__(class_num, source, files, names, mode, transform_ops, bad_images)
        self.labels = PackedNames.of(files.named(thinned(labels, sample_num)))
        self.reduce_zero_label = reduce_zero_label
        files.check(self.labels, each=self.bad_images.policy == "raise")

    def class_counts(self) -> ClassCounts:
        """The pixels of each class in the labels of up to LABELS_LOOKED_AT images. ImageError for
        labels that cannot be read.
        """
        looked_at = 0
        pixels = np.zeros(IGNORE + 1, np.int64)
        for index in thinned(list(range(len(self))), LABELS_LOOKED_AT):
            try:
                label = self.label(index)
            except ImageError:
                if self.bad_images.policy == "raise":
                    raise
                continue
            looked_at += 1
            pixels += np.bincount(label.ravel(), minlength=IGNORE + 1)
        share = 100 * pixels[IGNORE] / max(pixels.sum(), 1)
        hint = f"{share:.3g} % of the pixels are no class; stored as {IGNORE}"
        hint += ", or as 0 (reduce_zero_label is True)" if self.reduce_zero_label else ""
        last = MOST_CLASSES if self.class_num is None else self.class_num
        return ClassCounts(pixels[:last], "pixels", looked_at, hint)

    def read_ahead(self, indices: Sequence[int]) -> None:
        """As AnnotatedDataset's, and in training the labels, too."""
        names = [self.names[index] for index in indices]
        labels = [self.labels[index] for index in indices] if self.training else []
        self.files.read_ahead([name for both in (names, labels) for name in both])

    def label(self, index: int) -> np.ndarray:
        """The labels of an image: uint8 [H, W], IGNORE where nothing is labelled. ImageError for a
        file that does not hold such.
        """
        path = self.files.path(self.labels[index])
        labels = decode_labels(self.files.read(self.labels[index]), path)
        # 0 means other: 1 becomes class 0
        if self.reduce_zero_label:
            # 0 - 1 is 255 in bytes
            labels = np.where(labels == IGNORE, IGNORE, labels - np.uint8(1))
        if self.class_num is not None:
            wrong = labels[(labels >= self.class_num) & (labels != IGNORE)]
            if wrong.size:
                stored = f" (stored as {wrong.max() + 1})" if self.reduce_zero_label else ""
                raise ImageError(
                    f"{path}: label {wrong.max()}{stored} is out of range; the model has "
                    f"{self.class_num} classes, 0 to {self.class_num - 1}, and {IGNORE} is ignored"
                )
        return labels

    def truth(self, index: int, shape: Tuple[int, int]) -> Sample:
        """{segmentation: uint8 [H, W]} of an image of `shape` = (H, W). ImageError if its labels
        have another.
        """
        labels = self.label(index)
        if labels.shape != shape:
            raise ImageError(
                f"{self.files.path(self.labels[index])}: {labels.shape[1]} x {labels.shape[0]} "
                f"labels for an image of {shape[1]} x {shape[0]} pixels, {self.name(index)}"
                f"{self.why_another_size(index)}"
            )
        return {"segmentation": labels}

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """AnnotatedDataset's batch; in training with segmentation uint8 [B, H, W]. ImageError if
        the images then differ in size.
        """
        batch = super().collate(samples, rng)
        if self.training:
            sizes = {sample["segmentation"].shape for sample in samples}
            if len(sizes) > 1:
                raise ImageError(
                    f"the images of one batch differ in size: {sorted(sizes)[:4]}; add RandomCrop "
                    f"and Pad to transform_ops"
                )
            batch["segmentation"] = np.stack([sample["segmentation"] for sample in samples])
        return batch


def decode_labels(data: bytes, path: str) -> np.ndarray:
    """The label PNG in the bytes `data` as uint8 [H, W]: pixel values of a grey image of up to 8
    bits, indices of a palette image. ImageError for anything else.
    """

    def labels(image: ImageFile.ImageFile) -> np.ndarray:
        if image.format != "PNG" or image.mode not in ("1", "L", "P"):
            raise ImageError(
                f"{path}: labels must be a PNG of 8-bit grey or palette values, not "
                f"{image.format} of mode {image.mode}{_why_no_colours(image.mode)}"
            )
        # Pillow stretches 2 and 4 bits to 0..255
        stretched = {"L;2": 85, "L;4": 17}.get(str(image.tile[0][3]), 1)
        return np.array(image).astype(np.uint8) // np.uint8(stretched)

    return use_picture(data, path, labels)


def _why_no_colours(mode: str) -> str:
    return ", whose colours do not say which class they mean" if mode.startswith("RGB") else ""


@DATASETS.register
class SegmentationDataset(LabelledPixels):
    """The images below the folder or zip file `dataset_root` that the list `list_path` names, one
    `image label` a line, both paths below dataset_root. Both may be addresses, PROTOCOL://...,
    which are read as `remote` says.

    reduce_zero_label: 0 is no class, and 1 becomes class 0, as in ADE20K. sample_num: take only so
    many images, at equal distances.
    """

    def __init__(
        self,
        class_num: Optional[int],
        *,
        dataset_root: str,
        list_path: str,
        mode: Literal["train", "val"],
        delimiter: Optional[str] = None,
        transform_ops: Optional[list] = None,
        reduce_zero_label: bool = False,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
        remote: Optional[dict] = None,
    ):
        with local_copy(list_path, remote_options(remote)) as path:
            names, labels = read_pair_list(path, delimiter)
        super().__init__(
            class_num,
            list_path,
            open_files(dataset_root, remote),
            names,
            labels,
            mode,
            transform_ops,
            reduce_zero_label,
            sample_num,
            bad_images,
        )


@DATASETS.register
class ADE20KDataset(LabelledPixels):
    """ADE20K's layout below the folder `dataset_root`: images/{training,validation}/NAME.jpg (or
    another format) and annotations/{training,validation}/NAME.png."""

    def __init__(
        self,
        class_num: Optional[int],
        *,
        dataset_root: str,
        mode: Literal["train", "val"],
        transform_ops: Optional[list] = None,
        reduce_zero_label: bool = True,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
    ):
        split = {"train": "training", "val": "validation"}[mode]
        names, labels = _images_and_labels(dataset_root, split)
        super().__init__(
            class_num,
            dataset_root,
            open_files(dataset_root),
            names,
            labels,
            mode,
            transform_ops,
            reduce_zero_label,
            sample_num,
            bad_images,
        )


def _images_and_labels(root: str, split: str) -> Tuple[List[str], List[str]]:
    """(images, label PNGs) of one `split` of ADE20K's layout, as paths relative to `root`, sorted.
    FileNotFoundError for a folder or a label PNG that is missing, ConfigError without images.
    """
    folders = [os.path.join(root, kind, split) for kind in ("images", "annotations")]
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"dataset_root: {folder}: no such folder")
    names = sorted(name for name in os.listdir(folders[0]) if is_image_name(name))
    if not names:
        raise ConfigError(f"{folders[0]}: no images")
    labels = [os.path.splitext(name)[0] + ".png" for name in names]
    alone = sorted(set(labels) - set(os.listdir(folders[1])))
    if alone:
        raise FileNotFoundError(
            f"{os.path.join(folders[1], alone[0])}: no such file; {len(alone)} of "
            f"{len(names)} images lack labels"
        )
    spare = sorted(set(filter(is_image_name, os.listdir(folders[1]))) - set(labels))
    if spare:
        log.warning(
            "%s: %d labels have no image, the first is %s; images end in %s",
            shown_text(folders[1]),
            len(spare),
            shown_text(spare[0]),
            " ".join(EXTENSIONS),
        )
    return (
        [f"images/{split}/{name}" for name in names],
        [f"annotations/{split}/{name}" for name in labels],
    )
