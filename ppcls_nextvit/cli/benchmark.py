"""Measure the time and memory that a model takes.

    nextvit benchmark NextViT_small --size 224 224 --batch 8
    nextvit benchmark -c configs/detection/mask_rcnn_nextvit_small_1x_coco.yaml --train

Weights are random, as are the images: the speed does not depend on them. benchmarks/ of the
repository compares with other projects.
"""

import argparse
import statistics
from typing import Any, Dict, Tuple

from .common import add_config, load, say_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a model, e.g. NextViT_small; or give -c")
    add_config(parser, required=False, model=False)
    parser.add_argument("--backbone", metavar="NAME", help="of a detector or segmentor by name")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images (default: of -c Global.image_shape, else the task's own)",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images (default: the task's own)")
    parser.add_argument(
        "--runs", type=int, default=10, metavar="N", help="timed runs (default: %(default)s)"
    )
    parser.add_argument("--train", action="store_true", help="a training step, not an image")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    from ..engine.distributed import start_processes
    from ..engine.log import memory_text
    from ..models import MODELS, create_model
    from ..tasks import TASKS

    if bool(args.name) == bool(args.config):
        raise ValueError("give the name of a model, or -c and a configuration, and not both")
    say_threads()
    device = start_processes(args.device).device
    name, arguments, sizes = _from_config(args) if args.config else _from_name(args)
    measure = TASKS[MODELS.get(name).task].measure
    if measure is None:
        raise ValueError(f"the task of {name} has no measurement")
    sizes |= {"size": tuple(args.size)} if args.size else {}
    sizes |= {"batch": args.batch} if args.batch else {}
    measured = measure(create_model(name, **arguments), runs=args.runs, train=args.train, **sizes)
    memory = measured.pop("peak_memory_mb")
    print(f"{name} on {device}, {args.runs} run{'s' * (args.runs > 1)}")
    for part, times in measured.items():
        print(f"{part}: median {statistics.median(times):.1f} ms, least {min(times):.1f} ms")
    print(f"peak memory: {memory_text(memory)}")
    return 0


def _from_config(args: argparse.Namespace) -> Tuple[str, Dict[str, Any], Dict[str, Any]]:
    """(name, arguments, sizes) of the model and the images of a configuration."""
    config = load(args)
    arguments = {**config.Arch.arguments, "num_classes": config.Arch.class_num}
    return config.Arch.name, arguments, {"size": tuple(config.Global.image_shape[1:])}


def _from_name(args: argparse.Namespace) -> Tuple[str, Dict[str, Any], Dict[str, Any]]:
    """(name, arguments, no sizes) of a model by its name."""
    from ..models import MODELS
    from ..schema import yaml_parameters

    takes_backbone = "backbone" in yaml_parameters(MODELS.get(args.name))
    if takes_backbone and not args.backbone:
        raise ValueError(f"{args.name} needs a backbone: --backbone NextViT_small")
    if args.backbone and not takes_backbone:
        raise ValueError(f"{args.name} takes no backbone; leave --backbone out")
    return args.name, {"backbone": {"name": args.backbone}} if takes_backbone else {}, {}
