"""The target `openvino`: inference.xml and inference.bin (OpenVINO IR), made from the ONNX. fp16
stores the weights so; bf16 is computed from float32's files, by a setting.
"""

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional

import numpy as np

from ..startup import threads as usable_threads
from .onnx import to_onnx
from .quantize import EXTRA as INT8_EXTRA
from .quantize import required_images
from .target import STEM, Target
from .trunk import reduced_openvino
from .verify import Batch, ExportError, Program, Signature

__all__ = ["TARGET", "load", "quantize_openvino"]


def _openvino() -> Any:
    try:
        import openvino
        import openvino.passes
    except ImportError as error:
        raise ImportError(
            "OpenVINO files need openvino: pip install 'ppcls_nextvit[openvino]'"
        ) from error
    return openvino


def _fold_constants(model: Any) -> None:
    """Compute what depends on no input."""
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)


def write(
    layer: Callable,
    folder: Path,
    signature: Signature,
    precision: str,
    images: Iterable[np.ndarray],
) -> int:
    """inference.xml and inference.bin in `folder`; returns the number of operators. See Target."""
    openvino = _openvino()
    core = openvino.Core()
    model = core.read_model(to_onnx(layer, signature).SerializeToString(), b"")
    # its ONNX reader computes the shape of every bias
    _fold_constants(model)
    path = folder / f"{STEM}.xml"
    if precision == "int8":
        model = reduced_openvino(model, signature, partial(quantize_openvino, images=images))
    openvino.save_model(model, str(path), compress_to_fp16=precision == "fp16")
    return sum(
        node.get_type_name() not in ("Constant", "Parameter", "Result")
        for node in core.read_model(str(path)).get_ops()
    )


def quantize_openvino(model: Any, images: Iterable[np.ndarray]) -> Any:
    """`model`, an openvino.Model of one input in float32, as an int8 one, by NNCF. images: float32
    [C, H, W].

    NNCF's own choices but for two, measured on a trained model (agreement with float32 98.5 -> 99.4
    %, error of the logits 9.2 -> 2.5 %): activations keep their whole range, and biases are not
    corrected. ImportError without nncf; ValueError without images.
    """
    try:
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
        from nncf.quantization.range_estimator import (
            AggregatorType,
            RangeEstimatorParameters,
            StatisticsCollectorParameters,
            StatisticsType,
        )
    except ImportError as error:
        raise ImportError(
            f"int8 for OpenVINO needs nncf and openvino: {INT8_EXTRA} ({error})"
        ) from error
    images = required_images(images)
    # The weights of a grouped convolution come through a reshape, before which NNCF takes the wrong
    # axis for the channels: they would run in float.
    _fold_constants(model)
    whole = RangeEstimatorParameters(
        min=StatisticsCollectorParameters(StatisticsType.MIN, AggregatorType.MIN),
        max=StatisticsCollectorParameters(StatisticsType.MAX, AggregatorType.MAX),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(images, lambda image: image[None]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
            advanced_parameters=AdvancedQuantizationParameters(
                disable_bias_correction=True, activations_range_estimator_params=whole
            ),
        )


def load(
    folder: Path, signature: Signature, precision: str = "fp32", threads: Optional[int] = None
) -> Program:
    """inference.xml in `folder` as a program (see verify.py), run on a CPU in float32, or
    bfloat16 if that is the precision. ExportError if it does not run.
    """
    openvino = _openvino()
    settings = {
        "INFERENCE_NUM_THREADS": threads or usable_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        compiled = openvino.Core().compile_model(str(folder / f"{STEM}.xml"), "CPU", settings)
        request = compiled.create_infer_request()
    except RuntimeError as error:
        raise ExportError(f"the exported files do not run: {error}") from error

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        outputs = request.infer(batch)
        return {name: outputs[name].copy() for name in signature.outputs}

    return run


TARGET = Target(
    "openvino",
    ("fp32", "fp16", "bf16", "int8"),
    write,
    load,
    ("paddle2onnx", "onnx", "onnxslim", "openvino"),
)
