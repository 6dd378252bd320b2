"""Evaluate weights on the evaluation dataset of a YAML; prints JSON.

    nextvit eval --model output/NextViT_small_224
    nextvit eval -c NextViT_small_224.yaml -o Global.pretrained_model=best_model.pdparams

A YAML in PaddleDetection's dialect goes to that suite (-o weights=WEIGHTS), one in PaddleSeg's too
(-o model.pretrained=WEIGHTS).
"""

import argparse
import json

from .common import add_config, load
from .dialects import suite_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    suite = suite_of(args)
    if suite:
        print(json.dumps(suite.evaluate()))
        return 0
    from ..tasks import evaluate

    print(json.dumps(evaluate(load(args))))
    return 0
