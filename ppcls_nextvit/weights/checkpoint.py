"""The outside of a checkpoint: which of its entries holds the weights, and what programs wrap keys
in.
"""

from collections.abc import Mapping
from typing import Any, Dict, Optional, Tuple

import numpy as np
import paddle

from .translation import LoadError

__all__ = ["is_tensor", "unwrap", "unwrapped_keys"]

# where training programs put the weights, in this order
ENTRIES = ("model", "state_dict", "model_ema", "state_dict_ema")
# data parallel, torch.compile, a framework's backbone
WRAPPERS = ("module.", "_orig_mod.", "backbone.")
SHOWN = 6  # keys of a file without weights that an error names


def is_tensor(value: Any) -> bool:
    """Whether `value` is an array, of a file or of Paddle."""
    return isinstance(value, (np.ndarray, paddle.Tensor))


def _is_state(tree: Any) -> bool:
    return (
        isinstance(tree, dict)
        and any(is_tensor(value) for value in tree.values())
        and all(isinstance(key, str) for key in tree)
    )


def unwrap(tree: Any, entry: Optional[str] = None) -> Tuple[Optional[str], Dict[str, Any]]:
    """(the entry's name or None, the state dict) of a checkpoint, as read_file gives it.

    entry: which to take; None: the first of ENTRIES, else `tree` itself. LoadError where there are
    no weights.
    """
    if not isinstance(tree, dict):
        raise LoadError(f"expected a dict of tensors, the file holds a {type(tree).__name__}")
    there = [name for name in tree if _is_state(tree[name])]
    if entry is not None:
        if entry not in there:
            raise LoadError(
                f"no weights under {entry!r}; there are: {', '.join(map(repr, there)) or 'none'}"
            )
        return entry, tree[entry]
    for name in ENTRIES:
        if name in there:
            return name, tree[name]
    if _is_state(tree):
        return None, tree
    keys = ", ".join(map(repr, list(tree)[:SHOWN])) or "nothing"
    raise LoadError(
        f"no weights in it: expected tensors, or an entry {' | '.join(ENTRIES)}; got {keys}"
    )


def unwrapped_keys(state: Mapping[str, Any]) -> Dict[str, str]:
    """{key of the file: key without the wrappers that all keys share}."""
    keys = {key: key for key in state}
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if keys and all(key.startswith(wrapper) for key in keys.values()):
                keys = {source: key[len(wrapper) :] for source, key in keys.items()}
    return keys
