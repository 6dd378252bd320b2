"""The target `tensorrt`: inference.onnx as TensorRT wants it, to be built into an engine on the
machine that runs it (deploy/tensorrt).

Types are in the file, since newer TensorRT builds strongly typed networks alone: fp16 is float16
throughout, between float32 inputs and outputs. The file is checked by ONNX Runtime.
"""

from functools import partial

from . import onnx
from .target import Target

__all__ = ["TARGET"]

ENGINE = "tensorrt"

TARGET = Target(
    "tensorrt",
    ("fp32", "fp16", "int8"),
    partial(onnx.write, engine=ENGINE),
    onnx.load,
    onnx.TARGET.packages,
    next_step="where it will run: python deploy/tensorrt/build.py --model {directory}",
    int8_engine=ENGINE,
)
