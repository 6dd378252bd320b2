"""The engines of the service: onnxruntime or paddle, whichever the exported folder is for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import startup
from agreement import check_inputs, few

Arrays = dict[str, np.ndarray]


class Engine:
    """A loaded model: `engine.run({name: array})`, all its outputs in their order;
    `engine(batch)`, the first one for its one input.
    """

    def __init__(self, inputs: Sequence[str], run: Callable[[Arrays], list[np.ndarray]]):
        self.inputs = inputs
        self.run = run

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self.run({self.inputs[0]: batch})[0]


def load(folder: str | Path, description: dict, device: str, threads: int) -> Engine:
    """The model of an export. ValueError or ImportError if it cannot be used."""
    export = description["Export"]
    files = {Path(name).suffix: str(Path(folder) / name) for name in description["Files"]}
    engine = LOADERS[export["target"]](
        files, device, threads, export.get("precision", "fp32"), export.get("outputs")
    )
    check_inputs(export.get("inputs"), engine.inputs)
    return engine


def load_onnx(
    files: dict[str, str],
    device: str,
    threads: int,
    precision: str = "fp32",
    outputs: Sequence[str] | None = None,
) -> Engine:
    """The model, run by ONNX Runtime. files: {suffix: path}. outputs: in which order; None: its
    own.
    """
    import onnxruntime

    if ".onnx" not in files:
        raise ValueError("export.json names no .onnx file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(
            f"--device {device}: this onnxruntime has no {provider}; install onnxruntime-gpu"
        )
    session = onnxruntime.InferenceSession(files[".onnx"], options, providers=[provider])
    inputs = [source.name for source in session.get_inputs()]
    found = [result.name for result in session.get_outputs()]
    if not set(outputs or ()) <= set(found):
        raise ValueError(
            f"Export.outputs: the description has {few(outputs)}, the program gives {few(found)}; "
            f"export again"
        )
    return Engine(inputs, lambda arrays: session.run(outputs, arrays))


def load_paddle(
    files: dict[str, str],
    device: str,
    threads: int,
    precision: str = "fp32",
    outputs: Sequence[str] | None = None,
) -> Engine:
    """The model, run by Paddle Inference. files: {suffix: path}. precision: the export's. outputs:
    here without names, in their order.
    """
    startup.prepare(threads)
    import paddle
    from paddle import inference

    program = files.get(".json") or files.get(".pdmodel")
    if not program or ".pdiparams" not in files:
        raise ValueError("export.json names no program of Paddle's with its .pdiparams")
    paddle.disable_signal_handler()  # it prints a page when a worker is told to end
    config = inference.Config(program, files[".pdiparams"])
    config.disable_glog_info()
    if ".json" in files:
        config.enable_new_ir(True)
        config.enable_new_executor(True)  # memory optimisation of a .json program needs it
    config.enable_memory_optim()
    if device == "gpu":
        config.enable_use_gpu(256, 0)  # MB of the first pool; device 0
    else:
        config.set_cpu_math_library_num_threads(threads)
        config.enable_mkldnn()
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        if precision == "int8":
            config.enable_mkldnn_int8()
            # it refuses residual additions (Paddle 3.3.1)
            config.delete_pass("cpu_quantize_squash_pass")
    predictor = inference.create_predictor(config)
    inputs = predictor.get_input_names()
    sources = {name: predictor.get_input_handle(name) for name in inputs}
    results = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(arrays):
        for name, array in arrays.items():
            sources[name].reshape(array.shape)
            sources[name].copy_from_cpu(array)
        predictor.run()
        return [result.copy_to_cpu() for result in results]

    return Engine(inputs, run)


LOADERS: dict[str, Callable[..., Engine]] = {"onnx": load_onnx, "paddle": load_paddle}
