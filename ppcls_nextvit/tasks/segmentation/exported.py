"""An exported segmentor, ready to predict, and to be evaluated."""

from typing import Sequence

import numpy as np
import paddle
from paddle import Tensor

from ...data.images import ImageError
from ...data.transforms.joint import JointPipeline
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError, Program
from ...files import parsing
from ...models.resizing import resize_like
from ...models.segmentors.inference import Inference, best_class
from ..exported import any_batch, description_of
from ..inputs import InputImage
from ..joint import ImagePredictor, model_input
from .export import INPUT_NAME
from .results import SegmentationResult

__all__ = ["ExportedSegmentor", "exported_predictor", "exported_segmentor"]


def exported_predictor(opened: Opened) -> ImagePredictor:
    """The program of an exported segmentor with its preprocessing and names. It sees the whole
    image once: windows, scales and mirroring are not part of an export.
    """
    where, told = opened.folder / DESCRIPTION, description_of(opened)
    with parsing(str(where), ExportError):
        # in lower precision the best of two near classes is not told
        exact = opened.description["Export"]["precision"] == "fp32"
        ((key, (_, _, height, width)),) = opened.signature.inputs.items()
    pipeline = JointPipeline(told.transforms, f"{where}: transform_ops")
    program = any_batch(opened)

    def result(image: InputImage, names: Sequence[str]) -> SegmentationResult:
        pixels = image.pixels()
        array, size, _ = model_input(pixels, pipeline, image.name, told.min_size)
        if height is not None and array.shape[2:] != (height, width):
            raise ImageError(
                f"{image.name}: {array.shape[2]} x {array.shape[3]} pixels when transformed; the "
                f"exported program takes {height} x {width}"
            )
        outputs = program({key: array})
        if exact and tuple(size) == pixels.shape[:2]:
            # not resized: the program has told the labels
            labels = outputs["labels"][0, : size[0], : size[1]].astype(np.int64)
            return SegmentationResult(image, labels, names)
        labels = best_class(
            paddle.to_tensor(outputs["logits"][0]), array.shape[2:], size, pixels.shape[:2]
        ).numpy()
        return SegmentationResult(image, labels, names)

    return ImagePredictor(told.names, result)


class ExportedSegmentor:
    """An exported program in the place of the Segmentor that it came from, asked as `inference`
    says: by default for the whole image once.
    """

    shown = ()
    brings_losses = True  # and is not trained

    def __init__(
        self,
        program: Program,
        num_classes: int,
        min_size: int,
        inference: Inference = Inference(),  # noqa: B008 - frozen
    ) -> None:
        self.program, self.num_classes = program, num_classes
        self.min_size, self.inference = min_size, inference

    def eval(self) -> None:
        """An export is in no other mode."""

    def decode(self, image: Tensor) -> Tensor:
        """image: [B, C, H, W] -> logits [B, num_classes, h, w]."""
        return paddle.to_tensor(self.program({INPUT_NAME: image.numpy()})["logits"])

    def __call__(self, image: Tensor) -> Tensor:
        return resize_like(self.decode(image), image)


def exported_segmentor(opened: Opened) -> ExportedSegmentor:
    """What evaluation asks in place of the segmentor that was exported."""
    told = description_of(opened)
    return ExportedSegmentor(any_batch(opened), len(told.names), told.min_size)
