"""Labels for image files: coloured over the picture with a legend, as PNG files of labels, and as
JSON with every class's area.
"""

from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
import paddle

from ...config import Config
from ...engine.distributed import start_processes
from ...models.segmentors.inference import segment
from ..base import PredictOutputs
from ..common import class_names, trained_model
from ..inputs import InputImage
from ..joint import OUT, ImagePredictor, infer_with
from .results import SegmentationResult
from .views import Views

__all__ = ["infer", "predict", "predict_image", "predictor"]


def predict_image(model: Any, image: np.ndarray, views: Views, name: str) -> np.ndarray:
    """image: uint8 [H, W, 3] -> labels int64 [H, W]. views: Views of the model's inference.
    ImageError for what the model cannot take.
    """
    with paddle.no_grad():
        (labels,) = segment(model, views(image, name), [image.shape[:2]], model.inference)
    return labels.numpy()


def predictor(config: Config) -> ImagePredictor:
    """The segmentor of `config` with its weights, ready to predict. ConfigError without weights."""
    names = class_names(config)
    start_processes(config.Global.device)
    model, _ = trained_model(config)
    transforms = config.section("Infer").transforms
    views = Views(transforms, model.inference, "Infer.transforms", model.min_size)

    def result(image: InputImage, names: Sequence[str]) -> SegmentationResult:
        labels = predict_image(model, image.pixels(), views, image.name)
        return SegmentationResult(image, labels, names)

    return ImagePredictor(names, result)


def infer(config: Config, out: Union[str, Path], json_file: Optional[str] = None) -> int:
    """Segment the images of Infer.infer_imgs into the directory `out`; returns the exit status, 1
    if an image could not be read.

    NAME_overlay.png: the picture under coloured labels, with a legend; NAME_labels.png: class ids.
    json_file: gets SegmentationResult.to_dict() of each image, or {file_name, error}. ConfigError
    where there are no images or no weights.
    """
    return infer_with(predictor, config, out, json_file)


def predict(config: Config, outputs: PredictOutputs) -> int:
    """Labels, coloured over every image of Infer.infer_imgs with a legend, as PNGs of class numbers
    and as JSON; see infer.
    """
    out = outputs.out or OUT
    status = infer(config, out, outputs.json)
    print(f"drawn in {out}")
    return status
