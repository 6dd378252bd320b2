"""The target `onnx`: inference.onnx, made by Paddle2ONNX and onnxslim, for ONNX Runtime and
whatever else reads ONNX.

Nothing is installed or fetched: Paddle2ONNX's own optimiser, which would, is not used.
"""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional

import numpy as np

from ..startup import threads as usable_threads
from .process import in_own_process
from .quantize import quantize_onnx
from .static import operators, save_program
from .target import STEM, Target
from .trunk import names_of, reduced
from .verify import ExportError, Program, Signature

__all__ = ["OPSET", "TARGET", "load", "to_onnx"]

OPSET = 17
EXTRA = "pip install 'ppcls_nextvit[onnx]'"
ENGINE = "onnxruntime"


def to_onnx(layer: Callable, signature: Signature, precision: str = "fp32") -> Any:
    """`layer` as an onnx.ModelProto with the names of `signature`; what a layer gives beyond them
    is its trunk (trunk.py), which in fp32 is among the outputs.

    precision: 'fp32', or 'fp16': then inputs and outputs stay float32, and so does a Softmax that
    makes an output. ImportError that names the extra; ExportError with the converter's own words if
    it cannot convert.
    """
    try:
        import onnx
        import onnxslim
        import paddle2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs paddle2onnx, onnx and onnxslim: {EXTRA} ({error})"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / STEM
        save_program(layer, prefix, signature)
        log = Path(f"{prefix}.log")
        try:
            # an operator that it does not know ends the process
            in_own_process(_convert, str(prefix))
            model = onnx.load(f"{prefix}.onnx", load_external_data=False)
        except (ExportError, FileNotFoundError):
            if not log.exists():
                raise
            raise ExportError(_complaint(log, f"{prefix}.json")) from None
    given = [value.name for value in model.graph.output]
    _rename(model.graph, dict(zip(given, names_of(signature, len(given)))))
    model = onnxslim.slim(model)
    if precision == "fp16":
        model = reduced(model, signature, _half)
    model.producer_name, model.graph.name = "ppcls_nextvit", STEM
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        told = str(error).splitlines()[0]
        raise ExportError(f"this model has no right ONNX in {precision}: {told}") from None
    return model


def _complaint(log: Path, program: str) -> str:
    """Why Paddle2ONNX could not convert `program`, by what it printed into the file `log`."""
    words = log.read_text(errors="replace").splitlines()
    reason = " ".join(line for line in words if "error" in line.lower()) or "it does not say why"
    names = sorted({name.partition(".")[2] for name in operators(program)})
    return f"Paddle2ONNX cannot convert this model: {reason} Its operators: {', '.join(names)}"


def _convert(prefix: str) -> None:
    """PREFIX.json and PREFIX.pdiparams -> PREFIX.onnx and, from then on, what this process prints
    -> PREFIX.log.
    """
    with open(f"{prefix}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _paddle2onnx(prefix)


def _paddle2onnx(prefix: str) -> None:
    import paddle2onnx

    try:
        paddle2onnx.export(
            f"{prefix}.json",
            f"{prefix}.pdiparams",
            f"{prefix}.onnx",
            opset_version=OPSET,
            optimize_tool="None",
        )
    except UnboundLocalError:
        # of its own, after it caught and printed another error; there is no file
        pass


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = names[value.name]


def _half(model: Any) -> Any:
    """`model` in float16 between float32 inputs and outputs; a Softmax at its end stays float32, as
    small probabilities need.
    """
    import onnxslim
    from onnxconverter_common import float16

    outputs = {value.name for value in model.graph.output}
    last = [
        node for node in model.graph.node if node.op_type == "Softmax" and node.output[0] in outputs
    ]
    for node in last:
        model.graph.node.remove(node)
        _value(model.graph.output, node.output[0]).name = node.input[0]
        # an output's type stands with the outputs alone
        inner = [value for value in model.graph.value_info if value.name == node.input[0]]
        for value in inner:
            model.graph.value_info.remove(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one for each weight below 1e-7
        model = float16.convert_float_to_float16(model, keep_io_types=True)
    for node in last:
        model.graph.node.append(node)
        _value(model.graph.output, node.input[0]).name = node.output[0]
    return onnxslim.slim(model)


def _value(values: Iterable[Any], name: str) -> Any:
    return next(value for value in values if value.name == name)


def write(
    layer: Callable,
    folder: Path,
    signature: Signature,
    precision: str,
    images: Iterable[np.ndarray],
    engine: str = ENGINE,
) -> int:
    """inference.onnx in `folder`; returns the number of operators. See Target.

    engine: for whose kernels int8 is made, a name of quantize.ONNX_SCHEMES.
    """
    model = to_onnx(layer, signature, "fp32" if precision == "int8" else precision)
    import onnx

    path = folder / f"{STEM}.onnx"

    def int8(model: Any) -> Any:
        onnx.save(model, str(path))
        quantize_onnx(path, images, engine)
        return onnx.load(str(path), load_external_data=False)

    if precision == "int8":
        model = reduced(model, signature, int8)
        onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return len(model.graph.node)


def load(
    folder: Path, signature: Signature, precision: str = "fp32", threads: Optional[int] = None
) -> Program:
    """inference.onnx in `folder` as a program (see verify.py), run by ONNX Runtime on a CPU.
    ExportError if it does not run.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as error:
        raise ImportError(f"running an exported ONNX model needs onnxruntime: {EXTRA}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(folder / f"{STEM}.onnx"), options, providers=["CPUExecutionProvider"]
        )
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as error:
        raise ExportError(f"the exported file does not run: {error}") from error
    return lambda batch: dict(zip(signature.outputs, session.run(list(signature.outputs), batch)))


TARGET = Target(
    "onnx",
    ("fp32", "fp16", "int8"),
    write,
    load,
    ("paddle2onnx", "onnx", "onnxslim", "onnxruntime"),
    int8_engine=ENGINE,
)
