"""int8 by post-training quantisation: each function quantises the files that a target has just written, in place.

images: preprocessed float32 [C, H, W], to calibrate with.
"""
from .verify import ExportError

__all__ = ["quantize_onnx", "quantize_openvino", "quantize_paddle"]


def quantize_openvino(path, images):
    """path: of the .xml; the .bin beside it belongs to it."""
    raise ExportError("int8 is not made yet")


def quantize_onnx(path, images, engine="onnxruntime"):
    """path: of the .onnx. engine: 'onnxruntime' or 'tensorrt', which takes symmetric activations only."""
    raise ExportError("int8 is not made yet")


def quantize_paddle(prefix, images):
    """prefix: of the .json (or .pdmodel) and the .pdiparams."""
    raise ExportError("int8 is not made yet")
