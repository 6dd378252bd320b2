"""Convert weights from and to PyTorch, timm and the mm suites.

    nextvit convert nextvit_small.pth nextvit_small.pdparams --model NextViT_small

A detector's or segmentor's: ... --model MaskRCNN --backbone NextViT_small [--to mmdet].
"""

import argparse

from .common import add_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..weights.convert import targets

    add_imports(parser)
    parser.add_argument(
        "source",
        metavar="SRC",
        help=".pth, .pt, .safetensors, .pdparams or .npz, of any program that load_weights knows",
    )
    parser.add_argument(
        "destination", metavar="DST", help=".pdparams, or .safetensors with another --to"
    )
    parser.add_argument(
        "--model", required=True, help="NextViT_small, ..., MaskRCNN, SemanticFPN, UPerNet"
    )
    parser.add_argument(
        "--backbone", help="of a detector or segmentor: its backbone, e.g. NextViT_small"
    )
    parser.add_argument(
        "--to",
        default="paddle",
        choices=sorted(targets()),
        help="whose keys and layouts to write (default: paddle)",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        help="demand a head of so many classes; 0 leaves the head out (default: as in the file)",
    )
    parser.add_argument(
        "--entry",
        help="which entry of a checkpoint to take, e.g. model_ema (default: model, then "
        "state_dict, ...)",
    )
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help="of a detector's or segmentor's file: its backbone, without the heads",
    )
    parser.add_argument("--report", metavar="FILE.json", help="write one record per key")


def run(args: argparse.Namespace) -> int:
    from ..weights.convert import convert

    translation = convert(
        args.source,
        args.destination,
        args.model,
        args.to,
        args.num_classes,
        args.entry,
        args.backbone_only,
        args.report,
        args.backbone,
    )
    print(translation.table())
    return 0
