"""An exported segmentor, ready to predict."""

from typing import Sequence

import numpy as np
import paddle

from ...data.images import ImageError
from ...data.transforms.joint import JointPipeline
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError
from ...files import parsing
from ...models.segmentors.inference import best_class
from ..inputs import InputImage
from ..joint import ImagePredictor, model_input
from .results import SegmentationResult

__all__ = ["exported_predictor"]


def exported_predictor(opened: Opened) -> ImagePredictor:
    """The program of an exported segmentor with its preprocessing and names. It sees the whole
    image once: windows, scales and mirroring are not part of an export.
    """
    where, told = opened.folder / DESCRIPTION, opened.description
    with parsing(str(where), ExportError):
        names = [str(name) for name in told["PostProcess"]["label_list"]]
        transforms = told["PreProcess"]["transform_ops"]
        least = int(told["Model"]["input"]["min_size"])
        # in lower precision the best of two near classes is not told
        exact = told["Export"]["precision"] == "fp32"
        ((key, shape),) = opened.signature.inputs.items()
        batch, _, height, width = shape
    pipeline = JointPipeline(transforms, f"{where}: transform_ops")

    def result(image: InputImage, names: Sequence[str]) -> SegmentationResult:
        pixels = image.pixels()
        array, size, _ = model_input(pixels, pipeline, image.name, least)
        if height is not None and array.shape[2:] != (height, width):
            raise ImageError(
                f"{image.name}: {array.shape[2]} x {array.shape[3]} pixels when transformed; the "
                f"exported program takes {height} x {width}"
            )
        outputs = opened({key: np.repeat(array, batch or 1, axis=0)})
        if exact and tuple(size) == pixels.shape[:2]:
            # not resized: the program has told the labels
            labels = outputs["labels"][0, : size[0], : size[1]].astype(np.int64)
            return SegmentationResult(image, labels, names)
        labels = best_class(
            paddle.to_tensor(outputs["logits"][0]), array.shape[2:], size, pixels.shape[:2]
        ).numpy()
        return SegmentationResult(image, labels, names)

    return ImagePredictor(names, result)
