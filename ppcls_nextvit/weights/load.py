"""Load weights strictly: everything is checked before the first value is assigned, and every gap is an error or named."""
import fnmatch
import os
import re
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import paddle

from ..models.nextvit import VARIANTS
from .reader import read_file
from .rules import HEAD, LoadError, translate

__all__ = ["LoadReport", "load_weights"]

SHOWN = 5           # keys that an error names of each kind


@dataclass
class LoadReport:
    """What a load did. Lists of the model's keys (unexpected: of the file's); dropped: {key of the file: reason}."""

    source: str
    format: str
    entry: Optional[str] = None
    loaded: list = field(default_factory=list)
    transposed: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)
    fresh: list = field(default_factory=list)               # head keys that keep their initialisation
    dropped: dict = field(default_factory=dict)

    def __str__(self):
        text = (f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
                f"{len(self.mismatched)} mismatched")
        return f"{text}; at their initialisation: {', '.join(self.fresh)}" if self.fresh else text


def load_weights(model, source, allow_missing=(), allow_unexpected=(), head="strict", entry=None, backbone_only=False):
    """Fill `model` from `source`; returns a LoadReport.

    source: a file (official Next-ViT, timm, mm, PaddleClas or our own; `.pdparams` may be left out, as PaddleClas's
        prefixes do), or a dict of arrays or tensors with such keys.
    allow_missing, allow_unexpected: fnmatch patterns of keys, e.g. ('proj_head.*',), which may be absent from the file or
        have no place in the model.
    head: 'strict', or 'fresh_on_mismatch': a head of another class count, or none, leaves `proj_head.*` as initialised.
    entry, backbone_only: see `translate`.
    Values are assigned in place in the model's dtypes, after every key was checked. Raises LoadError (keys that do not fit,
    values that are not finite), WeightFileError (a file that cannot be read); both are ValueErrors.
    """
    if head not in ("strict", "fresh_on_mismatch"):
        raise ValueError(f"head must be 'strict' or 'fresh_on_mismatch'; got {head!r}")
    if isinstance(source, dict):
        where, tree = "the given dict", source
    else:
        where = resolve(source)
        tree = read_file(where)
    try:
        translation = translate(tree, model, entry, backbone_only)
        report = check(translation, where, allow_missing, allow_unexpected, head, model)
        state = model.state_dict()
        typed = {key: _typed(translation.arrays[key], state[key], key) for key in report.loaded}
    except LoadError as error:
        raise LoadError(f"{where}: {error}") from None
    with paddle.no_grad():
        for key, value in typed.items():
            state[key].set_value(value)
    return report


def resolve(path):
    """`path`, or `path` + '.pdparams' where only that is a file."""
    path = os.fspath(path)
    return f"{path}.pdparams" if not os.path.isfile(path) and os.path.isfile(f"{path}.pdparams") else path


def check(translation, where, allow_missing=(), allow_unexpected=(), head="strict", model=None):
    """The LoadReport of `translation`, or a LoadError that lists what is missing, unexpected and mismatched."""
    report = LoadReport(where, translation.format, translation.entry, loaded=list(translation.arrays),
                        transposed=[row.target for row in translation.select("transposed")],
                        dropped={row.source: row.why for row in translation.select("dropped")})
    free_head = head == "fresh_on_mismatch"
    for key in translation.missing:
        (report.fresh if free_head and key.startswith(HEAD) else report.missing).append(key)
    for row in translation.select("mismatched"):
        (report.fresh if free_head and row.target.startswith(HEAD) else report.mismatched).append(row.target)
    if report.fresh:                            # half a head is no head
        report.fresh += [key for key in report.loaded if key.startswith(HEAD)]
        report.loaded = [key for key in report.loaded if not key.startswith(HEAD)]
    for row in translation.select("unexpected"):
        if free_head and row.target.startswith(HEAD):
            report.dropped[row.source] = "this model has no head"
        else:
            report.unexpected.append(row.source)
    missing = [key for key in report.missing if not _matches(key, allow_missing)]
    targets = {row.source: row.target for row in translation.rows}
    unexpected = [key for key in report.unexpected if not _matches(key, allow_unexpected) and not _matches(targets[key], allow_unexpected)]
    if missing or unexpected or report.mismatched:
        why = {row.target: f"{row.target} {list(row.shape)}, {row.why}" for row in translation.select("mismatched")}
        parts = [_listing(keys, kind) for kind, keys in (("missing", missing), ("unexpected", unexpected),
                                                       ("mismatched", [why[key] for key in report.mismatched])) if keys]
        raise LoadError(f"{'; '.join(parts)}.{_hint(translation, missing, report, model)}")
    return report


def _matches(key, patterns):
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in ((patterns,) if isinstance(patterns, str) else patterns))


def _listing(keys, kind):
    return f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"


def _hint(translation, missing, report, model):
    """What the difference looks like, where that is known; '' where not."""
    targets = [row.target for row in translation.rows if row.target]
    unexpected = [row.target for row in translation.select("unexpected")]
    if any(".sr.window" in key for key in (*missing, *unexpected)):
        return (" One of the two is the window_pool variant (its own weights, key `sr.window`), the other pools the sequence as published:"
                " use the model of the same kind.")
    found = _variant(targets)
    if found and model is not None and found != (own := _variant(model.state_dict())):
        return f" The file looks like {found}, the model is {own or 'of other depths'}."
    norms = [key for key in missing if ".norm" in f".{key}"]
    if norms and len(norms) == len(missing) and not report.mismatched and len(norms) > 8:
        return " The file is a fused model (merge_bn, reparameterize or fuse_bn); load the unfused weights, or into fuse_bn(model)."
    if unexpected and all(".norm" in f".{key}" for key in unexpected) and len(unexpected) > 8:
        return " The model is fused already; load before fuse_bn."
    if report.mismatched and all(key.startswith(HEAD) for key in report.mismatched):
        return " The file's head has another class count: pass num_classes, or head='fresh_on_mismatch' to fine-tune."
    return ""


def _variant(keys):
    """The name of the variant with as many blocks as `keys` tell of; None if there is none."""
    blocks = {match[0] for match in (re.match(r"features\.\d+|stages\.\d+\.blocks\.\d+", key) for key in keys) if match}
    return {sum(config.depths): name for name, config in VARIANTS.items()}.get(len(blocks))


def _typed(value, parameter, key):
    """`value` in the parameter's dtype, as set_value wants it; finite, and a number of the same kind."""
    floating = parameter.dtype in (paddle.float16, paddle.bfloat16, paddle.float32, paddle.float64)
    if (value.dtype.kind == "f") != floating or value.dtype.kind not in "fiub":
        raise LoadError(f"{key} is of type {value.dtype}, the model wants {parameter.dtype}")
    half = parameter.dtype == paddle.bfloat16
    name = "float32" if half else str(parameter.dtype).replace("paddle.", "")
    with np.errstate(over="ignore"):
        typed = np.ascontiguousarray(value, dtype=name)
    if floating and not np.isfinite(typed).all():
        raise LoadError(f"{key} has {int((~np.isfinite(typed)).sum())} values that are not finite in {name}")
    return paddle.to_tensor(typed).astype("bfloat16") if half else typed
