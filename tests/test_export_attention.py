"""`nextvit export --attention`: what the last block attends to, as a further output."""

import json

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, explain, fuse_bn, load
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.tasks.classification.export import export_classifier
from support.random_models import random_model
from support.tiny_run import write_config

SHALLOW = {"NextViT_small": (1, 1, 5, 1), "TransNeXt_micro": (1, 1, 1, 1)}
NEEDS = {"onnx": ("paddle2onnx", "onnxslim", "onnxruntime"), "paddle": ()}


def needs(target):
    for package in NEEDS[target]:
        pytest.importorskip(package)


def exported(model, folder, target="onnx", **arguments):
    """(scores and attention of the program on images, by name, what export.json says)."""
    export_classifier(model, TARGETS[target], folder, {}, softmax=False, **arguments)
    told = json.loads((folder / "export.json").read_text())
    made = told["Export"]
    signature = Signature({"x": made["inputs"]["x"]}, tuple(made["outputs"]))
    return TARGETS[target].load(folder, signature, "fp32"), told


def attended(model, x, point):
    """What explain finds for a pixel in the last block: the mean over heads, [N]."""
    ((*_, last),) = explain.attention(model, x, [point])
    assert last.stage == 4
    return last.weights.mean(0)


@pytest.mark.chain
@pytest.mark.parametrize(
    "name, target",
    [
        ("NextViT_small", "onnx"),
        ("TransNeXt_micro", "onnx"),
        ("fused", "paddle"),
        ("TransNeXt_micro", "paddle"),
    ],
)
def test_the_output_is_what_explain_finds_and_changes_no_score(name, target, tmp_path):
    needs(target)
    fused = name == "fused"
    name = "NextViT_small" if fused else name
    model = random_model(name)
    model = fuse_bn(model) if fused else model
    any_size = fused
    size = None if any_size else (64, 96)
    plain, _ = exported(model, tmp_path / "plain", target, size=size)
    program, told = exported(model, tmp_path / "seen", target, size=size, attention=True)
    assert told["Export"]["outputs"] == ["logits", "attention"]
    assert told["Check"]["difference"]["attention"] < 1e-5
    seen = told["Model"]["attention"]
    assert (seen["output"], seen["stage"], seen["block"]) == ("attention", 4, 1)
    assert (seen["stride"], seen["grid"]) == (32, None if any_size else [2, 3])

    x = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype("float32")
    with_it, without = program({"x": x}), plain({"x": x})
    assert np.array_equal(with_it["logits"], without["logits"])
    weights = with_it["attention"]
    assert weights.shape == (2, 6, 6)
    np.testing.assert_allclose(weights.sum(2), 1, atol=1e-5)
    for column, row in ((0, 0), (70, 10), (95, 63)):
        place = row // seen["stride"] * 3 + column // seen["stride"]
        expected = attended(model, paddle.to_tensor(x[1:]), (column, row))
        np.testing.assert_allclose(weights[1, place], expected, atol=1e-5)
        assert np.ptp(expected) > 1e-3
    model.eval()
    assert not any(
        getattr(layer, "attn_drop", None) is not None and layer.attn_drop._forward_pre_hooks
        for layer in model.sublayers()
    )


@pytest.mark.chain
@pytest.mark.parametrize("name", SHALLOW)
def test_the_command_and_those_who_read_its_export(name, tmp_path, capsys):
    needs("onnx")
    arch = {"name": name, "depths": list(SHALLOW[name])}
    config = write_config(tmp_path, test=10, Arch=arch)
    paddle.seed(0)
    model = create_model(name, num_classes=10, depths=SHALLOW[name])
    paddle.save(model.state_dict(), str(tmp_path / "w.pdparams"))
    chosen = ["-c", str(config), "-o", f"Global.pretrained_model={tmp_path / 'w.pdparams'}"]
    out = f"Global.save_inference_dir={tmp_path / 'model'}"
    command = ["export", *chosen, "-o", out, "--to", "onnx", "--attention"]
    assert main(command) == 0
    told = json.loads((tmp_path / "model" / "export.json").read_text())
    assert told["Export"]["outputs"] == ["probabilities", "attention"]
    assert told["Model"]["attention"]["grid"] == [1, 1]
    (result,) = load(tmp_path / "model").predict(np.zeros((40, 40, 3), np.uint8))
    assert result.probabilities.shape == (10,) and result.probabilities.sum() == pytest.approx(1)

    for words, message in (
        (["--to", "openvino"], "--attention is of --to paddle and onnx; an export to openvino"),
        (["--to", "onnx", "--features"], "--attention goes with the scores"),
    ):
        capsys.readouterr()
        assert main(["export", *chosen, "-o", out, "--attention", *words]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_attention_that_does_not_see_all_is_refused(tmp_path):
    model = create_model("TransNeXt_micro_AAAA", depths=(1, 1, 1, 1), num_classes=3)
    with pytest.raises(ValueError, match="of TransNeXt does not: it sees a window and pooled toke"):
        exported(model, tmp_path, "paddle", attention=True)
    assert not list(tmp_path.iterdir())
