"""Multi-scale deformable attention on a CPU: the compiled operator beside the grid_sample form.

    python benchmarks/deformable.py --rounds 3

For the samples of DINO's encoder and decoder at an image of 800 x 1333 pixels and of Mask2Former's
pixel decoder at 512 x 683: the processor's time of a forward and of a forward with its backward,
the forms in turns, their median; and the memory that forward with backward takes above what stood
before, each in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import paddle  # noqa: E402
from attention import Runs, seconds, shown  # noqa: E402
from timed_engines.memory import peak_memory  # noqa: E402

from ppcls_nextvit import ops  # noqa: E402
from ppcls_nextvit.models.detectors.deformable import (  # noqa: E402
    multi_scale_deformable_attention,
)

FORMS = {"grid_sample": multi_scale_deformable_attention, "compiled": ops.deformable_attention}
HEADS, CHANNELS, POINTS = 8, 32, 4


class Place(NamedTuple):
    """The maps that are attended to, and how many queries there are; None: one for each token."""

    shapes: List[Tuple[int, int]]
    queries: Optional[int] = None


DINO_SHAPES = [(100, 167), (50, 84), (25, 42), (13, 21)]
PLACES = {
    "DINO's encoder": Place(DINO_SHAPES),
    "DINO's decoder": Place(DINO_SHAPES, 900),
    "Mask2Former's pixel decoder": Place([(16, 22), (32, 43), (64, 86)]),
}


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("PLACE", "FORM"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def runs(place: str, form: str) -> Runs:
    """Functions by name: forward, and forward with backward. A query looks around a place of its
    own, as after some training.
    """
    paddle.seed(0)
    shapes, queries = PLACES[place]
    tokens = sum(height * width for height, width in shapes)
    queries = queries or tokens
    value = paddle.randn([1, tokens, HEADS, CHANNELS])
    samples = [1, queries, HEADS, len(shapes), POINTS]
    row = paddle.linspace(0, 1, queries).reshape([1, queries, 1, 1, 1, 1])
    centres = paddle.concat([paddle.rand([1, queries, 1, 1, 1, 1]), row], axis=-1)
    locations = centres + 0.05 * paddle.randn([*samples, 2])
    weights = paddle.nn.functional.softmax(paddle.randn([*samples[:3], len(shapes) * POINTS]))
    inputs = [value, locations, weights.reshape(samples)]
    grad = paddle.randn([1, queries, HEADS * CHANNELS])

    def forward() -> None:
        with paddle.no_grad():
            FORMS[form](inputs[0], shapes, *inputs[1:])

    def step() -> None:
        for x in inputs:
            x.stop_gradient = False
        FORMS[form](inputs[0], shapes, *inputs[1:]).backward(grad)
        for x in inputs:
            x.clear_gradient(set_to_zero=False)

    return {"forward": forward, "forward + backward": step}


def memory_mb(place: str, form: str) -> float:
    """In a process of its own: the peak of two steps above what stood before them."""
    command = [sys.executable, __file__, "--memory-of", place, form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_memory(place: str, form: str) -> None:
    step = runs(place, form)["forward + backward"]
    before = peak_memory()
    for _ in range(2):
        step()
    print(json.dumps(peak_memory() - before))


def main(argv: Any = None) -> int:
    args = parse(argv)
    if args.memory_of:
        print_memory(*args.memory_of)
        return 0
    if not ops.is_loaded():
        print(f"error: {ops.status_line()}", file=sys.stderr)
        return 1
    print("CPU seconds, median and minimum; ratios are medians over the turns")
    print("| what | form | forward | forward + backward | / grid_sample | peak MB | / it |")
    print("|---|---|---|---|---|---|---|")
    for place in args.places:
        taken: Dict[Tuple[str, str], List[float]] = {}
        all_runs = {form: runs(place, form) for form in FORMS}
        for turn in range(args.rounds + 1):
            for form, named in all_runs.items():
                for name, run in named.items():
                    found = seconds(run)
                    if turn:  # the first one warms up
                        taken.setdefault((form, name), []).append(found)
        memory = {form: memory_mb(place, form) for form in FORMS}
        for form in FORMS:
            names = list(all_runs[form])
            ratios = [
                statistics.median(
                    own / base
                    for own, base in zip(taken[form, name], taken["grid_sample", name], strict=True)
                )
                for name in names
            ]
            cells = [place, form, *(shown(taken[form, name]) for name in names)]
            cells.append(" and ".join(f"{ratio:.3f}" for ratio in ratios))
            cells += [f"{memory[form]:.0f}", f"{memory[form] / memory['grid_sample']:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
