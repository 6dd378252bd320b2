"""What all detectors share: from what the network finds to arrays in the original image."""

from typing import Any, List, Mapping, Tuple

from ..api import Detections, Instances
from ..registry import HoldsBackbone
from .masks import instances

__all__ = ["Detector"]


class Detector(HoldsBackbone):
    """A network of images -> a list of Detections, one per image."""

    task = "detection"

    def predict(self, batch: Mapping[str, Any]) -> List[Instances]:
        """What is in each image of an evaluation batch, in pixels of the original.

        batch: image, shape, scale, as for forward, and original: int [B, 2], (height, width).
        """
        found = self(batch["image"], batch["shape"], batch["scale"])
        sizes = batch["original"].tolist()
        return [self.instances(one, size) for one, size in zip(found, sizes)]

    def instances(self, found: Detections, size: Tuple[int, int]) -> Instances:
        """The Detections of one image whose original has `size` (height, width), as arrays; masks,
        if there are any, pasted.
        """
        return instances(found, *size)
