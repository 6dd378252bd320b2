"""What paddle.save writes: one pickle of arrays, or of tuple((name, array)) for tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import widen
from .errors import PickleError
from .unpickler import Unpickler

__all__ = ["read_paddle"]

SLICES = "UnpackBigParamInfor@@"
NAMES = "StructuredToParameterName@@"  # Paddle's process-wide names of the same tensors


def read_paddle(buffer: memoryview) -> Any:
    """The tree in the file; bfloat16, which Paddle writes as uint16, widened. PickleError for what
    is refused or damaged.
    """
    machine = Unpickler(buffer)
    tree = machine.load()
    if machine.position != len(buffer):
        raise PickleError(f"{len(buffer) - machine.position} bytes after the end of the pickle")
    if isinstance(tree, dict):
        if SLICES in tree:
            raise PickleError(
                "holds an array above 1 GiB in slices (protocol 2 or 3); save it with protocol=4"
            )
        tree.pop(NAMES, None)
    return _map_dicts(tree, _widened)


def _widened(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.uint16:
        return widen(value)
    return value


def _map_dicts(tree: Any, function: Callable[[Any], Any]) -> Any:
    """`function` on every value of the dicts of `tree`, in place; without recursion, and each dict
    once.
    """
    pending = [tree]
    seen = set()
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        for key, value in node.items():
            if isinstance(value, dict):
                pending.append(value)
            else:
                node[key] = function(value)
    return tree
