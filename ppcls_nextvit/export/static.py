"""The target `paddle`: a program for Paddle Inference.

inference.json        the program (PIR), or inference.pdmodel for older runtimes, Paddle Lite and OpenVINO
inference.pdiparams   weights
inference.yml         what export.json says, for programs that read PaddleClas's layout
"""

import json
import os

import paddle
import yaml
from paddle import nn

from .process import in_own_process
from .target import STEM, Target
from .verify import ExportError

__all__ = ["TARGET", "load", "operators", "save_program"]


SUFFIXES = {"pir": ".json", "pdmodel": ".pdmodel"}
# operators by name in PIR alone
OPERANDS = ("p", "1.data", "1.fetch", "1.full", "1.full_int_array", "0.combine", "0.split")


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


def save_program(layer, prefix, signature, format="pir"):
    """Write `layer` as PREFIX.json (`pdmodel`: PREFIX.pdmodel) and PREFIX.pdiparams; returns the
    number of operators.

    format: 'pir', or 'pdmodel', which Paddle writes only in a process that was started for it (see
    in_own_process). A script that asks for it needs `if __name__ == "__main__":`, as Python does
    for any such process. ValueError for another, ExportError if it dies.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be one of {', '.join(SUFFIXES)}; got {format!r}")
    if format == "pir":
        return _save(layer, str(prefix), signature)
    return in_own_process(_save, layer, str(prefix), signature, FLAGS_enable_pir_api="0")


def _save(layer, prefix, signature):
    specs = [
        paddle.static.InputSpec(list(shape), "float32", name)
        for name, shape in signature.inputs.items()
    ]
    recorded = paddle.jit.to_static(_Recorded(layer), input_spec=[specs], full_graph=True)
    paddle.jit.save(recorded, prefix)
    if os.path.exists(f"{prefix}.pdiparams.info"):
        # names for training further, which nothing here reads
        os.remove(f"{prefix}.pdiparams.info")
    if os.path.exists(f"{prefix}.pdmodel"):
        names = [
            operator.type
            for operator in recorded.forward.concrete_program.main_program.global_block().ops
        ]
        return sum(name not in ("feed", "fetch") for name in names)
    return len(operators(f"{prefix}.json"))


def operators(path):
    """The names of the operators of a .json program, in order, with their dialect: '1.conv2d'.
    Constants and parameters are none.
    """
    with open(path, encoding="utf-8") as file:
        found = json.load(file)["program"]["regions"][0]["blocks"][0]["ops"]
    return [operator["#"] for operator in found if operator["#"] not in OPERANDS]


def write(layer, folder, signature, precision, images, format="pir"):
    nodes = save_program(layer, folder / STEM, signature, format)
    if precision == "int8":
        from .quantize import quantize_paddle

        quantize_paddle(folder / STEM, images)
    return nodes


def describe(folder, description):
    (folder / f"{STEM}.yml").write_text(
        yaml.safe_dump(description, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def load(folder, signature, precision="fp32", threads=1):
    """The files in `folder` as a program (see verify.py), run by Paddle Inference on a CPU.
    ExportError if they do not run.
    """
    from paddle import inference

    program = next(
        path
        for path in (folder / f"{STEM}{suffix}" for suffix in SUFFIXES.values())
        if path.exists()
    )
    config = inference.Config(str(program), str(folder / f"{STEM}.pdiparams"))
    config.disable_glog_info()
    if b"_interp" in program.read_bytes():
        # its kernels cannot read the attributes of an interpolation (3.3.1)
        config.disable_mkldnn()
    else:
        config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads)
    if precision == "bf16":
        config.enable_mkldnn_bfloat16()
    if precision == "int8":
        config.enable_mkldnn_int8()
        config.delete_pass("cpu_quantize_squash_pass")  # it refuses residual additions (3.3.1)
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:  # Paddle's own, from C++
        raise ExportError(f"the exported files do not run: {error}") from error

    def run(batch):
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
    "paddle", ("fp32", "bf16", "int8"), write, load, describe=describe, dynamic_size=True
)
