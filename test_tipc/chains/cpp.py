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
from .params import ParamsError, command_options
from .run import ROOT, Chain, chain_program, gpus, prepared, use_gpu

LOGS = "cpp_infer_"
TYPES = {"classification": "cls", "detection": "det", "segmentation": "seg"}  # of a task


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
    # not above: it imports Paddle, which must see the GPUs that `use_gpu` left
    from ppcls_nextvit.files import JSON_BYTES, parsing, read_text

    path = model / "export.json"
    text = read_text(path, limit=JSON_BYTES)
    with parsing(str(path), ParamsError):
        task = json.loads(text)["Model"].get("task", "classification")
        right = TYPES[task]
    if section.text("cpp_infer_type") != right:
        raise section.wrong(["cpp_infer_type"], f"{right}, as the model's task is {task}")


@chain_program(("cpp_infer",))
def main(params, mode, gpu_id=None) -> int:
    use_gpu(gpu_id)
    section = params["cpp_infer_params"]
    for key, known in (
        ("cpp_infer_type", tuple(TYPES.values())),
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
