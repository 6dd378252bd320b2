"""Objects in image files: boxes and masks drawn on the pictures, and as JSON with scores, class
names and run-length masks.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Optional

import numpy as np
import paddle

from ...config import check_mapping
from ...data.images import ImageError, decode_image
from ...data.transforms.joint import DensePipeline
from ...engine.distributed import start_processes
from ...models.backbones.nextvit import MIN_INPUT_SIZE
from ...models.detectors.masks import encode_rle, full, paste
from ...schema import ConfigError, coerce
from ..common import class_names, images_of, trained_model, write_json
from .pictures import draw_objects

__all__ = [
    "check_post_process",
    "infer",
    "model_inputs",
    "pasted",
    "predict_image",
    "transforms_of",
]


# objects below are neither drawn nor written, unless Infer.PostProcess.score_threshold says
# otherwise
SCORE_SHOWN = 0.3

log = logging.getLogger(__name__)


def check_post_process(post):
    """Infer.PostProcess verified: the score from which objects are shown. Raises ConfigError."""
    check_mapping(post, "Infer.PostProcess", ("score_threshold", "class_id_map_file"))
    coerce(post.get("class_id_map_file"), Optional[str], "Infer.PostProcess.class_id_map_file")
    threshold = coerce(
        post.get("score_threshold", SCORE_SHOWN), float, "Infer.PostProcess.score_threshold"
    )
    if not 0 <= threshold <= 1:
        raise ConfigError(f"Infer.PostProcess.score_threshold: must be in [0, 1], got {threshold}")
    return threshold


def pasted(found, height, width, threshold=0.0):
    """(boxes float32 [n, 4], scores [n], labels int64 [n], masks) of the Detections that score
    `threshold` or more, as arrays.

    masks: n times what `paste` returns for an image of that size.
    """
    boxes, scores, labels, masks = (part.numpy() for part in found)
    shown = scores >= threshold
    boxes, masks = (
        boxes[shown],
        [paste(mask, box, height, width) for mask, box in zip(masks[shown], boxes[shown])],
    )
    return boxes, scores[shown], labels[shown], masks


def transforms_of(config):
    """The DensePipeline of Infer.transforms."""
    return DensePipeline(config.section("Infer").transforms, "Infer.transforms")


def model_inputs(image, transforms, name):
    """What the model takes of one image, uint8 [H, W, 3]: float32 image [1, 3, H, W], shape [1, 2]
    before padding, scale [1, 2] (y, x).

    transforms: a DensePipeline. ImageError, beginning with `name`, for an image that is too small
    then.
    """
    sample = transforms(
        {"image": image, "scale": (1.0, 1.0), "flip": False}, np.random.default_rng(0), name
    )
    pixels, shape = sample["image"], sample.get("shape", sample["image"].shape[:2])
    if min(pixels.shape[:2]) < MIN_INPUT_SIZE:
        raise ImageError(
            f"{name}: {pixels.shape[0]} x {pixels.shape[1]} pixels when transformed; the model "
            f"needs {MIN_INPUT_SIZE} or more"
        )
    return (
        np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32),
        np.float32([shape]),
        np.float32([sample["scale"]]),
    )


def predict_image(model, image, transforms, name):
    """Detections in one image, uint8 [H, W, 3]. transforms: a DensePipeline. ImageError for what
    the model cannot take.
    """
    with paddle.no_grad():
        (found,) = model(*map(paddle.to_tensor, model_inputs(image, transforms, name)))
    return found


def infer(config, out, json=None):
    """Detect objects in the images of Infer.infer_imgs; NAME_objects.png go into the directory
    `out` (small images grow by whole factors).

    Returns the exit status: 1 if an image could not be read. ConfigError where there are no images
    or no weights.

    json: a file with, by image, {file_name, height, width, objects: [{class_id, label_name, score,
    box: [x1, y1, x2, y2], mask: {size, counts}}, ...]}, best first, or {file_name, error}.
    """
    paths, names, threshold = (
        images_of(config),
        class_names(config),
        check_post_process(config.Infer.PostProcess),
    )
    transforms, out, results = transforms_of(config), Path(out), []
    start_processes(config.Global.device)
    model, _ = trained_model(config)
    out.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in paths)
    for path in paths:
        try:
            image = decode_image(str(path))
            found = predict_image(model, image, transforms, str(path))
        except ImageError as error:
            log.error("%s", error)
            results.append({"file_name": str(path), "error": str(error)})
            continue
        height, width = image.shape[:2]
        boxes, scores, labels, masks = pasted(found, height, width, threshold)
        # a.jpg and a.png each keep their own
        stem = path.stem if stems[path.stem] == 1 else path.name
        draw_objects(
            image, boxes, scores, labels, [full(mask, height, width) for mask in masks], names
        ).save(out / f"{stem}_objects.png")
        objects = [
            {
                "class_id": int(label),
                "label_name": names[label],
                "score": float(score),
                "box": box.tolist(),
                "mask": encode_rle(mask, height, width),
            }
            for box, score, label, mask in zip(boxes, scores, labels, masks)
        ]
        results.append(
            {"file_name": str(path), "height": height, "width": width, "objects": objects}
        )
    if json:
        write_json(json, results)
    return int(any("error" in result for result in results))
