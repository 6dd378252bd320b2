"""Convert a weight file into another program's format, with a report of every key."""

import json
import os
import struct

import numpy as np
import paddle

from ..models import MODELS, create_model
from .load import check, resolve, typed
from .reader import SAFETENSORS_TYPES, read_file
from .rules import LoadError, head_classes, to_torch, translate, unwrap

__all__ = ["TARGETS", "convert"]

TARGETS = {
    "classification": ("paddle", "torch", "timm"),
    "detection": ("paddle", "mmdet"),
    "segmentation": ("paddle", "mmseg"),
}


def convert(
    source,
    destination,
    model="NextViT_small",
    to="paddle",
    num_classes=None,
    entry=None,
    backbone_only=False,
    report=None,
    backbone=None,
):
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
    task = MODELS.get(model).task
    if to not in TARGETS[task]:
        raise ValueError(f"to must be one of {', '.join(TARGETS[task])} for {model}; got {to!r}")
    suffix = ".pdparams" if to == "paddle" else ".safetensors"
    if not os.fspath(destination).endswith(suffix):
        raise ValueError(f"{destination}: weights for {to} are written as {suffix}")
    if backbone and task == "classification":
        raise ValueError(f"{model} is no detector or segmentor; leave backbone (--backbone) out")
    if not backbone and task != "classification":
        raise ValueError(f"{model} needs the name of its backbone (--backbone NextViT_small)")
    if backbone and backbone_only:
        raise ValueError(
            f"{model} without its heads would be incomplete: convert the backbone alone with "
            f"--model {backbone}"
        )
    source = resolve(source)
    tree = read_file(source)
    try:
        arguments = {"num_classes": num_classes}
        if num_classes is None:
            arguments["num_classes"] = 0 if backbone_only else head_classes(tree, entry)
        if backbone:
            norms = any("extra_norm_list." in key for key in unwrap(tree, entry)[1])
            arguments["backbone"] = {"name": backbone, "extra_norms": norms}
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
        _write(
            arrays
            if to == "paddle"
            else to_torch(arrays, network, "timm" if to == "timm" else "official"),
            destination,
            to,
        )
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


def _write(arrays, destination, to):
    """Under a temporary name first: the source may be the destination, and a reader never sees half
    a file.
    """
    temporary = f"{destination}.tmp"
    os.makedirs(os.path.dirname(temporary) or ".", exist_ok=True)
    try:
        if to == "paddle":
            # arrays load as tensors, and need no second copy here
            paddle.save(arrays, temporary)
        else:
            _write_safetensors(arrays, temporary)
        os.replace(temporary, destination)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _write_safetensors(arrays, path):
    """The format is a length, a JSON header and the tensors; written one by one, so that nothing is
    held twice.
    """
    names = {kind: name for name, kind in SAFETENSORS_TYPES.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    # wide types first, so that all are aligned
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    for key, array in arrays.items():
        header[key] = {
            "dtype": names[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
