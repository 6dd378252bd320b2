"""The labels that a segmentor gives the pixels of one image, and their pictures."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
from PIL import Image

from ..inputs import InputImage
from ..results import Result
from .pictures import class_areas, draw_labels, label_png

__all__ = ["ClassArea", "SegmentationResult"]


class ClassArea(NamedTuple):
    """The pixels of one class in an image, and their share of it."""

    class_id: int
    label_name: str
    pixels: int
    share: float


class SegmentationResult(Result):
    """labels: int64 [height, width], indices of `names`."""

    def __init__(self, image: InputImage, labels: np.ndarray, names: Sequence[str]) -> None:
        super().__init__(image, names)
        self.labels = labels

    def line(self) -> str:
        """The five largest classes."""
        return ", ".join(f"{one.label_name} {100 * one.share:.1f} %" for one in self.top(5))

    def top(self, count: int = 0) -> List[ClassArea]:
        """The `count` largest classes of the image (0: all that are in it), largest first."""
        areas = class_areas(self.labels, self.names)
        return [ClassArea(**area) for area in areas[: count or len(areas)]]

    def mask(self, name: str) -> np.ndarray:
        """bool [height, width]: where the class `name` is. ValueError for a name that is none."""
        if name not in self.names:
            raise ValueError(f"no class {name!r}; the classes are {', '.join(self.names[:20])}")
        return self.labels == list(self.names).index(name)

    def to_dict(self) -> Dict[str, Any]:
        """{file_name, height, width, classes: [{class_id, label_name, pixels, share}, ...]}, the
        largest first.
        """
        height, width = self.labels.shape
        return {
            "file_name": self.file_name,
            "height": height,
            "width": width,
            "classes": class_areas(self.labels, self.names),
        }

    def rows(self) -> List[Dict[str, Any]]:
        """A row for each class of the image."""
        return [{"file_name": self.file_name, **one._asdict()} for one in self.top()]

    def pictures(self) -> Mapping[str, Image.Image]:
        """The picture under coloured labels with a legend; and the labels, whose pixel values are
        class ids.
        """
        return {
            "_overlay.png": draw_labels(self.image.pixels(), self.labels, list(self.names)),
            "_labels.png": label_png(self.labels, len(self.names)),
        }
