"""C++: deploy/cpp, built against the Paddle of this Python or the package that PADDLE_INFERENCE_DIR
names, and run with its options.
"""

import itertools
import json
import os
import shlex
import sys
from pathlib import Path

from . import stored
from .params import command_options
from .run import ROOT, Chain, chain_program, gpus, prepared, use_gpu

LOGS = "cpp_infer_"
TASKS = {"cls": "classification", "det": "detection", "seg": "segmentation"}


def build(chain, folder):
    """Build deploy/cpp in `folder`; True if that succeeded."""
    package = os.environ.get("PADDLE_INFERENCE_DIR")
    paddle = (
        [f"-DPADDLE_INFERENCE_DIR={package}"]
        if package
        else ["-DPADDLE_WHEEL=ON", f"-DPython3_EXECUTABLE={sys.executable}"]
    )
    return chain.run(
        ["cmake", "-S", "deploy/cpp", "-B", folder, *paddle], "cpp_configure"
    ) and chain.run(["cmake", "--build", folder, "--parallel", "2"], "cpp_build")


def check_type(section, model):
    """ParamsError if `cpp_infer_type` is not the task of the export in the folder `model`."""
    description = json.loads((model / "export.json").read_text(encoding="utf-8"))
    task = description["Model"].get("task", TASKS["cls"])
    if TASKS[section.text("cpp_infer_type")] != task:
        (right,) = [kind for kind in TASKS if TASKS[kind] == task]
        raise section.wrong(["cpp_infer_type"], f"{right}, as the model's task is {task}")


@chain_program(("cpp_infer",))
def main(params, mode, gpu_id=None) -> int:
    use_gpu(gpu_id)
    section = params["cpp_infer_params"]
    for key, known in (
        ("cpp_infer_type", tuple(TASKS)),
        ("infer_quant", ("False",)),
        ("use_tensorrt", ("False",)),
        ("precision", ("fp32",)),
    ):
        section.list(key, of=known)  # what classify can do
    model, images = (
        prepared(section.text(key), params, mode)
        for key in ("cls_inference_model_dir", "image_dir")
    )
    check_type(section, ROOT / model)
    program = [
        *shlex.split(section.text("inference_cmd")),
        f"--model={model}",
        f"--images={images}",
    ]
    program += ["--repeat=10"] if section.flags("benchmark") == [True] else []
    devices, batches = section.flags("use_gpu"), section.numbers("batch_size", or_none=True)
    cpu_options = section.flags("enable_mkldnn"), section.numbers("cpu_threads")
    chain = Chain("cpp", section.text("model_name"), mode)
    stored.remove_logs(chain, LOGS)
    if not build(chain, Path(program[0]).parent):
        return chain.status()
    for gpu, batch in itertools.product(devices, batches):
        command = [*program, *command_options("--batch-size", batch)]
        kind = f"precision_fp32_batchsize_{batch or 1}"
        if not gpu:
            for onednn, threads in itertools.product(*cpu_options):
                chain.predict(
                    [*command, f"--threads={threads}", *([] if onednn else ["--no-onednn"])],
                    f"{LOGS}cpu_usemkldnn_{onednn}_threads_{threads}_{kind}",
                )
        elif gpus():
            chain.predict([*command, "--device=gpu"], f"{LOGS}gpu_{kind}")
        else:
            chain.skip(shlex.join([*command, "--device=gpu"]), "no GPU")
    stored.compare(chain, LOGS)
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
