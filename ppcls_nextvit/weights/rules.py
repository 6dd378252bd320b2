"""From a checkpoint's keys to a model's, and back: recognise the format, map every key by rule,
keep a record of each.

Rules go by name, and by the type of the layer that takes the tensor: a Linear's weight is
transposed between torch ([out, in]) and Paddle ([in, out]), nothing else is. Order and rank decide
nothing. What a family calls its keys is known in families/.
"""

from collections.abc import Mapping
from typing import Any, Dict, Optional, Tuple

import numpy as np
import paddle
from paddle import nn

from .checkpoint import is_tensor, unwrap
from .families.base import class_layers, count_classes, heads_for
from .placement import (
    BACKBONE,
    COUNTER,
    Placement,
    Wanted,
    backbone_of,
    family_of,
    has_heads,
    recognise,
    torch_statistic,
)
from .translation import LoadError, Row, Translation

__all__ = ["head_classes", "model_weights", "to_torch", "translate"]

HEAD_MODES = ("strict", "fresh_on_mismatch")


def model_weights(model: nn.Layer) -> Wanted:
    """{key: (shape, whether it is a Linear's weight)} of everything in `model`'s state dict."""
    linear = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)
    }
    return {key: (tuple(value.shape), key in linear) for key, value in model.state_dict().items()}


def head_classes(tree: Any, entry: Optional[str] = None) -> int:
    """The number of classes of the head in `tree`; 0 where it has none. A detector's count leaves
    the background out.
    """
    _, state = unwrap(tree, entry)
    lengths = {
        key: len(value) for key, value in state.items() if is_tensor(value) and value.ndim == 1
    }
    return count_classes(lengths)


def translate(
    tree: Any,
    model: nn.Layer,
    head: str = "strict",
    entry: Optional[str] = None,
    backbone_only: bool = False,
) -> Translation:
    """The weights in `tree` (what `read_file` returns, or a dict of arrays) under the keys of
    `model`: a Translation.

    head: 'strict', or 'fresh_on_mismatch': where file and model have layers for different class
        counts, or one has none, those of the file are dropped and the model's keep their
        initialisation.
    entry: which entry of the checkpoint to take, e.g. 'model_ema'; None takes the first of ENTRIES,
    or the tree itself.
    backbone_only: take the body of the backbone, and of the norms after it those that both have.
        What else the file holds is dropped, what else the model has keeps its initialisation. File
        and model may each be a classifier, a backbone, a detector or a segmentor.
    Raises LoadError for a tree without weights and for a format that is not recognised; keys that
    do not fit are rows.
    """
    if head not in HEAD_MODES:
        raise ValueError(f"head must be 'strict' or 'fresh_on_mismatch'; got {head!r}")
    entry, state = unwrap(tree, entry)
    source = recognise(state, model)
    wanted = model_weights(model)
    place = Placement(source, model, wanted, backbone_only)
    result = Translation(source.format.name, source.format.title, entry)
    taken: Dict[str, str] = {}
    for key_of_file, key in source.keys.items():
        target, why = place(key, key_of_file)
        value = _array(state[key_of_file])
        if target is None:
            shape = () if value is None else value.shape
            result.rows.append(Row(key_of_file, None, "dropped", shape, why))
        else:
            row, filled = _fill(key_of_file, target, value, wanted, taken, source.format.torch)
            result.rows.append(row)
            if filled is not None:
                result.arrays[target] = filled
    # the model's order, whatever the file's
    result.arrays = {key: result.arrays[key] for key in wanted if key in result.arrays}
    result.missing = [key for key in wanted if key not in taken]
    if backbone_only:
        result.fresh = [key for key in result.missing if not place.must_fill(key)]
    if head == "fresh_on_mismatch":
        for layer in class_layers(family_of(model)):
            _free_layer(result, wanted, layer)
    fresh = set(result.fresh)
    result.missing = [key for key in result.missing if key not in fresh]
    return result


def _fill(
    source: str,
    target: str,
    value: Optional[np.ndarray],
    wanted: Wanted,
    taken: Dict[str, str],
    torch_layout: bool,
) -> Tuple[Row, Optional[np.ndarray]]:
    """The row of a key of the file whose place is `target`, and the array to put there, if any.
    taken: {key of the model: key of the file} so far, which this extends.
    """
    if value is None:
        return Row(source, target, "unexpected", (), "not a tensor"), None
    shape = value.shape
    if target not in wanted:
        return Row(source, target, "unexpected", shape), None
    if target in taken:
        why = f"{taken[target]} has the same place"
        return Row(source, target, "unexpected", shape, why), None
    taken[target] = source
    shape_wanted, linear = wanted[target]
    transposed = torch_layout and linear and value.ndim == 2
    if transposed:
        value = value.T
    if value.shape != shape_wanted:
        why = f"the model has {list(shape_wanted)}"
        return Row(source, target, "mismatched", value.shape, why), None
    if transposed:
        return Row(source, target, "transposed", shape, "Linear"), value
    return Row(source, target, "copied", shape), value


def _free_layer(result: Translation, wanted: Wanted, layer: str) -> None:
    """Drop the file's class layer and free the model's, unless they fit each other."""
    rows = [row for row in result.rows if (row.target or "").startswith(layer)]
    keys = [key for key in wanted if key.startswith(layer)]
    if all(key in result.arrays for key in keys) and len(rows) == len(keys):
        return
    why = "the model has no head"
    if keys:
        why = f"the model's head is {', '.join(f'{key} {list(wanted[key][0])}' for key in keys)}"
    result.drop_layer(layer, why)
    result.fresh += [key for key in keys if key not in result.fresh]


def _array(value: Any) -> Optional[np.ndarray]:
    """A tensor of the file or of a caller as a numpy array; None for anything else."""
    if isinstance(value, paddle.Tensor):
        value = value.detach()
        return (value.astype("float32") if value.dtype == paddle.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else None


def to_torch(
    arrays: Mapping[str, np.ndarray], model: nn.Layer, style: str = "official"
) -> Dict[str, np.ndarray]:
    """The reverse: {key of `model`: array} under the keys of another program's format, in torch's
    layout.

    style: the name of a format of the model's family, such as 'official', whose keys mmdet's and
        mmseg's files have too, or 'timm'.
    Paddle has no num_batches_tracked; it is written as 0, so that torch's strict load finds every
    key. A segmentor's last norm is written under both of its names (see families/nextvit.py).
    LoadError for a fused model's arrays.
    """
    family = family_of(model)
    body = family.format(style)
    prefix = BACKBONE if has_heads(model) else ""
    unfused = [prefix + family.unfused_key] if family.unfused_key else []
    if has_heads(model) and heads_for(type(model)).unfused_key:
        unfused.append(heads_for(type(model)).unfused_key)
    if not all(key in arrays for key in unfused):
        raise LoadError(
            "a fused model is not exported to PyTorch keys, which would not tell it from another; "
            "export it before fuse_bn"
        )
    heads = heads_for(type(model)).format if has_heads(model) else body
    wanted = model_weights(model)
    result = {}
    for key, value in family.complete(arrays, prefix).items():
        if key in wanted and wanted[key][1]:
            value = np.ascontiguousarray(value.T)
        if key.startswith(prefix):
            name = prefix + body.to_theirs(key.removeprefix(prefix), backbone_of(model))
        else:
            name = heads.to_theirs(key, model)
        result[torch_statistic(name)] = value
        if name.endswith("._variance"):
            result[name.removesuffix("._variance") + COUNTER] = np.zeros((), np.int64)
    return result
