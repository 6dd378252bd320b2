"""What detectors and segmentors share when they are looked at."""

from typing import Any, Dict, List

import paddle

from ..data.transforms.joint import JointPipeline
from .inputs import InputImage
from .joint import model_input
from .subject import View, as_picture, check_pixels

__all__ = ["joint_view", "scaled_joint"]


def joint_view(
    image: InputImage, transform_ops: Any, model: Any, where: str = "Infer.transforms"
) -> View:
    """The View that a detector or a segmentor has of an image."""
    seen = model_input(
        image.pixels(), JointPipeline(transform_ops, where), image.name, model.min_size
    )
    check_pixels(seen.image.shape[2:], image.name)
    plain = [op for op in transform_ops if "Normalize" not in op]
    picture = model_input(image.pixels(), JointPipeline(plain, where), image.name, 1).image
    return View(paddle.to_tensor(seen.image), as_picture(picture[0]), seen.shape, seen.scale)


def scaled_joint(transform_ops: List[Dict[str, Any]], factor: float, side: int) -> List[Any]:
    """The transforms of a detector or a segmentor with the scale of Resize multiplied; where there
    is none, the first is to fit `side` x `side`.
    """
    if not any("Resize" in op for op in transform_ops):
        return [{"Resize": {"scale": [side, side]}}, *transform_ops]
    return [
        {**op, "Resize": {**op["Resize"], "scale": _times(op["Resize"]["scale"], factor)}}
        if "Resize" in op
        else op
        for op in transform_ops
    ]


def _times(scale: Any, factor: float) -> List[Any]:
    if isinstance(scale, list):
        return [_times(part, factor) for part in scale]
    return round(scale * factor)
