r"""Write a model for Paddle Inference, ONNX, TensorRT, Core ML, ...

    nextvit export -c NextViT_small_224.yaml -o Global.pretrained_model=best_model.pdparams \
        --to onnx -o Global.save_inference_dir=model

Every export is compared with the model, on photos and, but for a detector, random images, before it
is kept.
"""

import argparse
from typing import TYPE_CHECKING, Optional

from .common import add_config, load, say_threads, sibling

if TYPE_CHECKING:
    from ..export.verify import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..export import TARGETS
    from ..export.verify import TOLERANCES

    add_config(parser)
    parser.set_defaults(refuse=parser.error, quantize=sibling(parser, "quantize"))
    parser.add_argument(
        "--to", choices=list(TARGETS), default="paddle", help="what to write (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=[*TOLERANCES, "auto"],
        default="fp32",
        help="default: %(default)s; auto: bf16 where the target has it and this processor computes "
        "in it; int8 of --to lite stores weights, for the others use "
        f"{sibling(parser, 'quantize')}",
    )
    parser.add_argument(
        "--batch",
        type=_number_or_dynamic,
        default=None,
        metavar="N|dynamic",
        help="default: dynamic",
    )
    parser.add_argument(
        "--size",
        type=_number_or_dynamic,
        nargs="+",
        metavar="H W|dynamic",
        help="default: dynamic for paddle, detectors and segmentors, else Global.image_shape",
    )
    parser.add_argument(
        "--format",
        choices=[name for target in TARGETS.values() for name in target.formats],
        help="of --to paddle: pir (default), or pdmodel for older runtimes",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="export the four stages' maps, stage1 to stage4, instead of class scores",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="of classifiers, paddle and onnx: one more output, what each token of the last map "
        "attends to",
    )
    parser.add_argument(
        "--photos",
        metavar="FILE|DIR",
        help="compare on these photos too (default: four of this package; of a detector "
        "Infer.infer_imgs)",
    )


def run(args: argparse.Namespace) -> int:
    from ..export import TARGETS
    from ..tasks import task_of
    from ..tasks.base import ExportRequest

    _check(args)
    say_threads()
    config = load(args)
    _on_cpu()
    request = ExportRequest(
        to=args.to,
        precision=_precision(args),
        batch=args.batch,
        size=_size(args.size),
        any_size=bool(args.size) and None in args.size,
        format=args.format,
        features=args.features,
        attention=args.attention,
        photos=args.photos,
    )
    exported = task_of(config).export(config, request)
    directory = config.Global.save_inference_dir
    print(f"{directory}: {', '.join(path.name for path in exported.files)}")
    print(f"{exported.size / 1e6:.1f} MB, {exported.nodes} operators")
    print(_compared(exported.report, args.to))
    if TARGETS[args.to].next_step:
        print(TARGETS[args.to].next_step.format(directory=directory))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse, with the usage and status 2, what no configuration can mean."""
    from ..export import TARGETS

    size = args.size or ()
    if len(size) > 2 or (len(size) == 2 and None in size):
        args.refuse("--size takes a height and a width, one number for both, or 'dynamic'")
    if args.format and not TARGETS[args.to].formats:
        able = " and ".join(name for name, target in TARGETS.items() if target.formats)
        args.refuse(f"--format is of --to {able}; --to {args.to} has one format")
    if args.precision == "int8" and TARGETS[args.to].calibrates:
        args.refuse(
            f"int8 of --to {args.to} is calibrated on images: {args.quantize} --to {args.to}"
        )


def _precision(args: argparse.Namespace) -> str:
    """That of --precision; what `auto` means here is printed."""
    from ..export import TARGETS
    from ..export.processor import automatic_precision

    if args.precision != "auto":
        return args.precision
    precision, reason = automatic_precision(TARGETS[args.to].precisions)
    print(f"--precision auto: {precision}, as {reason}")
    return precision


def _on_cpu() -> None:
    """The files are compared with the model there."""
    import paddle

    paddle.set_device("cpu")


def _size(numbers: Optional[list]) -> Optional[tuple]:
    """(height, width) of --size; None if it was not given or is 'dynamic'."""
    if not numbers or None in numbers:
        return None
    return numbers[0], numbers[-1]


def _compared(report: Optional["Report"], target: str) -> str:
    if report is None:
        return f"not compared with the model: the engine of {target} does not run on this machine"
    top1 = ""
    if report.images:
        top1 = f"; best class equal for {report.same_top1} of {report.images} images"
    return f"largest difference from the model: {report.worst:.1e} of its outputs' scale{top1}"


def _number_or_dynamic(text: str) -> Optional[int]:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or 'dynamic'; got {text!r}")
    return int(text)
