"""Our models inside PaddleClas. Needs PaddleClas (pip install --no-deps paddleclas==2.6.0 and what
it imports); skipped without it.
"""

import copy
import sys

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, list_models, load_weights
from ppcls_nextvit.hosts import paddleclas
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.weights import to_torch
from scripts import seeded
from support.extending_page import register_models
from support.goldens import max_difference, torch_state_dict
from support.paths import GOLDEN
from support.torch_writer import tensors, write_zip

SMALL = {"depths": [1, 1, 5, 1], "class_num": 7}
OWN_OF_PADDLECLAS = [
    f"NextViT_{size}_{pixels}" for size in ("small", "base", "large") for pixels in (224, 384)
]


@pytest.fixture(scope="module")
def arch():
    try:
        names = paddleclas.register()
    except ImportError as error:
        pytest.skip(str(error))
    assert sorted(names) == sorted(set(list_models("classification")) - set(OWN_OF_PADDLECLAS))
    return paddleclas.import_suite("PaddleClas", ("ppcls.arch", "paddleclas.ppcls.arch"), "")


def build(arch, **arguments):
    return arch.build_model(
        {"Arch": {"name": "NextViT_small", **SMALL, **arguments}, "Global": {"device": "cpu"}}
    )


@pytest.mark.slow
def test_build_model_finds_ours(arch, tmp_path):
    paddle.seed(1)
    network = build(arch, path_dropout=0.3, use_sync_bn=False)
    network.eval()
    assert network.config.depths == (1, 1, 5, 1) and network.config.drop_path_rate == 0.3
    image = paddle.to_tensor(seeded.image((2, 3, 64, 64)))
    plain = create_model("NextViT_small", depths=[1, 1, 5, 1], num_classes=7)
    load_weights(plain, network.state_dict())
    plain.eval()
    assert network(image).shape == [2, 7] and np.array_equal(
        network(image).numpy(), plain(image).numpy()
    )
    with pytest.raises(ConfigError, match="Arch.classnum: unknown key. Did you mean 'class_num'"):
        build(arch, classnum=3)


@pytest.mark.slow
def test_pretrained_takes_every_format_and_another_class_count(arch, tmp_path):
    write_zip(tmp_path / "official.pth", {"model": tensors(torch_state_dict("NextViT_small"))})
    network = arch.build_model(
        {
            "Arch": {"name": "NextViT_small", "pretrained": str(tmp_path / "official.pth")},
            "Global": {},
        }
    )
    network.eval()
    golden = np.load(GOLDEN / "nextvit_small_1x232x248_seed0.npz")["logits"]
    with paddle.no_grad():
        assert (
            max_difference(
                network(paddle.to_tensor(seeded.image((1, 3, 232, 248)))).numpy(), golden
            )
            < 1e-5
        )
    arguments = {"class_num": 5, "pretrained": str(tmp_path / "official.pth")}
    tuned = arch.build_model({"Arch": {"name": "NextViT_small", **arguments}, "Global": {}})
    assert np.array_equal(
        tuned.norm.weight.numpy(), network.norm.weight.numpy()
    ) and tuned.proj_head[0].weight.shape == [1024, 5]


def test_pretrained_true_names_the_file_that_paddleclas_would_download(arch, tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path))
    for name, ssld, file in (
        ("NextViT_small", False, "NextViT_small_224_pretrained.pdparams"),
        ("NextViT_base", True, "NextViT_base_224_ssld_pretrained.pdparams"),
    ):
        with pytest.raises(FileNotFoundError, match=file):
            arch.build_model(
                {
                    "Arch": {"name": name, **SMALL, "pretrained": True, "use_ssld": ssld},
                    "Global": {},
                }
            )
    with pytest.raises(ConfigError, match="no weights are published for NextViT_small_window_pool"):
        arch.build_model(
            {
                "Arch": {"name": "NextViT_small_window_pool", **SMALL, "pretrained": True},
                "Global": {},
            }
        )


def test_its_own_names_are_shadowed_only_when_told(arch, monkeypatch):
    theirs = arch.NextViT_small_224
    with pytest.raises(
        ValueError,
        match="has a NextViT_small_224 of its own; pass shadow=True to replace it, or use "
        "NextViT_small",
    ):
        paddleclas.register(["NextViT_small_224"])
    assert arch.NextViT_small_224 is theirs
    # put back after the test
    monkeypatch.setattr(arch, "NextViT_small_224", theirs)
    assert paddleclas.register(["NextViT_small_224"], shadow=True) == ["NextViT_small_224"]
    assert arch.NextViT_small_224 is not theirs
    with pytest.raises(
        ConfigError, match="unknown model 'NextViT_smal'. Did you mean 'NextViT_small'"
    ):
        paddleclas.register(["NextViT_smal"])


def test_returned_stages(arch):
    network = build(arch, return_stages=[0, 3])
    network.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    out = network(image)
    maps = network.forward_features(image)
    assert list(out) == ["logits", "features[0]", "features[7]"] and out["logits"].shape == [1, 7]
    assert np.array_equal(out["features[0]"].numpy(), maps[0].numpy()) and np.array_equal(
        out["features[7]"].numpy(), maps[3].numpy()
    )
    assert list(build(arch, return_stages=True)(image)) == [
        "logits",
        "features[0]",
        "features[1]",
        "features[6]",
        "features[7]",
    ]
    with pytest.raises(
        ConfigError, match="return_stages: expected True, or numbers from 0 to 3, got 4"
    ):
        build(arch, return_stages=4)


def test_rec_model(arch):
    config = {
        "Backbone": {"name": "NextViT_small", **SMALL},
        "BackboneStopLayer": {"name": "flatten"},
        "Neck": {"name": "FC", "embedding_size": 1024, "class_num": 16},
    }
    model = arch.RecModel(**copy.deepcopy(config))
    model.eval()
    out = model(paddle.to_tensor(seeded.image((2, 3, 64, 64))))
    assert out["backbone"].shape == [2, 1024] and out["features"].shape == [2, 16]
    with pytest.raises(ConfigError, match="BackboneStopLayer: NextViT stops after 'avgpool'"):
        arch.RecModel(**{**copy.deepcopy(config), "BackboneStopLayer": {"name": "blocks"}})


def test_its_export_hook_folds_the_norms(arch):
    """What PaddleClas's Engine.export does: a deep copy, then re_parameterize() of every layer that
    has it and is not is_repped.
    """
    network = build(arch)
    for key, tensor in network.state_dict().items():
        tensor.set_value(
            seeded.tensor(
                key.replace("_mean", "running_mean").replace("_variance", "running_var"),
                tensor.shape,
            )
        )
    holder = paddle.nn.Sequential(copy.deepcopy(network))
    holder.eval(), network.eval()
    for layer in holder.sublayers():
        if hasattr(layer, "re_parameterize") and not layer.is_repped:
            layer.re_parameterize()
    assert (
        not [layer for layer in holder.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
        and holder[0].is_repped
    )
    assert [
        layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)
    ] and not network.is_repped
    image = paddle.to_tensor(seeded.image((1, 3, 64, 64)))
    with paddle.no_grad():
        expected = network(image).numpy()
        assert max_difference(holder(image).numpy(), expected) < 1e-5 * max(1, abs(expected).max())


def test_transnext(arch, tmp_path, monkeypatch):
    """Weights of any format fill it; its export hook leaves a model without BatchNorm as it is."""
    plain = create_model("TransNeXt_micro", depths=[1, 1, 1, 1], num_classes=7)
    plain.eval()
    state = to_torch({key: value.numpy() for key, value in plain.state_dict().items()}, plain)
    write_zip(tmp_path / "official.pth", {"model": tensors(state)})
    section = {
        "name": "TransNeXt_micro_224",
        "depths": [1, 1, 1, 1],
        "path_dropout": 0.2,
        "return_stages": [1, 3],
        "pretrained": str(tmp_path / "official.pth"),
    }
    network = build(arch, **section)
    network.eval()
    assert network.config.drop_path_rate == 0.2
    image = paddle.to_tensor(seeded.image((1, 3, 64, 90)))
    with paddle.no_grad():
        expected, maps = plain(image).numpy(), plain.forward_features(image)
        out = network(image)
        assert np.array_equal(out["logits"].numpy(), expected)
        stages = [value.numpy() for name, value in out.items() if name != "logits"]
        assert all(np.array_equal(x, maps[i].numpy()) for x, i in zip(stages, (1, 3), strict=True))
        network.re_parameterize()
        assert max_difference(network(image)["logits"].numpy(), expected) < 1e-5
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path))
    for name, file in (
        ("TransNeXt_micro_224", "transnext_micro_224_1k.pth"),
        ("TransNeXt_base_384", "transnext_base_384_1k_ft_1k.pth"),
        ("TransNeXt_micro_AAAA", "transnext_micro_AAAA_256_1k.pth"),
    ):
        with pytest.raises(FileNotFoundError, match=file):
            build(arch, name=name, depths=[1, 1, 1, 1], pretrained=True)
    with pytest.raises(ConfigError, match="no weights are published for TransNeXt_micro_224"):
        build(arch, name="TransNeXt_micro_224", pretrained=True, use_ssld=True)


def test_a_family_from_outside(arch, own_models, tmp_path):
    """What it answers comes from the family's contract: stages, head, smaller norms."""
    register_models(tmp_path)
    try:
        assert "PlainConv" in paddleclas.register()
        section = {"name": "PlainConv", "width": 8, "class_num": 7, "return_stages": [0, 3]}
        network = arch.build_model({"Arch": section, "Global": {"device": "cpu"}})
    finally:
        del arch.PlainConv
    network.eval()
    image = paddle.to_tensor(seeded.image((2, 3, 64, 64)))
    out = network(image)
    assert {name: list(value.shape) for name, value in out.items()} == {
        "logits": [2, 7],
        "features[0]": [2, 8, 16, 16],
        "features[3]": [2, 64, 2, 2],
    }
    network.re_parameterize()
    assert not [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert max_difference(network(image)["logits"].numpy(), out["logits"].numpy()) < 1e-5
    network.returned_stages = ()
    with pytest.raises(
        ConfigError, match=r"PlainConv stops after 'avgpool' \(features \[B, 64\]\)"
    ):
        network.stop_after("blocks")
    assert network.stop_after("flatten") and network(image).shape == [2, 64]


def test_without_paddleclas_the_message_is_one_line(monkeypatch):
    for module in ("ppcls.arch", "paddleclas.ppcls.arch"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(ImportError) as error:
        paddleclas.register()
    assert (
        str(error.value)
        == "PaddleClas is not installed: pip install --no-deps paddleclas==2.6.0, or put a "
        "checkout of it on PYTHONPATH"
    )
