r"""Speed of this project's models and exports beside PaddleClas's, timm's and TransNeXt's own, on
the same weights, interleaved in one run, as ratios.

    python benchmarks/compare.py --peer-python timm=PYTHON --peer-python paddleclas=PYTHON \
        --json benchmark.json --chart benchmark.png

Every engine runs in a process of its own (benchmarks/worker.py), and all take turns, round after
round, so that whatever else the machine does meets all alike: the ratios then say more than the
milliseconds. What is not installed is left out, and said. Before anything is timed, every engine's
logits are compared with those of the first. The machine's own limit, a product of two matrices,
takes turns too: `of gemm` is the share of its rate that an engine's multiply-adds reach, by the
least processor time of both. Processor time (`cpu`, of all threads) tells more than the clock where
other programs want the same cores.

    python benchmarks/compare.py --model TransNeXt_tiny --size 224 --threads 1 --engines \
        "transnext eager" "ours onnx" "ours openvino" --peer-python transnext=PYTHON_WITH_TORCH \
        --peer-path transnext=TransNeXt/classification

TransNeXt as it is deployed, beside the eager model of its repository (which needs timm and, for
pkg_resources, setuptools below 81).

    python benchmarks/compare.py --task detection segmentation \
        --peer-python paddleseg=PYTHON --rounds 3 --runs 1

Mask R-CNN and the segmentors, with random weights: what of an image's inference is preprocessing,
network and postprocessing, and a training step, of segmentors on two images, without which UPerNet
cannot train. Inference and training have processes of their own, so that the peak memory is each
one's.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

from prepare import prepare
from report import draw, markdown
from timed_engines import ENGINES
from turns import GEMM, Worker, compare_parts, measure

from ppcls_nextvit.cli.common import program

# height, width that the published recipes resize to
DENSE = {"detection": (800, 1333), "segmentation": (512, 683)}
PEERS = list(
    dict.fromkeys(name.split()[0] for name in ENGINES if not name.startswith(("ours", GEMM)))
)


def start(args, tasks, size, threads, folder, absent):
    """The workers of the engines asked for that have one of the tasks; `absent` gets those that are
    not installed.
    """
    workers = []
    for name in args.engines:
        if name not in absent and (
            set(tasks) & set(ENGINES[name].tasks) or name == GEMM and "latency" in tasks
        ):
            try:
                peer = name.split()[0]
                python = args.peer_python.get(peer, sys.executable)
                path = args.peer_path.get(peer)
                workers.append(Worker(name, args.model, size, threads, folder, python, path))
            except ImportError as error:
                absent[name] = str(error)
    return workers


def run_dense(args, folder, absent):
    """The rows of detection and segmentation, as dicts; `absent` gets the engines that are not
    installed.
    """
    rows = []
    for task, threads, train in itertools.product(DENSE, args.threads, (False, True)):
        if task in args.task:
            size = args.dense_size or DENSE[task]
            workers = start(args, [task], 0, threads, folder, absent)
            try:
                found = compare_parts(task, workers, size, train, args.rounds, args.runs)
                rows += [
                    {"size": "x".join(map(str, size)), "threads": threads, **row} for row in found
                ]
            finally:
                for worker in workers:
                    worker.close()
    return rows


def run_classifiers(args, folder, absent):
    """The rows of the classifiers' tasks, as dicts; `absent` gets the engines that are not
    installed.
    """
    rows, tasks = [], set(args.task) - set(DENSE)
    for size in args.size if tasks else ():
        multiply_adds = prepare(args, size, folder, absent)
        for threads in args.threads:
            workers = start(args, tasks, size, threads, folder, absent)
            try:
                for task, batches in (
                    ("latency", args.batch),
                    ("train", args.train_batch),
                    ("data", args.train_batch),
                ):
                    for batch in batches if task in args.task else ():
                        if any(task in ENGINES[worker.name].tasks for worker in workers):
                            found = measure(task, workers, batch, args, multiply_adds)
                            rows += [{"size": size, "threads": threads, **row} for row in found]
            finally:
                for worker in workers:
                    worker.close()
    return rows


def peer(text):
    name, _, place = text.partition("=")
    if name not in PEERS or not place:
        raise argparse.ArgumentTypeError(
            f"expected NAME=PATH with one of {', '.join(PEERS)}, got {text!r}"
        )
    return name, place


def parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--task",
        nargs="+",
        choices=("latency", "train", "data", *DENSE),
        default=["latency"],
        help="data: the transforms of the 224 recipe on one core, images per second; detection "
        "and segmentation: an "
        "image's inference in its parts, and a training step",
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=list(ENGINES),
        metavar="NAME",
        help=f"the first is what the others are compared with; of {', '.join(ENGINES)}",
    )
    parser.add_argument("--model", default="NextViT_small")
    parser.add_argument(
        "--weights", metavar="FILE", help="of the model, in any format (default: random ones)"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[224, 384], help="pixels")
    parser.add_argument(
        "--dense-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the detector's and segmentor's resized image (default: 800 1333, 512 683)",
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8], help="images per run (latency)"
    )
    parser.add_argument(
        "--train-batch", type=int, nargs="+", default=[8], help="images per step (train)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each engine in a round")
    parser.add_argument(
        "--peer-python",
        type=peer,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help=f"the interpreter that has a peer ({', '.join(PEERS)}), if not this one; may be "
        f"repeated. PaddleSeg's "
        "needs this project, too",
    )
    parser.add_argument(
        "--peer-path",
        type=peer,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where that interpreter finds a peer that is not installed: of `transnext` the folder "
        "classification/ of a checkout of DaiShiResearch/TransNeXt; as PYTHONPATH, several are "
        "joined",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="keep the exports here, and use those that are here"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows as JSON")
    parser.add_argument(
        "--chart",
        metavar="FILE",
        type=Path,
        help="draw the latencies' ratios (.png or .svg); needs matplotlib",
    )
    return parser


@program
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    args.peer_python, args.peer_path = dict(args.peer_python), dict(args.peer_path)
    if args.chart and "latency" not in args.task:
        raise ValueError(
            f"--chart draws latencies, and --task is {' '.join(args.task)}; leave it out"
        )
    with tempfile.TemporaryDirectory() as folder:
        folder, absent = args.folder or folder, {}
        rows = run_classifiers(args, folder, absent) + run_dense(args, folder, absent)
    if not rows:
        raise ValueError(f"nothing was measured; not installed: {absent}")
    print(markdown(rows))
    print("\n".join(dict.fromkeys(f"{row['engine']}: {row['version']}" for row in rows)))
    for name, reason in absent.items():
        print(f"{name}: left out ({reason})")
    if args.chart:
        draw(rows, args.chart)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
