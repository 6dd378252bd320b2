r"""Export a model in int8 or bfloat16 and compare it with float32.

    nextvit quantize -c NextViT_small_224.yaml -o Global.pretrained_model=best_model.pdparams \
        --to onnx -o Global.save_inference_dir=model_int8

Accuracy on DataLoader.Eval, size and latency of both are printed, and in accuracy.json beside the
files: top-1 and agreement of a classifier, mIoU of a segmentor, COCO's mAP of a detector.
"""

import argparse

from .common import add_config, load, say_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..export import TARGETS

    add_config(parser)
    targets = [
        name
        for name, target in TARGETS.items()
        if "int8" in target.precisions and target.calibrates
    ]
    parser.add_argument(
        "--to", choices=targets, default="openvino", help="whose (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "bf16"),
        default="int8",
        help="default: %(default)s; bf16 is of --to openvino and paddle, and needs no images",
    )
    parser.add_argument(
        "--calibration",
        metavar="LIST.txt|DIR",
        help="images to calibrate with (default: those of DataLoader.Train)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=300,
        metavar="N",
        help="take at most so many of them (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-float",
        type=int,
        default=0,
        metavar="N",
        help="of --to onnx and tensorrt: leave the N layers in float that disturb the output "
        "most, by measurement",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of the CPU, while latencies are measured (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    import paddle

    from ..schema import ConfigError
    from ..tasks import task_of
    from ..tasks.base import QuantizeRequest

    say_threads()
    config = load(args)
    quantize = task_of(config).quantize
    if quantize is None:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} has no int8 export; that is for classifiers"
        )
    paddle.set_device("cpu")  # where the files are compared with the model
    request = QuantizeRequest(
        args.to, args.calibration, args.images, args.keep_float, args.threads, args.precision
    )
    return quantize(config, request)
