"""Speed and memory of training: `bash test_tipc/benchmark_train.sh CONFIG.txt benchmark_train
[dynamic_bs8_fp32_DP_N1C1]`.

The third argument is the suites' MODEL_bsBATCH_PRECISION_DP_N1Cm, or MODEL: MODEL is dynamic or
dynamicTostatic, m the number of processes. Without the rest, every combination of
train_benchmark_params runs in one process. The figures are a line of JSON in each combination's
log.
"""

import itertools
import json
import re
import statistics
from pathlib import Path

from .params import command_options
from .prepare import data_options
from .run import ROOT, Chain, chain_program, gpus
from .train import Place, Training, discard

COMBINATION = re.compile(
    r"(dynamic|dynamicTostatic)_bs([1-9]\d*)_(fp32|amp|fp16|null)_DP_N1C([1-9]\d*)"
)
MODEL_TYPES = {"dynamic": "norm_train", "dynamicTostatic": "to_static_train"}
SKIPPED = 2  # first steps, in which kernels are chosen and memory is taken


def combinations(section, argument):
    """[(model type, images per process and step, precision, processes)] of the third argument, else
    of the section.
    """
    if argument is None or argument in MODEL_TYPES:
        types = (
            [MODEL_TYPES[argument]]
            if argument
            else section.list("model_type", of=tuple(MODEL_TYPES.values()))
        )
        return list(
            itertools.product(
                types,
                section.numbers("batch_size"),
                section.list("fp_items", of=("fp32", "amp", "fp16")),
                [1],
            )
        )
    found = COMBINATION.fullmatch(argument)
    if not found:
        raise ValueError(
            f"{argument}: expected MODEL_bsBATCH_PRECISION_DP_N1Cm, such as "
            f"dynamic_bs8_fp32_DP_N1C1, with MODEL "
            f"{' or '.join(MODEL_TYPES)} and PRECISION fp32, amp or fp16; several machines "
            f"(N2...) are started by hand"
        )
    return [(MODEL_TYPES[found[1]], int(found[2]), found[3].replace("null", "fp32"), int(found[4]))]


def variables(section):
    """The environment variables of `flags:NAME=VALUE;NAME=VALUE`."""
    flags = [flag for flag in (section.optional("flags") or "").split(";") if flag]
    if not all(flag.partition("=")[1] for flag in flags):
        raise section.wrong(("flags",), "environment variables", "flags:NAME=VALUE;NAME=VALUE")
    return dict(flag.split("=", 1) for flag in flags)


def figures(weights):
    """{steps, ips, memory_mb, loss} of the run that saved `weights` (its log.jsonl): the median of
    its steps but the first.
    """
    lines = (ROOT / Path(weights).parent / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    if len(steps) <= SKIPPED:
        return None
    return {
        "steps": len(steps) - SKIPPED,
        "ips": round(statistics.median(step["images_per_s"] for step in steps[SKIPPED:]), 3),
        "ips_unit": "images/s",
        "memory_mb": max(step["memory_mb"] for step in steps),
        "loss": steps[-1]["loss"],
    }


@chain_program(("benchmark_train",))
def main(params, mode, argument=None) -> int:
    section, train = params["train_benchmark_params"], params["train_params"]
    training = Training(params, mode, section.text("epoch"))
    data = data_options(params, mode)
    todo = combinations(section, argument)
    programs = {"norm_train": train.text("norm_train")}
    programs["to_static_train"] = f"{programs['norm_train']} {train.text('to_static_train')}"
    flags = variables(section)
    workers = command_options(
        "-o DataLoader.Train.loader.num_workers", section.optional("num_workers")
    )
    chain = Chain("benchmark", training.model, mode, training.python)
    if section.optional("--profiler_options"):
        chain.skip("--profiler_options", "this trainer has no profiler")
    for kind, batch, precision, count in todo:
        device = "gpu" if gpus() else "cpu"
        place = Place(
            ",".join(map(str, range(count))) if gpus() else ",".join(["-1"] * count), device
        )
        name = f"{kind}_bs{batch}_{precision}_DP_N1C{count}"
        weights = training.run(
            chain,
            name,
            programs[kind],
            place,
            precision,
            data,
            *workers,
            "-o",
            f"DataLoader.Train.sampler.batch_size={batch}",
            "-o",
            "Global.print_batch_step=1",
            environment=flags,
        )
        if weights:
            found = figures(weights)
            report = {
                "model_name": chain.model,
                "model_type": kind,
                "batch_size": batch,
                "fp_item": precision,
                "run_mode": "DP",
                "device_num": f"N1C{count}",
                "device": device,
                **(found or {"error": f"no more than {SKIPPED} steps; raise epoch"}),
            }
            print(json.dumps(report))
            if chain.check(
                f"figures of {name}", f"{name}_speed", found is not None, json.dumps(report)
            ):
                discard(chain, name)
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
