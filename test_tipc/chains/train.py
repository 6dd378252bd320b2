"""Train, evaluate, export and predict on every device of a txt file; in mode whole_infer, evaluate,
export and predict given weights.
"""

import itertools
import re
import shlex
import shutil
from dataclasses import dataclass

from . import stored
from .params import command_options
from .prepare import TRAINING, data_options, seeded_weights
from .run import ROOT, Chain, chain_program, gpus, prepared, use_gpu

AUTO_CAST = {
    None: "-o AMP.use_amp=False",
    "fp32": "-o AMP.use_amp=False",
    "amp": "-o AMP.use_amp=True -o AMP.scale_loss=128 -o AMP.use_dynamic_loss_scaling=True -o "
    "AMP.level=O1",
    "fp16": "-o AMP.use_amp=True -o AMP.scale_loss=128 -o AMP.use_dynamic_loss_scaling=True -o "
    "AMP.level=O2",
}
EXPORTS = {
    "norm_train": "norm_export",
    "amp_train": "norm_export",
    "to_static_train": "norm_export",
    "pact_train": "quant_export",
    "fpgm_train": "fpgm_export",
    "distill_train": "distill_export",
}
LOGS = "python_infer_"
ENTRY = re.compile(r"([^;]+;)?(-1|\d+)(,(-1|\d+))*")  # machines; processes
KINDS = ("fleet", "amp")  # of files with results of their own


@dataclass(frozen=True)
class Place:
    """Where an entry of gpu_list trains: `-1` is one process on the CPU, `-1,-1` two, `0` is GPU 0,
    `0,1` two processes.
    """

    entry: str
    device: str

    @property
    def count(self):
        return len(self.entry.split(","))

    def lacking(self, auto_cast=None):
        """What this machine has not got for it, or None."""
        if ";" in self.entry:
            return "several machines are started by hand, on each of them"
        needed = max([self.count, *(int(number) + 1 for number in self.entry.split(","))])
        if self.device == "gpu" and gpus() < needed:
            return f"{gpus() or 'no'} GPU" + f" of {needed}" * (needed > 1)
        if self.device != "gpu" and auto_cast in ("amp", "fp16"):
            return "mixed precision needs a GPU"
        return None

    def environment(self):
        return {"CUDA_VISIBLE_DEVICES": self.entry.split(",")[0]} if self.device == "gpu" else {}

    def launch(self, logs):
        """The arguments that start the processes; their logs go to the folder `logs`."""
        if self.count == 1:
            return []
        processes = (
            f"--devices={self.entry}" if self.device == "gpu" else f"--nproc_per_node={self.count}"
        )
        return ["-m", "paddle.distributed.launch", processes, f"--log_dir={logs}"]


def places(section):
    """The entries of gpu_list with their devices, by position; one device stands for all."""
    entries, devices = section.list("gpu_list"), section.list("-o Global.device", of=("cpu", "gpu"))
    devices = devices * len(entries) if len(devices) == 1 else devices
    if len(devices) != len(entries):
        raise section.wrong(
            ("-o Global.device",),
            f"one device, or one for each of gpu_list's {len(entries)} entries",
        )
    if not all(ENTRY.fullmatch(entry or "") for entry in entries):
        raise section.wrong(("gpu_list",), "numbers, -1 for a CPU", "gpu_list:-1|0|0,1")
    return [Place(entry, device) for entry, device in zip(entries, devices)]


class Training:
    """The lines of train_params. mode: says how many epochs, unless `epochs` does."""

    def __init__(self, params, mode, epochs=None):
        section = params["train_params"]
        self.model, self.python = section.text("model_name"), section.text("python")
        self.places, self.casts = places(section), section.list("-o Global.auto_cast", of=AUTO_CAST)
        self.trainers = trainers(section)
        self.epochs = epochs or section.of_mode(mode, "-o Global.epochs")
        self.weights = section.text("train_model_name")
        batch = section.key(
            "-o DataLoader.Train.sampler.batch_size", "-o DataLoader.Train.sampler.first_bs"
        )
        self.options = [
            option
            for key in (batch, "-o Global.pretrained_model")
            for option in command_options(key, section.optional(key))
        ]

    def run(self, chain, name, trainer, place, cast, data, *more, environment=None):
        """Run the program `trainer` with its options and `more`; the prefix of the weights that it
        saved, or None.

        name: of its log, and of the folder of its output, which is emptied before (see `discard`).
        environment: further variables.
        """
        output = chain.log(name).with_suffix("")
        shutil.rmtree(ROOT / output, ignore_errors=True)
        command = [
            chain.python,
            *place.launch(output / "launch"),
            *shlex.split(trainer),
            "-o",
            f"Global.device={place.device}",
            "-o",
            f"Global.output_dir={output}",
            "-o",
            f"Global.epochs={self.epochs}",
            *shlex.split(AUTO_CAST[cast]),
            *self.options,
            "-o",
            "Global.print_mem_info=True",
            *data,
            *more,
        ]
        lacking = place.lacking(cast)
        if lacking:
            chain.skip(shlex.join(map(str, command)), lacking)
            return None
        environment = {**(environment or {}), **(place.environment() if place.count == 1 else {})}
        return (
            output / chain.model / self.weights if chain.run(command, name, environment) else None
        )


def discard(chain, name):
    """Remove what `name` saved, once it has served: each is a gigabyte, and the logs say what came
    of it.
    """
    shutil.rmtree(ROOT / chain.log(name).with_suffix(""), ignore_errors=True)


def trainers(section):
    """{name: program with its arguments} of the list `trainer`; a name whose program is null is
    left out.
    """
    found = {}
    for name in section.list("trainer", of=tuple(EXPORTS)):
        if section.optional(name):
            found[name] = (
                f"{section.text('norm_train')} {section.text(name)}"
                if name == "to_static_train"
                else section.text(name)
            )
    if not found:
        raise section.wrong(
            ("trainer",), "a trainer whose own line is not null", "trainer:norm_train"
        )
    return found


class Inference:
    """The lines of infer_params: exporting and predicting."""

    def __init__(self, section):
        self.exports = {key: section.optional(key) for key in EXPORTS.values()}
        # exported before, or here
        self.models = [] if section.flags("infer_export") == [True] else section.list("infer_model")
        self.program = section.text("inference")
        self.section = section
        self.quantised = section.flags("infer_quant") == [True]
        self.devices = section.list(
            "--device", "-o Global.use_gpu", of=("cpu", "gpu", "True", "False")
        )
        self.onednn = section.flags("--onednn", "-o Global.enable_mkldnn")
        self.tensorrt = section.flags("--tensorrt", "-o Global.use_tensorrt")
        self.threads = section.numbers("--threads", "-o Global.cpu_num_threads")
        # null for detectors and segmentors, which take image by image
        self.batch_sizes = section.numbers("--batch-size", "-o Global.batch_size", or_none=True)
        self.precisions = section.list(
            "--precision", "-o Global.use_fp16", of=("fp32", "fp16", "bf16", "True", "False", None)
        )
        self.images = section.text("--images", "-o Global.infer_imgs")

    def option(self, value, *keys):
        """`value` under the one of `keys` that the file has."""
        key = self.section.key(*keys)
        return command_options(
            key, str(value) if key.startswith("-o ") and value is not None else value
        )

    def command(self, chain, model, device="cpu", precision=None, batch=1):
        return [
            *chain.program(self.program),
            *self.option(device, "--device", "-o Global.use_gpu"),
            *self.option(model, "--model", "-o Global.inference_model_dir"),
            *self.option(self.images, "--images", "-o Global.infer_imgs"),
            *self.option(batch, "--batch-size", "-o Global.batch_size"),
            *self.option(precision, "--precision", "-o Global.use_fp16"),
            *self.option(
                self.section.optional("--repeat", "-o Global.benchmark"),
                "--repeat",
                "-o Global.benchmark",
            ),
        ]

    def run(self, chain, prefix, model, environment=None):
        """Predict with the exported `model` on every device, in every combination of the file's
        values; each is a command of its own.
        """
        for device, precision, batch in itertools.product(
            self.devices, self.precisions, self.batch_sizes
        ):
            gpu, half = device in ("gpu", "True"), precision in ("fp16", "True")
            name = (
                "int8"
                if self.quantised
                else "fp16"
                if half
                else precision
                if precision == "bf16"
                else "fp32"
            )
            kind = f"precision_{name}_batchsize_{batch or 1}"
            command = self.command(chain, model, device, precision, batch)
            if gpu and gpus() == 0:
                chain.skip(shlex.join(map(str, command)), "no GPU")
            elif half and not gpu:
                chain.skip(shlex.join(map(str, command)), "fp16 needs a GPU")
            elif gpu:
                for tensorrt in self.tensorrt:
                    self.predict(
                        chain,
                        [
                            *command,
                            *(
                                self.option(True, "--tensorrt", "-o Global.use_tensorrt")
                                if tensorrt
                                else []
                            ),
                        ],
                        f"{prefix}gpu_usetrt_{tensorrt}_{kind}",
                        environment,
                    )
            else:
                for onednn, threads in itertools.product(self.onednn, self.threads):
                    self.predict(
                        chain,
                        [
                            *command,
                            *self.option(onednn, "--onednn", "-o Global.enable_mkldnn"),
                            *self.option(threads, "--threads", "-o Global.cpu_num_threads"),
                        ],
                        f"{prefix}cpu_usemkldnn_{onednn}_threads_{threads}_{kind}",
                        environment,
                    )

    def predict(self, chain, command, log, environment=None):
        """Our programs write predictions with --json; those of a suite's file only run."""
        return (chain.predict if "--json" in self.section.entries else chain.run)(
            command, log, environment
        )

    def export(self, chain, name, trainer, weights, data):
        """Export `weights` as the line for `trainer` says; the folder, or None if that line is null
        or the program failed.
        """
        program = self.exports[EXPORTS[trainer]]
        if program is None:
            return None
        folder = chain.log(name).with_suffix("") / "inference"
        options = [
            "-o",
            f"Global.pretrained_model={weights}",
            "-o",
            f"Global.save_inference_dir={folder}",
            *data,
        ]
        return folder if chain.run(chain.program(program, *options), f"{name}_export") else None


def evaluate(chain, program, name, weights, device, data):
    """Run the evaluation `program` on `weights`; None is no program."""
    if program is not None:
        options = "-o", f"Global.pretrained_model={weights}", "-o", f"Global.device={device}", *data
        chain.run(chain.program(program, *options), f"{name}_eval")


def train_and_infer(params, mode):
    """Every place, precision and trainer of the file: train, evaluate, export, predict; what needs
    the step before ends with it.
    """
    training = Training(params, mode)
    inference = Inference(params["infer_params"])
    evaluation = params["eval_params"].optional("eval")
    data = data_options(params, mode)
    kind = next((f"_{kind}" for kind in KINDS if f"_{kind}_" in params.path.stem), "")
    chain = Chain(f"python{kind}", training.model, mode, training.python)
    for place, cast, (trainer, program) in itertools.product(
        training.places, training.casts, training.trainers.items()
    ):
        name = f"{trainer}_gpus_{place.entry}_autocast_{cast or 'null'}_nodes_1"
        failed = chain.failed
        weights = training.run(chain, name, program, place, cast, data)
        if weights is None:
            continue
        evaluate(chain, evaluation, name, weights, place.device, data)
        folder = inference.export(chain, name, trainer, weights, data)
        if folder:
            inference.run(chain, f"{name}_infer_", folder, place.environment())
        if chain.failed == failed:
            discard(chain, name)
    return chain


def infer(params, mode, gpu_id=None):
    """Evaluate, export and predict the weights that infer_params names; predictions of the seeded
    ones are compared with those stored.
    """
    use_gpu(gpu_id)
    section = params["train_params"]
    inference = Inference(params["infer_params"])
    evaluation = params["eval_params"].optional("eval")
    model = section.text("model_name")
    given = params["infer_params"].optional("-o Global.pretrained_model")
    weights = given or prepared(seeded_weights(model), params, mode)
    # the seeded weights have the classes of data/lite
    data = data_options(params, mode, None if given else ("lite", "whole"))
    folders = [prepared(folder, params, mode) for folder in inference.models]
    chain = Chain("python", model, mode, section.text("python"))
    stored.remove_logs(chain, LOGS)
    evaluate(chain, evaluation, "infer", weights, "cpu", data)
    for folder in folders or filter(
        None, [inference.export(chain, "infer", "norm_train", weights, data)]
    ):
        inference.run(chain, LOGS, folder)
    if not given:
        stored.compare(chain, LOGS)
    if not chain.failed:
        discard(chain, "infer")
    return chain


@chain_program(tuple(mode for mode in TRAINING if mode != "benchmark_train") + ("whole_infer",))
def main(params, mode, gpu_id=None) -> int:
    if mode == "whole_infer":
        return infer(params, mode, gpu_id).status()
    if gpu_id is not None:
        raise ValueError(
            f"after MODE: {gpu_id}, but gpu_list says where {mode} trains; a GPU is given in mode "
            f"whole_infer"
        )
    return train_and_infer(params, mode).status()


if __name__ == "__main__":
    raise SystemExit(main())
