"""What a detector finds in one image, and its picture."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image

from ...data.rle import encode_mask
from ...models.api import ImageMask, Instances
from ..inputs import InputImage
from ..results import Result
from .pictures import draw_objects

__all__ = ["DetectedObject", "DetectionResult"]


class DetectedObject(NamedTuple):
    """One object. box: (x1, y1, x2, y2) in pixels of the image. mask: an ImageMask, whose `full()`
    is uint8 [H, W] of 0 and 1; None where the detector has no masks.
    """

    class_id: int
    label_name: str
    score: float
    box: List[float]
    mask: Optional[ImageMask]


class DetectionResult(Result):
    """The objects of an image, best first. found: all that the detector gave; threshold: the score
    from which objects count. size: (height, width).
    """

    def __init__(
        self, image: InputImage, found: Instances, names: Sequence[str], threshold: float = 0.0
    ) -> None:
        super().__init__(image, names)
        self.found = found
        self.threshold = threshold
        self.size = image.pixels().shape[:2]
        self._shown = found.scoring(threshold)

    def line(self) -> str:
        """How many objects, and the best five."""
        best = ", ".join(f"{one.label_name} {one.score:.4f}" for one in self.top(5))
        return f"{len(self)} objects" + (f": {best}" if best else "")

    def __len__(self) -> int:
        return len(self.scores)

    def __bool__(self) -> bool:
        return True

    @property
    def boxes(self) -> np.ndarray:
        """float32 [n, 4], (x1, y1, x2, y2) in pixels of the image."""
        return self._shown.boxes

    @property
    def scores(self) -> np.ndarray:
        """float32 [n]."""
        return self._shown.scores

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], indices of `names`."""
        return self._shown.labels

    @property
    def masks(self) -> Optional[np.ndarray]:
        """uint8 [n, height, width] of 0 and 1; None where the detector has no masks."""
        if self._shown.masks is None:
            return None
        full = [mask.full() for mask in self._shown.masks]
        return np.stack(full) if full else np.zeros((0, *self.size), np.uint8)

    def scoring(self, threshold: float) -> "DetectionResult":
        """The same result with the objects that score `threshold` or more."""
        return DetectionResult(self.image, self.found, self.names, threshold)

    def top(self, count: int = 0) -> List[DetectedObject]:
        """The `count` best objects (0: all), best first."""
        boxes, scores, labels, masks = self._shown
        return [
            DetectedObject(
                int(labels[i]),
                self.names[labels[i]],
                float(scores[i]),
                boxes[i].tolist(),
                None if masks is None else masks[i],
            )
            for i in range(min(count or len(scores), len(scores)))
        ]

    def to_dict(self) -> Dict[str, Any]:
        """{file_name, height, width, objects: [{class_id, label_name, score, box: [x1, y1, x2, y2],
        mask: {size, counts}}, ...]}, best first; without masks where the detector has none.
        """
        height, width = self.size
        return {
            "file_name": self.file_name,
            "height": height,
            "width": width,
            "objects": [_told(one) for one in self.top()],
        }

    def rows(self) -> List[Dict[str, Any]]:
        """A row for each object, without its mask."""
        return [
            {
                "file_name": self.file_name,
                "class_id": one.class_id,
                "label_name": one.label_name,
                "score": one.score,
                **dict(zip(("x1", "y1", "x2", "y2"), one.box)),
            }
            for one in self.top()
        ]

    def pictures(self) -> Mapping[str, Image.Image]:
        """The picture with boxes, masks, names and scores; a small one grows by a whole factor."""
        return {"_objects.png": draw_objects(self.image.pixels(), self._shown, self.names)}


def _told(one: DetectedObject) -> Dict[str, Any]:
    """What JSON says of an object."""
    told = one._asdict()
    mask = told.pop("mask")
    return told if mask is None else {**told, "mask": encode_mask(mask)}
