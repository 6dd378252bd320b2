"""An exported model behind a service: from preprocessed pictures to their best classes. Needs numpy
and onnxruntime or paddle, whichever the exported folder is for.
"""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from decoding import one_line, read_regular
from fields import MAX_BYTES, check_fields, task_of

Run = Callable[[np.ndarray], np.ndarray]  # float32 [B, 3, H, W] -> [B, classes]


def read_description(folder: str | Path) -> dict:
    """The contents of export.json, after the hashes it holds were compared. FileNotFoundError or
    ValueError, one line.
    """
    path = Path(folder) / "export.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a folder that tools/export_model.py wrote"
        )
    try:
        description = json.loads(read_regular(path, MAX_BYTES))
        if task_of(description) != "classification":
            raise ValueError(f"it is for {task_of(description)}")
        check_fields(description)
        target = description["Export"]["target"]
    except Exception as error:  # of the parser: anything; a KeyError: no target
        told = one_line(error) or type(error).__name__
        raise ValueError(f"{path}: not the description of an exported classifier: {told}") from None
    shape = description["Model"]["input"]["shape"]
    names = len(description["PostProcess"]["Topk"]["label_list"])
    classes = description["Model"].get("class_num", names)
    if names != classes:
        raise ValueError(
            f"{path}: {names} class names for {classes} classes; export again with the right "
            f"label file"
        )
    if target not in LOADERS:
        raise ValueError(
            f"{folder}: an export to {target}; this program runs {' and '.join(LOADERS)}"
        )
    if shape[0] is not None:
        raise ValueError(
            f"{folder}: the batch is fixed at {shape[0]}; batching needs an export with --batch "
            f"dynamic"
        )
    for name, entry in description["Files"].items():
        file = Path(folder) / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file, yet {path.name} lists it")
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{file}: does not match {path.name}, so it is damaged or of another export; "
                f"export or copy again"
            )
    return description


def load_onnx(files: dict[str, str], device: str, threads: int) -> Run:
    """The model, run by ONNX Runtime. files: {suffix: path}."""
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
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def load_paddle(files: dict[str, str], device: str, threads: int) -> Run:
    """The model, run by Paddle Inference. files: {suffix: path}."""
    # what Paddle says when it is imported: a compiler cache, which nothing here would use
    warnings.filterwarnings("ignore", message="No ccache found")
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
    predictor = inference.create_predictor(config)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(batch)
        predictor.run()
        return result.copy_to_cpu()

    return run


LOADERS = {"onnx": load_onnx, "paddle": load_paddle}


class Classifier:
    """`classifier(images)`: a list of float32 [3, H, W] -> probabilities, one [classes] for each.
    Sizes that differ run one at a time.

    folder: the exported files. device: cpu or gpu. threads: on a CPU.
    """

    def __init__(
        self, folder: str | Path, description: dict, device: str = "cpu", threads: int = 1
    ):
        files = {Path(name).suffix: str(Path(folder) / name) for name in description["Files"]}
        self.run = LOADERS[description["Export"]["target"]](files, device, threads)
        self.softmax = description["Model"]["softmax"]

    def __call__(self, images: list[np.ndarray]) -> list[np.ndarray]:
        by_shape: dict[tuple, list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(index)
        rows: dict[int, np.ndarray] = {}
        for indices in by_shape.values():
            output = self.run(np.stack([images[index] for index in indices]))
            if not self.softmax:
                exponent = np.exp(output - output.max(axis=-1, keepdims=True))
                output = exponent / exponent.sum(axis=-1, keepdims=True)
            rows.update(zip(indices, output))
        return [rows[index] for index in range(len(images))]


def best(row: np.ndarray, k: int, names: list[str]) -> list[dict]:
    """The k largest of `row` [classes], best first: [{class_id, label, score}]."""
    return [
        {"class_id": i, "label": names[i], "score": float(row[i])}
        for i in np.argsort(-row, kind="stable")[:k].tolist()
    ]
