"""Predict: `python tools/infer.py -c CONFIG -o Global.pretrained_model=WEIGHTS -o Infer.infer_imgs=FILE_OR_DIRECTORY`."""
import sys

from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.classification import class_names
from ppcls_nextvit.engine.distributed import start_processes
from ppcls_nextvit.predict import contact_sheet, list_images, predict_files, preprocess_of, trained_model, write_json
from ppcls_nextvit.schema import ConfigError


@program
def main(argv=None) -> int:
    parser = config_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    parser.add_argument("--sheet", metavar="FILE", help="draw the images with their best names and probabilities, as PNG")
    args = parser.parse_args(argv)
    config = load_config(args.config, args.override)
    infer = config.section("Infer")
    source = infer.infer_imgs or config.Global.infer_imgs
    if not source:
        raise ConfigError(f"{config.path}: no images; give -o Infer.infer_imgs=FILE_OR_DIRECTORY")
    paths, names, preprocess = list_images(source), class_names(config), preprocess_of(config)
    start_processes(config.Global.device)
    model, _ = trained_model(config)

    results = []
    for result in predict_files(model, paths, preprocess, infer.batch_size, min(infer.topk, len(names)), names):
        results.append(result)
        if "error" in result:
            print("error:", result["error"], file=sys.stderr)
        else:
            best = ", ".join(f"{name} {score:.4f}" for name, score in zip(result["label_names"], result["scores"]))
            print(f"{result['file_name']}: {best}", flush=True)
    if args.json:
        write_json(args.json, results)
    if args.sheet:
        contact_sheet(results).save(args.sheet, "png")
    return int(any("error" in result for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
