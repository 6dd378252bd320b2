"""Convert Next-ViT weights: `python -m weight_conversion SRC DST --model NextViT_small [--to
paddle|torch|timm]`, or a detector's or segmentor's: `... --model MaskRCNN --backbone NextViT_small
[--to paddle|mmdet]`."""

import argparse

from ppcls_nextvit.cli import program
from ppcls_nextvit.weights.convert import TARGETS, convert


def parser():
    result = argparse.ArgumentParser(prog="python -m weight_conversion", description=__doc__)
    result.add_argument(
        "source",
        metavar="SRC",
        help=".pth, .pt, .safetensors, .pdparams or .npz, of any program that load_weights knows",
    )
    result.add_argument(
        "destination", metavar="DST", help=".pdparams, or .safetensors with another --to"
    )
    result.add_argument(
        "--model", required=True, help="NextViT_small, ..., MaskRCNN, SemanticFPN, UPerNet"
    )
    result.add_argument(
        "--backbone", help="of a detector or segmentor: its backbone, e.g. NextViT_small"
    )
    result.add_argument(
        "--to",
        default="paddle",
        choices=sorted(set().union(*TARGETS.values())),
        help="whose keys and layouts to write (default: paddle)",
    )
    result.add_argument(
        "--num-classes",
        type=int,
        help="demand a head of so many classes; 0 leaves the head out (default: as in the file)",
    )
    result.add_argument(
        "--entry",
        help="which entry of a checkpoint to take, e.g. model_ema (default: model, then "
        "state_dict, ...)",
    )
    result.add_argument(
        "--backbone-only",
        action="store_true",
        help="of a detector's or segmentor's file: its backbone, without the heads",
    )
    result.add_argument("--report", metavar="FILE.json", help="write one record per key")
    return result


@program
def main(argv=None) -> int:
    args = parser().parse_args(argv)
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


if __name__ == "__main__":
    raise SystemExit(main())
