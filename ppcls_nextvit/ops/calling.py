"""What every operator checks before it is called."""

import os
from typing import Dict, Iterable, List

import paddle
from paddle import Tensor

__all__ = [
    "are_float32",
    "check_float32",
    "check_instruction_set",
    "check_types",
    "dense",
    "takes",
]

TYPES = (paddle.float32, paddle.float64)
# what $PPCLS_NEXTVIT_ISA may name: nothing better is used than that
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


def takes(x: Tensor) -> bool:
    """Whether the operators take a tensor where and of which type `x` is."""
    return x.place.is_cpu_place() and x.dtype in TYPES


def check_instruction_set() -> None:
    """ValueError for an unknown name in $PPCLS_NEXTVIT_ISA."""
    isa = os.environ.get("PPCLS_NEXTVIT_ISA", "")
    if isa and isa not in INSTRUCTION_SETS:
        raise ValueError(
            f"PPCLS_NEXTVIT_ISA is {isa!r}; expected one of {', '.join(INSTRUCTION_SETS)}"
        )


def check_types(given: Dict[str, Tensor]) -> None:
    """TypeError unless all are on a CPU and of the first one's type, which operators take."""
    first, expected = next((name, x.dtype) for name, x in given.items())
    if expected not in TYPES:
        raise TypeError(f"{first} must be float32 or float64; got {_type_name(expected)}")
    for name, x in given.items():
        if x.dtype != expected:
            raise TypeError(
                f"{name} must be {_type_name(expected)}, as {first} is; got {_type_name(x.dtype)}"
            )
        if not x.place.is_cpu_place():
            raise TypeError(f"{name} must be on a CPU; it is on {x.place}")


def are_float32(*given: Tensor) -> bool:
    """Whether all are float32 and on a CPU."""
    return all(x.dtype == paddle.float32 and x.place.is_cpu_place() for x in given)


def check_float32(given: Dict[str, Tensor]) -> None:
    """TypeError unless all are float32 and on a CPU."""
    if are_float32(*given.values()):
        return
    name, x = next(iter(given.items()))
    if x.dtype != paddle.float32:
        raise TypeError(f"{name} must be float32; got {_type_name(x.dtype)}")
    check_types(given)


def dense(inputs: Iterable[Tensor]) -> List[Tensor]:
    """The inputs, without gaps in memory."""
    return [x if x.is_contiguous() else x.contiguous() for x in inputs]


def _type_name(dtype: paddle.dtype) -> str:
    return str(dtype).rpartition(".")[2]
