r"""Look at what a model sees: attention, class evidence, ...

    nextvit explain cam --model output/NextViT_small_224 --images photos --out seen
    nextvit explain attention -c TransNeXt_tiny_224.yaml -o Global.pretrained_model=best_model \
        --images dog.jpg --point 112 96

attention: what a pixel attends to, block by block. cam: which places speak for a class, or for an
object. erf: effective receptive fields. fourier: which frequencies the blocks let pass. features:
the stages' maps as colours. multiscale: the figure of merit against the size of the images. Each
picture (PNG) goes into --out, its numbers (JSON) beside it.
"""

import argparse
from typing import Any, Dict

from .common import add_config, load, say_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = ("attention", "cam", "erf", "fourier", "features", "multiscale")
    parser.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    add_config(parser)
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders, patterns, lists (.txt) (default: Infer.infer_imgs; of multiscale "
        "DataLoader.Eval)",
    )
    parser.add_argument(
        "--out", default="output/explain", metavar="DIRECTORY", help="default: %(default)s"
    )
    attention = parser.add_argument_group("of attention")
    attention.add_argument(
        "--point",
        dest="points",
        nargs=2,
        type=int,
        action="append",
        metavar=("X", "Y"),
        help="a pixel of the image as the model sees it; may be repeated (default: the centre)",
    )
    attention.add_argument("--grid", type=int, metavar="N", help="N x N pixels instead")
    attention.add_argument(
        "--objects", action="store_true", help="the centres of a detector's objects instead"
    )
    attention.add_argument("--heads", action="store_true", help="each head apart, not their mean")
    attention.add_argument(
        "--every-block", action="store_true", help="not the last of each stage alone"
    )
    cam = parser.add_argument_group("of cam")
    cam.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="names or indices (default: the best; of a segmentor the largest; of a detector the "
        "best objects)",
    )
    cam.add_argument(
        "--method",
        choices=("grad", "hires", "eigen"),
        help="Grad-CAM, HiResCAM (each value times its own gradient), or Eigen-CAM, which knows no "
        "class (default: hires for an object, else grad)",
    )
    cam.add_argument(
        "--stage",
        type=int,
        metavar="N",
        help="whose map is looked at (default: the last of 7 x 7 cells or more)",
    )
    erf = parser.add_argument_group("of erf")
    erf.add_argument(
        "--untrained", action="store_true", help="draw the fields before training, too"
    )
    multiscale = parser.add_argument_group("of multiscale")
    multiscale.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        metavar="PIXELS",
        help="default: 1, 1.5, 2, 2.5 and 3 times Global.image_shape",
    )
    multiscale.add_argument(
        "--agreement",
        action="store_true",
        help="without truth: how far predictions on the images agree with those at the size of "
        "training",
    )


def run(args: argparse.Namespace) -> int:
    from ..explain import Settings
    from ..explain import run as explain

    say_threads()
    given: Dict[str, Any] = {
        name: value
        for name in vars(Settings())
        # 0 is given, and is refused where it cannot be meant
        if (value := getattr(args, name)) is not None and value is not False
    }
    if args.points:
        given["points"] = tuple(map(tuple, args.points))
    for name in ("classes", "sizes"):
        if name in given:
            given[name] = tuple(given[name])
    explain(args.kind, load(args), Settings(**given), args.out, args.images, said=print)
    return 0
