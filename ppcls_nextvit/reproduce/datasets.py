"""The datasets on which weights are published, and what is known of each: ImageNet and its
robustness variants, COCO and ADE20K.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..data.datasets.classification import LabelledFiles
from ..data.datasets.files import FolderFiles

__all__ = [
    "CORRUPTIONS",
    "PUBLISHED_DATASETS",
    "SEVERITIES",
    "ClassificationDataset",
    "DenseDataset",
    "LabelledImages",
]

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class ClassificationDataset:
    """Images with a class each. metric: its key in the zoo. images: of the complete dataset; of
    ReaL, those with a label.

    subset: number of class folders of a dataset that has a part of the classes, among which alone
    the model then chooses.
    """

    title: str
    metric: str
    images: int
    subset: Optional[int] = None
    task: str = "classification"


@dataclass(frozen=True)
class DenseDataset:
    """Images that a task evaluates by itself. task: whose weights it is for. images: of the
    complete dataset. figures: {metric of the zoo: value of the task's evaluation}.

    transforms: of evaluation, as published. class_names: the file that has them, relative to the
    recipes', and how many there are. section(data): the keys of DataLoader.Eval.dataset that
    say where everything lies below the folder `data`. arguments: of the model, beside the zoo
    record's.
    """

    title: str
    task: str
    images: int
    figures: Mapping[str, str]
    transforms: Sequence[Mapping[str, Any]]
    class_names: Tuple[str, int]
    section: Callable[[str], Dict[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _coco(data: str) -> Dict[str, Any]:
    return {
        "name": "COCODataset",
        "image_root": str(Path(data) / "val2017"),
        "annotation_path": str(Path(data) / "annotations" / "instances_val2017.json"),
    }


def _ade20k(data: str) -> Dict[str, Any]:
    return {"name": "ADE20KDataset", "dataset_root": data}


DETECTION_TRANSFORMS: Sequence[Mapping[str, Any]] = (
    {"Resize": {"scale": [1333, 800]}},
    {"Normalize": {}},
    {"Pad": {"size_divisor": 32}},
)
SEGMENTATION_TRANSFORMS: Sequence[Mapping[str, Any]] = (
    {"Resize": {"scale": [2048, 512]}},
    {"Normalize": {}},
)
ADE20K_NAMES = ("segmentation/ade20k_labels.txt", 150)
SIX_SCALES = {"ratios": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "flip": True}

# By the name of --set. The first of a task is the one that its weights are evaluated on if nobody
# says which.
PUBLISHED_DATASETS: Dict[str, Union[ClassificationDataset, DenseDataset]] = {
    "imagenet": ClassificationDataset("ImageNet-1K validation", "imagenet/top1", 50_000),
    "a": ClassificationDataset(
        "ImageNet-A (Hendrycks et al. 2021)", "imagenet-a/top1", 7_500, subset=200
    ),
    "r": ClassificationDataset(
        "ImageNet-R (Hendrycks et al. 2021)", "imagenet-r/top1", 30_000, subset=200
    ),
    "v2": ClassificationDataset("ImageNet-V2 (Recht et al. 2019)", "imagenet-v2/top1", 10_000),
    "sketch": ClassificationDataset(
        "ImageNet-Sketch (Wang et al. 2019)", "imagenet-sketch/top1", 50_889
    ),
    "c": ClassificationDataset(
        "ImageNet-C (Hendrycks and Dietterich 2019)", "imagenet-c/mce", 15 * 5 * 50_000
    ),
    "real": ClassificationDataset(
        "ImageNet validation with ReaL labels (Beyer et al. 2020)", "imagenet-real/top1", 46_837
    ),
    "coco": DenseDataset(
        "COCO val2017",
        "detection",
        5_000,
        {"coco/box_map": "box_map", "coco/mask_map": "mask_map"},
        DETECTION_TRANSFORMS,
        ("detection/coco_labels.txt", 80),
        _coco,
    ),
    "ade20k": DenseDataset(
        "ADE20K validation, one scale",
        "segmentation",
        2_000,
        {"ade20k/miou": "mIoU"},
        SEGMENTATION_TRANSFORMS,
        ADE20K_NAMES,
        _ade20k,
        {"inference": {"ratios": [1.0], "flip": False}},
    ),
    "ade20k-ms": DenseDataset(
        "ADE20K validation, six scales and flip",
        "segmentation",
        2_000,
        {"ade20k/miou_ms": "mIoU"},
        SEGMENTATION_TRANSFORMS,
        ADE20K_NAMES,
        _ade20k,
        {"inference": SIX_SCALES},
    ),
    "ade20k-ms-interpolation": DenseDataset(
        "ADE20K validation, six scales and flip, the position bias interpolated",
        "segmentation",
        2_000,
        {"ade20k/miou_ms_interpolation": "mIoU"},
        SEGMENTATION_TRANSFORMS,
        ADE20K_NAMES,
        _ade20k,
        {"inference": SIX_SCALES},
    ),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images below `root` and their labels.

    kind: a key of PUBLISHED_DATASETS. names: paths relative to root. labels: per image the class
    numbers that are right (one, except for ReaL). classes: the class numbers that compete, None for
    all. groups: per image `corruption/severity` (ImageNet-C only). notes: what a reader of the
    result should know.
    """

    kind: str
    root: str
    names: List[str]
    labels: List[Tuple[int, ...]]
    num_classes: int
    classes: Optional[List[int]] = None
    groups: Optional[List[str]] = None
    notes: Tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def complete(self) -> bool:
        """Whether it has as many images as the published dataset."""
        return len(self) == PUBLISHED_DATASETS[self.kind].images

    def thinned(self, count: int) -> "LabelledImages":
        """`count` images at equal distances (the first would all be of one class), or all if there
        are no more. ValueError below 1.
        """
        if count < 1:
            raise ValueError(f"limit: expected 1 or more images, got {count}")
        if count >= len(self):
            return self
        chosen = [index * len(self) // count for index in range(count)]
        return replace(
            self,
            names=[self.names[index] for index in chosen],
            labels=[self.labels[index] for index in chosen],
            groups=self.groups and [self.groups[index] for index in chosen],
            notes=(*self.notes, f"{count} of {len(self)} images"),
        )

    def dataset(self, indices: Sequence[int], transform_ops: List[Dict[str, Any]]) -> LabelledFiles:
        """The images `indices` for the Loader; the `label` of an item is its index among these."""
        names = [self.names[index] for index in indices]
        files = FolderFiles(self.root)
        labels = np.array(indices, np.int32)
        return LabelledFiles(None, self.root, files, names, labels, transform_ops, None, None)
