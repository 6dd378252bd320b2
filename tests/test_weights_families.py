"""A family of backbones and a detector's heads that no file of the package knows: registered from
outside, their keys are read, written, converted and fine-tuned like any other's.
"""

import re
from dataclasses import replace
from typing import Optional

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import load_file

from ppcls_nextvit import create_model, load_weights
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.models.backbones.base import BaseBackbone
from ppcls_nextvit.models.registry import HoldsBackbone, build_backbone
from ppcls_nextvit.weights import LoadError, convert, to_torch, translate
from ppcls_nextvit.weights.families import (
    Family,
    Format,
    Heads,
    base,
    register_family,
    register_heads,
)
from ppcls_nextvit.weights.rules import head_classes
from scripts import seeded


class Block(nn.Layer):
    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = nn.Conv2D(in_channels, channels, 2, stride=2)
        self.norm = nn.BatchNorm2D(channels)
        self.mix = nn.Linear(channels, 2 * channels)


class Toy(BaseBackbone):
    """Two stages of two blocks, whose body is not called `features`."""

    body_prefixes = ("blocks.",)
    head_prefixes = ("classifier.",)
    stage_channels = (2, 3)
    stage_strides = (4, 8)

    def __init__(self, *, num_classes: Optional[int] = 5):
        super().__init__(num_classes)
        self.blocks = nn.LayerList([Block(3, 2), Block(2, 2), Block(2, 3), Block(3, 3)])
        if num_classes:
            self.classifier = nn.Linear(3, num_classes)


class Finder(HoldsBackbone):
    """A detector of one layer."""

    task = "detection"

    def __init__(self, *, backbone: dict, num_classes: int = 4):
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.boxes = nn.Linear(3, 4)
        self.kinds = nn.Linear(3, num_classes)


def from_other(key, backbone):
    key = re.sub(
        r"^stage(\d)_(\d)\.", lambda m: f"blocks.{2 * (int(m[1]) - 1) + int(m[2]) - 1}.", key
    )
    return re.sub(r"^fc\.", "classifier.", key)


def to_other(key, backbone):
    key = re.sub(
        r"^blocks\.(\d)\.", lambda m: f"stage{int(m[1]) // 2 + 1}_{int(m[1]) % 2 + 1}.", key
    )
    return re.sub(r"^classifier\.", "fc.", key)


class ToyKeys(Family):
    title = "Toy"
    sources = "other or our own"
    formats = (
        base.PADDLE,
        Format(
            base.REFERENCE,
            "the other program",
            lambda state, backbone: any(key.startswith("stage1_1.") for key in state),
            from_other,
            to_other,
            written_as="other",
        ),
    )
    class_biases = (r"classifier\.bias", r"fc\.bias")


FINDER = Heads(
    Finder,
    "a Finder",
    Format(
        "finder",
        "Finder's own program",
        lambda state, model: any(key.startswith("find.") for key in state),
        lambda key, model: key.removeprefix("find."),
        lambda key, model: f"find.{key}",
        written_as="finder",
    ),
    marks=("kinds.",),
    class_layers=("kinds.",),
    class_bias=r"kinds\.bias",
)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The toy network, detector and keys, known as long as a test runs."""
    monkeypatch.setattr(MODELS, "_items", dict(MODELS._items))
    monkeypatch.setattr(base, "_families", dict(base._families))
    monkeypatch.setattr(base, "_heads", list(base._heads))
    MODELS.register(Toy)
    MODELS.register(Finder)
    register_family(ToyKeys(Toy))
    register_heads(FINDER)


def filled(name, **arguments):
    model = create_model(name, **arguments)
    for key, tensor in model.state_dict().items():
        leaf = key.replace("_mean", "running_mean").replace("_variance", "running_var")
        tensor.set_value(seeded.tensor(leaf, tensor.shape))
    return model


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def assert_equal(model, expected):
    for key, value in arrays(model).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_keys_of_a_registered_family_there_and_back():
    toy = filled("Toy")
    theirs = to_torch(arrays(toy), toy)
    assert theirs["stage2_1.norm.running_mean"].shape == (3,)
    assert theirs["stage1_2.norm.num_batches_tracked"] == 0
    np.testing.assert_array_equal(
        theirs["stage2_2.mix.weight"], arrays(toy)["blocks.3.mix.weight"].T
    )
    assert set(theirs) >= {"fc.weight", "fc.bias"} and head_classes(theirs) == 5

    target = create_model("Toy")
    report = load_weights(target, theirs)
    assert_equal(target, arrays(toy))
    assert report.format == base.REFERENCE and "classifier.weight" in report.transposed
    assert "format: the other program" in translate(theirs, target).table()
    assert load_weights(target, arrays(toy)).format == "paddle"


def test_files_of_a_registered_family_are_converted(tmp_path):
    toy = filled("Toy", num_classes=7)
    paddle.save(toy.state_dict(), str(tmp_path / "a.pdparams"))
    convert(tmp_path / "a.pdparams", tmp_path / "b.safetensors", "Toy", to="other")
    assert load_file(tmp_path / "b.safetensors")["fc.bias"].shape == (7,)
    convert(tmp_path / "b.safetensors", tmp_path / "c.pdparams", "Toy")
    target = create_model("Toy", num_classes=7)
    load_weights(target, tmp_path / "c.pdparams")
    assert_equal(target, arrays(toy))
    with pytest.raises(ValueError, match="to must be one of paddle, other for Toy; got 'timm'"):
        convert(tmp_path / "a.pdparams", tmp_path / "d.safetensors", "Toy", to="timm")


def test_another_family_s_file_is_refused_in_the_family_s_words():
    with pytest.raises(LoadError, match=r"not a Toy checkpoint \(other or our own\): its keys are"):
        load_weights(create_model("Toy"), {"stem.0.weight": np.zeros(2, np.float32)})
    with pytest.raises(LoadError, match="not a Next-ViT checkpoint"):
        load_weights(create_model("NextViT_small", depths=(1, 1, 5, 1)), arrays(filled("Toy")))


def test_fine_tuning_replaces_the_family_s_class_layer():
    toy, target = filled("Toy"), create_model("Toy", num_classes=9)
    with pytest.raises(LoadError, match="another class count"):
        load_weights(target, arrays(toy))
    report = load_weights(target, to_torch(arrays(toy), toy), head="fresh_on_mismatch")
    assert report.fresh == ["classifier.weight", "classifier.bias"]
    headless = create_model("Toy", num_classes=0)
    with pytest.raises(LoadError, match="The file is a classifier, the model has no head"):
        load_weights(headless, arrays(toy))
    assert not load_weights(headless, arrays(toy), head="fresh_on_mismatch").missing


def test_a_registered_detector_s_heads(tmp_path):
    finder = filled("Finder", backbone={"name": "Toy"})
    theirs = to_torch(arrays(finder), finder)
    assert {"backbone.stage1_1.conv.weight", "find.kinds.weight"} <= set(theirs)
    target = create_model("Finder", backbone={"name": "Toy"})
    assert load_weights(target, theirs).format == "finder"
    assert_equal(target, arrays(finder))

    paddle.save(finder.state_dict(), str(tmp_path / "a.pdparams"))
    arguments = {"model": "Finder", "backbone": "Toy"}
    convert(tmp_path / "a.pdparams", tmp_path / "b.safetensors", to="finder", **arguments)
    assert set(load_file(tmp_path / "b.safetensors")) == set(theirs)
    with pytest.raises(ValueError, match="to must be one of paddle, finder for Finder"):
        convert(tmp_path / "a.pdparams", tmp_path / "c.safetensors", to="mmdet", **arguments)

    other = create_model("Finder", backbone={"name": "Toy"}, num_classes=6)
    assert load_weights(other, theirs, head="fresh_on_mismatch").fresh == [
        "kinds.weight",
        "kinds.bias",
    ]
    with pytest.raises(LoadError, match="The file is a classifier or a backbone, the model a Fin"):
        load_weights(other, arrays(filled("Toy")))
    report = load_weights(other, arrays(filled("Toy")), backbone_only=True)
    assert not report.missing and all(not key.startswith("backbone.") for key in report.fresh)
    toy = create_model("Toy")
    assert load_weights(toy, theirs, backbone_only=True).fresh == [
        "classifier.weight",
        "classifier.bias",
    ]


class Nameless(Toy):
    """A network whose keys nobody has registered."""


def test_a_network_without_a_record_keeps_its_own_keys(monkeypatch):
    monkeypatch.delitem(base._families, Toy)
    MODELS.register(Nameless)
    source, target = filled("Nameless"), create_model("Nameless")
    assert load_weights(target, arrays(source)).format == "paddle"
    assert_equal(target, arrays(source))
    theirs = to_torch(arrays(source), source)
    assert "blocks.0.norm.running_var" in theirs
    target = create_model("Nameless")
    load_weights(target, theirs)
    assert_equal(target, arrays(source))
    with pytest.raises(LoadError, match="not a Nameless checkpoint"):
        load_weights(target, {"stem.weight": np.zeros(2, np.float32)})


def test_a_class_that_derives_from_a_known_one_shares_its_record():
    MODELS.register(Nameless)
    toy = filled("Toy")
    target = create_model("Nameless")
    load_weights(target, to_torch(arrays(toy), toy))
    assert_equal(target, arrays(toy))


def test_keys_are_registered_once():
    with pytest.raises(ValueError, match="keys of Toy are registered twice"):
        register_family(ToyKeys(Toy))
    with pytest.raises(ValueError, match="keys of Finder are registered twice"):
        register_heads(replace(FINDER, title="another"))
    with pytest.raises(ValueError, match="Toy has no format 'timm'; there are: paddle, official"):
        toy = filled("Toy")
        to_torch(arrays(toy), toy, "timm")
