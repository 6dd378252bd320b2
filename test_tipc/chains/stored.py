"""Stored predictions, test_tipc/results: a chain's comparison with them, and `python -m
test_tipc.chains.stored CONFIG.txt MODE`.

That stores what tools/infer.py, which is no engine of deploy/, predicts with the seeded weights:
for a MODEL_train_infer_python.txt after prepare.sh in any mode that makes a model. What an engine
alone predicts, as int8, is stored by compare_results.py --write.
"""

import shlex
import subprocess

from .params import command_options
from .prepare import INFERENCE, data_options, seeded_weights
from .run import OUTPUT, ROOT, chain_program, checkout_environment, interpreter, prepared

__all__ = ["compare", "remove_logs"]

COMPARE = "test_tipc/compare_results.py"


def file_of(engine, model, precision):
    """What `engine` predicted with the seeded weights, relative to the root."""
    return f"./test_tipc/results/{engine}_{model}_results_{precision}.txt"


def remove_logs(chain, prefix):
    """Remove the logs of an earlier run that begin with `prefix`, which `compare` would find."""
    for path in chain.folder.glob(f"{prefix}*.log"):
        path.unlink()


def compare(chain, prefix, precision="fp32", engine="python"):
    """Run compare_results.py on the logs `prefix*precision*`, with what `engine` predicted; True if
    they agree, False without a log.
    """
    logs = chain.log(f"{prefix}*{precision}*")
    if not list(chain.folder.glob(logs.name)):
        return False
    files = f"--gt_file={file_of(engine, chain.model, precision)}", f"--log_file=./{logs}"
    return chain.run(chain.program(COMPARE, *files), f"compare_{prefix}{precision}")


@chain_program(tuple(INFERENCE))
def main(params, mode) -> int:
    train, infer = params["train_params"], params["infer_params"]
    model, python = train.text("model_name"), interpreter(train.text("python"))
    arguments = shlex.split(infer.text("norm_export"))[1:]
    weights = prepared(seeded_weights(model), params, mode)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    predictions = f"./test_tipc/output/{model}_predictions.json"
    for command in (
        [
            python,
            "tools/infer.py",
            *arguments,
            *data_options(params, mode, ("lite", "lite")),
            *command_options("-o Global.pretrained_model", weights),
            *command_options("-o Global.device", "cpu"),
            *command_options("-o Infer.infer_imgs", prepared(infer.text("--images"), params, mode)),
            "--json",
            predictions,
        ],
        [
            python,
            COMPARE,
            "--write",
            f"--gt_file={file_of('python', model, 'fp32')}",
            f"--log_file={predictions}",
        ],
    ):
        status = subprocess.run(command, cwd=ROOT, env=checkout_environment(ROOT)).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
