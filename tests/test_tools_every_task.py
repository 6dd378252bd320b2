"""The programs in tools/ for every task and every suite's dialect: the configuration says whose it
is.
"""

import argparse
import json
import sys

import paddle
import pytest

from ppcls_nextvit.cli.common import sibling
from ppcls_nextvit.cli.main import COMMANDS
from ppcls_nextvit.config import dialect_of
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.common import build_model
from support.paths import ROOT
from support.programs import program_at

evaluate, export_model, infer, train = (
    program_at(f"tools/{name}.py") for name in ("eval", "export_model", "infer", "train")
)
QUICKSTART = ROOT / "configs" / "quickstart"


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory):
    """Weights of the segmentation quickstart's model, not trained."""
    pytest.importorskip("cv2", reason="needs the extra `cv2`")
    paddle.seed(0)
    path = tmp_path_factory.mktemp("weights") / "semfpn.pdparams"
    paddle.save(
        build_model(load_config(QUICKSTART / "nuclei_semfpn.yaml"), training=True).state_dict(),
        str(path),
    )
    return path


def run(tool, config, weights, *arguments):
    return tool.main(
        [
            "-c",
            str(QUICKSTART / config),
            "-o",
            f"Global.pretrained_model={weights}",
            *map(str, arguments),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, precision",
    [
        ("paddle", "fp32"),
        *(pytest.param("onnx", bits, marks=pytest.mark.chain) for bits in ("fp32", "fp16")),
    ],
)
def test_a_segmentor_is_exported(segmentor, tmp_path, capsys, to, precision):
    if to == "onnx":
        pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")
    assert (
        run(
            export_model,
            "nuclei_semfpn.yaml",
            segmentor,
            "--to",
            to,
            "--precision",
            precision,
            "-o",
            f"Global.save_inference_dir={tmp_path / to}",
        )
        == 0
    )
    assert "largest difference from the model" in capsys.readouterr().out
    assert {"logits", "labels"} <= set(
        json.loads((tmp_path / to / "export.json").read_text())["Check"]["difference"]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--to", "lite-opencl"],
            "SemanticFPN goes to paddle, onnx, openvino, tensorrt, coreml, lite and lite-x86, who",
        ),
        (["--features"], "--to paddle --features is for classifiers"),
        (["--attention"], "--attention is for classifiers; SemanticFPN goes out whole"),
        (["--to", "lite", "--precision", "fp16"], "goes to lite in fp32; got --precision fp16"),
        (["--to", "coreml", "--size", "dynamic"], "SemanticFPN goes to coreml for one size; leave"),
        (["--precision", "fp16"], "goes to paddle in fp32, bf16; got --precision fp16"),
        (["--format", "pdmodel"], "SemanticFPN goes to paddle as pir"),
    ],
)
def test_what_a_segmentor_has_no_export_for(segmentor, capsys, arguments, message):
    assert run(export_model, "nuclei_semfpn.yaml", segmentor, *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "config, options, message",
    [
        (
            "nuclei_mask_rcnn.yaml",
            ["--to", "paddle"],
            "MaskRCNN has int8 for openvino and onnx; got --to paddle",
        ),
        ("nuclei_semfpn.yaml", ["--to", "paddle"], "SemanticFPN has int8 for openvino and onnx"),
        (
            "nuclei_semfpn.yaml",
            ["--to", "onnx", "--precision", "bf16"],
            "has bf16 for openvino and",
        ),
        ("nuclei_semfpn.yaml", ["--keep-float", "1"], "--keep-float is for classifiers"),
        ("fashion_mnist.yaml", ["--to", "onnx", "--precision", "bf16"], "--precision bf16 is of"),
    ],
)
def test_what_is_not_reduced_is_said_before_weights_are_read(capsys, config, options, message):
    assert run(program_at("tools/quantize.py"), config, "no_file_is_read", *options) == 1
    assert message in capsys.readouterr().err


def test_options_of_another_task_are_refused(segmentor, tmp_path, capsys):
    assert run(infer, "nuclei_semfpn.yaml", segmentor, "--sheet", tmp_path / "sheet.png") == 1
    assert "--sheet is not for segmentation, which has --json, --out" in capsys.readouterr().err
    assert run(infer, "fashion_mnist.yaml", segmentor, "--out", tmp_path) == 1
    assert "--out is not for classification" in capsys.readouterr().err


def test_a_folder_for_a_file_is_refused_before_the_work(segmentor, tmp_path, capsys):
    assert (
        run(infer, "nuclei_semfpn.yaml", segmentor, "--json", tmp_path, "--out", tmp_path / "out")
        == 1
    )
    assert f"error: --json {tmp_path}: is a folder; name a file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "folder, suite, files",
    [
        ("paddledetection", "PaddleDetection", 7),
        ("paddleseg", "PaddleSeg", 7),
        ("quickstart", "PaddleClas", 3),
        ("detection", "PaddleClas", 6),
        ("segmentation", "PaddleClas", 6),
        (".", "PaddleClas", 12),
    ],
)
def test_the_dialect_is_told_by_the_keys(folder, suite, files):
    paths = list((ROOT / "configs" / folder).glob("*.y*ml"))
    assert len(paths) >= files
    assert {path.name: dialect_of(path) for path in paths} == {path.name: suite for path in paths}


def test_the_dialect_of_a_file_with_tags_of_its_own(tmp_path):
    tagged = tmp_path / "tagged.yml"
    tagged.write_text(
        "architecture: MaskRCNN\nLearningRate:\n  schedulers:\n  - !PiecewiseDecay\n    gamma: "
        "0.1\n"
    )
    assert dialect_of(tagged) == "PaddleDetection"


@pytest.mark.parametrize("tool", [train, evaluate])
@pytest.mark.parametrize(
    "suite, key, module",
    [("PaddleDetection", "architecture", "ppdet"), ("PaddleSeg", "train_dataset", "paddleseg")],
)
def test_a_missing_suite_is_one_line(tmp_path, capsys, monkeypatch, tool, suite, key, module):
    for name in (module, "ppdet.modeling"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "theirs.yml"
    path.write_text(f"{key}: MaskRCNN\n")
    assert tool.main(["-c", str(path)]) == 1
    assert f"error: {suite} is not installed: pip install --no-deps" in capsys.readouterr().err


def test_int8_that_needs_images_is_another_tool(capsys):
    with pytest.raises(SystemExit):
        export_model.main(["-c", "any.yaml", "--to", "onnx", "--precision", "int8"])
    assert (
        "int8 of --to onnx is calibrated on images: python tools/quantize.py --to onnx"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        program_at("tools/quantize.py").main(["-c", "any.yaml", "--to", "lite"])
    assert "invalid choice: 'lite'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "infer", "eval", "export", "quantize", "reproduce"])
def test_what_a_program_says_next_can_be_pasted(command):
    """After a program of tools/ another of them, after `nextvit train` a command of nextvit."""
    told = sibling(argparse.ArgumentParser(prog="train.py"), command).split()
    assert told[0] == "python" and (ROOT / told[1]).is_file()
    assert sibling(argparse.ArgumentParser(prog="nextvit train"), command) == f"nextvit {command}"
    assert command in COMMANDS
