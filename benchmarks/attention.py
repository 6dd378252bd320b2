"""Aggregated attention of TransNeXt on a CPU: the compiled operator beside the other forms.

    python benchmarks/attention.py --batch 4 --rounds 5

For the layer of each stage at an image of --size pixels, and for the whole network: the processor's
time of a forward and of a forward with its backward, the forms in turns, their median; and the
memory that forward with backward takes above what stood before, each in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import paddle  # noqa: E402
from timed_engines.memory import peak_memory  # noqa: E402

from ppcls_nextvit import create_model, ops  # noqa: E402
from ppcls_nextvit.models.backbones import transnext  # noqa: E402

FORMS = ("native", "sliced", "compiled")
Runs = Dict[str, Callable[[], Any]]


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="TransNeXt_tiny", choices=sorted(transnext.VARIANTS))
    parser.add_argument("--size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, metavar=("PLACE", "FORM"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def places(model: str) -> List[str]:
    """What is measured: the layer of each stage that has aggregated attention; the network."""
    ratios = transnext.VARIANTS[model].sr_ratios
    return [*(f"stage {i + 1}" for i, ratio in enumerate(ratios) if ratio > 1), "network"]


def runs(args: argparse.Namespace, place: str, form: str) -> Runs:
    """Functions by name: forward, and forward with backward."""
    paddle.seed(0)
    if place == "network":
        model = create_model(args.model, attention_form=form, drop_path_rate=0.0)
        inputs: Tuple[Any, ...] = (paddle.randn([args.batch, 3, args.size, args.size]),)
    else:
        stage = int(place[-1]) - 1
        config = transnext.VARIANTS[args.model]
        side = args.size // (4 << stage)
        options = transnext.BlockOptions(3, form, None, 0.0, 0.0)
        channels = config.channels[stage]
        model = transnext.AggregatedAttention(channels, config.sr_ratios[stage], options)
        size = (side, side)
        unit = config.pretrain_size // (4 << stage) - 1
        known = transnext.find_places(size, model.pool_size(size), unit, model.window)
        inputs = (paddle.randn([args.batch, side * side, channels]), known)

    def forward() -> None:
        model.eval()
        with paddle.no_grad():
            model(*inputs)

    def step() -> None:
        model.train()
        inputs[0].stop_gradient = False
        model(*inputs).sum().backward()
        model.clear_gradients()
        inputs[0].clear_gradient()

    return {"forward": forward, "forward + backward": step}


def seconds(run: Callable[[], Any]) -> float:
    """The processor's, of all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def memory_mb(args: argparse.Namespace, place: str, form: str) -> float:
    """In a process of its own: the peak of two steps above what stood before them."""
    command = [sys.executable, __file__, "--model", args.model, "--size", str(args.size)]
    command += ["--batch", str(args.batch), "--memory-of", place, form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_memory(args: argparse.Namespace) -> None:
    step = runs(args, *args.memory_of)["forward + backward"]
    before = peak_memory()
    for _ in range(2):
        step()
    print(json.dumps(peak_memory() - before))


def main(argv: Any = None) -> int:
    args = parse(argv)
    if args.memory_of:
        print_memory(args)
        return 0
    if not ops.is_loaded():
        print(f"error: {ops.status_line()}", file=sys.stderr)
        return 1
    print(f"{args.model}, {args.size} px, batch {args.batch}; CPU seconds, median and minimum")
    print("| what | form | forward | forward + backward | / native | peak MB | / native |")
    print("|---|---|---|---|---|---|---|")
    for place in places(args.model):
        all_runs = {form: runs(args, place, form) for form in FORMS}
        taken: Dict[Tuple[str, str], List[float]] = {}
        for turn in range(args.rounds + 1):
            for form, named in all_runs.items():
                for name, run in named.items():
                    found = seconds(run)
                    if turn:  # the first one warms up
                        taken.setdefault((form, name), []).append(found)
        memory = {form: memory_mb(args, place, form) for form in FORMS}
        for form in FORMS:
            cells = [place, form]
            cells += [shown(taken[form, name]) for name in all_runs[form]]
            ratios = [
                statistics.median(taken[form, name]) / statistics.median(taken["native", name])
                for name in all_runs[form]
            ]
            cells.append(" and ".join(f"{ratio:.2f}" for ratio in ratios))
            cells += [f"{memory[form]:.0f}", f"{memory[form] / max(memory['native'], 1e-9):.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    return 0


def shown(times: List[float]) -> str:
    return f"{statistics.median(times):.4f} ({min(times):.4f})"


if __name__ == "__main__":
    raise SystemExit(main())
