"""A segmentor in int8 or bfloat16, and what that costs against float32."""

from typing import Any

from ...config import Config
from ..base import QuantizeRequest
from ..reduced import Reduced, quantize_dense
from .export import export
from .exported import ExportedSegmentor

__all__ = ["quantize"]


def quantize(config: Config, request: QuantizeRequest, task: Any) -> int:
    """Write the segmentor in the precision that `request` asks for, compare it with float32 on
    DataLoader.Eval, and print how they compare. Returns the exit status. task: the task's class.
    """
    way = Reduced(
        task,
        export,
        lambda model, program: ExportedSegmentor(
            program, model.num_classes, model.min_size, model.inference
        ),
        ("mIoU", "mAcc", "aAcc"),
        {"openvino": ("int8", "bf16"), "onnx": ("int8",), "paddle": ("bf16",)},
    )
    return quantize_dense(config, request, way)
