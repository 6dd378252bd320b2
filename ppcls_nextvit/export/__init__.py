"""Export: one reshaped graph (graph.py), one check (verify.py), and a module for each target."""

from . import coreml, lite, onnx, openvino, static, tensorrt

__all__ = ["TARGETS"]

TARGETS = {
    target.name: target
    for target in (
        static.TARGET,
        onnx.TARGET,
        openvino.TARGET,
        tensorrt.TARGET,
        coreml.TARGET,
        *lite.TARGETS,
    )
}
