"""The target `paddle`: a program for Paddle Inference.

inference.json        the program (PIR), or inference.pdmodel for older runtimes, Paddle Lite and
                      OpenVINO
inference.pdiparams   weights
inference.yml         what export.json says, for programs that read PaddleClas's layout
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import numpy as np
import paddle
import yaml
from paddle import nn

from ..models.recording import paddle_inference
from ..startup import threads as usable_threads
from .agreement import check_inputs
from .noise import without_noise
from .process import in_own_process
from .quantize import required_images
from .target import STEM, Target, reason_against
from .verify import Batch, ExportError, Program, Signature

__all__ = ["TARGET", "load", "operators", "quantize_paddle", "save_program"]

SUFFIXES = {"pir": ".json", "pdmodel": ".pdmodel"}
# operators by name in PIR alone
OPERANDS = ("p", "1.data", "1.fetch", "1.full", "1.full_int_array", "0.combine", "0.split")
# With it Paddle reads and writes the .pdmodel of older versions; read once, when it is imported.
OLD_PROGRAMS = {"FLAGS_enable_pir_api": "0"}


class _Recorded(nn.Layer):
    """`layer`, run as plain Python while it is recorded.

    Paddle's source transformation would turn every `if` on a size into an If operator; recorded
    plainly, an `if` on an unknown number is an error.
    """

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.eval()

    def forward(self, inputs):
        """inputs: a list, as Paddle names the inputs of a program; shapes as the layer's own [B,
        ...].
        """
        return self.run(*inputs)

    @paddle.jit.not_to_static
    def run(self, *inputs):
        return self.layer(*inputs)


def save_program(
    layer: Callable, prefix: os.PathLike | str, signature: Signature, kind: str = "pir"
) -> int:
    """Write `layer` as PREFIX.json (`pdmodel`: PREFIX.pdmodel) and PREFIX.pdiparams; returns the
    number of operators.

    kind: 'pir', or 'pdmodel', which Paddle writes only in a process that was started for it (see
    in_own_process). A script that asks for it needs `if __name__ == "__main__":`, as Python does
    for any such process. ValueError for another, ExportError if it dies.
    """
    if kind not in SUFFIXES:
        raise ValueError(f"format must be one of {', '.join(SUFFIXES)}; got {kind!r}")
    if kind == "pir":
        return _save(layer, str(prefix), signature)
    _check_old_program(layer)
    return in_own_process(_save, layer, str(prefix), signature, **OLD_PROGRAMS)


def _check_old_program(layer: Callable) -> None:
    """ExportError for a layer of which a part says why no .pdmodel can be written."""
    reason = reason_against("no_pdmodel", layer)
    if reason:
        raise ExportError(
            f"this model cannot be a .pdmodel: {reason}. That rules out --format pdmodel, int8 "
            "for Paddle, and Paddle Lite; export to paddle, onnx or openvino"
        )


def _save(layer: Callable, prefix: str, signature: Signature) -> int:
    specs = [
        paddle.static.InputSpec(list(shape), "float32", name)
        for name, shape in signature.inputs.items()
    ]
    recorded = paddle.jit.to_static(_Recorded(layer), input_spec=[specs], full_graph=True)
    with without_noise():
        paddle.jit.save(recorded, prefix)
    if os.path.exists(f"{prefix}.pdiparams.info"):
        # names for training further, which nothing here reads
        os.remove(f"{prefix}.pdiparams.info")
    if os.path.exists(f"{prefix}.pdmodel"):
        program = recorded.forward.concrete_program.main_program
        names = [operator.type for operator in program.global_block().ops]
        return sum(name not in ("feed", "fetch") for name in names)
    return len(operators(f"{prefix}.json"))


def operators(path: os.PathLike | str) -> List[str]:
    """The names of the operators of a .json program, in order, with their dialect: '1.conv2d'.
    Constants and parameters are none.
    """
    with open(path, encoding="utf-8") as file:
        found = json.load(file)["program"]["regions"][0]["blocks"][0]["ops"]
    return [operator["#"] for operator in found if operator["#"] not in OPERANDS]


def write(
    layer: Callable,
    folder: Path,
    signature: Signature,
    precision: str,
    images: Iterable[np.ndarray],
    format: str = "pir",  # noqa: A002  (the option's name in the commands and in export.json)
) -> int:
    """The program and its weights in `folder`; returns the number of operators. See Target."""
    with paddle_inference():
        nodes = save_program(layer, folder / STEM, signature, format)
    if precision == "int8":
        quantize_paddle(folder / STEM, images)
    return nodes


def quantize_paddle(prefix: os.PathLike | str, images: Iterable[np.ndarray]) -> None:
    """PREFIX.pdmodel and PREFIX.pdiparams, float32, become an int8 model, by Paddle's own
    PostTrainingQuantization.

    images: float32 [C, H, W], to calibrate with.
    Convolutions, that is all layers but the attention products, are quantised. It runs in a process
    of its own, since Paddle (3.3.1) quantises only what it has read as a .pdmodel. Paddle Inference
    computes it in int8 on a CPU, after what `load` sets. ExportError for a .json program.
    """
    images = required_images(images)
    if not Path(f"{prefix}.pdmodel").is_file():
        raise ExportError(
            "Paddle cannot quantise a .json program; export int8 for Paddle with --format pdmodel"
        )
    in_own_process(_quantize_pdmodel, str(prefix), images, **OLD_PROGRAMS)


def _quantize_pdmodel(prefix: str, images: Sequence[np.ndarray]) -> None:
    """The work of quantize_paddle, in a process where Paddle writes the old format."""
    from paddle.static.quantization import PostTrainingQuantization

    paddle.enable_static()
    folder, stem = os.path.split(prefix)
    files = {"model_filename": f"{stem}.pdmodel", "params_filename": f"{stem}.pdiparams"}
    executor = paddle.static.Executor(paddle.CPUPlace())
    _, (name, *_), _ = paddle.static.load_inference_model(prefix, executor)
    # progress bars
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        quantization = PostTrainingQuantization(
            executor,
            folder,
            **files,
            data_loader=lambda: ({name: image[None]} for image in images),
            batch_size=1,
            batch_nums=len(images),
            algo="abs_max",
            quantizable_op_type=["conv2d", "depthwise_conv2d"],
            onnx_format=True,
        )
        quantization.quantize()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            quantization.save_quantized_model(work, **files)
            for file in files.values():
                os.replace(os.path.join(work, file), os.path.join(folder, file))


def describe(folder: Path, description: Dict[str, Any]) -> None:
    """inference.yml in `folder`: `description` in YAML."""
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (folder / f"{STEM}.yml").write_text(text, encoding="utf-8")


def load(
    folder: Path, signature: Signature, precision: str = "fp32", threads: Optional[int] = None
) -> Program:
    """The files in `folder` as a program (see verify.py), run by Paddle Inference on a CPU.
    ExportError if they do not run.
    """
    from paddle import inference

    kinds = [folder / f"{STEM}{suffix}" for suffix in SUFFIXES.values()]
    program = next(path for path in kinds if path.exists())
    config = inference.Config(str(program), str(folder / f"{STEM}.pdiparams"))
    config.disable_glog_info()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads or usable_threads())
    if precision == "bf16":
        config.enable_mkldnn_bfloat16()
    if precision == "int8":
        config.enable_mkldnn_int8()
        config.delete_pass("cpu_quantize_squash_pass")  # it refuses residual additions (3.3.1)
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:  # Paddle's own, from C++
        raise ExportError(f"the exported files do not run: {error}") from error
    try:
        check_inputs(signature.inputs, predictor.get_input_names())
    except ValueError as error:
        raise ExportError(f"{folder}: {error}") from None

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        for name in signature.inputs:
            handle = predictor.get_input_handle(name)
            handle.reshape(batch[name].shape)
            handle.copy_from_cpu(batch[name])
        try:
            predictor.run()
        except RuntimeError as error:
            raise ExportError(f"the exported files do not run: {error}") from error
        return {
            name: predictor.get_output_handle(own).copy_to_cpu()
            for name, own in zip(signature.outputs, predictor.get_output_names())
        }

    return run


TARGET = Target(
    "paddle",
    ("fp32", "bf16", "int8"),
    write,
    load,
    describe=describe,
    dynamic_size=True,
    formats=tuple(SUFFIXES),
    int8_options={"format": "pdmodel"},
)
