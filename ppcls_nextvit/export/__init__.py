"""Export: one reshaped graph (graph.py), one check (verify.py), and a module for each target."""
from . import onnx, openvino, static, tensorrt

__all__ = ["TARGETS"]

TARGETS = {module.TARGET.name: module.TARGET for module in (static, onnx, openvino, tensorrt)}
