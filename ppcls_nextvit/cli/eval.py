"""Evaluate weights on the evaluation dataset of a YAML; prints JSON.

    nextvit eval --model output/NextViT_small_224
    nextvit eval --model output/NextViT_small_224 --data more_photos
    nextvit eval --model inference/NextViT_small_224 --data more_photos
    nextvit eval -c NextViT_small_224.yaml -o Global.pretrained_model=best_model.pdparams

A YAML in PaddleDetection's dialect goes to that suite (-o weights=WEIGHTS), one in PaddleSeg's too
(-o model.pretrained=WEIGHTS).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from .common import LAYOUTS, add_config, export_of, load, say_threads
from .dialects import suite_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.set_defaults(refuse=parser.error)
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="evaluate on this folder, of a layout that `nextvit train --data` takes: on its part "
        "for evaluation, or on all; or on DataLoader.Eval of this YAML. Needed for an export",
    )
    parser.add_argument(
        "--report", metavar="DIR", help="write report.html, results.csv and pictures into DIR"
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="of --data (default: what is there)")


def run(args: argparse.Namespace) -> int:
    suite = suite_of(args)
    if suite:
        print(json.dumps(suite.evaluate()))
        return 0
    from ..tasks import evaluate

    if args.layout and not args.data:
        args.refuse("--layout is for --data")
    say_threads()
    model = export_of(args, "--data", args.data) or load(args)
    report = Path(args.report) if args.report else None
    if args.data:
        from ..api.other_data import evaluate_on

        print(json.dumps(evaluate_on(model, Path(args.data), args.layout, report)))
    else:
        print(json.dumps(evaluate(model, report)))
    if report and os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        print(f"written: {report / 'report.html'}", file=sys.stderr)
    return 0
