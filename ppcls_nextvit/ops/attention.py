"""Aggregated attention of TransNeXt as one compiled operator, with its gradient; on a CPU."""

import os
from typing import Dict, Sequence, Tuple

import paddle
from paddle import Tensor

from .loading import is_loaded

__all__ = ["WINDOWS", "aggregated_attention", "takes"]

WINDOWS = (3, 5, 7)
# what $PPCLS_NEXTVIT_ISA may name: nothing better is used than that
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
TYPES = (paddle.float32, paddle.float64)
NAME = "nextvit_aggregated_attention"


def takes(x: Tensor) -> bool:
    """Whether the operator takes a tensor where and of which type `x` is."""
    return x.place.is_cpu_place() and x.dtype in TYPES


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
    if not is_loaded():
        raise RuntimeError("the compiled operators are not built; run nextvit build-ops")
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
    isa = os.environ.get("PPCLS_NEXTVIT_ISA", "")
    if isa and isa not in INSTRUCTION_SETS:
        raise ValueError(
            f"PPCLS_NEXTVIT_ISA is {isa!r}; expected one of {', '.join(INSTRUCTION_SETS)}"
        )
    _check_types(given)
    _check_shapes(given, size, window)
    inputs = [x if x.is_contiguous() else x.contiguous() for x in given.values()]
    (out,) = paddle.base.core.eager._run_custom_op(NAME, *inputs, *size, window, unit)
    return out


def _check_types(given: Dict[str, Tensor]) -> None:
    expected = given["q"].dtype
    if expected not in TYPES:
        raise TypeError(f"q must be float32 or float64; got {_type_name(expected)}")
    for name, x in given.items():
        if x.dtype != expected:
            raise TypeError(
                f"{name} must be {_type_name(expected)}, as q is; got {_type_name(x.dtype)}"
            )
        if not x.place.is_cpu_place():
            raise TypeError(f"{name} must be on a CPU; it is on {x.place}")


def _type_name(dtype: paddle.dtype) -> str:
    return str(dtype).rpartition(".")[2]


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
