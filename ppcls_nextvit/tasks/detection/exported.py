"""An exported detector, ready to predict."""

from typing import Any, Dict, Sequence

import numpy as np

from ...data.transforms.joint import JointPipeline
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError
from ...files import parsing
from ...models.api import Instances
from ...models.detectors.masks import paste
from ..inputs import InputImage
from ..joint import ImagePredictor
from .export import INPUTS, padded
from .predict import check_post_process, model_inputs
from .results import DetectionResult

__all__ = ["exported_predictor", "instances_of"]


def exported_predictor(opened: Opened) -> ImagePredictor:
    """The program of an exported detector with its preprocessing and names."""
    where, told = opened.folder / DESCRIPTION, opened.description
    with parsing(str(where), ExportError):
        names = [str(name) for name in told["PostProcess"]["label_list"]]
        transforms = told["PreProcess"]["transform_ops"]
        threshold = check_post_process({"score_threshold": told["PostProcess"]["score_threshold"]})
        least = int(told.get("Model", {}).get("input", {}).get("min_size", 1))
        sides: Any = opened.signature.inputs[INPUTS[0]][2:]
    pipeline = JointPipeline(transforms, f"{where}: transform_ops")

    def result(image: InputImage, names: Sequence[str]) -> DetectionResult:
        pixels = image.pixels()
        made = model_inputs(pixels, pipeline, image.name, least)
        batch = dict(zip(INPUTS, made.values()))
        if sides[0] is not None:
            batch[INPUTS[0]] = padded(batch[INPUTS[0]], sides, image.name)
        found = instances_of(opened(batch), *pixels.shape[:2])
        return DetectionResult(image, found, names, threshold)

    return ImagePredictor(names, result)


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
