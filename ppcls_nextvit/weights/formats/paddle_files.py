"""What paddle.save writes: one pickle of arrays, or of tuple((name, array)) for tensors."""

from typing import Any, Dict

import numpy as np

from .arrays import widen
from .budget import Budget, widening
from .errors import PickleError
from .seal import unsealed
from .unpickler import Unpickler

__all__ = ["read_paddle"]

SLICES = "UnpackBigParamInfor@@"
NAMES = "StructuredToParameterName@@"  # Paddle's process-wide names of the same tensors


def read_paddle(buffer: memoryview) -> Any:
    """The tree in the file; bfloat16, which Paddle writes as uint16, widened. PickleError for what
    is refused or damaged, FormatError for another checksum than the one at its end.
    """
    buffer = unsealed(buffer)
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
    _widen_all(tree, widening(len(buffer)))
    return tree


def _widen_all(tree: Any, budget: Budget) -> None:
    """Widen the bfloat16 values of the dicts of `tree`, in place: each dict once, and each array,
    though every name of it counts against the budget.
    """
    pending = [tree]
    seen = set()
    wide: Dict[int, np.ndarray] = {}
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        for key, value in node.items():
            if isinstance(value, dict):
                pending.append(value)
            elif isinstance(value, np.ndarray) and value.dtype == np.uint16:
                budget.take(4 * value.size)
                if id(value) not in wide:
                    wide[id(value)] = widen(value)
                node[key] = wide[id(value)]
