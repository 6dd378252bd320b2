"""Predictions for image files: the model of a configuration, top-k with names, a labelled contact
sheet.
"""

import sys
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle.nn import functional as F
from PIL import Image, ImageDraw

from ...config import Config
from ...data.images import ImageError
from ...data.transforms.pipeline import Preprocess
from ...schema import shown_text
from ..base import PredictOutputs
from ..common import class_names, images_of, trained_model, write_json
from ..fonts import draw_text, shortened
from ..inputs import InputImage
from ..pictures import TEXT, fitted, fitting
from ..results import Failed, Predictor, Result, predictions
from .kind import is_multi_label
from .results import ClassificationResult, LabelsResult

__all__ = ["ClassPredictor", "contact_sheet", "predict", "predictor", "preprocess_of"]


SHEET_LIMIT = 400  # pictures on a contact sheet


def preprocess_of(config: Config) -> Preprocess:
    """The Preprocess of Infer.transforms."""
    return Preprocess(config.section("Infer").transforms, "Infer.transforms")


def predictor(config: Config) -> "ClassPredictor":
    """The model of `config` with its weights, ready to predict. ConfigError without weights."""
    names, preprocess, infer = class_names(config), preprocess_of(config), config.section("Infer")
    threshold = infer.threshold if is_multi_label(config) else None
    model, _ = trained_model(config)

    def probabilities(batch: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            logits = model(paddle.to_tensor(batch))
            return (F.softmax(logits, axis=-1) if threshold is None else F.sigmoid(logits)).numpy()

    return ClassPredictor(
        probabilities, preprocess, names, infer.topk, model.min_size, infer.batch_size, threshold
    )


class ClassPredictor(Predictor):
    """A classifier with its preprocessing and names.

    probabilities: float32 [B, channels, H, W] -> float32 [B, len(names)]. topk: how many classes a
    result lists. min_size: the smallest height and width that the model takes, in pixels. Images
    that preprocessing leaves at different sizes run one size at a time. threshold: of several
    labels an image, the probability from which on one is there; None for one label.
    """

    def __init__(
        self,
        probabilities: Callable[[np.ndarray], np.ndarray],
        preprocess: Preprocess,
        names: Sequence[str],
        topk: int,
        min_size: int,
        batch_size: int,
        threshold: Optional[float] = None,
    ) -> None:
        self.threshold = threshold
        self.probabilities = probabilities
        self.preprocess = preprocess
        self.names = names
        self.topk = topk
        self.min_size = min_size
        self.batch_size = batch_size

    def predict(self, images: Sequence[InputImage]) -> List[Result]:
        """See Predictor."""
        results: Dict[int, Result] = {}
        by_shape: Dict[Tuple[int, ...], List[Tuple[int, np.ndarray]]] = {}
        for index, image in enumerate(images):
            try:
                array = self._input(image)
                by_shape.setdefault(array.shape, []).append((index, array))
            except ImageError as error:
                results[index] = Failed(image, self.names, error)
        for group in by_shape.values():
            rows = self.probabilities(np.stack([array for _, array in group]))
            for (index, _), row in zip(group, rows):
                results[index] = self._result(images[index], row)
        return [results[index] for index in range(len(images))]

    def write(
        self,
        images: Sequence[InputImage],
        json: Optional[str] = None,
        sheet: Optional[str] = None,
        out: Optional[str] = None,
    ) -> int:
        """See Predictor: a line for each image, and a contact sheet."""
        results = []
        for result in predictions(self, images):
            results.append(result)
            if not isinstance(result, ClassificationResult):
                print("error:", result.error, file=sys.stderr)
                continue
            print(f"{shown_text(result.file_name)}: {result.line()}", flush=True)
        if json:
            write_json(json, [result.to_dict() for result in results])
        if sheet:
            contact_sheet(results).save(sheet, "png")
        return int(any(result.error for result in results))

    def _result(self, image: InputImage, row: np.ndarray) -> ClassificationResult:
        if self.threshold is None:
            return ClassificationResult(image, row, self.names, self.topk)
        return LabelsResult(image, row, self.names, self.threshold)

    def _input(self, image: InputImage) -> np.ndarray:
        array = self.preprocess(image.picture(), name=image.name)
        if min(array.shape[1:]) < self.min_size:
            raise ImageError(
                f"{image.name}: {array.shape[1]} x {array.shape[2]} pixels after preprocessing; "
                f"the model needs at least {self.min_size}"
            )
        return array


def predict(config: Config, outputs: PredictOutputs) -> int:
    """Top-k, or the labels, of every image of Infer.infer_imgs: printed, as JSON and as a contact
    sheet.

    Returns the exit status: 1 if an image could not be read. ConfigError where there are no images
    or no weights.
    """
    images = [InputImage(str(path), path) for path in images_of(config)]
    return predictor(config).write(images, outputs.json, outputs.sheet)


def contact_sheet(results: Sequence[Result], columns: int = 8, cell: int = 144) -> Image.Image:
    """A picture of the images of `results` (those without a result are left out), each over its
    best name and probability, or its labels.

    cell: side of a picture, in pixels. Small images grow by whole factors, so that their pixels
    stay visible. Returns a PIL image of at most SHEET_LIMIT pictures. ValueError if there is none.
    """
    shown = [result for result in results if isinstance(result, ClassificationResult)][:SHEET_LIMIT]
    if not shown:
        raise ValueError("no image could be read, so there is no contact sheet to draw")
    line, gap = 17, 8
    columns = min(columns, len(shown))
    width, height = cell + gap, cell + 2 * line + gap
    sheet = Image.new(
        "RGB", (columns * width + gap, -(-len(shown) // columns) * height + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, result in enumerate(shown):
        left, top = gap + index % columns * width, gap + index // columns * height
        picture = fitted(result.image.picture(), cell)
        result.image.release()
        sheet.paste(
            picture, (left + (cell - picture.width) // 2, top + (cell - picture.height) // 2)
        )
        name, score = result.caption()
        name = fitting(shortened(name), cell)
        draw_text(draw, (left, top + cell + 1), name, "black", TEXT)
        draw_text(draw, (left, top + cell + 1 + line), score, "#555555", TEXT)
    return sheet
