"""A segmentor in int8 or bfloat16, and what that costs against float32."""

from typing import Any

import paddle
from paddle import Tensor

from ...config import Config
from ...export.verify import Program
from ...models.resizing import resize_like
from ..base import QuantizeRequest
from ..reduced import Reduced, quantize_dense
from .export import INPUT_NAME, export

__all__ = ["ExportedSegmentor", "quantize"]


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


def quantize(config: Config, request: QuantizeRequest, task: Any) -> int:
    """Write the segmentor in the precision that `request` asks for, compare it with float32 on
    DataLoader.Eval, and print how they compare. Returns the exit status. task: the task's class.
    """
    way = Reduced(
        task,
        export,
        ExportedSegmentor,
        ("mIoU", "mAcc", "aAcc"),
        {"openvino": ("int8", "bf16"), "onnx": ("int8",), "paddle": ("bf16",)},
    )
    return quantize_dense(config, request, way)
