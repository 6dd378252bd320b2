"""Load weights strictly: everything is checked before the first value is assigned, and every gap is
an error or named.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
import paddle
from paddle import nn

from .. import zoo
from .families.base import Family, class_layers, heads_title
from .placement import BACKBONE, backbone_of, family_of
from .reader import read_file
from .rules import translate
from .translation import LoadError, Row, Translation

__all__ = ["LoadReport", "check", "load_weights", "resolve", "typed"]

Path = Union[str, "os.PathLike[str]"]

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
    loaded: List[str] = field(default_factory=list)
    transposed: List[str] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    mismatched: List[str] = field(default_factory=list)
    # keys that keep their initialisation, as was asked for
    fresh: List[str] = field(default_factory=list)
    dropped: Dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = (
            f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} "
            f"unexpected, "
            f"{len(self.mismatched)} mismatched"
        )
        fresh = self.fresh
        if len(fresh) > SHOWN_FRESH:
            parts = Counter(re.sub(r"^((backbone\.)?[^.]+).*", r"\1", key) for key in fresh)
            fresh = [f"{part}.* ({count})" for part, count in parts.items()]
        return f"{text}; at their initialisation: {', '.join(fresh)}" if fresh else text


def load_weights(
    model: nn.Layer,
    source: Union[Path, Dict[str, Any]],
    allow_missing: Union[str, Sequence[str]] = (),
    allow_unexpected: Union[str, Sequence[str]] = (),
    head: str = "strict",
    entry: Optional[str] = None,
    backbone_only: bool = False,
) -> LoadReport:
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
        _check_record(os.fspath(source), where, model)
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


def resolve(path: Path) -> str:
    """`path` if it exists, else `path` + '.pdparams' if that is a file, else the file of the zoo's
    weights of that name, else `path`. FileNotFoundError, saying how to get it, for the name of a
    published file that is not there.
    """
    path = os.fspath(path)
    if os.path.exists(path):
        return path
    if os.path.isfile(f"{path}.pdparams"):
        return f"{path}.pdparams"
    if zoo.is_name(path):
        return zoo.file_of(path)
    record = zoo.record_of_file(os.path.basename(path))
    if record is not None:
        raise FileNotFoundError(
            f"{path}: no such file. It has the name of published weights: `nextvit weights get "
            f"{record.name}` fetches them or says where they are; then give that name, or the path"
        )
    return path


def _check_record(source: str, where: str, model: nn.Layer) -> None:
    """LoadError if `source`, whose file is `where`, is a name of the zoo, and its record's backbone
    is to be used otherwise than the model's.
    """
    if where in (source, f"{source}.pdparams"):
        return
    arguments = zoo.get(source).backbone_arguments
    wrong = family_of(model).other_use(arguments, backbone_of(model))
    if wrong:
        raise LoadError(f"{source}: {wrong}")


def check(
    translation: Translation,
    model: nn.Layer,
    where: str,
    allow_missing: Union[str, Sequence[str]] = (),
    allow_unexpected: Union[str, Sequence[str]] = (),
) -> LoadReport:
    """The LoadReport of `translation`, or a LoadError that lists what is missing, unexpected and
    mismatched.
    """
    unexpected, mismatched = translation.select("unexpected"), translation.select("mismatched")
    report = LoadReport(
        where,
        translation.format,
        translation.entry,
        loaded=list(translation.arrays),
        transposed=_targets(translation.select("transposed")),
        missing=translation.missing,
        unexpected=[row.source for row in unexpected],
        mismatched=_targets(mismatched),
        fresh=translation.fresh,
        dropped={row.source: row.why for row in translation.select("dropped")},
    )
    complaints = {
        "missing": [key for key in report.missing if not _matches(key, allow_missing)],
        "unexpected": [
            row.source
            for row in unexpected
            if not _matches(row.source, allow_unexpected)
            and not _matches(row.target or "", allow_unexpected)
        ],
        "mismatched": [f"{row.target} {list(row.shape)}, {row.why}" for row in mismatched],
    }
    if any(complaints.values()):
        listing = "; ".join(_listing(keys, kind) for kind, keys in complaints.items() if keys)
        raise LoadError(f"{listing}.{_hint(translation, complaints['missing'], report, model)}")
    return report


def _targets(rows: List[Row]) -> List[str]:
    return [row.target for row in rows if row.target is not None]


def _matches(key: str, patterns: Union[str, Sequence[str]]) -> bool:
    if isinstance(patterns, str):
        patterns = (patterns,)
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _listing(keys: List[str], kind: str) -> str:
    more = ", ..." if len(keys) > SHOWN else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{more})"


def _hint(translation: Translation, missing: List[str], report: LoadReport, model: nn.Layer) -> str:
    """What the difference looks like, where that is known; '' where not."""
    family = family_of(model)
    found = _targets(translation.rows)
    own = list(model.state_dict())
    unexpected = _targets(translation.select("unexpected"))
    absent = [*missing, *unexpected]
    return (
        family.other_network(absent, found, own)
        or _other_heads(heads_title(found), heads_title(own), absent)
        or family.other_form(missing, unexpected, report.mismatched)
        or _other_numbers(translation, family, unexpected, model)
    )


def _other_heads(heads: str, own_heads: str, absent: List[str]) -> str:
    """Where the heads differ, of which the titles are given, '' for none."""
    if heads == own_heads:
        return ""
    if not own_heads:
        return (
            f" The file is {heads}, the model a classifier or a backbone: to take the file's "
            f"backbone alone, pass backbone_only=True."
        )
    if all(key.startswith(BACKBONE) for key in absent):
        return ""
    if heads:
        return f" The file is {heads}, the model {own_heads}."
    return (
        f" The file is a classifier or a backbone, the model {own_heads}: to fill its "
        f"backbone alone, pass backbone_only=True (in YAML: Arch.pretrained)."
    )


def _other_numbers(
    translation: Translation, family: Family, unexpected: List[str], model: nn.Layer
) -> str:
    """Where the channels of images differ, or the number of classes."""
    own = model.state_dict()
    channels, others = "", []
    for row in translation.select("mismatched"):
        if row.target is not None:
            shape = list(own[row.target].shape)
            if _differs_in_channels(list(row.shape), shape, getattr(model, "in_channels", None)):
                channels = (
                    f" The file takes images of {row.shape[1]} channels, the model of {shape[1]}: "
                    f"set in_channels (in YAML: Arch.in_channels, of a detector or segmentor "
                    f"Arch.backbone.in_channels)."
                )
            else:
                others.append(row.target)
    return channels + _other_classes(family, unexpected, others, list(own))


def _differs_in_channels(shape: List[int], own: List[int], in_channels: Optional[int]) -> bool:
    """Whether a convolution's weight has another number of channels than that of the images which
    the model's takes, and nothing else differs.
    """
    return (
        len(shape) == len(own) == 4
        and own[1] == in_channels != shape[1]
        and shape[:1] + shape[2:] == own[:1] + own[2:]
    )


def _other_classes(
    family: Family, unexpected: List[str], mismatched: List[str], own: List[str]
) -> str:
    """Where the layers that give classes differ."""
    layers = class_layers(family)
    headless = not any(key.startswith(family.model.head_prefixes) for key in own)
    if (
        unexpected
        and headless
        and all(key.startswith(family.classifier_parts) for key in unexpected)
    ):
        return (
            " The file is a classifier, the model has no head: head='fresh_on_mismatch' leaves "
            "it out, backbone_only=True the norm too."
        )
    if mismatched and all(key.startswith(layers) for key in mismatched):
        return (
            " The file's head has another class count: set num_classes (in YAML: Arch.class_num), "
            "or head='fresh_on_mismatch' to fine-tune."
        )
    return ""


def typed(
    arrays: Mapping[str, np.ndarray], parameters: Mapping[str, paddle.Tensor]
) -> Dict[str, np.ndarray]:
    """`arrays` in the dtypes of the tensors `parameters` (bfloat16: as float32); LoadError for
    other kinds and for values not finite.
    """
    return {key: _typed(value, parameters[key].dtype, key) for key, value in arrays.items()}


def _typed(value: np.ndarray, dtype: Any, key: str) -> np.ndarray:
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
