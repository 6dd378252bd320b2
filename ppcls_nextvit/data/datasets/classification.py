"""Datasets of labelled images, for classification: a list, or one folder per class."""

import functools
import logging
import os
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ...schema import ConfigError, shown, shown_text
from ..images import ImageError
from ..list_cache import read_shared_list
from ..memory import stacked
from ..mixing import mixing_op
from ..packed import PackedNames
from ..remote import is_remote, local_copy
from ..transforms.pipeline import Pipeline
from .files import (
    EXTENSIONS,
    Files,
    FolderFiles,
    files_below,
    open_files,
    remote_options,
    subfolders,
)
from .registry import DATASETS, ONCE, SECTIONS, BadImages, Batch, ClassCounts, Sample

__all__ = ["ImageFolder", "ImageNetDataset", "LabelledFiles"]


COUNTED = 1 << 20  # labels at a time: counting copies them

log = logging.getLogger(__name__)


class LabelledFiles:
    """The images `names` among `files` and one entry of `labels`, int [N, ...], for each: what the
    datasets of classification share. class_num: of the model, None: unknown. source: what says so,
    for messages.
    """

    class_names: Optional[List[str]] = None
    stacks_images = True

    def __init__(
        self,
        class_num: Optional[int],
        source: str,
        files: Files,
        names: Sequence[str],
        labels: np.ndarray,
        transform_ops: Optional[list],
        batch_transform_ops: Optional[list],
        bad_images: Optional[dict],
    ):
        names = PackedNames.of(names)
        if names.may_hold("\\"):
            names = PackedNames.of(files.named(names))
        self.class_num = class_num
        self.source = source
        self.files = files
        self.names = names
        self.labels = labels
        self.transform = Pipeline(transform_ops)
        self.mix = mixing_op(batch_transform_ops, "batch_transform_ops")
        self.bad_images: BadImages = SECTIONS.build("BadImages", bad_images, "bad_images")
        files.check(names, each=self.bad_images.policy == "raise")

    @staticmethod
    def check(arguments: Dict[str, Any], mode: str, where: str) -> None:
        """ConfigError for transforms that cannot be built or do not begin with decoding, and for
        mixing or scaled decoding in evaluation.
        """
        pipeline = Pipeline(arguments.get("transform_ops"), f"{where}.transform_ops")
        if not pipeline.decodes:
            raise ConfigError(f"{where}.transform_ops: must begin with DecodeImage")
        if pipeline.scaled and mode == "Eval":
            raise ConfigError(f"{where}.transform_ops: DecodeImage.scaled: True is for training")
        place = f"{where}.batch_transform_ops"
        if mixing_op(arguments.get("batch_transform_ops"), place) and mode == "Eval":
            raise ConfigError(f"{place}: {ONCE}")

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def sample_bytes(self) -> int:
        """The memory of a sample: all of a batch have one shape, so that of the first image."""
        for index in range(min(10, len(self))):
            try:
                return self.load(index, np.random.default_rng(0))["image"].nbytes
            except ImageError:  # which is told when its turn comes
                continue
        return 3 * 384 * 384 * 4  # the largest of the recipes

    def class_counts(self) -> ClassCounts:
        """The images of each class."""
        classes = self.class_num or int(self.labels.max()) + 1
        counts = np.zeros(classes, np.int64)
        for at in range(0, len(self), COUNTED):
            counts += np.bincount(self.labels[at : at + COUNTED], minlength=classes)
        return ClassCounts(counts, "images", len(self))

    def name(self, index: int) -> str:
        """The path of an image, for messages."""
        return self.files.path(self.names[index])

    def read(self, index: int) -> bytes:
        """The bytes of the file of an image. ImageError if they cannot be read."""
        return self.files.read(self.names[index])

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Begin to read these images, which are loaded next, where that helps."""
        self.files.read_ahead([self.names[index] for index in indices])

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample: {image: float32 [3, H, W], label: int}."""
        image = self.transform(self.read(index), rng, self.name(index))
        return {"image": image, "label": self.labels[index]}

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """{image: float32 [B, 3, H, W], label: int64 [B]}, mixed where batch_transform_ops are
        configured. ImageError if the images differ in shape.
        """
        images = [sample["image"] for sample in samples]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ImageError(
                f"the images of one batch differ in shape: {sorted(shapes)[:4]}; "
                "add ResizeImage and CropImage to transform_ops"
            )
        labels = np.array([sample["label"] for sample in samples], np.int64)
        batch = {"image": stacked(images), "label": labels}
        return self.mix(batch, rng) if self.mix else batch


@DATASETS.register
class ImageNetDataset(LabelledFiles):
    """The files of `image_root` (a folder, or a zip file) that the list `cls_label_path` names, one
    `path label` a line. Both may be addresses, PROTOCOL://..., which are read as `remote` says. A
    long list is kept in the folder of its cache for all processes (ppcls_nextvit.data.list_cache).

    relabel: number the labels that occur anew from 0, in their order.
    """

    def __init__(
        self,
        class_num: Optional[int],
        *,
        image_root: str,
        cls_label_path: str,
        delimiter: Optional[str] = None,
        relabel: bool = False,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
        remote: Optional[dict] = None,
    ):
        options = remote_options(remote)
        with local_copy(cls_label_path, options) as path:
            names, labels = read_shared_list(
                path,
                options.folder,
                class_num,
                " " if delimiter is None else delimiter,
                relabel,
            )
        super().__init__(
            class_num,
            cls_label_path,
            open_files(image_root, remote),
            names,
            labels,
            transform_ops,
            batch_transform_ops,
            bad_images,
        )


@DATASETS.register
class ImageFolder(LabelledFiles):
    """One subfolder per class below `image_root`, numbered in alphabetical order; images may lie
    deeper. `class_names` are the folders.
    """

    def __init__(
        self,
        class_num: Optional[int],
        *,
        image_root: str,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
    ):
        if is_remote(image_root):
            raise ConfigError(
                f"image_root: {shown_text(image_root)}: folders are not listed there; make a list "
                "(ImageNetDataset) or shards (ImageShards)"
            )
        if not os.path.isdir(image_root):
            raise FileNotFoundError(f"image_root: {image_root}: no such folder")
        self.class_names = subfolders(image_root)
        names: List[str] = []
        labels: List[int] = []
        others: List[str] = []
        for label, class_name in enumerate(self.class_names):
            found = files_below(image_root, class_name)
            names += found.images
            others += found.others
            labels += [label] * len(found.images)
        if not names:
            raise ConfigError(
                f"{image_root}: no images; expected <class name>/<file> with one of the endings "
                f"{' '.join(EXTENSIONS)}"
            )
        if class_num is not None and class_num != len(self.class_names):
            raise ConfigError(
                f"{image_root}: {len(self.class_names)} class folders, but the model has "
                f"{class_num} classes; set Arch.class_num (of two roots, a folder that is missing "
                f"in one may be empty there). The folders: {', '.join(self.class_names[:20])}"
                f"{', ...' if len(self.class_names) > 20 else ''}"
            )
        _warn_of_what_is_left_out(image_root, others)
        _warn_of_empty_classes(image_root, self.class_names, labels)
        super().__init__(
            class_num,
            image_root,
            FolderFiles(image_root),
            names,
            np.array(labels, np.int32),
            transform_ops,
            batch_transform_ops,
            bad_images,
        )


def _warn_of_what_is_left_out(root: str, others: List[str]) -> None:
    if others:
        endings = Counter(os.path.splitext(name)[1] or "no ending" for name in others)
        told = ", ".join(f"{shown_text(end, 20)} ({n})" for end, n in endings.most_common(5))
        log.warning(
            "%s: %d files are left out by their endings: %s; the first is %s. Images end in %s",
            shown_text(root),
            len(others),
            told,
            shown_text(others[0]),
            " ".join(EXTENSIONS),
        )


def _warn_of_empty_classes(root: str, class_names: List[str], labels: List[int]) -> None:
    empty = [class_names[label] for label in sorted(set(range(len(class_names))) - set(labels))]
    if empty:
        log.warning("%s: no image in the class folders %s", shown_text(root), shown(empty))
