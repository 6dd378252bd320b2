"""Speed of this project's models and exports beside PaddleClas's and timm's, on the same weights,
interleaved in one run, as ratios.

    python tools/benchmark.py --peer-python timm=PYTHON --peer-python paddleclas=PYTHON --json
    benchmark.json --chart benchmark.png

Every engine runs in a process of its own (tools/benchmark_worker.py), and all take turns, round
after round, so that whatever else the
machine does meets all alike: the ratios then say more than the milliseconds. What is not installed
is left out, and said. Before anything is timed, every engine's logits are compared with those of
the first. The machine's own limit, a product of two matrices, takes
turns too: `of gemm` is the share of its rate that an engine's multiply-adds reach, by the least
processor time of both. Processor time (`cpu`, of all threads) tells more than the clock where other
programs want the same cores.

    python tools/benchmark.py --task detection segmentation --peer-python paddleseg=PYTHON --rounds
    3 --runs 1

Mask R-CNN and the segmentors, with random weights: what of an image's inference is preprocessing,
network and postprocessing, and a training step, of segmentors on two images, without which UPerNet
cannot train. Inference and training have processes of their own, so that the peak memory is each
one's.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import benchmark_worker
import numpy
from benchmark_worker import ENGINES

from ppcls_nextvit.cli.common import program

WORKER = Path(__file__).with_name("benchmark_worker.py")
COLUMNS = {
    "size": "{}",
    "threads": "{}",
    "batch": "{}",
    "engine": "{}",
    "what": "{}",
    "min_ms": "{:.1f}",
    "median_ms": "{:.1f}",
    "share": "{:.3f}",
    "p95_ms": "{:.1f}",
    "images_per_s": "{:.1f}",
    "ratio": "{:.2f}",
    "cpu_ms": "{:.1f}",
    "cpu_ratio": "{:.2f}",
    "of_gemm": "{:.2f}",
    "memory_mb": "{:.0f}",
    "difference": "{:.0e}",
}
HEADINGS = {
    "min_ms": "min ms",
    "median_ms": "median ms",
    "p95_ms": "p95 ms",
    "images_per_s": "images/s",
    "ratio": "time / first engine's",
    "cpu_ms": "min cpu ms",
    "cpu_ratio": "cpu / first engine's",
    "of_gemm": "of gemm",
    "memory_mb": "peak MB",
    "difference": "logits differ by",
}
# height, width that the published recipes resize to
DENSE = {"detection": (800, 1333), "segmentation": (512, 683)}
STEP_IMAGES = {"detection": 1, "segmentation": 2}
GEMM = "gemm"
PEERS = list(
    dict.fromkeys(name.split()[0] for name in ENGINES if not name.startswith(("ours", GEMM)))
)
GEMM_FLOP = 2 * benchmark_worker.Gemm.SIDE**3
# random images that int8 is calibrated with; the speed does not depend on them
CALIBRATION = 8
PAUSE_S = 0.3  # after it, OpenMP's idle threads of the engine before have stopped spinning


class Worker:
    """An engine in its process. ImportError if it is not installed, ValueError with its last words
    if it fails.
    """

    def __init__(self, name, variant, size, threads, folder, python):
        self.name, self.log, self.memory_mb = name, tempfile.TemporaryFile("w+"), 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.process = subprocess.Popen(
            [python, WORKER, name, variant, str(size), str(threads), folder],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        hello = self._answer()
        if "missing" in hello:
            self.close()
            raise ImportError(hello["missing"])
        self.version = hello["version"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise ValueError(f"the engine {self.name!r} ended: {self.log.read()[-600:]}")
        return json.loads(line)

    def measure(self, task, batch, runs):
        """(milliseconds by the clock, by the processor) of `runs` runs of `task` at one batch
        size.
        """
        time.sleep(PAUSE_S)
        answer = self._ask({"task": task, "batch": batch, "runs": runs})
        self.memory_mb = answer["memory_mb"]
        return answer["ms"], answer["cpu_ms"]

    def parts(self, task, size, train, batch, runs):
        """{part: milliseconds of `runs` runs} of a detector or segmentor; the last part is the
        whole.
        """
        answer = self._ask(
            {"task": task, "size": size, "train": train, "batch": batch, "runs": runs}
        )
        self.memory_mb = answer["memory_mb"]
        parts = answer["ms"]
        return (
            parts if train else {**parts, "inference": [sum(run) for run in zip(*parts.values())]}
        )

    def output(self):
        """Logits [1][classes] of an image that is the same for every engine."""
        return self._ask({"task": "output"})

    def _ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def summary(rounds, base):
    """What `rounds`, [(milliseconds, processor's milliseconds) of the runs of a round, ...], come
    to.

    Least, median and 95th percentile of all runs; and the median over the rounds of this engine's
    median over the base's.
    """
    runs, cpu = (sorted(ms for one in rounds for ms in one[kind]) for kind in (0, 1))
    ratio, cpu_ratio = (median_ratio(rounds, base, kind) for kind in (0, 1))
    return {
        "min_ms": runs[0],
        "median_ms": statistics.median(runs),
        "p95_ms": runs[min(len(runs) - 1, int(0.95 * len(runs)))],
        "ratio": ratio,
        "cpu_ms": cpu[0],
        "cpu_ratio": cpu_ratio,
    }


def median_ratio(rounds, base, key):
    """The median over the rounds of the median of this engine's runs over that of the base's."""
    return statistics.median(
        statistics.median(one[key]) / statistics.median(of_base[key])
        for one, of_base in zip(rounds, base)
    )


def turns(workers, rounds, measure):
    """{engine: what measure(worker) returned in each round}, of workers that take turns."""
    taken = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            taken[worker.name].append(measure(worker))
    return taken


def compare(task, workers, batch, rounds, runs):
    """{engine: summary} of the workers that took turns, ratios to the first of them."""
    taken = turns(workers, rounds, lambda worker: worker.measure(task, batch, runs))
    base = taken[workers[0].name]
    return {name: summary(measured, base) for name, measured in taken.items()}


def start(args, tasks, size, threads, folder, absent):
    """The workers of the engines asked for that have one of the tasks; `absent` gets those that are
    not installed.
    """
    workers = []
    for name in args.engines:
        if name not in absent and (
            set(tasks) & set(ENGINES[name][2]) or name == GEMM and "latency" in tasks
        ):
            try:
                python = args.peer_python.get(name.split()[0], sys.executable)
                workers.append(Worker(name, args.model, size, threads, folder, python))
            except ImportError as error:
                absent[name] = str(error)
    return workers


def differences(workers):
    """{engine: largest difference of its logits from the first engine's, as a share of their
    scale}.
    """
    outputs = {worker.name: numpy.array(worker.output()) for worker in workers}
    expected = outputs[workers[0].name]
    return {
        name: float(numpy.abs(output - expected).max() / numpy.abs(expected).max())
        for name, output in outputs.items()
    }


def measure(task, workers, batch, args, multiply_adds):
    """One row of results per engine, as dicts, in the order of `workers`."""
    chosen = [worker for worker in workers if task in ENGINES[worker.name][2]]
    machine = [worker for worker in workers if worker.name == GEMM] if task == "latency" else []
    off = differences(chosen) if task == "latency" else {}
    results = compare(task, chosen + machine, batch, args.rounds, args.runs)
    fastest = results.pop(GEMM)["cpu_ms"] if machine else None
    for worker in chosen:
        result = results[worker.name]
        row = {
            "task": task,
            "batch": batch,
            "engine": worker.name,
            "version": worker.version,
            **result,
            "images_per_s": 1e3 * batch / result["median_ms"],
            "memory_mb": worker.memory_mb,
        }
        if task == "latency":
            row |= {"difference": off[worker.name]}
        if fastest:
            rate = GEMM_FLOP / fastest  # per ms
            row |= {
                "of_gemm": 2 * multiply_adds * batch / result["cpu_ms"] / rate,
                "gemm_gflops": rate / 1e6,
            }
        yield row


def compare_parts(task, workers, size, train, rounds, runs):
    """One row per engine and part, as dicts; `share` is the part's of the whole, over all runs,
    `ratio` to the first engine's part.
    """
    batch = STEP_IMAGES[task] if train else 1
    taken = turns(workers, rounds, lambda worker: worker.parts(task, size, train, batch, runs))
    for worker in workers:
        total = {
            part: sum(sum(one[part]) for one in taken[worker.name])
            for part in taken[worker.name][0]
        }
        *_, whole = total.values()
        for part in total:
            ms = [value for one in taken[worker.name] for value in one[part]]
            yield {
                "task": task,
                "batch": batch,
                "engine": worker.name,
                "version": worker.version,
                "what": part,
                "min_ms": min(ms),
                "median_ms": statistics.median(ms),
                "share": total[part] / whole,
                "ratio": median_ratio(taken[worker.name], taken[workers[0].name], part),
                "memory_mb": worker.memory_mb,
            }


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
                        if any(task in ENGINES[worker.name][2] for worker in workers):
                            found = measure(task, workers, batch, args, multiply_adds)
                            rows += [{"size": size, "threads": threads, **row} for row in found]
            finally:
                for worker in workers:
                    worker.close()
    return rows


def prepare(args, size, folder, absent):
    """Write into `folder` what the engines asked for need, once for all: weights, and exports for
    `size`; returns the multiply-adds.

    `absent` gets the engines whose export needs what is not installed, or is too far from the
    model.
    """
    import paddle

    from ppcls_nextvit import create_model, load_weights
    from ppcls_nextvit.export import TARGETS
    from ppcls_nextvit.export.verify import ExportError
    from ppcls_nextvit.models.complexity import count_macs
    from ppcls_nextvit.tasks.classification.export import export_classifier
    from ppcls_nextvit.tasks.classification.quantize import export_pair
    from ppcls_nextvit.weights.convert import convert

    paddle.set_device("cpu")
    paddle.seed(0)
    model = create_model(args.model)
    if args.weights:
        load_weights(model, args.weights)
    else:
        spread(model)
    weights = Path(folder, "weights.pdparams")
    if weights.exists():
        load_weights(model, str(weights))
    else:
        weights.parent.mkdir(parents=True, exist_ok=True)
        paddle.save(model.state_dict(), str(weights))
        convert(weights, Path(folder, "timm.safetensors"), args.model, "timm")
    exports = [
        ENGINES[name][1]
        for name in args.engines
        if ENGINES[name][0] is benchmark_worker.Deployed and "latency" in args.task
    ]
    images = list(
        numpy.random.default_rng(2).standard_normal(
            (CALIBRATION, 3, size, size), dtype=numpy.float32
        )
    )
    description = {
        "PreProcess": {"transform_ops": []},
        "PostProcess": {"Topk": {"topk": 1, "label_list": [""] * model.num_classes}},
    }

    def leave_out(error, *failed):
        absent.update({name: str(error) for name in args.engines if ENGINES[name][1] in failed})
        args.engines = [name for name in args.engines if name not in absent]

    for target in dict.fromkeys(target for target, _ in exports):
        folders = {
            precision: Path(folder, str(size), f"{target}_{precision}")
            for precision in ("fp32", "int8")
        }
        if all(folders[precision].exists() for name, precision in exports if name == target):
            continue
        try:
            if (target, "int8") in exports:
                try:
                    export_pair(
                        model,
                        TARGETS[target],
                        folders,
                        description,
                        (size, size),
                        images,
                        softmax=False,
                    )
                except ExportError as error:  # int8 of random weights
                    leave_out(error, (target, "int8"))
            # Paddle's int8 has a format of its own
            if target == "paddle" or (target, "int8") not in exports:
                export_classifier(
                    model,
                    TARGETS[target],
                    folders["fp32"],
                    description,
                    (size, size),
                    softmax=False,
                    size=(size, size),
                )
        except ImportError as error:
            leave_out(error, (target, "fp32"), (target, "int8"))
    return count_macs(model, size)


def spread(model, size=64):
    """Give random weights the scale of trained ones, and BatchNorms statistics that fit: fresh ones
    make logits near 0.
    """
    import paddle

    for layer in model.sublayers():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim in (2, 4):
            fan_in = weight.shape[0] if weight.ndim == 2 else numpy.prod(weight.shape[1:])
            weight.set_value(weight.numpy() * numpy.float32(fan_in**-0.5 / weight.numpy().std()))
        if hasattr(layer, "_momentum"):
            # statistics are those of the last batch alone
            layer._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model(paddle.randn([8, model.in_channels, size, size]))
    model.eval()


def markdown(rows):
    """The rows as one table per task."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        columns = [name for name in COLUMNS if any(name in row for row in own)]
        lines += [
            f"**{task}**",
            "",
            f"| {' | '.join(HEADINGS.get(name, name) for name in columns)} |",
            "|---" * len(columns) + "|",
        ]
        lines += [
            f"| {' | '.join(COLUMNS[name].format(row[name]) for name in columns)} |" for row in own
        ]
        lines.append("")
    return "\n".join(lines)


def draw(rows, path):
    """A picture of the latencies as ratios to the first engine's: one panel per size, batch and
    number of threads.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["task"] == "latency"]
    settings = list(dict.fromkeys((row["size"], row["threads"], row["batch"]) for row in rows))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    columns = min(4, len(settings))
    height = -(-len(settings) // columns)
    figure, axes = pyplot.subplots(
        height,
        columns,
        figsize=(1.5 + 3 * columns, height * (0.8 + 0.22 * len(engines))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, setting in zip(axes.flat, settings):
        ratios = {
            row["engine"]: row["ratio"]
            for row in rows
            if (row["size"], row["threads"], row["batch"]) == setting
        }
        bars = axis.barh(
            [engines.index(name) for name in ratios],
            list(ratios.values()),
            color=["#1f77b4" if name.startswith("ours") else "#b0b0b0" for name in ratios],
        )
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        axis.axvline(1, color="black", linewidth=0.6)
        axis.set(
            title=f"{setting[0]} px, {setting[1]} thread{'s' * (setting[1] > 1)}, batch "
            f"{setting[2]}",
            yticks=range(len(engines)),
            yticklabels=engines,
            xlim=(0, 1.18 * max(ratios.values())),
        )
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()
    figure.supxlabel(f"time / that of {engines[0]} (less is faster)", fontsize=9)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def peer(text):
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(
            f"expected NAME=PYTHON with one of {', '.join(PEERS)}, got {text!r}"
        )
    return name, python


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
    args.peer_python = dict(args.peer_python)
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
