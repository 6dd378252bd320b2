"""Quantise after training: tools/quantize.py on the training images, its agreement with float32,
predictions of the int8 export.
"""

from ..compare_results import read_predictions
from . import stored
from .prepare import data_options, seeded_weights
from .run import ROOT, Chain, chain_program, prepared
from .train import Inference

AGREEMENT = 0.75  # least share of images with float32's best class
DIFFERENCE = 0.15  # largest mean difference of that class's score (measured: 0.001 to 0.108)
LOGS = "python_infer_"
FLOAT = "float_precision_fp32"


def compare(exact, rough):
    """(whether int8 agrees with float32, a report) of two {image: (class ids, scores)}, best
    first.
    """
    best = {image: ids[0] for image, (ids, _) in exact.items()}
    same = sum(rough[image][0][0] == index for image, index in best.items())
    differences = [
        abs(exact[image][1][0] - dict(zip(*rough[image])).get(index, 0.0))
        for image, index in best.items()
    ]
    mean = sum(differences) / len(differences)
    return same >= AGREEMENT * len(best) and mean <= DIFFERENCE, (
        f"best class equal for {same} of {len(best)} images, at least {100 * AGREEMENT:.0f} % "
        f"expected; its score differs by {mean:.3f} on "
        f"average, at most {DIFFERENCE:g} expected"
    )


@chain_program(("ptq_infer",))
def main(params, mode) -> int:
    section, inference = params["train_params"], Inference(params["infer_params"])
    model, quantize = section.text("model_name"), params["infer_params"].text("kl_quant")
    if len(inference.models) != 1:
        raise params["infer_params"].wrong(
            ("infer_model" if inference.models else "infer_export",),
            "infer_export:False and one infer_model, the float32 export with which int8 is "
            "compared",
        )
    [model_of_float] = inference.models
    weights = params["infer_params"].optional("-o Global.pretrained_model") or prepared(
        seeded_weights(model), params, mode
    )
    data = data_options(params, mode)
    chain = Chain("python", model, mode, section.text("python"))
    stored.remove_logs(chain, LOGS)
    folder = chain.log("int8").with_suffix("")
    options = [
        "-o",
        f"Global.pretrained_model={weights}",
        "-o",
        f"Global.save_inference_dir={folder}",
        *data,
    ]
    float_predicts = inference.predict(
        chain, inference.command(chain, prepared(model_of_float, params, mode)), FLOAT
    )
    if chain.run(chain.program(quantize, *options), "quantize"):
        inference.run(chain, LOGS, folder)
        for path in sorted(chain.folder.glob(f"{LOGS}*.log")) if float_predicts else ():
            chain.check(
                f"agreement of {path.stem} with float32",
                f"agreement_{path.stem}",
                *compare(read_predictions(ROOT / chain.log(FLOAT)), read_predictions(path)),
            )
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
