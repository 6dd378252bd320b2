"""Sets of images with a label for every pixel, stored as PNG files."""

import io
import os
from typing import Literal, Optional

import numpy as np
from PIL import Image

from ...schema import ConfigError
from ..images import DECODER_ERRORS, MAX_PIXELS, ImageError
from ..transforms.joint import IGNORE
from .files import EXTENSIONS, open_files
from .annotated import AnnotatedDataset, thinned
from .registry import DATASETS

__all__ = ["ADE20KDataset", "SegmentationDataset"]


class LabelledPixels(AnnotatedDataset):
    """What the two datasets share. class_num: of the model, or None; labels: names of the label
    PNGs.
    """

    def __init__(
        self,
        class_num,
        files,
        names,
        labels,
        mode,
        transform_ops,
        reduce_zero_label,
        sample_num,
        bad_images,
    ):
        names, labels = thinned(names, sample_num), thinned(labels, sample_num)
        super().__init__(files, names, mode, transform_ops, bad_images)
        files.check(labels)
        self.class_num, self.labels, self.reduce_zero_label = class_num, labels, reduce_zero_label

    def label(self, i):
        """The labels of image i: uint8 [H, W], IGNORE where nothing is labelled. ImageError for a
        file that does not hold such.
        """
        path = self.files.path(self.labels[i])
        labels = read_labels(self.files.read(self.labels[i]), path)
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
                    f"{self.class_num} classes, "
                    f"0 to {self.class_num - 1}, and {IGNORE} is ignored"
                )
        return labels

    def truth(self, i, shape):
        """{segmentation: uint8 [H, W]} of image i; shape: its (H, W). ImageError if its labels have
        another.
        """
        labels = self.label(i)
        if labels.shape != shape:
            raise ImageError(
                f"{self.files.path(self.labels[i])}: {labels.shape[1]} x {labels.shape[0]} labels "
                f"for an image of "
                f"{shape[1]} x {shape[0]} pixels, {self.name(i)}"
            )
        return {"segmentation": labels}

    def collate(self, samples, rng):
        """AnnotatedDataset's batch; in training with segmentation uint8 [B, H, W]. ImageError if the
        images then differ in size.
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


def read_labels(data, path):
    """The label PNG in the bytes `data` as uint8 [H, W]: pixel values of a grey image of up to 8
    bits, indices of a palette image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{path}: more than {MAX_PIXELS} pixels")
            if image.format != "PNG" or image.mode not in ("1", "L", "P"):
                raise ImageError(
                    f"{path}: labels must be a PNG of 8-bit grey or palette values, not "
                    f"{image.format} of mode {image.mode}"
                    + (
                        ", whose colours do not say which class they mean"
                        if image.mode.startswith("RGB")
                        else ""
                    )
                )
            # Pillow stretches 2 and 4 bits to 0..255
            stretched = {"L;2": 85, "L;4": 17}.get(image.tile[0][3], 1)
            return np.array(image).astype(np.uint8) // np.uint8(stretched)
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not a readable image: it begins with {data[:8]!r}") from None
    except DECODER_ERRORS as error:
        raise ImageError(f"{path}: not a readable image: {error}") from error


@DATASETS.register
class SegmentationDataset(LabelledPixels):
    """The images below the folder or zip file `dataset_root` that the list `list_path` names, one
    `image label` a line, both paths below dataset_root.

    reduce_zero_label: 0 is no class, and 1 becomes class 0, as in ADE20K. sample_num: take only so
    many images, at equal distances.
    """

    def __init__(
        self,
        class_num,
        *,
        dataset_root: str,
        list_path: str,
        mode: Literal["train", "val"],
        delimiter: Optional[str] = None,
        transform_ops: Optional[list] = None,
        reduce_zero_label: bool = False,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
    ):
        names, labels = [], []
        try:
            with open(list_path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{list_path}: not a text file in UTF-8 ({error.reason} at byte {error.start})"
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"list_path: {list_path}: cannot be read: {error.strerror}"
            ) from error
        for number, line in enumerate(lines, 1):
            parts = line.strip().split(delimiter)
            if line.strip() and (len(parts) != 2 or not all(part.strip() for part in parts)):
                raise ConfigError(
                    f"{list_path}:{number}: expected 'image{delimiter or ' '}label', got {line!r}"
                )
            if line.strip():
                names.append(parts[0].strip())
                labels.append(parts[1].strip())
        if not names:
            raise ConfigError(
                f"{list_path}: the list is empty; expected lines 'image{delimiter or ' '}label'"
            )
        super().__init__(
            class_num,
            open_files(dataset_root),
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
        class_num,
        *,
        dataset_root: str,
        mode: Literal["train", "val"],
        transform_ops: Optional[list] = None,
        reduce_zero_label: bool = True,
        sample_num: Optional[int] = None,
        bad_images: Optional[dict] = None,
    ):
        split = {"train": "training", "val": "validation"}[mode]
        folders = [os.path.join(dataset_root, kind, split) for kind in ("images", "annotations")]
        missing = [folder for folder in folders if not os.path.isdir(folder)]
        if missing:
            raise FileNotFoundError(f"dataset_root: {missing[0]}: no such folder")
        files, found = (sorted(entry.name for entry in os.scandir(folder)) for folder in folders)
        names = [
            name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
        labels = [os.path.splitext(name)[0] + ".png" for name in names]
        if not names:
            raise ConfigError(f"{folders[0]}: no images")
        alone = sorted(set(labels) - set(found))
        if alone:
            raise FileNotFoundError(
                f"{os.path.join(folders[1], alone[0])}: no such file; {len(alone)} of "
                f"{len(names)} images lack labels"
            )
        super().__init__(
            class_num,
            open_files(dataset_root),
            [f"images/{split}/{name}" for name in names],
            [f"annotations/{split}/{name}" for name in labels],
            mode,
            transform_ops,
            reduce_zero_label,
            sample_num,
            bad_images,
        )
