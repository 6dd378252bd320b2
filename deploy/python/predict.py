"""Classify images, detect objects or label pixels with an exported model: python predict.py
--model DIRECTORY --images WHAT

The export says which of the three it does. The engine is Paddle Inference, ONNX Runtime or
OpenVINO, whichever the export is for. Copy the programs of this folder (*.py) and the exported
directory; nothing else of the project is needed, only that engine, numpy and Pillow (PyYAML where
the export has an inference.yml, OpenCV where it resizes with it, as detectors and segmentors do).
"""

import argparse
import sys
from collections.abc import Callable

try:
    import startup
    from classify import BATCH_SIZE, common_arguments, predict
    from decoding import one_line
    from dense import add_arguments, check_options, predict_dense
    from description import read_description
    from engines import ENGINES, Engine, engine_of, load_engine, native_precision
    from fields import TASKS, task_of
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. predict.py needs all of deploy/python/*.py beside it, numpy and Pillow"
    ) from None

# what other engines do not know, but for openvino, which has precisions, too
PADDLE_OPTIONS = ("onednn", "precision", "tensorrt")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument(
        "--engine", choices=list(ENGINES), help="default: the one that the export is for"
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16", "bf16"),
        help="Paddle Inference: bf16 on a CPU, fp16 on a GPU; OpenVINO: bf16 on a CPU; auto: what "
        "the processor computes in; default: that of the export",
    )
    add_arguments(parser)
    paddle = parser.add_argument_group("Paddle Inference")
    paddle.add_argument(
        "--onednn", action=argparse.BooleanOptionalAction, help="on a CPU; default: with oneDNN"
    )
    paddle.add_argument(
        "--tensorrt",
        action="store_true",
        default=None,
        help="on a GPU, with a model exported with --format pdmodel",
    )
    return parser.parse_args(argv)


def precision_for(engine: str, args: argparse.Namespace, description: dict) -> str | None:
    """The precision that `args` ask for; of `auto` a line on stderr says which and why."""
    if args.precision != "auto":
        return args.precision
    made = description.get("Export", {}).get("precision", "fp32")
    if made == "fp32" and args.device == "cpu" and args.onednn is not False:
        if engine in ("paddle", "openvino"):
            found, why = native_precision()
            print(f"--precision auto: {found}, as {why}", file=sys.stderr)
            return found
    print(f"--precision auto: {made}, that of the export", file=sys.stderr)
    return None


def load(args: argparse.Namespace, description: dict) -> Engine:
    """The model in the engine that `args` name, or else the export is for. ValueError, one line."""
    engine = args.engine or engine_of(args.model, description)
    args.precision = precision_for(engine, args, description)
    chosen = args.threads is None and args.device == "cpu"
    if args.threads is None:
        args.threads = startup.threads()
    given = {
        name: getattr(args, name) for name in PADDLE_OPTIONS if getattr(args, name) is not None
    }
    if engine == "paddle":
        given["batch_size"] = args.batch_size or BATCH_SIZE
    elif given and not (engine == "openvino" and set(given) == {"precision"}):
        names = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{names}: for Paddle Inference alone; {engine} runs this model")
    loaded = load_engine(engine, args.model, description, args.device, args.threads, **given)
    if chosen:
        print(startup.threads_text(), file=sys.stderr)
    return loaded


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        description = read_description(args.model, several_labels=True, tasks=TASKS)
        task = task_of(description)
        check_options(args, task)
        run: Callable = predict if task == TASKS[0] else predict_dense
        return run(args, description, load(args, description))
    except (OSError, ValueError, ImportError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
