"""DINO's weights: mmdetection's files in and out, strictly; what is told of files of other
kinds.
"""

import functools
import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ppcls_nextvit import create_model
from ppcls_nextvit.models.detectors.dino import DINO
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

toy = functools.partial(head_weights.toy, "DINO")


@both
def test_there_and_back(family):
    source = toy(family, seed=1)
    theirs = to_torch(arrays(source), source)
    name = "encoder.layers.0.ffn.layers.0.0.weight"
    np.testing.assert_array_equal(theirs[name], arrays(source)[name].T)
    # packed as torch has it, and no Linear's
    name = "decoder.layers.0.self_attn.attn.in_proj_weight"
    np.testing.assert_array_equal(theirs[name], arrays(source)[name])
    assert head_classes(theirs) == head_classes(arrays(source)) == 3
    for state, program in ((theirs, "mmdet"), (arrays(source), "paddle")):
        target = toy(family)
        report = load_weights(target, state)
        assert report.format == program and not report.missing and not report.unexpected
        assert_same(arrays(target), arrays(source))


@pytest.mark.parametrize("levels", [4, 5])
def test_a_whole_file_of_mmdet(levels):
    """Every key of the reference's own state dict has its place."""
    path = GOLDEN / f"dino_{levels}scale_transnext_tiny_manifest.json"
    state = seeded.state_dict(json.loads(path.read_text()))
    with paddle.LazyGuard():
        model = create_model("DINO", backbone={"name": "TransNeXt_tiny"}, num_levels=levels)
    translation = translate({"meta": {}, "state_dict": state}, model)
    assert translation.format == "mmdet" and len(translation.arrays) == len(state) == len(
        model.state_dict()
    )
    assert not translation.missing and not translation.select("unexpected")
    assert head_classes(state) == 80
    written = to_torch(translation.arrays, model)
    assert_same(written, state)


def test_files_are_converted_both_ways(tmp_path, capsys):
    """The number of levels, queries, layers and their widths are the file's."""
    sizes = {"num_queries": 5, "channels": 32, "hidden": 16, "encoder_layers": 1}
    source = create_model(
        "DINO",
        num_classes=4,
        num_levels=5,
        backbone={"name": "TransNeXt_micro"},
        decoder_layers=2,
        **sizes,
    )
    state = to_torch(arrays(source), source)
    write_zip(tmp_path / "a.pth", {"meta": {}, "state_dict": tensors(dict(state))})
    one, other = str(tmp_path / "b.pdparams"), str(tmp_path / "c.safetensors")
    model = ["--model", "DINO", "--backbone", "TransNeXt_micro"]
    assert main([str(tmp_path / "a.pth"), one, *model]) == 0
    assert "mmdet detector" in capsys.readouterr().out
    assert main([one, other, *model, "--to", "mmdet"]) == 0
    assert_same(load_file(other), state)
    assert load_weights(source, one).format == "paddle"


@both
def test_another_number_of_classes(family):
    fresh = ("bbox_head.cls_branches.", "dn_query_generator.")
    assert_classes_are_told("DINO", fresh, 7, family)


@pytest.mark.parametrize(
    "given, model, message",
    [
        ("MaskRCNN", "DINO", "The file is Mask R-CNN, the model DINO."),
        ("DINO", "MaskRCNN", "The file is DINO, the model Mask R-CNN."),
        ("DINO", "SemanticFPN", "The file is DINO, the model Semantic FPN."),
    ],
)
def test_the_wrong_head_is_named(given, model, message):
    assert_head_is_named(given, model, message)


@both
def test_a_detector_as_a_backbone(family):
    """Refused with the way out; taken when asked for."""
    source = toy(family, seed=1)
    theirs = to_torch(arrays(source), source)
    backbone = create_model(num_classes=None, **BACKBONES[family])
    with pytest.raises(LoadError, match=r"a detector or segmentor .*backbone_only=True"):
        load_weights(backbone, theirs)
    load_weights(backbone, theirs, backbone_only=True)
    assert_same(arrays(backbone), arrays(source.backbone))


@both
def test_a_classifier_fills_the_backbone(family):
    classifier = create_model(num_classes=7, **BACKBONES[family])
    target = toy(family)
    before = arrays(target)
    with pytest.raises(LoadError, match="The file is a classifier or a backbone, the model DINO"):
        load_weights(target, arrays(classifier))
    load_weights(target, arrays(classifier), backbone_only=True)
    state, found = arrays(classifier), arrays(target)
    assert all(np.array_equal(found[f"backbone.{k}"], state[k]) for k in arrays(target.backbone))
    assert all(np.array_equal(found[k], before[k]) for k in found if "backbone." not in k)


def test_another_number_of_levels_is_named_by_its_keys():
    source = toy()
    target = create_model(
        "DINO", num_classes=3, backbone=BACKBONES["TransNeXt"], num_levels=5, **DINO.toy
    )
    with pytest.raises(LoadError, match=r"missing \(neck.convs.3.conv.weight"):
        load_weights(target, arrays(source))
