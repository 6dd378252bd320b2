"""A detector in bfloat16, or its backbone and neck in int8, and what that costs against float32."""

from typing import Any, List, Mapping

import numpy as np

from ...config import Config
from ...export.verify import Program
from ...models.api import Instances
from ..base import QuantizeRequest
from ..reduced import Reduced, quantize_dense
from .export import INPUTS, export
from .exported import instances_of

__all__ = ["ExportedDetector", "quantize"]


class ExportedDetector:
    """An exported program in the place of the Detector `model` that it came from."""

    def __init__(self, model: Any, program: Program) -> None:
        self.min_size, self.program = model.min_size, program

    def eval(self) -> None:
        """An export is in no other mode."""

    def predict(self, batch: Mapping[str, Any]) -> List[Instances]:
        """What is in each image of an evaluation batch, in pixels of the original."""
        given = [np.asarray(batch[key], np.float32) for key in ("image", "shape", "scale")]
        sizes = batch["original"].tolist()
        return [
            instances_of(
                self.program(dict(zip(INPUTS, (part[i : i + 1] for part in given)))), *size
            )
            for i, size in enumerate(sizes)
        ]


def quantize(config: Config, request: QuantizeRequest, task: Any) -> int:
    """Write the detector in the precision that `request` asks for, compare it with float32 on
    DataLoader.Eval, and print how they compare. Returns the exit status. task: the task's class.
    """
    way = Reduced(
        task,
        export,
        ExportedDetector,
        ("box_map", "mask_map"),
        {"openvino": ("int8", "bf16"), "onnx": ("int8",), "paddle": ("bf16",)},
    )
    return quantize_dense(config, request, way)
