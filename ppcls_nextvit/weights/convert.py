"""Convert a weight file into another program's format, with a report of every key."""

import json
import os
from collections.abc import Mapping
from typing import Any, Dict, Optional, Tuple

import numpy as np
import paddle

from ..models import MODELS, create_model
from ..models.registry import variant_of
from ..schema import yaml_parameters
from .checkpoint import unwrap
from .families.base import PADDLE, REFERENCE, Format, all_formats, family_for, heads_for
from .formats.safetensors import write_safetensors
from .load import Path, check, resolve, typed
from .reader import read_file
from .rules import head_classes, to_torch, translate
from .translation import LoadError, Translation

__all__ = ["convert", "targets"]


def targets() -> Tuple[str, ...]:
    """What `convert` can be asked `to` write, of any model."""
    return tuple(dict.fromkeys(form.written_as for form in all_formats() if form.written_as))


def convert(
    source: Path,
    destination: Path,
    model: str = "NextViT_small",
    to: str = "paddle",
    num_classes: Optional[int] = None,
    entry: Optional[str] = None,
    backbone_only: bool = False,
    report: Optional[Path] = None,
    backbone: Optional[str] = None,
) -> Translation:
    """Write the weights in `source` to `destination`, complete and in float32; returns the
    Translation (its `table()` sums it up).

    source: any file that `load_weights` takes. model: the name of the architecture it must fit, as
    for `create_model`.
    to: 'paddle' (.pdparams, for PaddleClas and this project), 'torch' (official keys, .safetensors)
        or 'timm' (.safetensors); of a detector 'paddle' or 'mmdet', of a segmentor 'paddle' or
        'mmseg' (both .safetensors).
    num_classes: None takes the file's head as it is, 0 leaves it out, another number demands that
    many classes.
    entry, backbone_only: see `translate`. report: path of a JSON file with one record per key.
    backbone: the name of a detector's or segmentor's backbone, e.g. NextViT_small.
    Raises LoadError, WeightFileError, ConfigError (an unknown model), all of them ValueErrors;
    ValueError for a wrong suffix.
    """
    form = _target(model, to)
    suffix = ".safetensors" if form.torch else ".pdparams"
    if not os.fspath(destination).endswith(suffix):
        raise ValueError(f"{destination}: weights for {to} are written as {suffix}")
    with_backbone = _takes_backbone(model)
    if backbone and not with_backbone:
        raise ValueError(f"{model} is no detector or segmentor; leave backbone (--backbone) out")
    if with_backbone and not backbone:
        raise ValueError(f"{model} needs the name of its backbone (--backbone NextViT_small)")
    if backbone and backbone_only:
        raise ValueError(
            f"{model} without its heads would be incomplete: convert the backbone alone with "
            f"--model {backbone}"
        )
    source = resolve(source)
    tree = read_file(source)
    try:
        arguments: Dict[str, Any] = {"num_classes": num_classes}
        if num_classes is None:
            arguments["num_classes"] = 0 if backbone_only else head_classes(tree, entry)
        if backbone:
            family = family_for(variant_of(backbone, "Arch.backbone.name").family)
            state = unwrap(tree, entry)[1]
            arguments["backbone"] = {"name": backbone, **family.arguments(state)}
            arguments |= heads_for(variant_of(model).family).arguments(state)
        # only names, shapes and layer types are asked of it: no values are made
        with paddle.LazyGuard():
            network = create_model(model, **arguments)
        translation = translate(
            tree,
            network,
            "strict" if arguments["num_classes"] else "fresh_on_mismatch",
            entry,
            backbone_only,
        )
        check(translation, network, source)
        arrays = typed(translation.arrays, network.state_dict())
        if form.torch:
            arrays = to_torch(arrays, network, REFERENCE if with_backbone else form.name)
        _write(arrays, destination, form)
    except LoadError as error:
        raise LoadError(f"{source}: {error}") from None
    if report is not None:
        record = {
            "source": os.fspath(source),
            "destination": os.fspath(destination),
            "model": model,
            **arguments,
            "to": to,
        }
        with open(report, "w", encoding="utf-8") as file:
            json.dump({**record, **translation.as_dict()}, file, indent=1)
    return translation


def _takes_backbone(model: str) -> bool:
    """Whether `model` is a detector or segmentor."""
    return "backbone" in yaml_parameters(MODELS.get(model))


def _target(model: str, to: str) -> Format:
    """The format that `to` names. ValueError if `model` is not written so."""
    kind = variant_of(model).family
    formats = family_for(kind).formats
    if _takes_backbone(model):
        formats = (PADDLE, heads_for(kind).format)
    known = {form.written_as: form for form in formats if form.written_as}
    if to not in known:
        raise ValueError(f"to must be one of {', '.join(known)} for {model}; got {to!r}")
    return known[to]


def _write(arrays: Mapping[str, np.ndarray], destination: Path, form: Format) -> None:
    """Under a temporary name first: the source may be the destination, and a reader never sees half
    a file.
    """
    temporary = f"{destination}.tmp"
    os.makedirs(os.path.dirname(temporary) or ".", exist_ok=True)
    try:
        if form.torch:
            write_safetensors(arrays, temporary)
        else:
            # arrays load as tensors, and need no second copy here
            paddle.save(arrays, temporary)
        os.replace(temporary, destination)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
