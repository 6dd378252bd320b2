"""Mask2Former's weights: mmsegmentation's files in and out, strictly; what is told of files of
other kinds.
"""

import functools
import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ppcls_nextvit import create_model
from ppcls_nextvit.weights import LoadError, load_weights
from ppcls_nextvit.weights.rules import head_classes, to_torch, translate
from scripts import seeded
from support import head_weights
from support.head_weights import (
    BACKBONES,
    arrays,
    assert_classes_are_told,
    assert_head_is_named,
    assert_same,
    both,
)
from support.paths import GOLDEN
from support.torch_writer import tensors, write_zip
from weight_conversion.__main__ import main

toy = functools.partial(head_weights.toy, "Mask2Former")


@both
def test_there_and_back(family):
    source = toy(family, seed=1)
    theirs = to_torch(arrays(source), source)
    name = "decode_head.mask_embed.2.weight"
    np.testing.assert_array_equal(theirs[name], arrays(source)[name].T)
    # packed as torch has it, and no Linear's
    name = "decode_head.transformer_decoder.layers.0.cross_attn.attn.in_proj_weight"
    np.testing.assert_array_equal(theirs[name], arrays(source)[name])
    assert head_classes(theirs) == head_classes(arrays(source)) == 3
    for state, program in ((theirs, "mmseg"), (arrays(source), "paddle")):
        target = toy(family)
        report = load_weights(target, state)
        assert report.format == program and not report.missing and not report.unexpected
        assert_same(arrays(target), arrays(source))


def test_a_whole_file_of_mmseg():
    """Every key of the reference's own state dict has its place."""
    path = GOLDEN / "mask2former_transnext_tiny_manifest.json"
    state = seeded.state_dict(json.loads(path.read_text()))
    with paddle.LazyGuard():
        model = create_model("Mask2Former", backbone={"name": "TransNeXt_tiny"})
    translation = translate({"meta": {}, "state_dict": state}, model)
    assert translation.format == "mmseg" and len(translation.arrays) == len(state) == len(
        model.state_dict()
    )
    assert not translation.missing and not translation.select("unexpected")
    assert head_classes(state) == 150
    assert_same(to_torch(translation.arrays, model), state)


def test_files_are_converted_both_ways(tmp_path, capsys):
    """The number of queries, layers and their widths are the file's."""
    sizes = {"num_queries": 5, "channels": 32, "encoder_hidden": 16, "encoder_layers": 2}
    source = create_model(
        "Mask2Former",
        num_classes=4,
        backbone={"name": "TransNeXt_micro"},
        decoder_layers=3,
        decoder_hidden=24,
        **sizes,
    )
    state = to_torch(arrays(source), source)
    write_zip(tmp_path / "a.pth", {"meta": {}, "state_dict": tensors(dict(state))})
    one, other = str(tmp_path / "b.pdparams"), str(tmp_path / "c.safetensors")
    model = ["--model", "Mask2Former", "--backbone", "TransNeXt_micro"]
    assert main([str(tmp_path / "a.pth"), one, *model]) == 0
    assert "mmseg segmentor" in capsys.readouterr().out
    assert main([one, other, *model, "--to", "mmseg"]) == 0
    assert_same(load_file(other), state)
    assert load_weights(source, one).format == "paddle"


def test_another_number_of_classes():
    assert_classes_are_told("Mask2Former", "decode_head.cls_embed.", 2)


@pytest.mark.parametrize(
    "given, model, message",
    [
        ("UPerNet", "Mask2Former", "The file is UPerNet, the model Mask2Former."),
        ("Mask2Former", "UPerNet", "The file is Mask2Former, the model UPerNet."),
        ("MaskRCNN", "Mask2Former", "The file is Mask R-CNN, the model Mask2Former."),
    ],
)
def test_the_wrong_head_is_named(given, model, message):
    assert_head_is_named(given, model, message)


def test_a_segmentor_as_a_backbone():
    """Refused with the way out; taken when asked for."""
    source = toy(seed=1)
    theirs = to_torch(arrays(source), source)
    backbone = create_model(num_classes=None, **BACKBONES["TransNeXt"])
    with pytest.raises(LoadError, match=r"a detector or segmentor .*backbone_only=True"):
        load_weights(backbone, theirs)
    load_weights(backbone, theirs, backbone_only=True)
    assert_same(arrays(backbone), arrays(source.backbone))
