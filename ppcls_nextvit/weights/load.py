"""Load weights strictly: everything is checked before the first value is assigned, and every gap is
an error or named.
"""

import fnmatch
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import paddle

from ..models.backbones.nextvit import VARIANTS
from .. import zoo
from .reader import read_file
from .rules import LoadError, class_layer, translate

__all__ = ["LoadReport", "load_weights"]

SHOWN = 5  # keys that an error names of each kind
# keys at their initialisation that a report's line names one by one: a detector's class layers are
# six
SHOWN_FRESH = 10


@dataclass
class LoadReport:
    """What a load did. Lists of the model's keys (unexpected: of the file's); dropped: {key of the
    file: reason}.
    """

    source: str
    format: str
    entry: Optional[str] = None
    loaded: list = field(default_factory=list)
    transposed: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)
    # keys that keep their initialisation, as was asked for
    fresh: list = field(default_factory=list)
    dropped: dict = field(default_factory=dict)

    def __str__(self):
        text = (
            f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} "
            f"unexpected, "
            f"{len(self.mismatched)} mismatched"
        )
        fresh = self.fresh
        if len(fresh) > SHOWN_FRESH:
            parts = Counter(re.match(r"(backbone\.)?[^.]+", key)[0] for key in fresh)
            fresh = [f"{part}.* ({count})" for part, count in parts.items()]
        return f"{text}; at their initialisation: {', '.join(fresh)}" if fresh else text


def load_weights(
    model,
    source,
    allow_missing=(),
    allow_unexpected=(),
    head="strict",
    entry=None,
    backbone_only=False,
):
    """Fill `model` from `source`; returns a LoadReport.

    source: a file (official Next-ViT, timm, mm, PaddleClas or our own; `.pdparams` may be left out,
        as PaddleClas's prefixes do), a name of the zoo whose file is on this disk (`zoo.file_of`),
        or a dict of arrays or tensors with such keys.
    allow_missing, allow_unexpected: fnmatch patterns of keys, e.g. ('proj_head.*',), which may be
        absent from the file or have no place in the model.
    head: 'strict', or 'fresh_on_mismatch' for fine-tuning: layers for another class count, or none,
        are not loaded, and the model's keep their initialisation, which the report names (a
        classifier's `proj_head`; a detector's fc_cls, fc_reg and conv_logits; a segmentor's
        conv_seg, of the auxiliary head too).
    backbone_only: take the backbone alone, of whatever file into whatever model; see `translate`,
    also for entry. Values are assigned in place in the model's dtypes, after every key was checked.
    Raises LoadError (keys that do not fit, values that are not finite), WeightFileError (a file
    that cannot be read), both ValueErrors; FileNotFoundError for a name of the zoo whose file is
    not here.
    """
    if isinstance(source, dict):
        where, tree = "the given dict", source
    else:
        where = resolve(source)
        tree = read_file(where)
    try:
        translation = translate(tree, model, head, entry, backbone_only)
        report = check(translation, model, where, allow_missing, allow_unexpected)
        state = model.state_dict()
        values = typed(translation.arrays, state)
    except LoadError as error:
        raise LoadError(f"{where}: {error}") from None
    with paddle.no_grad():
        for key, value in values.items():
            state[key].set_value(
                paddle.to_tensor(value).astype("bfloat16")
                if state[key].dtype == paddle.bfloat16
                else value
            )
    return report


def resolve(path):
    """`path` if it exists, else `path` + '.pdparams' if that is a file, else the file of the zoo's
    weights of that name, else `path`.
    """
    path = os.fspath(path)
    if os.path.exists(path):
        return path
    if os.path.isfile(f"{path}.pdparams"):
        return f"{path}.pdparams"
    return zoo.file_of(path) if zoo.is_name(path) else path


def check(translation, model, where, allow_missing=(), allow_unexpected=()):
    """The LoadReport of `translation`, or a LoadError that lists what is missing, unexpected and
    mismatched.
    """
    unexpected, mismatched = translation.select("unexpected"), translation.select("mismatched")
    report = LoadReport(
        where,
        translation.format,
        translation.entry,
        loaded=list(translation.arrays),
        transposed=[row.target for row in translation.select("transposed")],
        missing=translation.missing,
        unexpected=[row.source for row in unexpected],
        mismatched=[row.target for row in mismatched],
        fresh=translation.fresh,
        dropped={row.source: row.why for row in translation.select("dropped")},
    )
    complaints = {
        "missing": [key for key in report.missing if not _matches(key, allow_missing)],
        "unexpected": [
            row.source
            for row in unexpected
            if not _matches(row.source, allow_unexpected)
            and not _matches(row.target, allow_unexpected)
        ],
        "mismatched": [f"{row.target} {list(row.shape)}, {row.why}" for row in mismatched],
    }
    if any(complaints.values()):
        listing = "; ".join(_listing(keys, kind) for kind, keys in complaints.items() if keys)
        raise LoadError(f"{listing}.{_hint(translation, complaints['missing'], report, model)}")
    return report


def _matches(key, patterns):
    return any(
        fnmatch.fnmatchcase(key, pattern)
        for pattern in ((patterns,) if isinstance(patterns, str) else patterns)
    )


def _listing(keys, kind):
    return f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"


def _hint(translation, missing, report, model):
    """What the difference looks like, where that is known; '' where not."""
    targets = [row.target for row in translation.rows if row.target]
    unexpected = [row.target for row in translation.select("unexpected")]
    if any(".sr.window" in key for key in (*missing, *unexpected)):
        return (
            " One of the two is the window_pool variant (its own weights, key `sr.window`), the "
            "other pools the sequence as published:"
            " use the model of the same kind."
        )
    found, own = _variant(targets), _variant(model.state_dict())
    if found != own:
        return (
            f" The file looks like {found or 'a Next-ViT of other depths'}, the model is "
            f"{own or 'of other depths (Arch.depths)'}."
        )
    heads, own_heads = _heads(targets), _heads(model.state_dict())
    if (
        own_heads
        and heads != own_heads
        and any(not key.startswith("backbone.") for key in (*missing, *unexpected))
    ):
        return (
            f" The file is {heads}, the model {own_heads}."
            if heads
            else (
                f" The file is a classifier or a backbone, the model {own_heads}: to fill its "
                f"backbone alone, pass backbone_only=True "
                "(in YAML: Arch.pretrained)."
            )
        )
    if heads and not own_heads:
        return (
            f" The file is {heads}, the model a classifier or a backbone: to take the file's "
            f"backbone alone, pass backbone_only=True."
        )
    if any("extra_norm_list." in key for key in (*missing, *unexpected)):
        return (
            " One of the two has norms after its stages, the other none: build the backbone "
            "with extra_norms as the file has it."
        )
    norms = [key for key in missing if ".norm" in f".{key}"]
    if norms and len(norms) == len(missing) and not report.mismatched and len(norms) > 8:
        return (
            " The file is a fused model (merge_bn, reparameterize or fuse_bn); load the "
            "unfused weights, or into fuse_bn(model)."
        )
    if unexpected and all(".norm" in f".{key}" for key in unexpected) and len(unexpected) > 8:
        return " The model is fused already; load before fuse_bn."
    if (
        unexpected
        and "proj_head.0.weight" not in model.state_dict()
        and all(key.startswith(("norm.", "proj_head.")) for key in unexpected)
    ):
        return (
            " The file is a classifier, the model has no head: head='fresh_on_mismatch' leaves "
            "it out, backbone_only=True the norm too."
        )
    if report.mismatched and all(map(class_layer, report.mismatched)):
        return (
            " The file's head has another class count: set num_classes (in YAML: Arch.class_num), "
            "or head='fresh_on_mismatch' to "
            "fine-tune."
        )
    return ""


def _variant(keys):
    """The name of the variant with as many blocks as `keys` tell of; None if there is none."""
    blocks = {
        match[0]
        for match in (
            re.match(r"(backbone\.)?(features\.\d+|stages\.\d+\.blocks\.\d+)", key) for key in keys
        )
        if match
    }
    return {sum(config.depths): name for name, config in VARIANTS.items()}.get(len(blocks))


HEADS = {
    "roi_head.mask_head.": "Mask R-CNN",
    "roi_head.": "a detector with RoI heads",
    "rpn_head.": "a detector",
    "decode_head.psp_modules.": "UPerNet",
    "decode_head.scale_heads.": "Semantic FPN",
    "decode_head.": "a segmentor",
}


def _heads(keys):
    """What the heads among `keys` belong to; '' for none."""
    keys = list(keys)
    return next(
        (name for prefix, name in HEADS.items() if any(key.startswith(prefix) for key in keys)), ""
    )


def typed(arrays, parameters):
    """`arrays` in the dtypes of the tensors `parameters` (bfloat16: as float32); LoadError for
    other kinds and for values not finite.
    """
    return {key: _typed(value, parameters[key].dtype, key) for key, value in arrays.items()}


def _typed(value, dtype, key):
    name = "float32" if dtype == paddle.bfloat16 else str(dtype).replace("paddle.", "")
    if (value.dtype.kind == "f") != name.startswith("float") or value.dtype.kind not in "fiub":
        raise LoadError(f"{key} is of type {value.dtype}, the model wants {dtype}")
    with np.errstate(over="ignore"):
        value = np.asarray(value, dtype=name, order="C")
    if not np.isfinite(value).all():
        raise LoadError(
            f"{key} has {int((~np.isfinite(value)).sum())} values that are not finite in {name}"
        )
    return value
