"""Exported folders of any task, each by its own engine: the whole time of an image, with what comes
before and after the network apart, the time to the first answer of a cold process, and memory.

    python benchmarks/exports.py --models inference/onnx inference/openvino --images photos

Every folder has a process of its own for each of --rounds, in turns, so that a start is cold and
other work falls on all alike. Images are decoded beforehand, as the same decoder would be timed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from timed_engines.memory import peak_memory  # noqa: E402

PARTS = ("preprocessing", "network", "postprocessing", "image")
STARTS = ("first_answer", "peak_memory_mb")


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True, metavar="DIR", help="exports")
    parser.add_argument("--images", required=True, metavar="FILE|DIR", help="what is predicted")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="of each image (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="the figures, too")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)  # in a process of its own
    return parser.parse_args(argv)


class Watched:
    """A program that notes when its last run began and ended."""

    def __init__(self, program: Callable[[Any], Any]) -> None:
        self.program = program
        self.began = self.ended = 0.0

    def __call__(self, batch: Any) -> Any:
        self.began = time.perf_counter()
        outputs = self.program(batch)
        self.ended = time.perf_counter()
        return outputs


def measure(args: argparse.Namespace) -> Dict[str, float]:
    """{part: median milliseconds of an image, first_answer: seconds since the process was started,
    peak_memory_mb} of the only one of args.models.
    """
    from ppcls_nextvit.export import TARGETS
    from ppcls_nextvit.export.opened import open_export
    from ppcls_nextvit.export.target import DESCRIPTION
    from ppcls_nextvit.export.verify import Signature
    from ppcls_nextvit.models import MODELS
    from ppcls_nextvit.tasks import TASKS
    from ppcls_nextvit.tasks.common import list_images
    from ppcls_nextvit.tasks.inputs import InputImage

    folder = Path(args.models[0])
    made = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["Export"]
    inputs = {name: tuple(shape) for name, shape in made["inputs"].items()}
    signature, load = Signature(inputs, tuple(made["outputs"])), TARGETS[made["target"]].load
    watched = Watched(load(folder, signature, made["precision"], args.threads))
    opened = open_export(folder, watched)
    predictor = TASKS[MODELS.get(opened.model_name).task].exported_predictor(opened)
    images = [InputImage(str(path), path) for path in list_images(args.images)]
    for image in images:
        image.pixels()
    predictor.predict(images[:1])[0].to_dict()
    first_answer = time.time() - args.started
    taken: Dict[str, List[float]] = {part: [] for part in PARTS}
    for _ in range(args.runs):
        for image in images:
            start = time.perf_counter()
            predictor.predict([image])[0].to_dict()
            end = time.perf_counter()
            times = (watched.began - start, watched.ended - watched.began, end - watched.ended)
            for part, seconds in zip(PARTS, (*times, end - start)):
                taken[part].append(1e3 * seconds)
    medians = {part: statistics.median(values) for part, values in taken.items()}
    return {**medians, "first_answer": first_answer, "peak_memory_mb": peak_memory()}


def rounds(args: argparse.Namespace) -> Dict[str, Dict[str, float]]:
    """{folder: the medians over the rounds of what `measure` gives}."""
    found: Dict[str, List[Dict[str, float]]] = {model: [] for model in args.models}
    for _ in range(args.rounds):
        for model in args.models:
            command = [sys.executable, __file__, "--models", model, "--images", args.images]
            command += ["--runs", str(args.runs), "--threads", str(args.threads)]
            command += ["--started", repr(time.time())]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["it does not say why"]
                raise SystemExit(f"{model}: cannot be measured: {lines[-1]}")
            found[model].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        model: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for model, each in found.items()
    }


def table(figures: Dict[str, Dict[str, float]]) -> str:
    """The figures as a Markdown table; the last columns: an image's time over that of the first
    folder, and the share of it that is spent after the network.
    """
    lines = [
        "| export | before, ms | network, ms | after, ms | image, ms | first answer, s | peak MB "
        "| image / first export's | after / image |",
        "|---" * 9 + "|",
    ]
    first = next(iter(figures.values()))["image"]
    for model, row in figures.items():
        parts = " | ".join(f"{row[part]:.1f}" for part in PARTS)
        lines.append(
            f"| {Path(model).name} | {parts} | {row['first_answer']:.1f} | "
            f"{row['peak_memory_mb']:.0f} | {row['image'] / first:.2f} | "
            f"{100 * row['postprocessing'] / row['image']:.0f} % |"
        )
    return "\n".join(lines)


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parse(argv)
    if args.started is not None:
        print(json.dumps(measure(args)))
        return 0
    figures = rounds(args)
    print(table(figures))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
