r"""Predict images: names, boxes and masks, or the label of each pixel.

    nextvit infer --model output/NextViT_small_224 --images photos
    nextvit infer --model inference/NextViT_small_224 --images photos
    nextvit infer -c NextViT_small_224.yaml -o Global.pretrained_model=best_model.pdparams \
        -o Infer.infer_imgs=photos

Classification prints the best names (--sheet draws them). Detection and segmentation draw into
--out what they found.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .common import add_config, export_of, load, say_threads

DEFAULT_OUT = "output/infer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders, patterns, lists (.txt), or - for paths on standard input "
        "(default: Infer.infer_imgs)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="classification: draw the images with their best names and probabilities, as PNG",
    )
    parser.add_argument(
        "--out",
        metavar="DIRECTORY",
        help=f"detection, segmentation: where the drawn images go (default: {DEFAULT_OUT})",
    )


def run(args: argparse.Namespace) -> int:
    from ..engine.distributed import start_processes
    from ..tasks import task_of
    from ..tasks.base import PredictOutputs

    say_threads()
    opened = export_of(args, "--images", args.images)
    if opened:
        return _of_export(args, opened)
    config = load(args)
    if args.images:
        config = replace(config, Infer=replace(config.section("Infer"), infer_imgs=args.images))
    task = task_of(config)
    _check_outputs(args, task, config.Arch.name)
    start_processes(config.Global.device)
    return task.predict(config, PredictOutputs(args.json, args.sheet, args.out or DEFAULT_OUT))


def _of_export(args: argparse.Namespace, opened: Any) -> int:
    """Predict with an exported folder, run by its own engine."""
    from ..models import MODELS
    from ..tasks import TASKS
    from ..tasks.common import list_images
    from ..tasks.inputs import InputImage

    images = [InputImage(str(path), path) for path in list_images(args.images)]
    task = TASKS[MODELS.get(opened.model_name).task]
    _check_outputs(args, task, opened.model_name)
    status = task.exported_predictor(opened).write(
        images, args.json, args.sheet, args.out or DEFAULT_OUT
    )
    if "out" in task.predict_outputs:
        print(f"drawn in {args.out or DEFAULT_OUT}")
    return status


def _check_outputs(args: argparse.Namespace, task: Any, name: str) -> None:
    """ConfigError for outputs that the task of the model `name` does not have; OSError for files
    that cannot be written.
    """
    from ..models import MODELS
    from ..schema import ConfigError

    for option in ("sheet", "out"):
        if getattr(args, option) and option not in task.predict_outputs:
            raise ConfigError(
                f"--{option} is not for {MODELS.get(name).task}, which has "
                f"{', '.join(f'--{name}' for name in task.predict_outputs)}"
            )
    for option in ("json", "sheet"):
        _check_writable(option, getattr(args, option))


def _check_writable(option: str, path: str) -> None:
    """What cannot be written must show now, not after the last image."""
    if path and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"--{option} {path}: no such folder: {Path(path).parent}")
    if path and Path(path).is_dir():
        raise IsADirectoryError(f"--{option} {path}: is a folder; name a file")
