"""INT8: `python tools/quantize.py -c CONFIG -o Global.pretrained_model=WEIGHTS --to
openvino|onnx|tensorrt|paddle`.

Writes the int8 export to Global.save_inference_dir, calibrated on training images in evaluation's
preprocessing, and compares it with
the float32 export on DataLoader.Eval: top-1, agreement, size, latency; printed, and in
accuracy.json beside the files.
"""

import paddle

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.classification.quantize import calibration_images, export_int8, table


@program
def main(argv=None) -> int:
    parser = config_parser(__doc__.partition("\n")[0])
    targets = [
        name
        for name, target in TARGETS.items()
        if "int8" in target.precisions and target.calibrates
    ]
    parser.add_argument(
        "--to", choices=targets, default="openvino", help="whose int8 (default: %(default)s)"
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
    args = parser.parse_args(argv)
    config = load_config(args.config, args.override)
    if MODELS.get(config.Arch.name).task != "classification":
        raise ConfigError(
            f"{config.path}: {config.Arch.name} has no int8 export; that is for classifiers"
        )
    paddle.set_device("cpu")  # where the files are compared with the model
    images = calibration_images(config, args.calibration, args.images)
    report = export_int8(config, TARGETS[args.to], images, args.keep_float, args.threads)
    print(
        f"{config.Global.save_inference_dir}: int8 for {args.to}, calibrated on {len(images)} "
        f"images\n\n{table(report)}"
    )
    if report["kept_float"]:
        print("kept in float:", ", ".join(report["kept_float"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
