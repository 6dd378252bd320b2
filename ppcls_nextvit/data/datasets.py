"""Sets of labelled image files.

What a loader needs of a set: `len(set)`, `set.name(i)` (for messages), `set.load(i, rng)` (one
sample, transformed, as a dict), `set.collate(samples, rng)` (a batch as a dict of arrays),
`set.bad_images`, `set.sample_bytes` (about), and the static `check(arguments, mode, where)`, which
verifies more of its keys than their types (ConfigError) before the disk is touched.
"""

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Literal, Optional

import numpy as np

from ..preprocess import ImageError, Pipeline
from ..schema import ConfigError, Registry
from .mixing import mixing_op

__all__ = ["DATASETS", "BadImages", "ImageFolder", "ImageNetDataset"]

DATASETS = Registry("dataset")
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SECTIONS = Registry("section")
ONCE = "evaluation counts every image once, as it is; remove this"


@SECTIONS.register
@dataclass(frozen=True, kw_only=True)
class BadImages:
    """What to do with a training image that cannot be read: `raise` (stop the run with its path),
    or `skip` (another image takes its place, a warning names it) for up to `limit` different
    images."""

    policy: Literal["raise", "skip"] = "raise"
    limit: int = 0

    def __post_init__(self):
        if self.limit < 0 or (self.limit > 0) != (self.policy == "skip"):
            raise ValueError(
                f"policy skip needs a limit of 1 or more, policy raise none; got "
                f"policy={self.policy}, limit={self.limit}"
            )


class FolderFiles:
    """Files below the folder `root`."""

    def __init__(self, root):
        self.root = root

    def path(self, name):
        """Where the file `name` lies."""
        return os.path.join(self.root, name)

    def check(self, names):
        """A wrong root is noticed here, by its first file, and not in a worker; a single missing
        file is noticed when it is read.
        """
        if not os.path.isfile(self.path(names[0])):
            raise FileNotFoundError(
                f"{self.path(names[0])}: no such file, and it is the first of the list; is "
                f"image_root (or "
                "dataset_root) right?"
            )

    def read(self, name):
        """The file's bytes. ImageError if it cannot be read."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise ImageError(f"{self.path(name)}: cannot be read: {error.strerror}") from error


class ZipFiles:
    """Members of the zip file `root`, read by position, so that processes forked after opening can
    share the descriptor.
    """

    def __init__(self, root):
        self.root = root
        try:
            with zipfile.ZipFile(root) as archive:
                self.members = {
                    i.filename: (i.header_offset, i.compress_size, i.compress_type, i.CRC)
                    for i in archive.infolist()
                }
        except zipfile.BadZipFile as error:
            raise ValueError(f"{root}: not a whole zip file: {error}") from error
        self.descriptor = os.open(root, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def path(self, name):
        """The member `name` as messages call it."""
        return f"{self.root}/{name}"

    def check(self, names):
        """FileNotFoundError, before any work starts, if one of `names` is not in the zip file."""
        missing = [name for name in names if name not in self.members]
        if missing:
            raise FileNotFoundError(
                f"{self.path(missing[0])}: no such file in the zip ({len(missing)} of "
                f"{len(names)} are missing)"
            )

    def read(self, name):
        """The member's bytes, their CRC verified. ImageError where the zip file is damaged."""
        offset, size, method, crc = self.members[name]
        # the name's length may differ from the directory's
        header = os.pread(self.descriptor, 30, offset)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise ImageError(f"{self.path(name)}: the zip file is damaged here")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        data = os.pread(self.descriptor, size, offset + 30 + name_length + extra_length)
        try:
            data = (
                zlib.decompress(data, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else data
            )
        except zlib.error as error:
            raise ImageError(f"{self.path(name)}: the zip file is damaged here: {error}") from error
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or zlib.crc32(data) != crc:
            raise ImageError(
                f"{self.path(name)}: the zip file is damaged here, or packed by another method "
                f"than store and deflate"
            )
        return data


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


def open_files(image_root):
    """The files of a folder or of a zip file. FileNotFoundError if there is neither."""
    if os.path.isdir(image_root):
        return FolderFiles(image_root)
    if os.path.isfile(image_root):
        return ZipFiles(image_root)
    raise FileNotFoundError(f"image_root: {image_root}: no such folder or zip file")


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
