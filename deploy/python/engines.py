"""The engines: each loads a model, as a function from its inputs to its outputs.

An engine's own package is imported by its function, so that only the one in use must be installed.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import startup
from agreement import check_inputs

Run = Callable[[np.ndarray], np.ndarray]  # float32 [B, 3, H, W] -> the model's first output
AMX_OR_AVX512 = {"amx_bf16", "avx512_bf16"}


class EngineError(ValueError):
    """What an engine could not run, in one line."""


class Engine:
    """A loaded model: `engine(batch)`, its first output for its one input; `engine.run({name:
    array})`, all its outputs in their order. EngineError for what it cannot run.

    inputs: their names. run: the engine's own. errors: what that raises, beside RuntimeError.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]],
        errors: tuple = (),
    ):
        self.inputs = inputs
        self._run = run
        self._errors = (RuntimeError, ValueError, MemoryError, *errors)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self.run({self.inputs[0]: batch})[0]

    def run(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs, in the order of the export's."""
        try:
            return self._run(arrays)
        except self._errors as error:  # of C++: the first line says what, the rest where
            shapes = ", ".join(" x ".join(map(str, array.shape)) for array in arrays.values())
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(f"the engine cannot run the model on {shapes}: {told}") from None


def native_precision(flags: Optional[str] = None) -> tuple[str, str]:
    """(bf16 or fp32, why): what this processor computes in fastest. flags: the text of
    /proc/cpuinfo.
    """
    if flags is None:
        try:
            flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        except OSError:
            return "fp32", "this system does not tell what its processor computes in"
    found = sorted(AMX_OR_AVX512 & set(flags.split()))
    if found:
        return "bf16", f"this processor has {' and '.join(found)}"
    return "fp32", "this processor has neither amx_bf16 nor avx512_bf16, and would imitate bf16"


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
) -> Engine:
    """The model, run by Paddle Inference.

    device: cpu or gpu. threads, onednn: on a CPU. Paddle 3 turns oneDNN on by itself, so False
    turns it off.
    precision: fp32; bf16 on a CPU with oneDNN; fp16 on a GPU; None: that of the export. tensorrt:
    on a GPU, from a .pdmodel, for batches up to `batch_size`. ImportError, or ValueError, one line,
    for what does not go together or cannot be loaded.
    """
    startup.prepare(threads)
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
    inputs = predictor.get_input_names()
    sources = {name: predictor.get_input_handle(name) for name in inputs}
    outputs = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(arrays):
        for name, array in arrays.items():
            sources[name].reshape(array.shape)
            sources[name].copy_from_cpu(np.ascontiguousarray(array))
        predictor.run()
        return [output.copy_to_cpu() for output in outputs]

    return Engine(inputs, run)


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
) -> Engine:
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
    names = outputs_of(description)
    return Engine(
        [source.name for source in session.get_inputs()],
        lambda arrays: session.run(names, dict(arrays)),
        (
            errors.Fail,
            errors.InvalidArgument,
            errors.NotImplemented,
            errors.RuntimeException,
        ),
    )


def openvino_engine(
    folder: str | Path,
    description: dict,
    device: str = "cpu",
    threads: int = 1,
    precision: str | None = None,
) -> Engine:
    """The model, run by OpenVINO, which reads its own files and ONNX. precision: fp32 or bf16, on a
    CPU; None: bf16 where the export is in that, else float32. ImportError, or ValueError, one line.
    """
    import openvino

    if precision == "fp16":
        raise ValueError("--precision fp16 is for a GPU, by Paddle Inference; openvino has bf16")
    precision = precision or description.get("Export", {}).get("precision", "fp32")

    wanted = ".xml or .onnx file; export with --to onnx or --to openvino"
    path = exported_file(folder, description, (".xml", ".onnx"), wanted)
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        hint = "bf16" if precision == "bf16" else "f32"
        settings |= {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    try:
        compiled = openvino.Core().compile_model(str(path), device.upper(), settings)
        request = compiled.create_infer_request()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: openvino {openvino.__version__} cannot load it: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    wanted_outputs = outputs_of(description) or [0]

    def run(arrays):
        found = request.infer(dict(arrays), share_outputs=True)
        return [found[output] for output in wanted_outputs]

    return Engine([source.get_any_name() for source in compiled.inputs], run)


def outputs_of(description: dict) -> Optional[list[str]]:
    """The names of the outputs in their order; None where the export does not say."""
    return description.get("Export", {}).get("outputs")


ENGINES: dict[str, Callable[..., Engine]] = {
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
) -> Engine:
    """The model in `folder`, run by the engine `name`. options: its own. ValueError, one line, also
    for an engine that is not installed.
    """
    try:
        engine = ENGINES[name](folder, description, device, threads, **options)
    except ImportError as error:
        raise ValueError(
            f"--engine {name} is not installed: pip install {PACKAGES[name]} ({error})"
        ) from None
    check_inputs((description.get("Export") or {}).get("inputs"), engine.inputs)
    return engine
