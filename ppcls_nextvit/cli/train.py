"""Train on a folder of your own, or as a YAML says.

    nextvit train --data photos --model NextViT_small --pretrained
    nextvit train -c NextViT_small_224.yaml -o Global.device=gpu
    nextvit train -c NextViT_small_224.yaml --resume

--data takes a folder for each class, PaddleClas's lists, a CSV, COCO json, VOC's, YOLO's or
labelme's files, or images and label PNGs; what is decided by rule is printed, and written as
recipe.yaml. --resume goes on with the latest checkpoint, --continue with one that may be there.
In several processes:
python -m paddle.distributed.launch --nproc_per_node=2 $(which nextvit) train -c ...
A YAML in PaddleDetection's or PaddleSeg's dialect goes to that suite's own trainer.
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any, Dict

from .common import LAYOUTS, add_config, load, sibling
from .dialects import suite_of

# options that are for --data: their names as keywords of api.training.prepare
CHOICES = {
    "pretrained": "pretrained",
    "layout": "layout",
    "epochs": "epochs",
    "batch": "batch_size",
    "size": "size",
    "lr": "learning_rate",
    "val_share": "val_share",
    "seed": "seed",
    "device": "device",
    "output": "output",
    "overwrite": "overwrite",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(refuse=parser.error, infer=sibling(parser, "infer"))
    parser.set_defaults(export=sibling(parser, "export"), train=sibling(parser, "train"))
    add_config(parser, required=False, model=False)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="RUN",
        help="go on with the latest checkpoint of -c, or of the folder RUN",
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="--resume if there is a checkpoint of -c, else begin: a command that a scheduler may "
        "repeat",
    )
    parser.add_argument(
        "--overwrite",
        action="store_const",
        const=True,
        help="replace an earlier run in the folder (default: it is kept there, as earlier-1, ...; "
        "with --data a new folder is numbered)",
    )
    own = parser.add_argument_group("a folder of your own, without a YAML")
    own.add_argument(
        "--data", metavar="DIR", help="images by class, lists, a table, COCO json, VOC, YOLO, ..."
    )
    own.add_argument(
        "--model", metavar="NAME", help="with --data: a classifier, of a detector the backbone"
    )
    own.add_argument(
        "--pretrained",
        nargs="?",
        const=True,
        metavar="NAME",
        help="start from published weights, or from a file; see `nextvit weights`",
    )
    own.add_argument("--layout", choices=LAYOUTS, help="default: what is there")
    own.add_argument("--epochs", type=int, metavar="N")
    own.add_argument("--batch", type=int, metavar="N", help="images of a step")
    own.add_argument("--size", type=int, metavar="PIXELS")
    own.add_argument("--lr", type=float, metavar="RATE")
    own.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="of each class, to evaluate on, where the folder does not say (default: 0.2)",
    )
    own.add_argument("--seed", type=int, metavar="N", help="default: 0")
    own.add_argument("--device", metavar="NAME", help="auto (default), cpu, gpu, ...")
    own.add_argument("--output", metavar="DIR", help="default: output/NAME of the data, or -2, -3")
    own.add_argument("--dry-run", action="store_true", help="write recipe.yaml and stop")


def run(args: argparse.Namespace) -> int:
    if args.data:
        return _on_own_data(args)
    of_data = [option for option in CHOICES if option != "overwrite"]
    given = [name for name in ("model", "dry_run", *of_data) if getattr(args, name)]
    if given:
        args.refuse(f"--{given[0].replace('_', '-')} is for --data; a YAML has it inside (-o)")
    if isinstance(args.resume, str):
        if args.config:
            args.refuse("--resume RUN has its own configuration; leave -c out")
        args.config = _configuration_of(args.resume)
    if not args.config:
        args.refuse("give --data DIR --model NAME, or -c FILE")
    suite = suite_of(args)
    if suite:
        return suite.train()
    from ..api.training import latest_overrides
    from ..tasks import train

    if args.resume or args.go_on:
        if args.overwrite or (args.resume and args.go_on):
            args.refuse("--overwrite, --resume and --continue: give one of them")
        args.override = [*args.override, *latest_overrides(load(args), args.go_on)]
    config = load(args)
    status = train(config, bool(args.overwrite))
    return _say_what_next(args, config.output_dir, status)


def _command(args: argparse.Namespace) -> str:
    """The command line that makes the same recipe."""
    words = ["nextvit", "train", "--data", args.data, "--model", args.model]
    for option in CHOICES:
        value = getattr(args, option)
        if value is not None:
            words.append(f"--{option.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    for override in args.override:
        words += ["-o", override]
    return shlex.join(words)


def _configuration_of(folder: str) -> str:
    """config.yaml of the run that `folder` names."""
    from ..schema import ConfigError
    from ..tasks.runs import run_with

    found = run_with(folder)
    if found is None:
        raise ConfigError(f"--resume {folder}: not the folder of a run, which has config.yaml")
    return str(found / "config.yaml")


def _on_own_data(args: argparse.Namespace) -> int:
    if args.config or args.resume or args.go_on:
        other = "-c" if args.config else "--resume" if args.resume else "--continue"
        args.refuse(f"--data and {other}: give one of them")
    if not args.model:
        args.refuse("--data needs --model NAME, such as NextViT_small (see `nextvit models`)")
    from ..api.training import prepare
    from ..tasks import train

    choices: Dict[str, Any] = {
        keyword: getattr(args, option)
        for option, keyword in CHOICES.items()
        if getattr(args, option) is not None
    }
    command, overrides = _command(args), args.override
    prepared = prepare(args.data, args.model, command=command, overrides=overrides, **choices)
    for line in prepared.plan.said:
        print(line)
    print(f"written as {prepared.recipe}", flush=True)
    if args.dry_run:
        return 0
    args.config, args.model, args.override = str(prepared.recipe), None, []
    config = load(args)
    prepared.make_room()
    return _say_what_next(args, Path(config.Global.output_dir), train(config))


def _say_what_next(args: argparse.Namespace, folder: Path, status: int) -> int:
    """The two commands that use a run that is done, or the one by which a run that was stopped goes
    on; returns its exit status.
    """
    if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        run = shlex.quote(str(folder))
        if status == 0:
            print(f"predict: {args.infer} --model {run} --images IMAGES")
            print(f"ship: {args.export} --model {run} -o Global.save_inference_dir=DIR")
        elif status > 128 and os.environ.get("PADDLE_TRAINERS_NUM", "1") == "1":
            print(f"go on: {args.train} --resume {run}")
    return status
