"""What `Global.cpu_math: bf16` costs in accuracy, on any processor: the factors of the same
products are rounded to bfloat16 and multiplied in float32, which gives each product exactly.

    python benchmarks/rounded.py -c configs/quickstart/fashion_mnist.yaml --seeds 0 1 2

Trains the recipe with every seed, in float32 and with rounded factors, and prints the last and the
best top-1. It takes `nextvit build-ops`, and twice the recipe's time for every seed.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator, List
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import paddle  # noqa: E402
from paddle.autograd import PyLayer  # noqa: E402
from paddle.nn import functional as F  # noqa: E402

from ppcls_nextvit import ops  # noqa: E402
from ppcls_nextvit.cli.main import main as nextvit  # noqa: E402

KINDS = ("fp32", "rounded")


def parse(argv: Any = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", default="configs/quickstart/fashion_mnist.yaml")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    return parser.parse_args(argv)


def to_bfloat16(x: paddle.Tensor) -> paddle.Tensor:
    """Its values rounded to bfloat16, as float32."""
    return x.astype("bfloat16").astype("float32")


class Value(PyLayer):
    """The rounded value; its gradient as it is."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        return to_bfloat16(x)

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> paddle.Tensor:
        return grad


class Gradient(PyLayer):
    """The value as it is; its gradient rounded, as a factor of both other gradients."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> paddle.Tensor:
        return to_bfloat16(grad)


@contextlib.contextmanager
def rounding() -> Iterator[None]:
    """Within it, ops.conv2d and ops.matmul are what they are within ops.multiplying(True)."""
    conv2d, matmul = ops.conv2d, ops.matmul

    def rounded_conv2d(x, weight, bias=None, *, groups=1, relu=False, **geometry):
        if groups == x.shape[1] > 1:
            return conv2d(x, weight, bias, groups=groups, relu=relu, **geometry)
        factors = Value.apply(x), Value.apply(weight)
        out = Gradient.apply(conv2d(*factors, groups=groups, **geometry))
        out = out if bias is None else out + bias.reshape([1, -1, 1, 1])
        return F.relu(out) if relu else out

    def rounded_matmul(x, y, bias=None, **transposed):
        if 2 not in (x.ndim, y.ndim):
            return matmul(x, y, bias, **transposed)
        out = Gradient.apply(matmul(Value.apply(x), Value.apply(y), **transposed))
        return out if bias is None else out + bias

    with mock.patch.multiple(ops, conv2d=rounded_conv2d, matmul=rounded_matmul):
        yield


def accuracies(config: str, overrides: List[str], seed: int, kind: str) -> List[float]:
    """The top-1 of each evaluation of one run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*overrides, f"Global.seed={seed}", f"Global.output_dir={folder}"]
        command = ["train", "-c", config, *(word for each in settings for word in ("-o", each))]
        with rounding() if kind == "rounded" else contextlib.nullcontext():
            if nextvit(command):
                raise SystemExit(1)
        (log,) = Path(folder).rglob("log.jsonl")
        lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
        return [line["top1"] for line in lines if line["kind"] == "eval"]


def main(argv: Any = None) -> int:
    args = parse(argv)
    if not ops.has_onednn():
        print("error: no compiled operators; run nextvit build-ops", file=sys.stderr)
        return 1
    for seed in args.seeds:
        for kind in args.kinds:
            found = accuracies(args.config, args.override, seed, kind)
            print(f"seed {seed} {kind}: last {found[-1]:.4f}, best {max(found):.4f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
