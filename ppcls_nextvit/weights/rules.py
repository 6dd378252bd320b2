"""From a checkpoint's keys to a model's: recognise the format, map every key by rule, keep a record
of each.

Rules go by name, and by the type of the layer that takes the tensor: a Linear's weight is
transposed between torch ([out, in]) and Paddle ([in, out]), nothing else is. Order and rank decide
nothing.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Optional, Tuple

import numpy as np
import paddle
from paddle import nn

__all__ = [
    "CLASS_LAYERS",
    "LoadError",
    "Row",
    "Translation",
    "class_layer",
    "head_classes",
    "model_weights",
    "to_torch",
    "translate",
]

# where training programs put the weights, in this order
ENTRIES = ("model", "state_dict", "model_ema", "state_dict_ema")
# data parallel, torch.compile, a framework's backbone
WRAPPERS = ("module.", "_orig_mod.", "backbone.")
CLASS_LAYERS = (
    "proj_head.",
    "roi_head.bbox_head.fc_cls.",
    "roi_head.bbox_head.fc_reg.",
    "roi_head.mask_head.conv_logits.",
    # layers whose size follows the number of classes
    "decode_head.conv_seg.",
    "auxiliary_head.conv_seg.",
)


class LoadError(ValueError):
    """Weights that do not fit the model. The message counts and names the keys, and says what to do
    where that is known.
    """


# (pattern, what Paddle calls it)
TORCH_RULES = ((r"\.running_mean$", "._mean"), (r"\.running_var$", "._variance"))
TIMM_RULES = (
    (r"\.mlp\.fc([12])\.", r".mlp.conv\1."),
    (r"^head\.fc\.", "proj_head.0."),
    *TORCH_RULES,
)
RULES = {
    "official": TORCH_RULES,
    "timm": TIMM_RULES,
    "mmdet": TORCH_RULES,
    "mmseg": TORCH_RULES,
    "paddle": (),
}
TITLES = {
    "official": "official Next-ViT (PyTorch)",
    "timm": "timm",
    "paddle": "PaddleClas / ppcls_nextvit",
    "mmdet": "mmdet detector",
    "mmseg": "mmseg segmentor",
}


@dataclass(frozen=True)
class Row:
    """What became of one key of the file. action: copied, transposed, dropped (why says for which
    reason), unexpected, mismatched.
    """

    source: str
    target: Optional[str]
    action: str
    shape: Tuple[int, ...] = ()
    why: str = ""


@dataclass
class Translation:
    """A checkpoint under the model's keys. arrays: {key of the model: array in its layout}; rows:
    one per key of the file.
    """

    format: str
    # the entry of the file that held the weights; None: the file itself
    entry: Optional[str]
    arrays: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    # keys that keep the model's initialisation: class layers, or all beside a backbone
    fresh: list = field(default_factory=list)

    def select(self, action):
        """The rows whose action is `action`."""
        return [row for row in self.rows if row.action == action]

    def table(self):
        """A few lines: the format, how many keys went which way, and the reasons."""
        counts = Counter(
            (row.action, row.why if row.action == "dropped" else "") for row in self.rows
        )
        lines = [
            f"format: {TITLES[self.format]}" + (f", entry {self.entry!r}" if self.entry else "")
        ]
        lines += [
            f"{count:6d}  {action}{f': {why}' if why else ''}"
            for (action, why), count in sorted(counts.items())
        ]
        for keys, name in ((self.missing, "missing"), (self.fresh, "left at their initialisation")):
            lines += [f"{len(keys):6d}  {name}"] if keys else []
        return "\n".join(lines)

    def as_dict(self):
        """For JSON."""
        return {
            "format": self.format,
            "entry": self.entry,
            "missing": self.missing,
            "fresh": self.fresh,
            "keys": [asdict(row) for row in self.rows],
        }


def model_weights(model):
    """{key: (shape, whether it is a Linear's weight)} of everything in `model`'s state dict."""
    linear = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)
    }
    return {key: (tuple(value.shape), key in linear) for key, value in model.state_dict().items()}


def translate(tree, model, head="strict", entry=None, backbone_only=False):
    """The weights in `tree` (what `read_file` returns, or a dict of arrays) under the keys of
    `model`: a Translation.

    head: 'strict', or 'fresh_on_mismatch': where file and model have layers for different class
        counts (CLASS_LAYERS), or one has none, those of the file are dropped and the model's keep
        their initialisation.
    entry: which entry of the checkpoint to take, e.g. 'model_ema'; None takes the first of ENTRIES,
    or the tree itself.
    backbone_only: take the stem and the stages, and of the norms after them those that both have.
        What else the file holds is dropped, what else the model has keeps its initialisation. File
        and model may each be a classifier, a backbone, a detector or a segmentor.
    Raises LoadError for a tree without weights and for a format that is not recognised; keys that
    do not fit are rows.
    """
    if head not in ("strict", "fresh_on_mismatch"):
        raise ValueError(f"head must be 'strict' or 'fresh_on_mismatch'; got {head!r}")
    entry, state = unwrap(tree, entry)
    format, stripped = _recognise(state)
    result, wanted = Translation(format, entry), model_weights(model)
    place = _Place(format, stripped.values(), model, wanted, backbone_only)
    torch_layout = format != "paddle"
    taken = {}
    for source, key in stripped.items():
        target, why = place(key, source)
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
            result.rows.append(
                Row(source, target, "unexpected", shape, f"{taken[target]} has the same place")
            )
        else:
            shape_wanted, linear = wanted[target]
            taken[target] = source
            transposed = torch_layout and linear and value.ndim == 2
            value = value.T if transposed else value
            if value.shape != shape_wanted:
                result.rows.append(
                    Row(
                        source,
                        target,
                        "mismatched",
                        value.shape,
                        f"the model has {list(shape_wanted)}",
                    )
                )
                continue
            result.arrays[target] = value
            result.rows.append(
                Row(
                    source,
                    target,
                    "transposed" if transposed else "copied",
                    shape,
                    "Linear" if transposed else "",
                )
            )
    # the model's order, whatever the file's
    result.arrays = {key: result.arrays[key] for key in wanted if key in result.arrays}
    result.missing = [key for key in wanted if key not in taken]
    if backbone_only:
        result.fresh = [key for key in result.missing if not place.is_body(key)]
    if head == "fresh_on_mismatch":
        for layer in CLASS_LAYERS:
            _skip_layer(result, wanted, layer)
    result.missing = [key for key in result.missing if key not in set(result.fresh)]
    return result


def _skip_layer(result, wanted, layer):
    """Drop the file's class layer and free the model's, unless they fit each other."""
    rows = [row for row in result.rows if (row.target or "").startswith(layer)]
    keys = [key for key in wanted if key.startswith(layer)]
    if all(key in result.arrays for key in keys) and len(rows) == len(keys):
        return
    why = (
        f"the model's head is {', '.join(f'{key} {list(wanted[key][0])}' for key in keys)}"
        if keys
        else "the model has no head"
    )
    result.rows = [
        Row(row.source, None, "dropped", row.shape, why) if row in rows else row
        for row in result.rows
    ]
    result.arrays = {
        key: value for key, value in result.arrays.items() if not key.startswith(layer)
    }
    result.fresh += [key for key in keys if key not in result.fresh]


def class_layer(key):
    """Whether `key` belongs to a layer whose size follows the number of classes."""
    return key.startswith(CLASS_LAYERS)


def head_classes(tree, entry=None):
    """The number of classes of the head in `tree`; 0 where it has none. A detector's count leaves
    the background out.
    """
    _, state = unwrap(tree, entry)
    heads = r"(^|\.)(proj_head\.0|head\.fc|decode_head\.conv_seg|bbox_head\.fc_cls)\.bias$"
    sizes = {
        match[2]: len(state[key])
        for key in state
        if (match := re.search(heads, key)) and _is_tensor(state[key])
    }
    # a detector or segmentor may still carry the classification head of its pretraining
    return next((size - (name == "bbox_head.fc_cls") for name, size in sorted(sizes.items())), 0)


def _array(value):
    """A tensor of the file or of a caller as a numpy array; None for anything else."""
    if isinstance(value, paddle.Tensor):
        value = value.detach()
        return (value.astype("float32") if value.dtype == paddle.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else None


def _is_state(tree):
    return (
        isinstance(tree, dict)
        and any(_is_tensor(value) for value in tree.values())
        and all(isinstance(key, str) for key in tree)
    )


def _is_tensor(value):
    return isinstance(value, (np.ndarray, paddle.Tensor))


def unwrap(tree, entry):
    """(the entry's name or None, the state dict) of a checkpoint."""
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
    keys = ", ".join(map(repr, list(tree)[:6])) or "nothing"
    raise LoadError(
        f"no weights in it: expected tensors, or an entry {' | '.join(ENTRIES)}; got {keys}"
    )


def _recognise(state):
    """(format, {key of the file: key without wrappers})."""
    keys = {key: key for key in state}
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if keys and all(key.startswith(wrapper) for key in keys.values()):
                keys = {source: key[len(wrapper) :] for source, key in keys.items()}
    names = list(keys.values())
    ours = not any(name.endswith(".running_mean") for name in names)
    if any(re.match(r"backbone\.(features|stem)\.", name) for name in names):
        mm = (
            "mmseg"
            if any(name.startswith(("decode_head.", "auxiliary_head.")) for name in names)
            else "mmdet"
        )
        format = "paddle" if ours else mm
    elif any(re.match(r"stages\.\d+\.blocks\.\d+\.", name) for name in names):
        format = "timm"
    elif any(name.startswith("features.") for name in names):
        format = "paddle" if ours else "official"
    else:
        raise LoadError(
            "not a Next-ViT checkpoint (official, timm, PaddleClas, mmdet or mmseg): its keys are "
            f"{', '.join(map(repr, names[:4]))}, ..."
        )
    return format, keys


class _Place:
    """Finds the model's place for a key of the file. keys: all of the file's; wanted: of
    model_weights.

    Of detectors and segmentors, in files and here, the backbone's keys begin with `backbone.`; its
    own are the same everywhere.
    """

    def __init__(self, format, keys, model, wanted, backbone_only):
        bodies = {_renamed(key.removeprefix("backbone."), format, model) for key in keys}
        self.format, self.model, self.wanted, self.backbone_only = (
            format,
            model,
            wanted,
            backbone_only,
        )
        self.file_has_heads = any(key.startswith("backbone.") for key in keys)
        self.prefix = "backbone." if _with_heads(model) else ""
        self.file_has_stage_norms = any(body.startswith("extra_norm_list.") for body in bodies)
        self.file_has_norm = "norm.weight" in bodies
        self.has_stage_norms = f"{self.prefix}extra_norm_list.0.weight" in wanted

    def __call__(self, key, source):
        """(the model's key, '') or (None, the reason why the key is dropped)."""
        if key.endswith(".num_batches_tracked") and self.format != "paddle":
            return None, "Paddle's BatchNorm keeps no step counter"
        if self.file_has_heads and not key.startswith("backbone."):
            if self.backbone_only:
                return None, "head of a detector or segmentor; not part of the backbone"
            if not self.prefix:
                raise LoadError(
                    f"a detector or segmentor ({TITLES[self.format]}), with keys beside its "
                    f"backbone ({source!r}); "
                    "to take the backbone alone, pass backbone_only=True (--backbone-only)"
                )
            return _renamed(key, self.format, self.model), ""
        body = _renamed(key.removeprefix("backbone."), self.format, self.model)
        if body.startswith("extra_norm_list.3."):
            if self.file_has_norm:
                return None, "the fourth of the list, unused beside `norm`"
            body = "norm." + body.removeprefix("extra_norm_list.3.")
        target = self.prefix + body
        if (
            body.startswith("norm.")
            and self.backbone_only
            and self.has_stage_norms
            and not self.file_has_stage_norms
        ):
            return None, "norm before the classification head; the norms of the stages start anew"
        of_head = (
            body.startswith("proj_head.")
            or body.startswith("norm.")
            and not self.file_has_stage_norms
            and target not in self.wanted
        )
        if of_head and (self.backbone_only or self.file_has_heads):
            return None, "of the classification head; not part of the backbone"
        if (
            body.startswith(("extra_norm_list.", "norm."))
            and self.backbone_only
            and target not in self.wanted
        ):
            return None, "norm of a segmentor's stage output; this model has none"
        return target, ""

    def is_body(self, key):
        """Whether the file must fill this key of the model under backbone_only."""
        body = key.removeprefix("backbone.")
        stage_norm = (
            self.has_stage_norms
            and self.file_has_stage_norms
            and body.startswith(("extra_norm_list.", "norm."))
        )
        return key.startswith(self.prefix) and (
            stage_norm or body.startswith(("stem.", "features."))
        )


def _with_heads(model):
    """Whether `model` is a detector or a segmentor, whose Next-ViT is its `backbone`."""
    return hasattr(model, "backbone")


def _renamed(key, format, model):
    """`key` of that format under Paddle's names."""
    if format == "timm":
        key = re.sub(
            r"^stages\.(\d+)\.blocks\.(\d+)\.",
            lambda match: _block(model, int(match[1]), int(match[2])),
            key,
        )
    for pattern, name in RULES[format]:
        key = re.sub(pattern, name, key)
    return key


def _block(model, stage, position):
    """timm numbers blocks within a stage, the reference throughout."""
    model = model.backbone if _with_heads(model) else model
    starts = (0, *(end + 1 for end in model.stage_ends))
    inside = stage < len(model.stage_ends) and position <= model.stage_ends[stage] - starts[stage]
    return (
        f"features.{starts[stage] + position}." if inside else f"stages.{stage}.blocks.{position}."
    )


def to_torch(arrays, model, style="official"):
    """The reverse: {key of `model`: array} under the reference's keys (style 'official', also
    mmdet's and mmseg's) or timm's ('timm').

    Arrays are in torch's layout. Paddle has no num_batches_tracked; it is written as 0, so that
    torch's strict load finds every key. A segmentor's last norm is written under both of its names
    (see _Place). LoadError for a fused model's arrays.
    """
    wanted, result = model_weights(model), {}
    prefix = "backbone." if _with_heads(model) else ""
    if f"{prefix}stem.0.norm._mean" not in arrays:
        raise LoadError(
            "a fused model is not exported to PyTorch keys, which would not tell it from another; "
            "export it before fuse_bn"
        )
    if f"{prefix}extra_norm_list.0.weight" in arrays:
        arrays = {
            **arrays,
            **{
                key.replace("norm.", "extra_norm_list.3.", 1): value
                for key, value in arrays.items()
                if key.startswith(f"{prefix}norm.")
            },
        }
    for key, value in arrays.items():
        value = np.ascontiguousarray(value.T) if key in wanted and wanted[key][1] else value
        layer, _, leaf = key.rpartition(".")
        layer = _timm_prefix(layer, model) if style == "timm" else layer
        result[
            f"{layer}.{ {'_mean': 'running_mean', '_variance': 'running_var'}.get(leaf, leaf) }"
        ] = value
        if leaf == "_variance":
            result[f"{layer}.num_batches_tracked"] = np.zeros((), np.int64)
    return result


def _timm_prefix(prefix, model):
    def stage(match):
        index = int(match[1])
        number = next(s for s, end in enumerate(model.stage_ends) if index <= end)
        return (
            f"stages.{number}.blocks.{index - (model.stage_ends[number - 1] + 1 if number else 0)}"
        )

    prefix = re.sub(r"^features\.(\d+)(?=\.|$)", stage, prefix)
    return re.sub(r"\.mlp\.conv([12])$", r".mlp.fc\1", re.sub(r"^proj_head\.0$", "head.fc", prefix))
