"""Images with several labels each, or none, of a list."""

from typing import Any, Dict, List, Literal, Optional

import numpy as np

from ...schema import ConfigError
from ..lists import read_multilabel_list
from ..remote import local_copy
from .classification import LabelledFiles
from .files import open_files, remote_options
from .registry import DATASETS, Batch, ClassCounts, Sample

__all__ = ["MultiLabelDataset"]


@DATASETS.register
class MultiLabelDataset(LabelledFiles):
    """The files of `image_root` (a folder, or a zip file) that the list `cls_label_path` names, one
    `path<tab>labels` a line: for each class 1 or 0, as PaddleClas has it, with commas between, or
    with label_format `classes` the numbers of those that are there, if any.

    delimiter: between path and labels, in place of the tab. label_ratio: batches tell the classes'
    shares of the images, for MultiLabelLoss's weight_ratio.
    """

    multi_label = True

    def __init__(
        self,
        class_num: Optional[int],
        *,
        image_root: str,
        cls_label_path: str,
        delimiter: Optional[str] = None,
        label_format: Literal["vector", "classes"] = "vector",
        label_ratio: bool = False,
        transform_ops: Optional[list] = None,
        batch_transform_ops: Optional[list] = None,
        bad_images: Optional[dict] = None,
        remote: Optional[dict] = None,
    ):
        with local_copy(cls_label_path, remote_options(remote)) as path:
            names, labels = read_multilabel_list(
                path, class_num, "\t" if delimiter is None else delimiter, label_format
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
        self.ratio = labels.mean(axis=0).astype(np.float32) if label_ratio else None

    @staticmethod
    def check(arguments: Dict[str, Any], mode: str, where: str) -> None:
        """As LabelledFiles; ConfigError for mixing too."""
        if arguments.get("batch_transform_ops"):
            raise ConfigError(
                f"{where}.batch_transform_ops: mixed images are for one label each; with several, "
                f"what is in a part of an image is not known. Remove it"
            )
        LabelledFiles.check(arguments, mode, where)

    def class_counts(self) -> ClassCounts:
        """The images that have each class."""
        return ClassCounts(self.labels.sum(axis=0, dtype=np.int64), "labels", len(self))

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample: {image: float32 [3, H, W], label: float32 [classes], 0 or 1}."""
        return {**super().load(index, rng), "label": self.labels[index].astype(np.float32)}

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """{image: float32 [B, 3, H, W], label: float32 [B, classes]}, with `label_ratio` also
        label_ratio: float32 [classes]. ImageError if the images differ in shape.
        """
        images = super().collate([{**sample, "label": 0} for sample in samples], rng)["image"]
        batch = {"image": images, "label": np.stack([sample["label"] for sample in samples])}
        return batch if self.ratio is None else {**batch, "label_ratio": self.ratio}
