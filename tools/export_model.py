"""Export: `python tools/export_model.py -c CONFIG -o Global.pretrained_model=WEIGHTS [--to TARGET] [-o Global.save_inference_dir=DIR]`.

Every export is compared with the model, on photos and random images, before it is kept.
"""
import argparse
from pathlib import Path

import paddle

from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.classification import class_names
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.classification import describe_config, export_classifier, export_features
from ppcls_nextvit.export.static import SUFFIXES
from ppcls_nextvit.predict import list_images, preprocess_of, trained_model

PHOTOS = Path(__file__).resolve().parents[1] / "tests" / "photos"


def number_or_dynamic(text):
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or 'dynamic'; got {text!r}")
    return int(text)


def arguments(argv):
    parser = config_parser(__doc__.partition("\n")[0])
    parser.add_argument("--to", choices=list(TARGETS), default="paddle", help="what to write (default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32",
                        help="default: %(default)s; for int8 there is tools/quantize.py")
    parser.add_argument("--batch", type=number_or_dynamic, default=None, metavar="N|dynamic", help="default: dynamic")
    parser.add_argument("--size", type=number_or_dynamic, nargs="+", metavar="H W|dynamic",
                        help="default: dynamic for paddle, Global.image_shape for the others")
    parser.add_argument("--format", choices=list(SUFFIXES), help="of --to paddle: pir (default), or pdmodel for older runtimes")
    parser.add_argument("--features", action="store_true", help="export the four stages' maps, stage1 to stage4, instead of class scores")
    parser.add_argument("--photos", metavar="FILE|DIR", default=PHOTOS,
                        help="compare on these photos too (default: four of this repository)")
    args = parser.parse_args(argv)
    if args.size is not None and len(args.size) > 2 or args.size and len(args.size) == 2 and None in args.size:
        parser.error("--size takes a height and a width, one number for both, or 'dynamic'")
    if args.format and args.to != "paddle":
        parser.error(f"--format is of --to paddle; --to {args.to} has one format")
    return args


def export_config(config, args):
    """The model of `config`, exported as `args` say. Returns Exported."""
    target, image_size = TARGETS[args.to], config.Global.image_shape[1:]
    if args.size is None:
        size = None if target.dynamic_size else image_size
    else:
        size = None if None in args.size else (args.size[0], args.size[-1])
    names, preprocess = class_names(config), preprocess_of(config)
    photos = [preprocess(str(path)) for path in list_images(args.photos)]
    model, weights = trained_model(config)
    description = describe_config(config, preprocess, names, weights)
    shared = dict(image_size=image_size, batch=args.batch, size=size, photos=photos, precision=args.precision,
                  **({"format": args.format} if args.format else {}))
    if args.features:
        return export_features(model, target, config.Global.save_inference_dir, description, **shared)
    return export_classifier(model, target, config.Global.save_inference_dir, description, softmax=config.Arch.infer_add_softmax, **shared)


@program
def main(argv=None) -> int:
    args = arguments(argv)
    config = load_config(args.config, args.override)
    paddle.set_device("cpu")                        # where the files are compared with the model
    exported = export_config(config, args)
    print(f"{config.Global.save_inference_dir}: {', '.join(path.name for path in exported.files)}")
    print(f"{exported.size / 1e6:.1f} MB, {exported.nodes} operators")
    report = exported.report
    if report is None:
        print(f"not compared with the model: the engine of {args.to} does not run on this machine")
    else:
        top1 = f"; best class equal for {report.same_top1} of {report.images} images" if report.images else ""
        print(f"largest difference from the model: {report.worst:.1e} of its outputs' scale{top1}")
    if TARGETS[args.to].next_step:
        print(TARGETS[args.to].next_step.format(directory=config.Global.save_inference_dir))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
