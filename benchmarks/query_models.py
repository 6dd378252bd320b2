"""DINO and Mask2Former on a CPU, part by part, with the compiled operators and without.

    python benchmarks/query_models.py --rounds 2

DINO (4 levels) takes an image of 800 x 1333 pixels, Mask2Former one of 512 x 683. Each run is a
process of its own, which warms up on a small image; the forms take turns. Seconds are the
processor's; the peak is the memory that the process has held.
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
from ppcls_nextvit.models.segmentors.inference import best_class  # noqa: E402

# of the backbone's attention and of deformable attention
FORMS = {
    "native": ("native", "grid_sample"),
    "sliced": ("sliced", "grid_sample"),
    "compiled": ("compiled", "compiled"),
}
SIZES = {"DINO": (800, 1333), "Mask2Former": (512, 683)}
SMALL = (224, 256)
PARTS = {
    "DINO": {
        "backbone": "backbone.forward",
        "neck": "neck.forward",
        "encoder": "encoder.forward",
        "selection": "propose",
        "decoder": "decode",
        "postprocessing": "bbox_head.found",
    },
    "Mask2Former": {
        "backbone": "backbone.forward",
        "pixel decoder": "decode_head.pixel_decoder.forward",
        "decoder": "decode_head.decode",
    },
}


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--forms", nargs="+", default=["sliced", "compiled"], choices=list(FORMS))
    parser.add_argument("--backbone", default="TransNeXt_tiny")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "FORM"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class Stopwatch:
    """Seconds of the processor in methods, by the part's name."""

    def __init__(self, model: Any, parts: Dict[str, str]) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)
        for part, path in parts.items():
            *owners, name = path.split(".")
            owner = model
            for attribute in owners:
                owner = getattr(owner, attribute)
            setattr(owner, name, self.timed(getattr(owner, name), part))

    def timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[part] += time.process_time() - start

        return run


def infer(name: str, model: Any, size: Tuple[int, int]) -> None:
    image = paddle.randn([1, 3, *size])
    with paddle.no_grad():
        found = model(image)
        if name == "DINO":
            model.instances(found[0], size)
        else:
            best_class(found[0], size, size, size)


def measure(name: str, form: str, backbone: str, size: Tuple[int, int]) -> Dict[str, Any]:
    """{"parts": {part: seconds}, "peak": MB} of one image."""
    paddle.seed(0)
    own, sampling = FORMS[form]
    arguments = {"attention_form": own} if backbone.startswith("TransNeXt") else {}
    model = create_model(
        name, backbone={"name": backbone, **arguments}, sampling_form=sampling
    ).eval()
    if name == "DINO":
        # the least image that gives every query a token
        side = max(model.min_size, *SMALL)
        infer(name, model, (side, side))
    else:
        infer(name, model, SMALL)
    watch = Stopwatch(model, PARTS[name])
    start = time.process_time()
    infer(name, model, size)
    whole = time.process_time() - start
    # of Mask2Former probabilities of all pixels, their sums and the best class
    rest = whole - sum(watch.seconds.values())
    last = "rest" if name == "DINO" else "postprocessing"
    return {"parts": {**watch.seconds, last: rest, "whole": whole}, "peak": peak_memory()}


def in_a_process(args: argparse.Namespace, name: str, form: str, size: Tuple[int, int]) -> Any:
    command = [sys.executable, __file__, "--one", name, form, "--backbone", args.backbone]
    command += ["--size", *map(str, size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_rows(name: str, size: Tuple[int, int], taken: Dict[str, List[Any]]) -> None:
    base = next(iter(taken))
    for part in taken[base][0]["parts"]:
        for form, runs in taken.items():
            own = [run["parts"][part] for run in runs]
            ratios = [
                seconds / max(of_base["parts"][part], 1e-9)
                for seconds, of_base in zip(own, taken[base], strict=True)
            ]
            cells = [f"{name}, {size[0]} x {size[1]}", part, form]
            cells += [f"{statistics.median(own):.3f}", f"{statistics.median(ratios):.2f}"]
            cells.append(f"{max(run['peak'] for run in runs):.0f}" if part == "whole" else "")
            print("| " + " | ".join(cells) + " |", flush=True)


def main(argv: Any = None) -> int:
    args = parse(argv)
    if args.one:
        print(json.dumps(measure(*args.one, args.backbone, tuple(args.size))))
        return 0
    if "compiled" in args.forms and not ops.is_loaded():
        print(f"error: {ops.status_line()}", file=sys.stderr)
        return 1
    print(f"| image | part | form | s | / {args.forms[0]} | peak MB |\n|---|---|---|---|---|---|")
    for name in args.models:
        size = tuple(args.size or SIZES[name])
        taken: Dict[str, List[Any]] = {form: [] for form in args.forms}
        for _ in range(args.rounds):
            for form, runs in taken.items():
                runs.append(in_a_process(args, name, form, size))
        print_rows(name, size, taken)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
