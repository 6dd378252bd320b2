"""What of the compiled operators uses oneDNN, which Paddle brings along: where they are there, and
whether they multiply in bfloat16.
"""

import contextlib
import functools
from pathlib import Path
from typing import Iterator

from paddle import Tensor

from . import building
from .calling import are_float32
from .loading import is_loaded

__all__ = [
    "cpu_multiplies_bfloat16",
    "has_onednn",
    "multiplies_bfloat16",
    "multiplying",
    "takes_onednn",
]

FLAGS = {"avx512_bf16", "amx_bf16"}  # as Linux names what multiplies bfloat16

_bfloat16 = False


def has_onednn() -> bool:
    """Whether the compiled operators are there, and those by oneDNN among them."""
    return is_loaded() and building.has_onednn()


def takes_onednn(x: Tensor) -> bool:
    """Whether they are there and compute tensors where and of which type `x` is."""
    return are_float32(x) and has_onednn()


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not FLAGS.isdisjoint(text.split())


@contextlib.contextmanager
def multiplying(bfloat16: bool) -> Iterator[None]:
    """Within it, in the whole process, `conv2d` and `matmul` multiply values rounded to bfloat16
    and sum in float32, but for those that say otherwise; gradients go by where their operator was
    computed.
    """
    global _bfloat16
    before, _bfloat16 = _bfloat16, bfloat16
    try:
        yield
    finally:
        _bfloat16 = before


def multiplies_bfloat16() -> bool:
    """Whether they do so now."""
    return _bfloat16
