"""The engines: each makes a function from float32 [B, 3, H, W] to the model's output [B, classes].

An engine's own package is imported by its function, so that only the one in use must be installed.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def exported_file(folder, description, suffixes, wanted):
    """The path of the exported file with the first of `suffixes` that has one. ValueError, which
    says what is `wanted`, if there is none.
    """
    for suffix in suffixes:
        for name in description["Files"]:
            if name.endswith(suffix):
                return Path(folder) / name
    raise ValueError(f"{folder}: holds no {wanted}")


def paddle_engine(
    folder: str | Path,
    description: dict,
    device: str = "cpu",
    threads: int = 1,
    onednn: bool = True,
    precision: str | None = None,
    tensorrt: bool = False,
    batch_size: int = 8,
) -> Run:
    """The model, run by Paddle Inference.

    device: cpu or gpu. threads, onednn: on a CPU. Paddle 3 turns oneDNN on by itself, so False
    turns it off.
    precision: fp32; bf16 on a CPU with oneDNN; fp16 on a GPU; None: that of the export. tensorrt:
    on a GPU, from a .pdmodel, for batches up to `batch_size`. ImportError, or ValueError, one line,
    for what does not go together or cannot be loaded.
    """
    # what Paddle says when it is imported: a compiler cache, which nothing here would use
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle
    from paddle import inference

    program = exported_file(
        folder,
        description,
        (".json", ".pdmodel"),
        "program of Paddle's; export with --to paddle",
    )
    legacy = program.suffix == ".pdmodel"
    precision = precision or description.get("Export", {}).get("precision", "fp32")
    if device == "gpu" and not paddle.is_compiled_with_cuda():
        raise ValueError("--device gpu: this paddle has no CUDA; install paddlepaddle-gpu")
    if precision == "bf16" and not (device == "cpu" and onednn):
        raise ValueError("--precision bf16 is for a CPU with oneDNN; a GPU has fp16")
    if precision == "fp16" and device != "gpu":
        raise ValueError("--precision fp16 needs --device gpu; a CPU has bf16")
    if tensorrt and (device != "gpu" or not legacy):
        raise ValueError("--tensorrt needs --device gpu and a model exported with --format pdmodel")
    config = inference.Config(str(program), str(Path(folder) / "inference.pdiparams"))
    config.disable_glog_info()
    if not legacy:
        config.enable_new_ir(True)
        # memory optimisation of a .json program needs it
        config.enable_new_executor(True)
    config.enable_memory_optim()
    if device == "gpu":
        half = precision == "fp16"
        kind = inference.PrecisionType.Half if half else inference.PrecisionType.Float32
        config.enable_use_gpu(256, 0, kind)  # MB of the first pool; device 0
        if tensorrt:
            enable_tensorrt(config, description["Model"]["input"], batch_size, kind)
    else:
        set_up_cpu(config, threads, onednn, precision)
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:
        # Paddle's own, from C++; its first line says what, the rest where
        exporter = description.get("Versions", {}).get("paddle")
        raise ValueError(
            f"{folder}: this paddle cannot load the model, which paddle {exporter} exported: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    output = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(batch)
        predictor.run()
        return output.copy_to_cpu()

    return run


def set_up_cpu(config, threads, onednn, precision):
    """Paddle Inference on a CPU."""
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn() if onednn else config.disable_mkldnn()
    if precision == "bf16":
        config.enable_mkldnn_bfloat16()
    if precision == "int8" and onednn:
        config.enable_mkldnn_int8()
        # it refuses residual additions (Paddle 3.3.1)
        config.delete_pass("cpu_quantize_squash_pass")


def enable_tensorrt(config, source, batch_size, precision):
    """TensorRT for whatever part of the model it takes, at the export's image size and batches up
    to `batch_size`. source: the description of the model's input.
    """
    count, channels, height, width = source["shape"]
    height = height or source["image_size"][0]
    width = width or source["image_size"][1]
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=count or batch_size,
        min_subgraph_size=3,
        precision_mode=precision,
        use_static=False,
        use_calib_mode=False,
    )
    least = {source["name"]: [count or 1, channels, height, width]}
    most = {source["name"]: [count or batch_size, channels, height, width]}
    config.set_trt_dynamic_shape_info(least, most, most)


def onnxruntime_engine(
    folder: str | Path, description: dict, device: str = "cpu", threads: int = 1
) -> Run:
    """The model, run by ONNX Runtime. ImportError, or ValueError, one line."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    wanted = ".onnx file; export with --to onnx or --to openvino"
    path = exported_file(folder, description, (".onnx",), wanted)
    provider = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise ValueError("--device gpu: this onnxruntime has no CUDA; install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as error:
        raise ValueError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def openvino_engine(
    folder: str | Path, description: dict, device: str = "cpu", threads: int = 1
) -> Run:
    """The model, run by OpenVINO, which reads its own files and ONNX; on a CPU in float32.
    ImportError, or ValueError, one line.
    """
    import openvino

    wanted = ".xml or .onnx file; export with --to onnx or --to openvino"
    path = exported_file(folder, description, (".xml", ".onnx"), wanted)
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        settings |= {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.Core().compile_model(str(path), device.upper(), settings)
        request = compiled.create_infer_request()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: openvino {openvino.__version__} cannot load it: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    return lambda batch: request.infer([batch], share_outputs=True)[0]


ENGINES: dict[str, Callable[..., Run]] = {
    "paddle": paddle_engine,
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
}
PACKAGES = {"paddle": "paddlepaddle", "onnxruntime": "onnxruntime", "openvino": "openvino"}
ENGINE_OF_TARGET = {
    "paddle": "paddle",
    "onnx": "onnxruntime",
    "tensorrt": "onnxruntime",  # its ONNX; the engine is for deploy/tensorrt
    "openvino": "openvino",
}


def engine_of(folder: str | Path, description: dict) -> str:
    """The name of the engine that the export is for. ValueError if it is none of ENGINES."""
    # the oldest exports, all to Paddle, do not say
    target = description.get("Export", {}).get("target", "paddle")
    if target not in ENGINE_OF_TARGET:
        raise ValueError(
            f"{folder}: an export to {target}; this program runs exports to "
            f"{', '.join(ENGINE_OF_TARGET)}"
        )
    return ENGINE_OF_TARGET[target]


def load_engine(
    name: str,
    folder: str | Path,
    description: dict,
    device: str = "cpu",
    threads: int = 1,
    **options: Any,
) -> Run:
    """The model in `folder`, run by the engine `name`. options: paddle_engine's own. ValueError,
    one line, also for an engine that is not installed.
    """
    try:
        return ENGINES[name](folder, description, device, threads, **options)
    except ImportError as error:
        raise ValueError(
            f"--engine {name} is not installed: pip install {PACKAGES[name]} ({error})"
        ) from None
