"""Sets of labelled image files.

What a loader needs of a set: `len(set)`, `set.name(i)` (for messages), `set.load(i, rng)` (one
sample, transformed, as a dict), `set.collate(samples, rng)` (a batch as a dict of arrays),
`set.bad_images`, `set.sample_bytes` (about), and the static `check(arguments, mode, where)`, which
verifies more of its keys than their types (ConfigError) before the disk is touched.
"""

import os
from typing import Optional

import numpy as np

from ...schema import ConfigError
from ..images import ImageError
from ..mixing import mixing_op
from ..transforms.pipeline import Pipeline
from .files import EXTENSIONS, FolderFiles, open_files
from .registry import DATASETS, ONCE, SECTIONS

__all__ = ["ImageFolder", "ImageNetDataset"]


class LabelledFiles:
    """What sets of classified images share: files, labels, and transforms. class_num: the number of
    classes of the model, or None.
    """

    sample_bytes = 3 * 384 * 384 * 4  # the largest that recipes use

    def __init__(self, files, names, labels, transform_ops, batch_transform_ops, bad_images):
        files.check(names)
        self.files, self.names, self.labels = files, names, np.asarray(labels, np.int64)
        self.transform = Pipeline(transform_ops)
        self.mix = mixing_op(batch_transform_ops, "batch_transform_ops")
        self.bad_images = SECTIONS.build("BadImages", bad_images, "bad_images")

    @staticmethod
    def check(arguments, mode, where):
        """ConfigError for transforms that cannot be built, and for mixing in evaluation; see the
        module's docstring.
        """
        Pipeline(arguments.get("transform_ops"), f"{where}.transform_ops")
        if (
            mixing_op(arguments.get("batch_transform_ops"), f"{where}.batch_transform_ops")
            and mode == "Eval"
        ):
            raise ConfigError(f"{where}.batch_transform_ops: {ONCE}")

    def __len__(self):
        return len(self.names)

    def name(self, i):
        """The path of image i, for messages."""
        return self.files.path(self.names[i])

    def read(self, i):
        """The bytes of the file of image i. ImageError if they cannot be read."""
        return self.files.read(self.names[i])

    def load(self, i, rng):
        """One sample, {image: float32 [3, H, W], label: int}; rng: the numpy Generator that its
        transforms draw from.
        """
        return {"image": self.transform(self.read(i), rng, self.name(i)), "label": self.labels[i]}

    def collate(self, samples, rng):
        """The batch of `samples` as arrays, mixed where batch_transform_ops are configured.
        ImageError if the images differ in shape.
        """
        images = [sample["image"] for sample in samples]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ImageError(
                f"the images of one batch differ in shape: {sorted(shapes)[:4]}; "
                "add ResizeImage and CropImage to transform_ops"
            )
        batch = {
            "image": np.stack(images),
            "label": np.array([sample["label"] for sample in samples], np.int64),
        }
        return self.mix(batch, rng) if self.mix else batch


def read_list(path, delimiter, class_num, relabel):
    """(names, labels) of a list file with lines `path<delimiter>label`. Blank lines are skipped.
    ConfigError names file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    except OSError as error:
        raise FileNotFoundError(
            f"cls_label_path: {path}: cannot be read: {error.strerror}"
        ) from error
    names, labels, numbers = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, found, label = line.strip().rpartition(delimiter)
        if not found or not name.strip():
            raise ConfigError(f"{path}:{number}: expected 'path{delimiter}label', got {line!r}")
        try:
            labels.append(int(label))
        except ValueError:
            raise ConfigError(
                f"{path}:{number}: the label must be an integer, got {label!r}"
            ) from None
        names.append(name.strip())
        numbers.append(number)
    if not names:
        raise ConfigError(f"{path}: the list is empty; expected lines 'path{delimiter}label'")
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1].tolist()
    for number, label in zip(numbers, labels):
        if label < 0 or (class_num is not None and label >= class_num):
            upper = (
                ""
                if class_num is None
                else f" to {class_num - 1} (the model has {class_num} classes)"
            )
            raise ConfigError(
                f"{path}:{number}: label {label} is out of range; expected 0{upper or ' or more'}"
            )
    return names, labels


@DATASETS.register
class ImageNetDataset(LabelledFiles):
    """The files of `image_root` (a folder, or a zip file) that the list `cls_label_path` names, one
    `path label` a line.

    relabel: number the labels that occur anew from 0, in their order.
    """

    def __init__(
        self,
        class_num,
        *,
        image_root: str,
        cls_label_path: str,
        delimiter: Optional[str] = None,
        relabel: bool = False,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
    ):
        names, labels = read_list(
            cls_label_path, " " if delimiter is None else delimiter, class_num, relabel
        )
        super().__init__(
            open_files(image_root), names, labels, transform_ops, batch_transform_ops, bad_images
        )


@DATASETS.register
class ImageFolder(LabelledFiles):
    """One subfolder per class below `image_root`, numbered in alphabetical order; images may lie
    deeper. `class_names` are the folders.
    """

    def __init__(
        self,
        class_num,
        *,
        image_root: str,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
    ):
        if not os.path.isdir(image_root):
            raise FileNotFoundError(f"image_root: {image_root}: no such folder")
        self.class_names = sorted(
            entry.name
            for entry in os.scandir(image_root)
            if entry.is_dir() and not entry.name.startswith(".")
        )
        names, labels = [], []
        for label, class_name in enumerate(self.class_names):
            for folder, folders, files in os.walk(os.path.join(image_root, class_name)):
                folders.sort()
                for file in sorted(files):
                    if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                        names.append(os.path.relpath(os.path.join(folder, file), image_root))
                        labels.append(label)
        if not names:
            raise ConfigError(
                f"{image_root}: no images; expected <class name>/<file> with one of the endings "
                f"{' '.join(EXTENSIONS)}"
            )
        if class_num is not None and class_num != len(self.class_names):
            raise ConfigError(
                f"{image_root}: {len(self.class_names)} class folders, but the model has "
                f"{class_num} classes; "
                "set Arch.class_num"
            )
        super().__init__(
            FolderFiles(image_root), names, labels, transform_ops, batch_transform_ops, bad_images
        )
