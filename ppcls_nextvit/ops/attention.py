"""Aggregated attention of TransNeXt as one compiled operator, with its gradient; on a CPU."""

from typing import Dict, Sequence, Tuple

import paddle
from paddle import Tensor

from .calling import check_instruction_set, check_types, dense
from .loading import require

__all__ = ["WINDOWS", "aggregated_attention"]

WINDOWS = (3, 5, 7)
NAME = "nextvit_aggregated_attention"


def aggregated_attention(
    q: Tensor,
    kv: Tensor,
    pooled_kv: Tensor,
    *,
    size: Tuple[int, int],
    window: int,
    embedding: Tensor,
    temperature: Tensor,
    lengths: Tensor,
    local_bias: Tensor,
    position_bias: Tensor,
    tokens: Tensor,
    token_bias: Tensor,
    unit: bool = True,
) -> Tensor:
    """Every token of a map of `size` (height, width) attends to the window around it and to P
    pooled keys, in one softmax; src/attention.h has the formula. N = height * width, C = heads * d.

    q [B, N, C], kv [B, N, 2 * C] and pooled_kv [B, P, 2 * C] (keys, then values), embedding
    [heads, d], temperature [heads], lengths [N] (without a gradient), local_bias and token_bias
    [heads, window**2], position_bias [heads, N, P], tokens [heads, d, window**2]; all on a CPU and
    of one type, float32 or float64 -> [B, N, C]. unit: queries and keys are divided by their
    lengths.

    RuntimeError where the operators are not built; TypeError and ValueError name an argument of
    another type or shape.
    """
    require()
    given = {
        "q": q,
        "kv": kv,
        "pooled_kv": pooled_kv,
        "embedding": embedding,
        "temperature": temperature,
        "lengths": lengths,
        "local_bias": local_bias,
        "position_bias": position_bias,
        "tokens": tokens,
        "token_bias": token_bias,
    }
    if window not in WINDOWS:
        raise ValueError(f"window must be one of {WINDOWS}; got {window}")
    check_instruction_set()
    check_types(given)
    _check_shapes(given, size, window)
    (out,) = paddle.base.core.eager._run_custom_op(
        NAME, *dense(given.values()), *size, window, unit
    )
    return out


def _check_shapes(given: Dict[str, Tensor], size: Sequence[int], window: int) -> None:
    for name, axes in (("embedding", 2), ("q", 3), ("pooled_kv", 3)):
        if given[name].ndim != axes:
            raise ValueError(f"{name} must have {axes} axes; got shape {list(given[name].shape)}")
    heads, d = given["embedding"].shape
    batch, keys = given["q"].shape[0], given["pooled_kv"].shape[1]
    n, channels, places = size[0] * size[1], heads * d, window**2
    expected = {
        "q": [batch, n, channels],
        "kv": [batch, n, 2 * channels],
        "pooled_kv": [batch, keys, 2 * channels],
        "embedding": [heads, d],
        "temperature": [heads],
        "lengths": [n],
        "local_bias": [heads, places],
        "position_bias": [heads, n, keys],
        "tokens": [heads, d, places],
        "token_bias": [heads, places],
    }
    for name, x in given.items():
        if list(x.shape) != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]}; got {list(x.shape)}")
