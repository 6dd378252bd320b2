"""The target `openvino`: inference.xml and inference.bin (OpenVINO IR), made from the ONNX. fp16
stores the weights so.
"""

from .onnx import to_onnx
from .target import STEM, Target
from .verify import ExportError

__all__ = ["TARGET", "load"]


def _openvino():
    try:
        import openvino
        import openvino.passes
    except ImportError as error:
        raise ImportError(
            "OpenVINO files need openvino: pip install 'ppcls_nextvit[openvino]'"
        ) from error
    return openvino


def write(layer, folder, signature, precision, images):
    openvino = _openvino()
    core = openvino.Core()
    model = core.read_model(to_onnx(layer, signature).SerializeToString(), b"")
    passes = openvino.passes.Manager()
    # its ONNX reader computes the shape of every bias
    passes.register_pass(openvino.passes.ConstantFolding())
    passes.run_passes(model)
    path = folder / f"{STEM}.xml"
    openvino.save_model(model, str(path), compress_to_fp16=precision == "fp16")
    if precision == "int8":
        from .quantize import quantize_openvino

        quantize_openvino(path, images)
    return sum(
        node.get_type_name() not in ("Constant", "Parameter", "Result")
        for node in core.read_model(str(path)).get_ops()
    )


def load(folder, signature, precision="fp32", threads=1):
    """inference.xml in `folder` as a program (see verify.py), run on a CPU in float32. ExportError
    if it does not run.
    """
    openvino = _openvino()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        request = (
            openvino.Core()
            .compile_model(str(folder / f"{STEM}.xml"), "CPU", settings)
            .create_infer_request()
        )
    except RuntimeError as error:
        raise ExportError(f"the exported files do not run: {error}") from error

    def run(batch):
        outputs = request.infer(batch)
        return {name: outputs[name].copy() for name in signature.outputs}

    return run


TARGET = Target(
    "openvino",
    ("fp32", "fp16", "int8"),
    write,
    load,
    ("paddle2onnx", "onnx", "onnxslim", "openvino"),
)
