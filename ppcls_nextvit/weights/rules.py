"""From a checkpoint's keys to a model's: recognise the format, map every key by rule, keep a record of each.

Rules go by name, and by the type of the layer that takes the tensor: a Linear's weight is transposed between torch
([out, in]) and Paddle ([in, out]), nothing else is. Order and rank decide nothing.
"""
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Optional, Tuple

import numpy as np
import paddle
from paddle import nn

__all__ = ["HEAD", "LoadError", "Row", "Translation", "head_classes", "model_weights", "to_torch", "translate"]

ENTRIES = ("model", "state_dict", "model_ema", "state_dict_ema")        # where training programs put the weights, in this order
WRAPPERS = ("module.", "_orig_mod.", "backbone.")                       # data parallel, torch.compile, a framework's backbone
HEAD = "proj_head."


class LoadError(ValueError):
    """Weights that do not fit the model. The message counts and names the keys, and says what to do where that is known."""


@dataclass(frozen=True)
class Rename:
    pattern: str
    to: str


@dataclass(frozen=True)
class Drop:
    pattern: str
    why: str


TORCH_RULES = (
    Rename(r"\.running_mean$", "._mean"),
    Rename(r"\.running_var$", "._variance"),
    Drop(r"\.num_batches_tracked$", "Paddle's BatchNorm keeps no step counter"),
)
TIMM_RULES = (Rename(r"\.mlp\.fc([12])\.", r".mlp.conv\1."), Rename(r"^head\.fc\.", "proj_head.0."), *TORCH_RULES)
RULES = {"official": TORCH_RULES, "timm": TIMM_RULES, "mmdet": TORCH_RULES, "mmseg": TORCH_RULES, "paddle": ()}
TITLES = {"official": "official Next-ViT (PyTorch)", "timm": "timm", "paddle": "PaddleClas / ppcls_nextvit",
          "mmdet": "mmdet detector", "mmseg": "mmseg segmentor"}


@dataclass(frozen=True)
class Row:
    """What became of one key of the file. action: copied, transposed, dropped (why says for which reason), unexpected, mismatched."""

    source: str
    target: Optional[str]
    action: str
    shape: Tuple[int, ...] = ()
    why: str = ""


@dataclass
class Translation:
    """A checkpoint under the model's keys. arrays: {key of the model: array in its layout}; rows: one per key of the file."""

    format: str
    entry: Optional[str]                        # the entry of the file that held the weights; None: the file itself
    arrays: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    fresh: list = field(default_factory=list)   # keys of the head that keep the model's initialisation

    def select(self, action):
        return [row for row in self.rows if row.action == action]

    def table(self):
        """A few lines: the format, how many keys went which way, and the reasons."""
        counts = Counter((row.action, row.why if row.action == "dropped" else "") for row in self.rows)
        lines = [f"format: {TITLES[self.format]}" + (f", entry {self.entry!r}" if self.entry else "")]
        lines += [f"{count:6d}  {action}{f': {why}' if why else ''}" for (action, why), count in sorted(counts.items())]
        for keys, name in ((self.missing, "missing"), (self.fresh, "left at their initialisation")):
            lines += [f"{len(keys):6d}  {name}"] if keys else []
        return "\n".join(lines)

    def as_dict(self):
        """For JSON."""
        return {"format": self.format, "entry": self.entry, "missing": self.missing, "fresh": self.fresh,
                "keys": [asdict(row) for row in self.rows]}


def model_weights(model):
    """{key: (shape, whether it is a Linear's weight)} of everything in `model`'s state dict."""
    linear = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)}
    return {key: (tuple(value.shape), key in linear) for key, value in model.state_dict().items()}


def translate(tree, model, head="strict", entry=None, backbone_only=False):
    """The weights in `tree` (what `read_file` returns, or a dict of arrays) under the keys of `model`: a Translation.

    head: 'strict', or 'fresh_on_mismatch': where file and model have heads of different class counts, or one has none, the head of
        the file is dropped and the model's keeps its initialisation.
    entry: which entry of the checkpoint to take, e.g. 'model_ema'; None takes the first of ENTRIES, or the tree itself.
    backbone_only: of a detector's or segmentor's checkpoint, drop what is not its backbone.
    Raises LoadError for a tree without weights and for a format that is not recognised; keys that do not fit are rows.
    """
    if head not in ("strict", "fresh_on_mismatch"):
        raise ValueError(f"head must be 'strict' or 'fresh_on_mismatch'; got {head!r}")
    entry, state = unwrap(tree, entry)
    format, stripped = _recognise(state)
    result, wanted = Translation(format, entry), model_weights(model)
    torch_layout = format != "paddle"
    taken = {}
    for source, key in stripped.items():
        target, why = _apply(key, source, format, stripped, model, wanted, backbone_only)
        value = _array(state[source])
        shape = () if value is None else value.shape
        if target is None:
            result.rows.append(Row(source, None, "dropped", shape, why))
            continue
        if value is None:
            result.rows.append(Row(source, target, "unexpected", (), "not a tensor"))
        elif target not in wanted:
            result.rows.append(Row(source, target, "unexpected", shape))
        elif target in taken:
            result.rows.append(Row(source, target, "unexpected", shape, f"{taken[target]} has the same place"))
        else:
            shape_wanted, linear = wanted[target]
            taken[target] = source
            transposed = torch_layout and linear and value.ndim == 2
            value = value.T if transposed else value
            if value.shape != shape_wanted:
                result.rows.append(Row(source, target, "mismatched", value.shape, f"the model has {list(shape_wanted)}"))
                continue
            result.arrays[target] = value
            result.rows.append(Row(source, target, "transposed" if transposed else "copied", shape, "Linear" if transposed else ""))
    result.arrays = {key: result.arrays[key] for key in wanted if key in result.arrays}      # the model's order, whatever the file's
    result.missing = [key for key in wanted if key not in taken]
    if head == "fresh_on_mismatch":
        _skip_head(result, wanted)
    return result


def _skip_head(result, wanted):
    """Drop the file's head and free the model's, unless they fit each other."""
    rows = [row for row in result.rows if (row.target or "").startswith(HEAD)]
    keys = [key for key in wanted if key.startswith(HEAD)]
    if all(key in result.arrays for key in keys) and len(rows) == len(keys):
        return
    why = f"the model's head is {', '.join(f'{key} {list(wanted[key][0])}' for key in keys)}" if keys else "the model has no head"
    result.rows = [Row(row.source, None, "dropped", row.shape, why) if row in rows else row for row in result.rows]
    result.arrays = {key: value for key, value in result.arrays.items() if not key.startswith(HEAD)}
    result.missing, result.fresh = [key for key in result.missing if not key.startswith(HEAD)], keys


def head_classes(tree, entry=None):
    """The number of classes of the head in `tree`; 0 where it has none."""
    _, state = unwrap(tree, entry)
    return next((len(state[key]) for key in state if re.search(r"(^|\.)(proj_head\.0|head\.fc)\.bias$", key) and _is_tensor(state[key])), 0)


def _array(value):
    """A tensor of the file or of a caller as a numpy array; None for anything else."""
    if isinstance(value, paddle.Tensor):
        value = value.detach()
        return (value.astype("float32") if value.dtype == paddle.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else None


def _is_state(tree):
    return isinstance(tree, dict) and any(_is_tensor(value) for value in tree.values()) and all(isinstance(key, str) for key in tree)


def _is_tensor(value):
    return isinstance(value, (np.ndarray, paddle.Tensor))


def unwrap(tree, entry):
    """(the entry's name or None, the state dict) of a checkpoint."""
    if not isinstance(tree, dict):
        raise LoadError(f"expected a dict of tensors, the file holds a {type(tree).__name__}")
    there = [name for name in tree if _is_state(tree[name])]
    if entry is not None:
        if entry not in there:
            raise LoadError(f"no weights under {entry!r}; there are: {', '.join(map(repr, there)) or 'none'}")
        return entry, tree[entry]
    for name in ENTRIES:
        if name in there:
            return name, tree[name]
    if _is_state(tree):
        return None, tree
    keys = ", ".join(map(repr, list(tree)[:6])) or "nothing"
    raise LoadError(f"no weights in it: expected tensors, or an entry {' | '.join(ENTRIES)}; got {keys}")


def _recognise(state):
    """(format, {key of the file: key without wrappers})."""
    keys = {key: key for key in state}
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if keys and all(key.startswith(wrapper) for key in keys.values()):
                keys = {source: key[len(wrapper):] for source, key in keys.items()}
    names = list(keys.values())
    if any(re.match(r"backbone\.(features|stem)\.", name) for name in names):
        format = "mmseg" if any(name.startswith(("decode_head.", "auxiliary_head.")) for name in names) else "mmdet"
    elif any(re.match(r"stages\.\d+\.blocks\.\d+\.", name) for name in names):
        format = "timm"
    elif any(name.startswith("features.") for name in names):
        format = "official" if any(name.endswith(".running_mean") for name in names) else "paddle"
    else:
        raise LoadError("not a Next-ViT checkpoint (official, timm, PaddleClas, mmdet or mmseg): its keys are "
                        f"{', '.join(map(repr, names[:4]))}, ...")
    return format, keys


def _apply(key, source, format, stripped, model, wanted, backbone_only):
    """(the model's key, '') or (None, the reason why the key is dropped)."""
    if format in ("mmdet", "mmseg"):
        if not key.startswith("backbone."):
            if backbone_only:
                return None, f"head of the {'detector' if format == 'mmdet' else 'segmentor'}; not part of a classifier"
            raise LoadError(f"a checkpoint of an {TITLES[format]}, with keys beside its backbone ({source!r}); "
                            "to take the backbone alone, pass backbone_only=True (--backbone-only)")
        key = key[len("backbone."):]
    if key.startswith("extra_norm_list.") and key not in wanted:
        own_norm = {name.removeprefix("backbone.") for name in stripped.values()} & {"norm.weight"}
        if not key.startswith("extra_norm_list.3.") or own_norm:
            return None, "norm of a segmentor's stage output; this model has none"
        key = "norm." + key.removeprefix("extra_norm_list.3.")
    if format == "timm":
        key = re.sub(r"^stages\.(\d+)\.blocks\.(\d+)\.", lambda match: _block(model, int(match[1]), int(match[2])), key)
    for rule in RULES[format]:
        if isinstance(rule, Drop) and re.search(rule.pattern, key):
            return None, rule.why
        if isinstance(rule, Rename):
            key = re.sub(rule.pattern, rule.to, key)
    return key, ""


def _block(model, stage, position):
    """timm numbers blocks within a stage, the reference throughout."""
    starts = (0, *(end + 1 for end in model.stage_ends))
    inside = stage < len(model.stage_ends) and position <= model.stage_ends[stage] - starts[stage]
    return f"features.{starts[stage] + position}." if inside else f"stages.{stage}.blocks.{position}."


def to_torch(arrays, model, style="official"):
    """The reverse: {key of `model`: array} under official (style 'official') or timm ('timm') keys and in torch's layout.

    Paddle has no num_batches_tracked; it is written as 0, so that torch's strict load finds every key.
    """
    wanted, result = model_weights(model), {}
    if "stem.0.norm._mean" not in arrays:
        raise LoadError("a fused model is not exported to PyTorch keys, which would not tell it from another; export it before fuse_bn")
    for key, value in arrays.items():
        value = np.ascontiguousarray(value.T) if wanted[key][1] else value
        prefix, _, leaf = key.rpartition(".")
        prefix = _timm_prefix(prefix, model) if style == "timm" else prefix
        result[f"{prefix}.{ {'_mean': 'running_mean', '_variance': 'running_var'}.get(leaf, leaf) }"] = value
        if leaf == "_variance":
            result[f"{prefix}.num_batches_tracked"] = np.zeros((), np.int64)
    return result


def _timm_prefix(prefix, model):
    def stage(match):
        index = int(match[1])
        number = next(s for s, end in enumerate(model.stage_ends) if index <= end)
        return f"stages.{number}.blocks.{index - (model.stage_ends[number - 1] + 1 if number else 0)}"

    prefix = re.sub(r"^features\.(\d+)(?=\.|$)", stage, prefix)
    return re.sub(r"\.mlp\.conv([12])$", r".mlp.fc\1", re.sub(r"^proj_head\.0$", "head.fc", prefix))
