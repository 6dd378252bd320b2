"""TransNeXt's weights: the reference's files, classifiers' and dense, to the goldens and back, and
what does not fit named.
"""

import functools
import json
from types import MappingProxyType

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ppcls_nextvit import create_model, load_weights, zoo
from ppcls_nextvit.models.folding import fold_after
from ppcls_nextvit.models.segmentors.heads import ConvModule
from ppcls_nextvit.weights import LoadError, to_torch, translate
from ppcls_nextvit.weights.rules import head_classes
from scripts import seeded
from support.goldens import max_difference
from support.paths import GOLDEN
from support.torch_writer import tensors, write_zip
from weight_conversion.__main__ import main

DEPTHS = (1, 1, 1, 1)
TINY = {"name": "TransNeXt_tiny"}
NARROW = {
    "MaskRCNN": {"fpn_channels": 8, "fc_channels": 8, "mask_convs": 1},
    "UPerNet": {"channels": 8, "auxiliary_channels": 8},
}
# tables that depend on the size of the images, as the reference's modules call them
TABLES = {
    "relative_coords_table1": np.zeros((9, 2), np.float32),
    "relative_pos_index1": np.zeros(9, np.int64),
    "block1.0.attn.padding_mask": np.zeros((9, 9), bool),
    "block1.0.attn.local_seq_length": np.ones((9, 1), np.float32),
    "block1.0.attn.seq_length_scale": np.ones((9, 1), np.float32),
    "block4.0.attn.relative_position_index": np.zeros(9, np.int64),
}


@functools.cache
def published(name):
    """The seeded weights under the reference's keys, in PyTorch's layout."""
    manifest = json.loads((GOLDEN / f"{name}_manifest.json").read_text())
    return MappingProxyType(seeded.state_dict(manifest))


def shallow(name="TransNeXt_micro", num_classes=5, seed=None, **arguments):
    """A classifier of one block a stage, seeded if `seed` is given."""
    model = create_model(name, num_classes=num_classes, depths=DEPTHS, **arguments)
    return model if seed is None else fill(model, seed)


def fill(model, seed=0):
    for key, tensor in model.state_dict().items():
        leaf = key.replace("_mean", "running_mean").replace("_variance", "running_var")
        tensor.set_value(seeded.tensor(leaf, tensor.shape, seed))
    return model


def dense(name, seed=None):
    """A narrow detector or segmentor of 5 classes on a shallow backbone."""
    backbone = {"name": "TransNeXt_micro", "depths": DEPTHS}
    model = create_model(name, num_classes=5, backbone=backbone, **NARROW[name])
    return model if seed is None else fill(model, seed)


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def assert_equal(model, expected):
    assert model.state_dict().keys() == expected.keys()
    for key, value in arrays(model).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def run(model, shape):
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(seeded.image(shape)))


# ---------------------------------------------------------------- the reference's files


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, golden, size",
    [
        ("TransNeXt_micro", "transnext_micro", 224),
        ("TransNeXt_tiny", "transnext_tiny", 224),
        ("TransNeXt_micro_AAAA", "transnext_micro_AAAA", 256),
    ],
)
def test_an_official_file_gives_the_goldens(name, golden, size, tmp_path):
    state = dict(published(golden))
    write_zip(tmp_path / "a.pth", {"model": tensors(state), "epoch": 299})
    model = create_model(name)
    report = load_weights(model, tmp_path / "a.pth")
    assert (report.format, report.entry, len(report.loaded)) == ("official", "model", len(state))
    expected = np.load(GOLDEN / f"{golden}_{size}_seed0.npz")["logits"]
    found = run(model, (len(expected), 3, size, size))
    difference = max_difference(found, expected)
    assert difference < 1e-5 * max(np.abs(expected).max(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name, keys", [("MaskRCNN", 657), ("UPerNet", 697)])
def test_whole_files_of_mmdet_and_mmseg(name, keys, tmp_path):
    file = {"MaskRCNN": "mask_rcnn_transnext_tiny", "UPerNet": "upernet_transnext_tiny"}[name]
    state = published(file)
    write_zip(tmp_path / "a.pth", {"meta": {}, "state_dict": tensors(dict(state))})
    with paddle.LazyGuard():
        model = create_model(name, backbone=TINY)
    counters = sum(key.endswith("num_batches_tracked") for key in state)
    translation = translate({"state_dict": dict(state)}, model)
    assert len(state) == keys and len(translation.arrays) == keys - counters
    assert not translation.missing and not translation.select("unexpected")
    assert translation.format == {"MaskRCNN": "mmdet", "UPerNet": "mmseg"}[name]

    backbone = create_model("TransNeXt_tiny", num_classes=None)
    report = load_weights(backbone, tmp_path / "a.pth", backbone_only=True)
    assert len(report.loaded) == 615
    weight = "block3.7.mlp.fc1.weight"
    np.testing.assert_array_equal(
        backbone.state_dict()[weight].numpy(), state[f"backbone.{weight}"].T
    )


@pytest.mark.slow
@pytest.mark.parametrize("position_bias", ["interpolation", "extrapolation"])
def test_a_whole_segmentor_gives_the_golden(position_bias):
    expected = np.load(GOLDEN / f"upernet_transnext_tiny_256x320_img512_{position_bias}_seed0.npz")
    backbone = {**TINY, "position_bias": position_bias, "table_size": 512}
    model = create_model("UPerNet", num_classes=150, backbone=backbone)
    load_weights(model, dict(published("upernet_transnext_tiny")))
    model.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 256, 320)))
    with paddle.no_grad():
        logits, auxiliary = model.forward_heads(image)
    for key, found in (("logits", logits), ("aux_logits", auxiliary)):
        sample = expected[f"{key}.sample"]
        difference = max_difference(seeded.sample(found.numpy()), sample)
        assert difference < 1e-4 * np.abs(sample).max(), key


def test_tables_of_a_size_are_dropped_with_the_reason():
    theirs = to_torch(arrays(shallow(seed=0)), shallow())
    report = load_weights(shallow(), {**theirs, **TABLES})
    assert report.dropped == dict.fromkeys(
        TABLES, "depends on the size of the images; the model makes it for each size"
    )
    assert not report.unexpected and not report.missing


# ---------------------------------------------------------------- there and back


def test_torch_and_paddle_are_told_apart_without_statistics():
    model = shallow(seed=3)
    ours, theirs = arrays(model), to_torch(arrays(model), model)
    assert ours.keys() == theirs.keys() and head_classes(theirs) == 5
    np.testing.assert_array_equal(theirs["head.weight"], ours["head.weight"].T)
    for state, known in ((ours, "paddle"), (theirs, "official")):
        target = shallow()
        assert load_weights(target, state).format == known
        assert_equal(target, ours)


@pytest.mark.parametrize("name", ["MaskRCNN", "UPerNet"])
def test_detectors_and_segmentors_there_and_back(name):
    model = dense(name, seed=1)
    theirs = to_torch(arrays(model), model)
    np.testing.assert_array_equal(
        theirs["backbone.block4.0.attn.qkv.weight"],
        arrays(model)["backbone.block4.0.attn.qkv.weight"].T,
    )
    for state in (theirs, arrays(model)):
        target = dense(name)
        load_weights(target, state)
        assert_equal(target, arrays(model))


def test_fused_heads_are_not_written_for_another_program():
    """The backbone has no norm that could tell it."""
    model = dense("UPerNet", seed=0)
    for layer in model.sublayers():
        if isinstance(layer, ConvModule):
            fold_after(layer.conv, layer.bn)
            layer.bn = paddle.nn.Identity()
    assert "decode_head.bottleneck.conv.bias" in arrays(model)
    with pytest.raises(LoadError, match="a fused model is not exported to PyTorch keys"):
        to_torch(arrays(model), model)


def test_files_are_converted_both_ways(tmp_path, capsys):
    state = published("transnext_micro")
    write_zip(tmp_path / "a.pth", tensors(dict(state)))
    one, other = str(tmp_path / "b.pdparams"), str(tmp_path / "c.safetensors")
    assert main([str(tmp_path / "a.pth"), one, "--model", "TransNeXt_micro"]) == 0
    assert main([one, other, "--model", "TransNeXt_micro", "--to", "torch"]) == 0
    assert "official TransNeXt" in capsys.readouterr().out
    back = load_file(other)
    assert back.keys() == state.keys()
    for key, value in back.items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_a_classifier_fills_the_backbone_of_a_segmentor():
    classifier, segmentor = shallow(seed=2), dense("UPerNet")
    report = load_weights(segmentor, arrays(classifier), backbone_only=True)
    assert set(report.dropped) == {"head.weight", "head.bias"}
    body = arrays(segmentor.backbone)
    assert_equal(segmentor.backbone, {key: arrays(classifier)[key] for key in body})


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    "source, target, says",
    [
        ({"name": "TransNeXt_micro_AAAA"}, {}, "aggregated in the file .an AAAA variant., full"),
        ({}, {"name": "TransNeXt_micro_AAAA"}, "aggregated in the model .an AAAA variant., full"),
        ({"window": 5}, {}, "differ in the window of their attention"),
        ({"name": "TransNeXt_tiny"}, {}, "variants of different widths"),
        ({"num_classes": None}, {}, "a backbone, the model a classifier: head='fresh_on_mismatch'"),
        ({}, {"num_classes": None}, "a classifier, the model has no head"),
        ({"num_classes": 7}, {}, "another class count"),
        ({"in_channels": 4}, {}, "images of 4 channels, the model of 3"),
    ],
)
def test_what_does_not_fit_is_named(source, target, says):
    with pytest.raises(LoadError, match=says):
        load_weights(shallow(**target), arrays(shallow(**source)))


@pytest.mark.parametrize("name, title", [("MaskRCNN", "Mask R-CNN"), ("UPerNet", "UPerNet")])
def test_a_whole_dense_file_and_a_classifier_are_told_apart(name, title):
    model, classifier = dense(name), shallow()
    with pytest.raises(LoadError, match="a detector or segmentor .*backbone_only=True"):
        load_weights(classifier, to_torch(arrays(model), model))
    state = to_torch(arrays(classifier), classifier)
    with pytest.raises(
        LoadError, match=f"The file is a classifier or a backbone, the model {title}: to fill its"
    ):
        load_weights(model, state)


def test_other_depths_are_named():
    with paddle.LazyGuard():
        small = create_model("TransNeXt_small")
    with pytest.raises(
        LoadError,
        match=r"The file is of depths \(2, 2, 15, 2\) \(TransNeXt_micro, TransNeXt_tiny, .*the "
        r"model of depths \(5, 5, 22, 5\) \(TransNeXt_small\)",
    ):
        load_weights(small, dict(published("transnext_tiny")))


def test_a_head_is_left_out_or_fresh_where_asked_for():
    backbone = shallow(num_classes=None)
    assert (
        "head.bias"
        in load_weights(backbone, arrays(shallow(seed=0)), head="fresh_on_mismatch").dropped
    )
    report = load_weights(shallow(), arrays(backbone), head="fresh_on_mismatch")
    assert sorted(report.fresh) == ["head.bias", "head.weight"]


def test_a_name_of_the_zoo_brings_its_pretrain_size(tmp_path, monkeypatch):
    name = "transnext_micro_AAAA.in1k_256.official"
    record = zoo.get(name)
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path))
    model = shallow(record.model, seed=0)
    write_zip(tmp_path / record.file, tensors(to_torch(arrays(model), model)))
    target = shallow(record.model, **record.arguments)
    load_weights(target, name)
    assert_equal(target, arrays(model))
    with pytest.raises(
        LoadError,
        match=f"{name}: these weights have pretrain_size 256, the model 224.*Arch.pretrain_size",
    ):
        load_weights(shallow(record.model, pretrain_size=224), name)
