"""An exported detector, ready to predict, and to be evaluated."""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ...data.transforms.joint import JointPipeline
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError, Program
from ...files import parsing
from ...models.api import Instances
from ...models.detectors.masks import paste
from ..exported import description_of
from ..inputs import InputImage
from ..joint import ImagePredictor
from .export import INPUTS, padded
from .predict import check_post_process, model_inputs
from .results import DetectionResult

__all__ = ["ExportedDetector", "exported_detector", "exported_predictor", "instances_of"]


def exported_predictor(opened: Opened) -> ImagePredictor:
    """The program of an exported detector with its preprocessing and names."""
    where, told = opened.folder / DESCRIPTION, description_of(opened)
    with parsing(str(where), ExportError):
        threshold = check_post_process({"score_threshold": told.post["score_threshold"]})
        sides: Any = opened.signature.inputs[INPUTS[0]][2:]
    pipeline = JointPipeline(told.transforms, f"{where}: transform_ops")

    def result(image: InputImage, names: Sequence[str]) -> DetectionResult:
        pixels = image.pixels()
        made = model_inputs(pixels, pipeline, image.name, told.min_size)
        batch = dict(zip(INPUTS, made.values()))
        if sides[0] is not None:
            batch[INPUTS[0]] = padded(batch[INPUTS[0]], sides, image.name)
        found = instances_of(opened(batch), *pixels.shape[:2])
        return DetectionResult(image, found, names, threshold)

    return ImagePredictor(told.names, result)


class ExportedDetector:
    """An exported program in the place of the detector that it came from. min_size: the smallest
    height and width that it takes; sides: the only (height, width), or None for any.
    """

    shown = ()

    def __init__(
        self, program: Program, min_size: int, sides: Optional[Sequence[int]] = None
    ) -> None:
        self.program, self.min_size, self.sides = program, min_size, sides

    def eval(self) -> None:
        """An export is in no other mode."""

    def predict(self, batch: Mapping[str, Any]) -> List[Instances]:
        """What is in each image of an evaluation batch, in pixels of the original."""
        image, *more = (np.asarray(batch[key], np.float32) for key in ("image", "shape", "scale"))
        if self.sides is not None:
            image = padded(image, self.sides, "an image")
        given, sizes = (image, *more), batch["original"].tolist()
        return [
            instances_of(
                self.program(dict(zip(INPUTS, (part[i : i + 1] for part in given)))), *size
            )
            for i, size in enumerate(sizes)
        ]


def exported_detector(opened: Opened) -> ExportedDetector:
    """What evaluation asks in place of the detector that was exported."""
    height, width = opened.signature.inputs[INPUTS[0]][2:]
    sides = None if height is None or width is None else (height, width)
    return ExportedDetector(opened, description_of(opened).min_size, sides)


def instances_of(outputs: Dict[str, np.ndarray], height: int, width: int) -> Instances:
    """The rows (label, score, x1, y1, x2, y2) of the program, and their masks, in an image of
    `height` x `width` pixels.
    """
    objects, grids = outputs["objects"], outputs.get("masks")
    boxes = objects[:, 2:]
    masks = None
    if grids is not None:
        masks = [paste(grid, box, height, width) for grid, box in zip(grids, boxes)]
    return Instances(boxes, objects[:, 1], objects[:, 0].astype(np.int64), masks)
