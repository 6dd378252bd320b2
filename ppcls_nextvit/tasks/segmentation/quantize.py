"""A segmentor in int8 or bfloat16, and what that costs against float32."""

from typing import Any, List

import numpy as np
import paddle
from paddle import Tensor

from ...config import Config
from ...data.images import decode_image
from ...data.loader import build_loader
from ...export.verify import Program
from ...models.resizing import resize_like
from ...models.segmentors.inference import Inference
from ..base import QuantizeRequest
from ..common import list_images
from ..reduced import Reduced, quantize_dense
from .export import INPUT_NAME, export
from .views import Views

__all__ = ["ExportedSegmentor", "calibration_images", "quantize"]


class ExportedSegmentor:
    """An exported program in the place of the Segmentor `model` that it came from."""

    def __init__(self, model: Any, program: Program) -> None:
        self.inference, self.min_size = model.inference, model.min_size
        self.num_classes, self.program = model.num_classes, program

    def eval(self) -> None:
        """An export is in no other mode."""

    def decode(self, image: Tensor) -> Tensor:
        """image: [B, C, H, W] -> logits [B, num_classes, h, w]."""
        return paddle.to_tensor(self.program({INPUT_NAME: image.numpy()})["logits"])

    def __call__(self, image: Tensor) -> Tensor:
        return resize_like(self.decode(image), image)


def calibration_images(config: Config, request: QuantizeRequest, seed: int = 0) -> List[np.ndarray]:
    """At most `request.images` images, float32 [C, H, W], transformed as for prediction, drawn by
    `seed` from `request.calibration`, or else from DataLoader.Train.
    """
    views = Views(config.section("Infer").transforms, Inference(), "Infer.transforms")
    if request.calibration:
        paths = [str(path) for path in list_images(request.calibration)]
        total, read = len(paths), lambda index: decode_image(paths[index])
    else:
        section = config.section("DataLoader.Train")
        dataset: Any = build_loader(section, "Train", num_classes=config.Arch.class_num).dataset
        total, read = len(dataset), dataset.image
    if request.images < 1:
        raise ValueError(f"the number of images must be 1 or more; got {request.images}")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[: request.images])
    return [
        image[0].numpy()
        for index in chosen.tolist()
        for image, _ in views(read(index), f"calibration image {index}")
    ]


def quantize(config: Config, request: QuantizeRequest, task: Any) -> int:
    """Write the segmentor in the precision that `request` asks for, compare it with float32 on
    DataLoader.Eval, and print how they compare. Returns the exit status. task: the task's class.
    """
    way = Reduced(
        task,
        export,
        ExportedSegmentor,
        ("mIoU", "mAcc", "aAcc"),
        calibration_images,
        {"openvino": ("int8", "bf16"), "onnx": ("int8",), "paddle": ("bf16",)},
    )
    return quantize_dense(config, request, way)
