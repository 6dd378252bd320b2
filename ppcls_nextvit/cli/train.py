"""Train as a YAML says.

    nextvit train -c NextViT_small_224.yaml -o Global.device=gpu

An interrupted run goes on with -o Global.checkpoints=output/NextViT_small_224/latest. In several
processes: python -m paddle.distributed.launch --nproc_per_node=2 $(which nextvit) train -c ...
A YAML in PaddleDetection's or PaddleSeg's dialect goes to that suite's own trainer.
"""

import argparse

from .common import add_config, load
from .dialects import suite_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, model=False)


def run(args: argparse.Namespace) -> int:
    suite = suite_of(args)
    if suite:
        return suite.train()
    from ..tasks import train

    return train(load(args))
