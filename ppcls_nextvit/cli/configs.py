"""List, show and copy the configurations that are packaged.

    nextvit configs list small
    nextvit configs show NextViT_small_224.yaml
    nextvit configs copy detection/mask_rcnn_nextvit_small_1x_coco.yaml --to my_project

A copy lies where the commands of the pages look for it, below configs/, with the files that it
names.
"""

import argparse
import shutil
from pathlib import Path

from ..config.recipes import CHECKOUT, find, folder, named_files, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|copy")
    listing = actions.add_parser("list", help="names and titles")
    listing.add_argument("pattern", nargs="?", default="", help="only those that contain this")
    show = actions.add_parser("show", help="print one")
    show.add_argument("name")
    copy = actions.add_parser("copy", help="write one, and the files that it names, to change them")
    copy.add_argument("name")
    copy.add_argument(
        "--to", default=".", metavar="DIRECTORY", help="of its configs/ (default: here)"
    )


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        return _list(args.pattern)
    recipe = find(args.name)
    if recipe is None:
        from ..schema import nearest

        raise ValueError(f"no configuration {args.name!r}.{nearest(args.name, names())}")
    if args.action == "show":
        print(recipe.read_text(encoding="utf-8"), end="")
        return 0
    return _copy(recipe, Path(args.to))


def _list(pattern: str) -> int:
    found = names(pattern)
    if not found:
        raise ValueError(f"no configuration has {pattern!r} in its name; leave it out to see all")
    width = max(map(len, found))
    for name in found:
        print(f"{name:{width}}  {_title(folder() / name)}".rstrip())
    return 0


def _title(recipe: Path) -> str:
    """The first line of the comment above a recipe."""
    first = recipe.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _copy(recipe: Path, target: Path) -> int:
    copies = {file: target / CHECKOUT / file.relative_to(folder()) for file in named_files(recipe)}
    if copies[recipe].exists():
        raise FileExistsError(f"{copies[recipe]}: is there, and is not overwritten")
    for file, copy in copies.items():
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            print(copy)
    return 0
