"""deploy/python/predict.py, also by its name in deploy/onnx: the predictions of tools/infer.py from
ONNX Runtime and OpenVINO, one-line errors, neither Paddle nor anything of this project.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from support.paths import ROOT
from support.pictures import clothes, varied_pictures
from support.programs import program_at
from support.random_models import random_weights
from support.tiny_run import write_config

pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

deploy = program_at("deploy/python/predict.py")
PHOTOS = ROOT / "ppcls_nextvit" / "export" / "photos"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, the tools' arguments) of the tiny configuration with random weights."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, [
        "-c",
        str(write_config(folder)),
        "-o",
        f"Global.pretrained_model={random_weights(folder / 'w.pdparams')}",
    ]


def export(trained, name, *options):
    folder, arguments = trained
    if not (folder / name).is_dir():
        given = [*arguments, "-o", f"Global.save_inference_dir={folder / name}", *options]
        assert program_at("tools/export_model.py").main(given) == 0
    return folder / name


@pytest.fixture(scope="module")
def exported(trained):
    return export(trained, "onnx", "--to", "onnx")


@pytest.fixture
def model(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


def predict(model, images, *options):
    """(exit status, the JSON)."""
    path = model.parent / "predictions.json"
    status = deploy.main(
        ["--model", str(model), "--images", str(images), "--json", str(path), *options]
    )
    return status, json.loads(path.read_text())


@pytest.mark.chain
def test_same_predictions_as_infer(trained, exported, tmp_path):
    folder, arguments = trained
    pictures = varied_pictures(tmp_path / "pictures")
    expected = tmp_path / "infer.json"
    assert (
        program_at("tools/infer.py").main(
            [*arguments, "-o", f"Infer.infer_imgs={pictures}", "--json", str(expected)]
        )
        == 0
    )
    expected = json.loads(expected.read_text())
    assert len({tuple(result["class_ids"]) for result in expected}) > 3, (
        "all images alike would show nothing"
    )
    runs = [
        (exported, []),
        (exported, ["--batch-size", "5", "--threads", "2"]),
        (
            export(
                trained,
                "fixed",
                "--to",
                "onnx",
                "--batch",
                "4",
                "-o",
                "Arch.infer_add_softmax=False",
            ),
            ["--batch-size", "6"],
        ),
    ]
    if "openvino" in installed():
        runs += [
            (exported, ["--engine", "openvino"]),
            (export(trained, "openvino", "--to", "openvino"), []),
        ]
    for model, options in runs:
        status, results = predict(model, pictures, *options)
        assert status == 0
        for key in ("file_name", "class_ids", "label_names"):
            assert [result[key] for result in results] == [result[key] for result in expected]
        assert np.allclose(
            [result["scores"] for result in results],
            [result["scores"] for result in expected],
            atol=1e-5,
        )


def installed():
    import importlib.util

    return [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]


@pytest.mark.slow
def test_latency_is_of_the_runs_asked_for(exported, capsys):
    assert (
        deploy.main(
            [
                "--model",
                str(exported),
                "--images",
                str(PHOTOS),
                "--batch-size",
                "2",
                "--repeat",
                "3",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    values = dict(pair.split("=") for pair in lines[-1].removeprefix("latency_ms: ").split())
    assert (values["runs"], values["batch"], values["threads"]) == ("6", "2", "1")
    ms = [float(values[key]) for key in ("min", "median", "p95", "p99", "max")]
    assert ms == sorted(ms) and 0 < ms[0] <= float(values["mean"]) <= ms[-1]
    assert float(values["images_per_s"]) == pytest.approx(2000 / float(values["mean"]), rel=0.02)


def edit(model, change):
    described = json.loads((model / "export.json").read_text())
    change(described)
    (model / "export.json").write_text(json.dumps(described))


def rehash(model):
    """Make the description fit the damaged file: the engine itself must refuse it."""
    import hashlib

    digest = hashlib.sha256((model / "inference.onnx").read_bytes()).hexdigest()
    edit(model, lambda d: d["Files"]["inference.onnx"].update(sha256=digest))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: shutil.rmtree(f), "no such directory"),
        (lambda f: (f / "export.json").unlink(), "export.json: no such file"),
        (lambda f: (f / "inference.onnx").unlink(), "inference.onnx: no such file"),
        (
            lambda f: (f / "export.json").write_text("{"),
            "not a description of an exported model",
        ),
        (
            lambda f: (f / "export.json").write_text("[]"),
            "not a description of an exported model",
        ),
        (
            lambda f: edit(f, lambda d: d.pop("Model")),
            "not a description of an exported model",
        ),
        (
            lambda f: edit(f, lambda d: d["Files"].update({"../x": {"sha256": ""}})),
            "no such file; export.json names it",
        ),
        (lambda f: edit(f, lambda d: d["Files"].clear()), "holds no .onnx file"),
        (
            lambda f: edit(f, lambda d: d["PostProcess"]["Topk"]["label_list"].pop()),
            "9 class names for 10 classes",
        ),
        (
            lambda f: os.truncate(f / "inference.onnx", 1000),
            "inference.onnx: does not match export.json",
        ),
        (lambda f: [os.truncate(f / "inference.onnx", 1000), rehash(f)], "cannot load it"),
        (lambda f: [os.truncate(f / "inference.onnx", 0), rehash(f)], "cannot load it"),
    ],
)
def test_damaged_model_is_one_line(model, tmp_path, capsys, change, message):
    change(model)
    assert (
        deploy.main(["--model", str(model), "--images", str(clothes(tmp_path / "clothes", 1))]) == 1
    )
    output = capsys.readouterr()
    assert (
        output.out == ""
        and output.err.startswith("error: ")
        and output.err.count("\n") == 1
        and message in output.err
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_missing_engine_is_named(exported, monkeypatch, capsys, engine):
    monkeypatch.setitem(sys.modules, engine, None)
    assert (
        deploy.main(["--model", str(exported), "--images", str(exported), "--engine", engine]) == 1
    )
    assert f"--engine {engine} is not installed: pip install {engine}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, names",
    [
        (["--precision", "fp32"], "--precision"),
        (["--no-onednn"], "--onednn"),
        (["--onednn", "--tensorrt"], "--onednn, --tensorrt"),
    ],
)
def test_options_of_paddle_inference_are_refused(exported, capsys, options, names):
    assert deploy.main(["--model", str(exported), "--images", str(PHOTOS), *options]) == 1
    assert (
        f"error: {names}: for Paddle Inference alone; onnxruntime runs this model"
        in capsys.readouterr().err
    )


def test_an_export_to_paddle_holds_no_onnx(model, tmp_path, capsys):
    edit(model, lambda d: d["Export"].update(target="paddle"))
    images = str(clothes(tmp_path / "clothes", 1))
    assert deploy.main(["--model", str(model), "--images", images]) == 1
    assert "holds no program of Paddle's; export with --to paddle" in capsys.readouterr().err
    assert deploy.main(["--model", str(model), "--images", images, "--engine", "onnxruntime"]) == 0


def test_images_that_do_not_fit_the_exported_size(model, tmp_path, capsys):
    edit(model, lambda d: d["PreProcess"]["transform_ops"].pop(1))
    assert (
        deploy.main(
            ["--model", str(model), "--images", str(varied_pictures(tmp_path / "pictures"))]
        )
        == 1
    )
    errors = capsys.readouterr().err
    assert (
        "landscape.jpg: 47 x 90 pixels after preprocessing; the model was exported for 32 x 32 "
        "alone" in errors
    )


@pytest.fixture
def copied(tmp_path):
    """deploy/, copied away to where neither Paddle nor this project nor PyYAML can be imported."""
    for folder in ("python", "onnx"):
        shutil.copytree(ROOT / "deploy" / folder, tmp_path / folder)
    for name in ("paddle", "yaml", "onnx", "ppcls_nextvit"):
        (tmp_path / "python" / f"{name}.py").write_text("raise AssertionError('imported')")
    return tmp_path


@pytest.mark.parametrize("folder", ["python", "onnx"])
def test_copied_away_it_runs_without_this_project_paddle_and_yaml(exported, copied, folder):
    command = [
        sys.executable,
        f"{folder}/predict.py",
        "--model",
        str(exported),
        "--images",
        str(PHOTOS),
        "--topk",
        "1",
    ]
    done = subprocess.run(command, cwd=copied, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ["chair_559.jpg", "dog_243.jpg", "drum_541.jpg", "eagle_22.jpg"]
    assert [
        line.partition(": ")[0].rpartition("/")[2] for line in done.stdout.splitlines()
    ] == names
