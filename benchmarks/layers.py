"""Convolutions and linear layers on a CPU: the compiled operators, in float32 and multiplying in
bfloat16, beside Paddle's own.

    OMP_NUM_THREADS=1 python benchmarks/layers.py --batch 4 --rounds 5

For every kind of convolution of Next-ViT at 224 pixels, and TransNeXt's depthwise and linear
layers: the processor's time of a forward in evaluation and of a forward with its backward in
training, the forms in turns.
"""

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Tuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import paddle  # noqa: E402
from paddle import nn  # noqa: E402

from ppcls_nextvit import ops  # noqa: E402
from ppcls_nextvit.models.layers import Conv2D, Linear, PointwiseConv2D  # noqa: E402

# channels in and out, kernel, stride, groups, height and width of the input
LAYERS: Dict[str, Tuple[int, int, int, int, int, int]] = {
    "stem 1": (3, 64, 3, 2, 1, 224),
    "stem 2": (64, 32, 3, 1, 1, 112),
    "stem 4": (64, 64, 3, 2, 1, 112),
    "grouped, stage 1": (96, 96, 3, 1, 3, 56),
    "grouped, stage 3": (384, 384, 3, 1, 12, 14),
    "grouped, stage 4": (768, 768, 3, 1, 24, 7),
    "1x1, stage 1": (96, 288, 1, 1, 1, 56),
    "1x1, stage 3": (384, 1152, 1, 1, 1, 14),
    "1x1, stage 4": (768, 2304, 1, 1, 1, 7),
    "depthwise, stage 1": (384, 384, 3, 1, 384, 56),
    "depthwise, stage 3": (768, 768, 3, 1, 768, 14),
}
# channels in and out, tokens
LINEAR: Dict[str, Tuple[int, int, int]] = {
    "linear, stage 1": (72, 72, 56 * 56),
    "linear, stage 2": (144, 288, 28 * 28),
    "linear, stage 3": (288, 576, 14 * 14),
    "linear, stage 4": (576, 1728, 7 * 7),
}
Form = Callable[[], ContextManager[Any]]


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(argv)


@contextlib.contextmanager
def in_bfloat16() -> Iterator[None]:
    with ops.multiplying(bfloat16=True):
        yield


def forms() -> Dict[str, Form]:
    """Contexts in which layers take a form, Paddle's first."""
    found: Dict[str, Form] = {
        "Paddle's": lambda: mock.patch.object(ops, "takes_onednn", lambda x: False),
        "compiled": contextlib.nullcontext,
    }
    if ops.cpu_multiplies_bfloat16():
        found["compiled, bf16"] = in_bfloat16
    return found


def made(name: str, batch: int) -> Tuple[nn.Layer, paddle.Tensor]:
    """The layer and an input."""
    if name in LINEAR:
        channels, out, tokens = LINEAR[name]
        x = paddle.randn([batch, tokens, channels])
        x.stop_gradient = False
        return Linear(channels, out), x
    channels, out, kernel, stride, groups, size = LAYERS[name]
    x = paddle.randn([batch, channels, size, size])
    x.stop_gradient = name == "stem 1"
    if kernel == 1:
        return PointwiseConv2D(channels, out, bias_attr=False), x
    padding = kernel // 2
    return Conv2D(
        channels, out, kernel, stride=stride, padding=padding, groups=groups, bias_attr=False
    ), x


def evaluate(layer: nn.Layer, x: paddle.Tensor) -> None:
    layer.eval()
    with paddle.no_grad():
        layer(x)


def step(layer: nn.Layer, x: paddle.Tensor) -> None:
    layer.train()
    out = layer(x)
    out.backward(out)
    layer.clear_gradients()
    x.clear_gradient()


def milliseconds(run: Callable[..., None], *arguments: Any) -> float:
    """The processor's, of all threads."""
    start = time.process_time()
    run(*arguments)
    return 1e3 * (time.process_time() - start)


def main(argv: Any = None) -> int:
    args = parse(argv)
    if not ops.has_onednn():
        print(f"error: {ops.status_line()}", file=sys.stderr)
        return 1
    print(f"batch {args.batch}; CPU milliseconds, median of {args.rounds} turns")
    print("| layer | form | forward | / Paddle's | forward + backward | / Paddle's |")
    print("|---|---|---|---|---|---|")
    for name in (*LAYERS, *LINEAR):
        layer, x = made(name, args.batch)
        taken: Dict[str, List[Tuple[float, float]]] = {form: [] for form in forms()}
        for turn in range(args.rounds + 1):
            for form, context in forms().items():
                with context():
                    found = milliseconds(evaluate, layer, x), milliseconds(step, layer, x)
                if turn:  # the first one warms up
                    taken[form].append(found)
        medians = {
            form: [statistics.median(column) for column in zip(*rows, strict=True)]
            for form, rows in taken.items()
        }
        for form, row in medians.items():
            cells = [name, form]
            for value, base in zip(row, medians["Paddle's"], strict=True):
                cells += [f"{value:.2f}", f"{value / base:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
