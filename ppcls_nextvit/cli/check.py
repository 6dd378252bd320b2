"""Examine a folder of data before training on it.

    nextvit check photos --html check.html

Counts per class and split, sizes, images that cannot be read, the same or a similar image in
training and evaluation, classes without images, boxes that cannot be meant. Takes what `nextvit
train --data` takes. Exit status 1 if something is wrong.
"""

import argparse
import sys
from pathlib import Path

from .common import LAYOUTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DIR", help="images by class, lists, a table, COCO json, ..."
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="default: what is there")
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of each class, to evaluate on, where the folder does not say (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of that split (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write what was found as JSON")
    parser.add_argument(
        "--html", metavar="FILE", help="write it as one HTML file, with histograms as pictures"
    )


def run(args: argparse.Namespace) -> int:
    from ..api.doctor import examined
    from ..api.layouts import recognised
    from ..api.recipe import described
    from ..tasks.common import write_json

    data = recognised(Path(args.data), args.layout, args.val_share, args.seed)
    for line in (described(data), *data.notes):
        print(line)
    findings = examined(data, _progress if sys.stderr.isatty() else None)
    for line in findings.facts:
        print(line)
    for line in findings.warnings:
        print(f"warning: {line}")
    for line in findings.errors:
        print(f"error: {line}")
    print(f"{len(findings.errors)} errors, {len(findings.warnings)} warnings")
    if args.json:
        write_json(args.json, findings.to_dict())
        print(f"written: {args.json}")
    if args.html:
        from ..api.doctor_page import write_findings

        described_as = (described(data), *data.notes)
        write_findings(Path(args.html), f"Check of {data.root}", described_as, findings)
        print(f"written: {args.html}")
    return int(bool(findings.errors))


def _progress(done: int, total: int) -> None:
    if done % 20 == 0 or done == total:
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} images", end=end, file=sys.stderr, flush=True)
