"""What the operators are checked and timed on, drawn by numpy: the same for every machine."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple, Union

import numpy as np

from scripts import seeded

__all__ = ["Case", "attention_case", "deformable_case", "stored_cases"]

TIMED_SHAPES = [(100, 167), (50, 84), (25, 42), (13, 21)]  # DINO's at 800 x 1333


class Case(NamedTuple):
    """One problem for an operator: `attention` or `deformable`."""

    name: str
    operator: str
    sizes: Tuple[int, ...]  # as ppcls_nextvit/ops/cuda/operators.h has them
    inputs: List[np.ndarray]  # float64
    grad: np.ndarray  # of the result
    settings: Dict[str, Any]  # the keyword arguments of the form in torch
    stored: Dict[int, np.ndarray] = {}  # of [result, *gradients] by number, where a file has them

    @property
    def without(self) -> Tuple[int, ...]:
        """Which inputs have no gradient: the lengths."""
        return (5,) if self.operator == "attention" else ()

    @property
    def sides(self) -> Tuple[int, ...]:
        """Height and width of each level."""
        return tuple(side for shape in self.settings.get("shapes", ()) for side in shape)


def attention_case(size, window=3, batch=2, heads=2, dim=24, keys=6) -> Case:
    """A whole aggregated attention."""
    draw, (n, places, channels) = (
        np.random.default_rng(0),
        (size[0] * size[1], window**2, heads * dim),
    )
    shapes = [(batch, n, channels), (batch, n, 2 * channels), (batch, keys, 2 * channels)]
    shapes += [(heads, dim), (heads,), (n,), (heads, places), (heads, n, keys)]
    shapes += [(heads, dim, places), (heads, places)]
    inputs = [draw.standard_normal(shape) for shape in shapes]
    inputs[8] *= 0.1  # in proportion to what models have
    sizes = (batch, heads, dim, *size, keys, window, 1)
    name = f"attention {batch}x{heads}x{dim}, {size[0]}x{size[1]}, window {window}, {keys} keys"
    settings = {"size": size, "window": window}
    return Case(name, "attention", sizes, inputs, draw.standard_normal(shapes[0]), settings)


def deformable_case(
    shapes=((5, 7), (3, 4), (1, 2)), queries=6, batch=2, heads=2, dim=8, points=3
) -> Case:
    """Samples around places of the queries' own, some beyond the edges."""
    draw, samples = np.random.default_rng(0), (batch, queries, heads, len(shapes), points)
    tokens = sum(height * width for height, width in shapes)
    centres = draw.uniform(0, 1, (batch, queries, 1, 1, 1, 2))
    inputs = [
        draw.standard_normal((batch, tokens, heads, dim)),
        centres + 0.05 * draw.standard_normal((*samples, 2)),
        draw.uniform(0, 1, samples) / (len(shapes) * points),
    ]
    sizes = (batch, tokens, queries, heads, dim, len(shapes), points)
    name = f"deformable {batch}x{queries}x{heads}x{dim}, {len(shapes)} levels, {points} points"
    grad = draw.standard_normal((batch, queries, heads * dim))
    return Case(name, "deformable", sizes, inputs, grad, {"shapes": [tuple(s) for s in shapes]})


def stored_cases(path: Union[str, Path]) -> List[Case]:
    """The reference's own results of the window alone, from the npz file at `path`; the inputs are
    drawn by their names (scripts/seeded.py).
    """
    golden = np.load(path)
    seed, cases = int(golden["seed"]), []
    for name in map(str, golden["names"]):
        window = int(name[1 : name.index("_")])
        batch, heads, height, width, dim = map(int, name.partition("_")[2].split("x"))
        n, places, channels = height * width, window**2, heads * dim

        def tokens(x, batch=batch, n=n):
            return x.transpose(0, 2, 1, 3).reshape(batch, n, -1)

        def drawn(key, *shape, name=name):
            return seeded.generator(f"{name}.{key}", seed).standard_normal(shape)

        q, k, v, g = (tokens(drawn(key, batch, heads, n, dim)) for key in "qkvg")
        zeros = [np.zeros((heads, n, 0)), np.zeros((heads, dim, places)), np.zeros((heads, places))]
        inputs = [q, np.concatenate([k, v], axis=-1), np.zeros((batch, 0, 2 * channels))]
        inputs += [np.zeros((heads, dim)), np.ones(heads), np.ones(n)]
        inputs += [drawn("rpb", heads, places), *zeros]
        dkv = np.concatenate([tokens(golden[f"{name}.d{key}"]) for key in "kv"], axis=-1)
        stored = {0: tokens(golden[f"{name}.out"]), 1: tokens(golden[f"{name}.dq"]), 2: dkv}
        stored[6] = golden[f"{name}.drpb"]
        sizes = (batch, heads, dim, height, width, 0, window, 0)
        settings = {"size": (height, width), "window": window, "unit": False}
        cases.append(Case(f"stored {name}", "attention", sizes, inputs, g, settings, stored))
    return cases
