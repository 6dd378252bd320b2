"""Train twice, as Python and with Global.to_static, without randomness; the losses of every step
must agree.
"""

import json
from pathlib import Path

from .params import ParamsError
from .prepare import data_options
from .run import ROOT, Chain, chain_program
from .train import Training, discard

# Relative, of a step's loss. The first two show forward and gradients (measured: 1e-7 at most);
# from there on rounding grows by the step, and the more the larger the model (measured after four:
# 1e-7 to 3.2e-4).
FIRST_STEPS, EXACT, GROWN = 2, 1e-5, 5e-4
# Without dropped paths; and steps that change the loss, which the recipes' first ones hardly do,
# linear in the gradients, as Adam's first ones, which are their signs, are not.
OPTIONS = (
    "-o",
    "Arch.drop_path_rate=0.0",
    "-o",
    "Global.print_batch_step=1",
    "-o",
    "Optimizer={name: Momentum, momentum: 0.9, lr: {name: ConstLR, learning_rate: 1e-3}}",
)


def losses(weights):
    """{step: loss} of the run that saved `weights` (its log.jsonl)."""
    lines = (ROOT / Path(weights).parent / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        line["update"]: line["loss"] for line in map(json.loads, lines) if line["kind"] == "train"
    }


def compare(python, static):
    """(whether they agree, a report) of two {step: loss}; without a step they do not."""
    lines = [
        f"step {step}: {python.get(step)} as Python, {static.get(step)} static"
        for step in sorted({*python, *static})
    ]
    agree = (
        bool(python)
        and python.keys() == static.keys()
        and all(
            abs(static[step] - loss) <= (EXACT if step <= FIRST_STEPS else GROWN) * abs(loss)
            for step, loss in python.items()
        )
    )
    return agree, "\n".join(
        [
            *lines,
            f"{len(python)} and {len(static)} losses, relative tolerance {EXACT:g}, from step "
            f"{FIRST_STEPS + 1} "
            f"on {GROWN:g}: {'equal' if agree else 'not equal'}",
        ]
    )


@chain_program(("lite_train_lite_infer",))
def main(params, mode) -> int:
    training = Training(params, mode)
    section = params["train_params"]
    data = data_options(params, mode)
    norm, to_static = section.text("norm_train"), section.text("to_static_train")
    place = next((place for place in training.places if place.lacking() is None), None)
    if place is None:
        raise ParamsError(f"{section.place}: gpu_list has no place that this machine has")
    chain = Chain("dy2static", training.model, mode, training.python)
    trainers = {"dy2static_python": norm, "dy2static_static": f"{norm} {to_static}"}
    runs = [
        training.run(chain, name, trainer, place, None, data, *OPTIONS)
        for name, trainer in trainers.items()
    ]
    if all(runs) and chain.check(
        "losses of the two runs", "dy2static_losses", *compare(*map(losses, runs))
    ):
        for name in trainers:
            discard(chain, name)
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
