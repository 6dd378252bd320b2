"""Export: a target a module, and what all share (target.py: files and their description; verify.py:
the comparison with the model).
"""

from typing import Dict

from . import coreml, lite, onnx, openvino, static, tensorrt
from .target import Target

__all__ = ["TARGETS"]

# By the name of --to, in the order that the commands show.
TARGETS: Dict[str, Target] = {
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
