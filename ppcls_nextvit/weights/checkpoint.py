"""The outside of a checkpoint: which of its entries holds the weights, and what programs wrap keys
in.
"""

from collections.abc import Mapping
from typing import Any, Dict, Optional, Tuple

import numpy as np
import paddle

from ..schema import shown
from .translation import LoadError

__all__ = ["AVERAGE_COUNTERS", "is_tensor", "unwrap", "unwrapped_keys"]

# where training programs put the weights, or another of these entries (`ema: {module: ...}`), in
# this order: a run's own before their moving average
ENTRIES = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "module",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
)
# data parallel, torch.compile, the network's name in a LightningModule, mm's wrapper of timm's
# models, a framework's backbone
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "timm_model.", "backbone.")
DEEPEST = 6  # wrappers in each other
BACKBONE_OF_TIMM = "backbone.timm_model."  # in a detector's or segmentor's keys
# beside the keys of a moving average, which begin with `module.`: torch's, mmengine's
AVERAGE_COUNTERS = ("n_averaged", "steps")
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


def _states(tree: Dict[Any, Any]) -> Dict[str, Dict[str, Any]]:
    """{name: state dict} of the entries of `tree`, and of theirs as 'ema.module'."""
    # a dict of many names is looked at once
    known = {id(entry): entry for entry in tree.values() if isinstance(entry, dict)}
    is_state = {key: _is_state(entry) for key, entry in known.items()}
    found: Dict[str, Dict[str, Any]] = {}
    for name, entry in tree.items():
        if not isinstance(name, str) or not isinstance(entry, dict):
            continue
        if is_state[id(entry)]:
            found[name] = entry
        elif name in ENTRIES:
            inner = {key: entry[key] for key in ENTRIES if _is_state(entry.get(key))}
            found.update({f"{name}.{key}": state for key, state in inner.items()})
    return found


def unwrap(tree: Any, entry: Optional[str] = None) -> Tuple[Optional[str], Dict[str, Any]]:
    """(the entry's name or None, the state dict) of a checkpoint, as read_file gives it.

    entry: which to take, such as 'model_ema' or 'ema.module'; None: the first of ENTRIES, else
    `tree` itself. LoadError where there are no weights.
    """
    if not isinstance(tree, dict):
        raise LoadError(f"expected a dict of tensors, the file holds a {type(tree).__name__}")
    there = _states(tree)
    if entry is not None:
        if entry not in there:
            names = ", ".join(map(shown, list(there)[:SHOWN])) or "none"
            raise LoadError(f"no weights under {shown(entry)}; there are: {names}")
        return entry, there[entry]
    for name in ENTRIES:
        for found in there:
            if found == name or found.startswith(f"{name}."):
                return found, there[found]
    if _is_state(tree):
        return None, tree
    keys = ", ".join(map(shown, list(tree)[:SHOWN])) or "nothing"
    raise LoadError(
        f"no weights in it: expected tensors, or an entry {' | '.join(ENTRIES)}; got {keys}"
    )


def unwrapped_keys(state: Mapping[str, Any]) -> Dict[str, str]:
    """{key of the file: key without the wrappers that all keys share}."""
    weights = {key: key for key in state if key not in AVERAGE_COUNTERS}
    for _ in range(DEEPEST):
        wrapper = next((w for w in WRAPPERS if all(k.startswith(w) for k in weights.values())), "")
        weights = {source: key[len(wrapper) :] for source, key in weights.items()}
    backbone = [source for source, key in weights.items() if key.startswith("backbone.")]
    if all(weights[source].startswith(BACKBONE_OF_TIMM) for source in backbone):
        for source in backbone:
            weights[source] = "backbone." + weights[source][len(BACKBONE_OF_TIMM) :]
    return {key: weights.get(key, key) for key in state}
