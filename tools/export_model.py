"""Export: `python tools/export_model.py -c CONFIG -o Global.pretrained_model=WEIGHTS [--to TARGET]
[-o Global.save_inference_dir=DIR]`.

Every export is compared with the model, on photos and, but for a detector, random images, before it
is kept.
"""

import argparse
import importlib
from pathlib import Path

import paddle

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.static import SUFFIXES
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.classification.export import (
    describe_config,
    export_classifier,
    export_features,
)
from ppcls_nextvit.tasks.classification.predict import preprocess_of
from ppcls_nextvit.tasks.common import class_names, list_images, trained_model

PHOTOS = Path(__file__).resolve().parents[1] / "ppcls_nextvit" / "export" / "photos"
DENSE_TARGETS = ("paddle", "onnx")  # where detectors and segmentors were shown to be right


def number_or_dynamic(text):
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or 'dynamic'; got {text!r}")
    return int(text)


def arguments(argv):
    parser = config_parser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--to", choices=list(TARGETS), default="paddle", help="what to write (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        default="fp32",
        help="default: %(default)s; int8 of --to lite stores weights, that of the others is "
        "tools/quantize.py's",
    )
    parser.add_argument(
        "--batch",
        type=number_or_dynamic,
        default=None,
        metavar="N|dynamic",
        help="default: dynamic",
    )
    parser.add_argument(
        "--size",
        type=number_or_dynamic,
        nargs="+",
        metavar="H W|dynamic",
        help="default: dynamic for paddle, detectors and segmentors, else Global.image_shape",
    )
    parser.add_argument(
        "--format",
        choices=list(SUFFIXES),
        help="of --to paddle: pir (default), or pdmodel for older runtimes",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="export the four stages' maps, stage1 to stage4, instead of class scores",
    )
    parser.add_argument(
        "--photos",
        metavar="FILE|DIR",
        help="compare on these photos too (default: four of this repository; of a detector "
        "Infer.infer_imgs)",
    )
    args = parser.parse_args(argv)
    if (
        args.size is not None
        and len(args.size) > 2
        or args.size
        and len(args.size) == 2
        and None in args.size
    ):
        parser.error("--size takes a height and a width, one number for both, or 'dynamic'")
    if args.format and args.to != "paddle":
        parser.error(f"--format is of --to paddle; --to {args.to} has one format")
    if args.precision == "int8" and TARGETS[args.to].calibrates:
        parser.error(
            f"int8 of --to {args.to} is calibrated on images: tools/quantize.py --to {args.to}"
        )
    return args


def export_config(config, args):
    """The model of `config`, exported as `args` say. Returns Exported."""
    task, target = MODELS.get(config.Arch.name).task, TARGETS[args.to]
    options = {"precision": args.precision, **({"format": args.format} if args.format else {})}
    size = args.size and None not in args.size and (args.size[0], args.size[-1]) or None
    if task == "classification":
        if args.size is None and not target.dynamic_size:
            size = config.Global.image_shape[1:]
        return export_classification(
            config,
            target,
            args.features,
            batch=args.batch,
            size=size,
            photos=list_images(args.photos or PHOTOS),
            **options,
        )
    if args.to not in DENSE_TARGETS or args.features:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {' and '.join(DENSE_TARGETS)}, whole; "
            f"--to {args.to}"
            f"{' --features' if args.features else ''} is for classifiers"
        )
    if args.precision != "fp32" or args.format == "pdmodel":
        raise ConfigError(
            f"{config.path}: {config.Arch.name} is exported in fp32, for --to paddle as pir; "
            f"other precisions and formats "
            "are for classifiers"
        )
    dense = importlib.import_module(f"ppcls_nextvit.tasks.{task}.export")
    photos = (
        list_images(args.photos)
        if args.photos
        else list_images(PHOTOS)
        if task == "segmentation"
        else ()
    )
    return dense.export(config, args.to, args.batch, size, photos, **options)


def export_classification(config, target, features, photos, **options):
    """A classifier's scores or, with `features`, its stages' maps."""
    names, preprocess = class_names(config), preprocess_of(config)
    photos = [preprocess(str(path)) for path in photos]
    model, weights = trained_model(config)
    where, description = (
        config.Global.save_inference_dir,
        describe_config(config, preprocess, names, weights),
    )
    options = {**options, "photos": photos, "image_size": config.Global.image_shape[1:]}
    if features:
        return export_features(model, target, where, description, **options)
    return export_classifier(
        model, target, where, description, softmax=config.Arch.infer_add_softmax, **options
    )


@program
def main(argv=None) -> int:
    args = arguments(argv)
    config = load_config(args.config, args.override)
    paddle.set_device("cpu")  # where the files are compared with the model
    exported = export_config(config, args)
    print(f"{config.Global.save_inference_dir}: {', '.join(path.name for path in exported.files)}")
    print(f"{exported.size / 1e6:.1f} MB, {exported.nodes} operators")
    report = exported.report
    if report is None:
        print(f"not compared with the model: the engine of {args.to} does not run on this machine")
    else:
        top1 = (
            f"; best class equal for {report.same_top1} of {report.images} images"
            if report.images
            else ""
        )
        print(f"largest difference from the model: {report.worst:.1e} of its outputs' scale{top1}")
    if TARGETS[args.to].next_step:
        print(TARGETS[args.to].next_step.format(directory=config.Global.save_inference_dir))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
