"""Objects in image files: boxes and masks drawn on the pictures, and as JSON with scores, class
names and run-length masks.
"""

from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

import numpy as np
import paddle

from ...config import Config
from ...data.transforms.joint import JointPipeline
from ...engine.distributed import start_processes
from ...models.api import Instances
from ...schema import ConfigError, check_mapping, coerce
from ..base import PredictOutputs
from ..common import class_names, trained_model
from ..inputs import InputImage
from ..joint import OUT, ImagePredictor, infer_with, model_input
from .results import DetectionResult

__all__ = [
    "check_post_process",
    "infer",
    "model_inputs",
    "predict",
    "predict_image",
    "predictor",
    "transforms_of",
]

# objects below are neither drawn nor written, unless Infer.PostProcess.score_threshold says
# otherwise
SCORE_SHOWN = 0.3


def check_post_process(post: Any) -> float:
    """Infer.PostProcess verified: the score from which objects are shown. Raises ConfigError."""
    check_mapping(post, "Infer.PostProcess", ("score_threshold", "class_id_map_file"))
    coerce(post.get("class_id_map_file"), Optional[str], "Infer.PostProcess.class_id_map_file")
    threshold = coerce(
        post.get("score_threshold", SCORE_SHOWN), float, "Infer.PostProcess.score_threshold"
    )
    if not 0 <= threshold <= 1:
        raise ConfigError(f"Infer.PostProcess.score_threshold: must be in [0, 1], got {threshold}")
    return threshold


def transforms_of(config: Config) -> JointPipeline:
    """The JointPipeline of Infer.transforms."""
    return JointPipeline(config.section("Infer").transforms, "Infer.transforms")


def model_inputs(
    image: np.ndarray, transforms: JointPipeline, name: str, min_size: int
) -> Dict[str, np.ndarray]:
    """What a detector takes of one image, uint8 [H, W, 3], all float32: image [1, 3, H, W], shape
    [1, 2] before padding, scale [1, 2] (y, x).

    ImageError, beginning with `name`, for an image that is too small then.
    """
    array, shape, scale = model_input(image, transforms, name, min_size)
    shapes, scales = np.array([shape], np.float32), np.array([scale], np.float32)
    return {"image": array, "shape": shapes, "scale": scales}


def predict_image(model: Any, image: np.ndarray, transforms: JointPipeline, name: str) -> Instances:
    """What a Detector in eval mode finds in one image, uint8 [H, W, 3]. ImageError for what the
    model cannot take.
    """
    inputs = model_inputs(image, transforms, name, model.min_size)
    batch = {key: paddle.to_tensor(array) for key, array in inputs.items()}
    with paddle.no_grad():
        (found,) = model.predict({**batch, "original": paddle.to_tensor([image.shape[:2]])})
    return found


def predictor(config: Config) -> ImagePredictor:
    """The detector of `config` with its weights, ready to predict. ConfigError without weights."""
    names = class_names(config)
    threshold = check_post_process(config.section("Infer").PostProcess)
    transforms = transforms_of(config)
    start_processes(config.Global.device)
    model, _ = trained_model(config)

    def result(image: InputImage, names: Sequence[str]) -> DetectionResult:
        found = predict_image(model, image.pixels(), transforms, image.name)
        return DetectionResult(image, found, names, threshold)

    return ImagePredictor(names, result)


def infer(config: Config, out: Union[str, Path], json_file: Optional[str] = None) -> int:
    """Detect objects in the images of Infer.infer_imgs; NAME_objects.png go into the directory
    `out` (small images grow by whole factors).

    Returns the exit status: 1 if an image could not be read. ConfigError where there are no images
    or no weights.

    json_file: gets DetectionResult.to_dict() of each image, or {file_name, error}.
    """
    return infer_with(predictor, config, out, json_file)


def predict(config: Config, outputs: PredictOutputs) -> int:
    """Boxes and masks, drawn on every image of Infer.infer_imgs, and as JSON; see infer."""
    out = outputs.out or OUT
    status = infer(config, out, outputs.json)
    print(f"drawn in {out}")
    return status
