"""Make, index and check shards: many images in few tar files.

    nextvit shards make shards/train --image-root photos/train --shuffle 0
    nextvit shards index shards/train
    nextvit shards check shards/train

Their layout is WebDataset's. A YAML reads them with the dataset ImageShards; image_root of the
other datasets may be a folder of shards, too.
"""

import argparse
from typing import Any

MEGABYTE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|index|check")
    make = actions.add_parser("make", help="write shards, and their index")
    make.add_argument("folder", help="of the shards: empty, or not there yet")
    make.add_argument(
        "--image-root",
        required=True,
        metavar="DIR",
        help="of the images: one folder for each class; or, with --list, a folder or a zip file",
    )
    make.add_argument("--list", metavar="FILE", help="lines `path label` that name the images")
    make.add_argument("--delimiter", default=" ", help="of --list (default: a blank)")
    make.add_argument(
        "--unlabelled",
        action="store_true",
        help="all images below --image-root under their names, for detection and segmentation",
    )
    make.add_argument(
        "--shuffle", type=int, metavar="SEED", help="in a random order (default: as they come)"
    )
    make.add_argument("--megabytes", type=int, default=256, help="of a shard, about (default: 256)")
    index = actions.add_parser("index", help="write the index of shards made elsewhere")
    index.add_argument("folder")
    index.add_argument("--unlabelled", action="store_true", help="images without labels")
    check = actions.add_parser("check", help="read every image, and compare it with the index")
    check.add_argument("folder")


def run(args: argparse.Namespace) -> int:
    return {"make": _make, "index": _index, "check": _check}[args.action](args)


def _make(args: argparse.Namespace) -> int:
    import numpy as np

    from ..data.shards import make_shards

    source = _source(args)
    order = np.arange(len(source.names))
    if args.shuffle is not None:
        order = np.random.default_rng(args.shuffle).permutation(order)
    count = make_shards(source, order, args.folder, args.megabytes * MEGABYTE)
    print(f"{args.folder}: {len(order)} images in {count} shards, and their index")
    return 0


def _source(args: argparse.Namespace) -> Any:
    """The images that are asked for."""
    from ..data.datasets.classification import ImageFolder, ImageNetDataset
    from ..data.datasets.files import UnlabelledFiles

    if args.unlabelled:
        if args.list:
            raise ValueError("--unlabelled takes all images of --image-root; leave --list out")
        return UnlabelledFiles(args.image_root)
    if args.list:
        return ImageNetDataset(
            None,
            image_root=args.image_root,
            cls_label_path=args.list,
            delimiter=args.delimiter,
        )
    return ImageFolder(None, image_root=args.image_root)


def _index(args: argparse.Namespace) -> int:
    from ..data.shards import index_shards

    count = index_shards(args.folder, not args.unlabelled)
    print(f"{args.folder}: {count} images indexed")
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..data.images import ImageError
    from ..data.shards import ShardFiles

    files = ShardFiles(args.folder)
    bad = 0
    for number in range(len(files.index)):
        try:
            files.read_number(number)
        except ImageError as error:
            bad += 1
            print(error)
    print(f"{args.folder}: {len(files.index)} images, {bad} damaged")
    return 1 if bad else 0
