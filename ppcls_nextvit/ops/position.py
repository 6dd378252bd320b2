"""The bias of TransNeXt's scores by distance, as one compiled operator, with its gradient; on a
CPU.
"""

from typing import Dict

import paddle
from paddle import Tensor

from .calling import check_instruction_set, check_types, dense
from .loading import require

__all__ = ["position_bias"]

NAME = "nextvit_position_bias"


def position_bias(
    rows: Tensor,
    columns: Tensor,
    row_index: Tensor,
    column_index: Tensor,
    *,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
) -> Tensor:
    """For every query and key an MLP's biases of their distances,
    relu((row, column) . weight_1 + bias_1) . weight_2 + bias_2.

    rows [U], columns [V]: the distances that occur, in height and width; row_index int64
    [height, key_rows] and column_index int64 [width, key_columns]: which of them a query and a key
    have, in [0, U) and [0, V); weight_1 [2, M], bias_1 [M], weight_2 [M, heads], bias_2 [heads]; on
    a CPU and of one type, float32 or float64 -> [heads, height * width, key_rows * key_columns].
    The MLP alone has gradients.

    RuntimeError where the operators are not built; OSError, which Paddle makes of what an operator
    refuses, for an index out of bounds; TypeError and ValueError name an argument of another type
    or shape.
    """
    require()
    check_instruction_set()
    mlp = {"weight_1": weight_1, "bias_1": bias_1, "weight_2": weight_2, "bias_2": bias_2}
    given = {"rows": rows, "columns": columns, **mlp}
    check_types(given)
    indices = {"row_index": row_index, "column_index": column_index}
    for name, index in indices.items():
        if index.dtype != paddle.int64 or index.ndim != 2 or not index.place.is_cpu_place():
            raise TypeError(
                f"{name} must be int64 with 2 axes on a CPU; got {index.dtype}, {list(index.shape)}"
            )
    _check_shapes(given)
    inputs = (rows, columns, row_index, column_index, *mlp.values())
    (out,) = paddle.base.core.eager._run_custom_op(NAME, *dense(inputs))
    return out


def _check_shapes(given: Dict[str, Tensor]) -> None:
    if given["weight_2"].ndim != 2:
        raise ValueError(f"weight_2 must have 2 axes; got shape {list(given['weight_2'].shape)}")
    hidden, heads = given["weight_2"].shape
    expected = {
        "rows": [given["rows"].size],
        "columns": [given["columns"].size],
        "weight_1": [2, hidden],
        "bias_1": [hidden],
        "bias_2": [heads],
    }
    for name, shape in expected.items():
        if list(given[name].shape) != shape or not given[name].size:
            raise ValueError(f"{name} must have shape {shape}; got {list(given[name].shape)}")
