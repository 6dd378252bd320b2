"""Paddle2ONNX: the export to ONNX, run by deploy/onnx."""

import itertools

from . import stored
from .params import command_options
from .prepare import data_options
from .run import Chain, chain_program, prepared

LOGS = "paddle2onnx_infer_"


@chain_program(("paddle2onnx_infer",))
def main(params, mode) -> int:
    section = params["paddle2onnx_params"]
    weights, output = "-o Global.pretrained_model", "-o Global.save_inference_dir"
    model, images = section.text(output), prepared(section.text("--images"), params, mode)
    options = (
        section.list("--engine", of=("onnxruntime", "openvino")),
        section.numbers("--threads"),
        section.numbers("--batch-size", or_none=True),
    )
    data = [
        *data_options(params, mode),
        *command_options(weights, prepared(section.text(weights), params, mode)),
    ]
    chain = Chain("paddle2onnx", section.text("model_name"), mode, section.text("python"))
    stored.remove_logs(chain, LOGS)
    if not chain.run(
        chain.program(section.text("2onnx"), *data, *command_options(output, model)), "paddle2onnx"
    ):
        return chain.status()
    for engine, threads, batch in itertools.product(*options):
        chain.predict(
            chain.program(
                section.text("inference"),
                f"--model={model}",
                f"--images={images}",
                f"--engine={engine}",
                f"--threads={threads}",
                *command_options("--batch-size", batch),
            ),
            f"{LOGS}{engine}_cpu_threads_{threads}_precision_fp32_batchsize_{batch or 1}",
        )
    stored.compare(chain, LOGS)
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
