"""Predict: `python tools/infer.py -c CONFIG -o Global.pretrained_model=WEIGHTS -o
Infer.infer_imgs=FILE_OR_DIRECTORY`.

Classification prints the best names (--sheet draws them). Detection and segmentation draw into
--out what they found.
"""

import sys
from pathlib import Path

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.engine.distributed import start_processes
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.classification.predict import contact_sheet, predict_files, preprocess_of
from ppcls_nextvit.tasks.common import class_names, images_of, trained_model, write_json


def classify(config, args):
    """Top-k of every image, printed, as JSON and as a contact sheet."""
    infer = config.Infer
    paths, names, preprocess = images_of(config), class_names(config), preprocess_of(config)
    model, _ = trained_model(config)
    results = []
    for result in predict_files(
        model, paths, preprocess, infer.batch_size, min(infer.topk, len(names)), names
    ):
        results.append(result)
        if "error" in result:
            print("error:", result["error"], file=sys.stderr)
        else:
            best = ", ".join(
                f"{name} {score:.4f}"
                for name, score in zip(result["label_names"], result["scores"])
            )
            print(f"{result['file_name']}: {best}", flush=True)
    if args.json:
        write_json(args.json, results)
    if args.sheet:
        contact_sheet(results).save(args.sheet, "png")
    return int(any("error" in result for result in results))


def detect(config, args):
    """Boxes and masks, drawn on every image, and as JSON."""
    from ppcls_nextvit.tasks.detection.predict import infer

    status = infer(config, args.out, args.json)
    print(f"drawn in {args.out}")
    return status


def segment(config, args):
    """Labels, coloured over every image with a legend and as PNGs of class numbers, and as JSON."""
    from ppcls_nextvit.tasks.segmentation.predict import infer

    status = infer(config, args.out, args.json)
    print(f"drawn in {args.out}")
    return status


TASKS = {
    "classification": (classify, ("json", "sheet")),  # what runs, and the options it has
    "detection": (detect, ("json", "out")),
    "segmentation": (segment, ("json", "out")),
}


@program
def main(argv=None) -> int:
    parser = config_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="classification: draw the images with their best names and probabilities, as PNG",
    )
    parser.add_argument(
        "--out",
        metavar="DIRECTORY",
        help="detection, segmentation: where the drawn images go (default: output/infer)",
    )
    args = parser.parse_args(argv)
    config = load_config(args.config, args.override)
    task = MODELS.get(config.Arch.name).task
    run, options = TASKS[task]
    for option in ("sheet", "out"):
        if getattr(args, option) and option not in options:
            raise ConfigError(
                f"--{option} is not for {task}, which has "
                f"{', '.join(f'--{name}' for name in options)}"
            )
    # what cannot be written must show now, not after the last image
    for option in ("json", "sheet"):
        path = getattr(args, option)
        if path and not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"--{option} {path}: no such folder: {Path(path).parent}")
        if path and Path(path).is_dir():
            raise IsADirectoryError(f"--{option} {path}: is a folder; name a file")
    args.out = args.out or "output/infer"
    start_processes(config.Global.device)
    return run(config, args)


if __name__ == "__main__":
    raise SystemExit(main())
