"""Evaluate published weights and compare the figures.

    nextvit reproduce --weights nextvit_small.in1k_224.official --data dataset/ILSVRC2012

Exit status: 0 ours is within the tolerance of the published figure, on the complete set; 1 it is
not, or an error (one line on stderr); 3 there is nothing to compare with: no published figure,
--limit, or a set that is not complete. The numbers are in OUT either way.
"""

import argparse
import logging
from pathlib import Path

from .common import add_imports, say_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..reproduce import PUBLISHED_DATASETS

    add_imports(parser)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="a name of docs/model_zoo.md, or a file of any known format",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--set",
        choices=list(PUBLISHED_DATASETS),
        help="which dataset DIR is (default: as the weights)",
    )
    parser.add_argument(
        "--labels",
        metavar="PATH",
        help="imagenet in one folder: a list of lines `path class`, or the ILSVRC devkit",
    )
    parser.add_argument(
        "--synsets",
        metavar="PATH",
        help="the 1000 WordNet ids: a text file, or a folder with one subfolder per class; "
        "needed for a and r",
    )
    parser.add_argument("--real", metavar="FILE", help="real.json, the labels of --set real")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="reports and predictions (default: output/reproduce/WEIGHTS/SET)",
    )
    parser.add_argument(
        "--model", help="architecture of a FILE (default: as the zoo says, else NextViT_small)"
    )
    parser.add_argument(
        "--record",
        metavar="NAME",
        help="zoo record that FILE is (default: the one with this file name)",
    )
    parser.add_argument(
        "--crop", type=int, metavar="PIXELS", help="for a FILE without record: crop (default 224)"
    )
    parser.add_argument(
        "--crop-ratio",
        type=float,
        metavar="RATIO",
        help="for a FILE without record: crop / shorter side (default 0.875)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        metavar="POINTS",
        help="percentage points (default 0.1)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N images, evenly spread")
    parser.add_argument(
        "--batch-size", type=int, help="default 64; for detection and segmentation 1"
    )
    parser.add_argument("--num-workers", type=int, default=4)
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu, xpu, ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    from ..engine.distributed import start_processes
    from ..reproduce import default_dataset, reproduce
    from ..zoo.records import Preprocessing

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    say_threads()
    processes = start_processes(args.device)
    if args.device not in ("auto", processes.device):
        raise ValueError(
            f"--device {args.device}: this Paddle cannot drive it here; use --device "
            f"{processes.device}"
        )
    kind = args.set or default_dataset(args.weights, args.record)
    out = args.out or Path("output", "reproduce", Path(args.weights).name, kind)
    given = args.crop is not None or args.crop_ratio is not None
    preprocessing = Preprocessing(args.crop or 224, args.crop_ratio or 0.875) if given else None
    layout = {
        key: value
        for key in ("labels", "synsets", "real")
        if (value := getattr(args, key)) is not None
    }
    report = reproduce(
        args.weights,
        args.data,
        out,
        kind,
        args.model,
        args.record,
        preprocessing,
        args.tolerance,
        args.limit,
        args.batch_size,
        args.num_workers,
        processes,
        **layout,
    )
    if processes.is_main:
        print((Path(out) / "report.md").read_text(encoding="utf-8").rpartition("![")[0].rstrip())
        print(f"- details: {out}")
    return report["status"]
