"""The compiled operators for GPUs: checked against stored results and against torch's own gradients
in float64, and timed beside the unfold and the grid_sample form in torch.

    nextvit build-ops --cuda
    python benchmarks/gpu/harness.py --library PATH --stored tests/golden/swattention_seed0.npz

PATH: what build-ops names. Needs numpy and torch for CUDA, and no Paddle. It has never been run on
a GPU: with `--device cpu` and the sources compiled for a CPU, all but the launches was.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, List

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from cases import (  # noqa: E402
    TIMED_SHAPES,
    Case,
    attention_case,
    deformable_case,
    stored_cases,
)
from forms import aggregated_attention, deformable_attention  # noqa: E402
from library import Library  # noqa: E402

FORMS = {"attention": aggregated_attention, "deformable": deformable_attention}
# of the largest value of each gradient; the 16-bit types after rounding the inputs
BOUNDS = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 4e-2}


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", required=True, help="of `nextvit build-ops --cuda`")
    parser.add_argument("--stored", help="npz file of the reference's results, to check too")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=20, help="timed runs; 0: check only")
    return parser.parse_args(argv)


class Problem:
    """A case in a device's memory, in one type."""

    def __init__(self, case: Case, dtype: str, device: str) -> None:
        self.case, self.dtype, self.device = case, dtype, device
        self.inputs = [self._tensor(x) for x in case.inputs]
        self.grad = self._tensor(case.grad)
        self.out = torch.empty_like(self.grad)
        self.with_grad = [x for i, x in enumerate(self.inputs) if i not in case.without]
        self.grads = [torch.empty_like(x) for x in self.with_grad]

    def _tensor(self, x) -> torch.Tensor:
        return torch.tensor(x, dtype=getattr(torch, self.dtype), device=self.device)

    def stream(self) -> int:
        return torch.cuda.current_stream().cuda_stream if self.device == "cuda" else 0

    def forward(self, library: Library) -> None:
        inputs = [x.data_ptr() for x in self.inputs]
        library.forward(
            *self._common(), inputs, self.out.data_ptr(), self.case.sides, self.stream()
        )

    def backward(self, library: Library) -> None:
        size = library.workspace(*self._common())
        memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        inputs, grads = ([x.data_ptr() for x in xs] for xs in (self.inputs, self.grads))
        library.backward(
            *self._common(),
            inputs,
            self.grad.data_ptr(),
            grads,
            memory.data_ptr(),
            size,
            self.case.sides,
            self.stream(),
        )

    def _common(self):
        return self.case.operator, self.dtype, self.case.sizes

    def in_torch(self, dtype: torch.dtype) -> List[torch.Tensor]:
        """[result, *gradients] of the form in torch, computed in `dtype`."""
        given = [
            x.to(dtype).requires_grad_(i not in self.case.without)
            for i, x in enumerate(self.inputs)
        ]
        out = FORMS[self.case.operator](*given, **self.case.settings)
        wanted = [x for x in given if x.requires_grad]
        grads = torch.autograd.grad(out, wanted, self.grad.to(dtype), allow_unused=True)
        pairs = zip(grads, wanted, strict=True)
        return [out, *(torch.zeros_like(x) if g is None else g for g, x in pairs)]


def check(case: Case, dtype: str, library: Library, device: str) -> bool:
    """Whether result and gradients are within the bound; prints the largest difference."""
    problem = Problem(case, dtype, device)
    problem.forward(library)
    problem.backward(library)
    found = [x.double().cpu() for x in (problem.out, *problem.grads)]
    expected = [x.detach().cpu() for x in problem.in_torch(torch.float64)]
    if dtype == "float32":  # of inputs that are rounded to less the stored ones are not the results
        for i, x in case.stored.items():
            expected[i] = torch.tensor(x)
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if other.numel():
            apart = (one - other).abs().max() / max(1.0, float(other.abs().max()))
            worst = max(worst, float("inf") if apart.isnan() else float(apart))
    right = worst <= BOUNDS[dtype]
    print(
        f"{'ok   ' if right else 'WRONG'} {dtype:9} {worst:.1e} of {BOUNDS[dtype]:.0e}  {case.name}"
    )
    return right


def milliseconds(run: Callable[[], Any], device: str) -> float:
    """By the clock, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def time_beside_torch(case: Case, dtype: str, library: Library, device: str, runs: int) -> None:
    """Medians of runs in turns."""
    problem = Problem(case, dtype, device)
    form = FORMS[case.operator]

    def torch_forward():
        with torch.no_grad():
            form(*problem.inputs, **case.settings)

    def compiled_step():
        problem.forward(library)
        problem.backward(library)

    kinds = {
        "forward": (lambda: problem.forward(library), torch_forward),
        "forward + backward": (compiled_step, lambda: problem.in_torch(problem.out.dtype)),
    }
    for kind, (ours, theirs) in kinds.items():
        taken: List[List[float]] = [[], []]
        for turn in range(runs + 2):
            for times, run in zip(taken, (ours, theirs), strict=True):
                found = milliseconds(run, device)
                if turn > 1:  # the first ones warm up
                    times.append(found)
        own, other = map(statistics.median, taken)
        print(f"| {case.name} | {dtype} | {kind} | {own:.3f} | {other:.3f} | {own / other:.2f} |")


def main(argv: Any = None) -> int:
    args = parse(argv)
    library = Library(args.library)
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    cases = stored_cases(args.stored) if args.stored else []
    cases += [attention_case((9, 7), window) for window in (3, 5, 7)]
    cases += [attention_case((33, 31), keys=16), attention_case((4, 5), dim=5, keys=0)]
    cases += [deformable_case(), deformable_case(dim=33, points=1), deformable_case(queries=300)]
    right = [check(case, dtype, library, args.device) for case in cases for dtype in BOUNDS]
    if not all(right):
        print(f"error: {right.count(False)} of {len(right)} checks failed", file=sys.stderr)
        return 1
    if args.runs:
        print("| what | type | | compiled ms | torch ms | ratio |\n|---|---|---|---|---|---|")
        timed = [attention_case((56, 56), batch=16, heads=3, keys=49)]
        timed += [attention_case((14, 14), batch=16, heads=12, keys=49)]
        tokens = sum(height * width for height, width in TIMED_SHAPES)
        timed += [deformable_case(TIMED_SHAPES, tokens, batch=1, heads=8, dim=32, points=4)]
        for case in timed:
            for dtype in BOUNDS:
                time_beside_torch(case, dtype, library, args.device, args.runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
