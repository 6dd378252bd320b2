"""Multi-scale deformable attention as one compiled operator, with its gradient; on a CPU."""

from typing import Dict, Sequence, Tuple

import paddle
from paddle import Tensor

from .calling import check_instruction_set, check_types, dense
from .loading import require

__all__ = ["deformable_attention"]

NAME = "nextvit_deformable_attention"


def deformable_attention(
    value: Tensor, shapes: Sequence[Tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The weighted sum of bilinear samples of every level's map, zero outside it;
    src/deformable.h has the formula.

    value [B, S, heads, D]: the tokens of all levels, whose (height, width) are `shapes`; locations
    [B, Q, heads, levels, points, 2]: (x, y) in shares of the map; weights [B, Q, heads, levels,
    points]; all on a CPU and of one type, float32 or float64 -> [B, Q, heads * D].

    RuntimeError where the operators are not built; TypeError and ValueError name an argument of
    another type or shape.
    """
    require()
    given = {"value": value, "locations": locations, "weights": weights}
    check_instruction_set()
    check_types(given)
    _check_shapes(given, shapes)
    sides = [int(side) for shape in shapes for side in shape]
    (out,) = paddle.base.core.eager._run_custom_op(NAME, *dense(given.values()), sides)
    return out


def _check_shapes(given: Dict[str, Tensor], shapes: Sequence[Tuple[int, int]]) -> None:
    for name, axes in (("value", 4), ("locations", 6)):
        if given[name].ndim != axes:
            raise ValueError(f"{name} must have {axes} axes; got shape {list(given[name].shape)}")
    if any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
        raise ValueError(f"shapes must be (height, width), each at least 1; got {list(shapes)}")
    batch, _, heads, channels = given["value"].shape
    queries, points = given["locations"].shape[1], given["locations"].shape[4]
    samples = [batch, queries, heads, len(shapes), points]
    tokens = sum(height * width for height, width in shapes)
    expected = {
        "value": [batch, tokens, heads, channels],
        "locations": [*samples, 2],
        "weights": samples,
    }
    for name, x in given.items():
        if list(x.shape) != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]}; got {list(x.shape)}")
