"""Classify images with an exported model: python predict.py --model DIRECTORY --images
FILE_OR_DIRECTORY

The engine is Paddle Inference, ONNX Runtime or OpenVINO, whichever the export is for. Copy the
programs of this folder (*.py) and the exported directory; nothing else of the project is needed,
only that engine, numpy and Pillow (PyYAML where the export has an inference.yml, OpenCV where it
resizes with it).
"""

import argparse
import sys

try:
    from classify import common_arguments, predict
    from decoding import one_line
    from description import read_description
    from engines import ENGINES, Run, engine_of, load_engine
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. predict.py needs all of deploy/python/*.py beside it, numpy and Pillow"
    ) from None

# what other engines do not know
PADDLE_OPTIONS = ("onednn", "precision", "tensorrt")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument(
        "--engine", choices=list(ENGINES), help="default: the one that the export is for"
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    paddle = parser.add_argument_group("Paddle Inference")
    paddle.add_argument(
        "--onednn", action=argparse.BooleanOptionalAction, help="on a CPU; default: with oneDNN"
    )
    paddle.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16"),
        help="bf16 on a CPU, fp16 on a GPU; default: that of the export",
    )
    paddle.add_argument(
        "--tensorrt",
        action="store_true",
        default=None,
        help="on a GPU, with a model exported with --format pdmodel",
    )
    return parser.parse_args(argv)


def load(args: argparse.Namespace, description: dict) -> Run:
    """The model in the engine that `args` name, or else the export is for. ValueError, one line."""
    engine = args.engine or engine_of(args.model, description)
    given = {
        name: getattr(args, name) for name in PADDLE_OPTIONS if getattr(args, name) is not None
    }
    if engine == "paddle":
        given["batch_size"] = args.batch_size
    elif given:
        names = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{names}: for Paddle Inference alone; {engine} runs this model")
    return load_engine(engine, args.model, description, args.device, args.threads, **given)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        description = read_description(args.model, several_labels=True)
        return predict(args, description, load(args, description))
    except (OSError, ValueError, ImportError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
