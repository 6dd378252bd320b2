"""Serving: deploy/serving answers requests for the images, and is stopped, once for each of its
options.
"""

import itertools
import shlex
from pathlib import Path

from . import stored
from .params import command_options
from .run import Chain, chain_program, gpus, prepared, use_gpu

LOGS = "serving_infer_"
TIMEOUT = 60  # seconds for an answer: what is answered counts here, not how fast


@chain_program(("serving_infer",))
def main(params, mode, gpu_id=None) -> int:
    use_gpu(gpu_id)
    section = params["serving_params"]
    model, images = (
        prepared(section.text(key), params, mode) for key in ("inference_model_dir", "--images")
    )
    options = (
        section.list("--device", of=("cpu", "gpu")),
        section.numbers("--threads"),
        section.numbers("--batch-size", or_none=True),
    )
    chain = Chain("serving", section.text("model_name"), mode, section.text("python"))
    stored.remove_logs(chain, LOGS)
    for device, threads, batch in itertools.product(*options):
        server = [
            str(Path(section.text("serving_dir")) / section.text("web_service")),
            f"--model={model}",
            f"--device={device}",
            f"--threads={threads}",
            *command_options("--batch-size", batch),
            f"--timeout={TIMEOUT}",
        ]
        command = chain.program(
            section.text("pipeline"),
            f"--images={images}",
            f"--clients={batch or 1}",
            f"--server={shlex.join(server)}",
        )
        if device == "gpu" and not gpus():
            chain.skip(shlex.join(command), "no GPU")
        else:
            chain.predict(
                command, f"{LOGS}{device}_threads_{threads}_precision_fp32_batchsize_{batch or 1}"
            )
    stored.compare(chain, LOGS)
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
