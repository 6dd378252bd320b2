"""Objects in image files: boxes and masks drawn on the pictures, and as JSON with scores, class
names and run-length masks.
"""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
import paddle

from ...config import Config
from ...data.rle import encode_mask
from ...data.transforms.joint import JointPipeline
from ...engine.distributed import start_processes
from ...models.api import Instances
from ...schema import ConfigError, check_mapping, coerce
from ..base import PredictOutputs
from ..common import class_names, images_of, trained_model
from ..joint import OUT, Drawn, draw_images, model_input
from .pictures import draw_objects

__all__ = [
    "check_post_process",
    "infer",
    "model_inputs",
    "predict",
    "predict_image",
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


def objects_of(found: Instances, names: Sequence[str]) -> List[Dict[str, Any]]:
    """[{class_id, label_name, score, box: [x1, y1, x2, y2], mask: {size, counts}}, ...] as json
    writes them; without masks where the detector has none.
    """
    objects = [
        {
            "class_id": int(label),
            "label_name": names[label],
            "score": float(score),
            "box": box.tolist(),
        }
        for box, score, label in zip(found.boxes, found.scores, found.labels)
    ]
    for entry, mask in zip(objects, found.masks or ()):
        entry["mask"] = encode_mask(mask)
    return objects


def infer(config: Config, out: Union[str, Path], json_file: Optional[str] = None) -> int:
    """Detect objects in the images of Infer.infer_imgs; NAME_objects.png go into the directory
    `out` (small images grow by whole factors).

    Returns the exit status: 1 if an image could not be read. ConfigError where there are no images
    or no weights.

    json_file: gets by image {file_name, height, width, objects: see objects_of}, best first, or
    {file_name, error}.
    """
    paths, names = images_of(config), class_names(config)
    threshold = check_post_process(config.section("Infer").PostProcess)
    transforms = transforms_of(config)
    start_processes(config.Global.device)
    model, _ = trained_model(config)

    def draw(image: np.ndarray, path: Path) -> Drawn:
        found = predict_image(model, image, transforms, str(path)).scoring(threshold)
        picture = draw_objects(image, found, names)
        return Drawn({"objects": objects_of(found, names)}, {"_objects.png": picture})

    return draw_images(paths, draw, out, json_file)


def predict(config: Config, outputs: PredictOutputs) -> int:
    """Boxes and masks, drawn on every image of Infer.infer_imgs, and as JSON; see infer."""
    out = outputs.out or OUT
    status = infer(config, out, outputs.json)
    print(f"drawn in {out}")
    return status
