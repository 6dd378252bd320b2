"""A detector in bfloat16, or its backbone and neck in int8, and what that costs against float32."""

from typing import Any

from ...config import Config
from ..base import QuantizeRequest
from ..reduced import Reduced, quantize_dense
from .export import export
from .exported import ExportedDetector

__all__ = ["quantize"]


def quantize(config: Config, request: QuantizeRequest, task: Any) -> int:
    """Write the detector in the precision that `request` asks for, compare it with float32 on
    DataLoader.Eval, and print how they compare. Returns the exit status. task: the task's class.
    """
    way = Reduced(
        task,
        export,
        lambda model, program: ExportedDetector(program, model.min_size),
        ("box_map", "mask_map"),
        {"openvino": ("int8", "bf16"), "onnx": ("int8",), "paddle": ("bf16",)},
    )
    return quantize_dense(config, request, way)
