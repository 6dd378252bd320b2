"""deploy/python: evaluation's pixels bit for bit, tools/infer.py's predictions by Paddle Inference,
nothing of this project, one-line errors. test_deploy_onnx.py has the other engines.
"""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from ppcls_nextvit.data.transforms.pipeline import Preprocess
from support.paths import ROOT
from support.pictures import clothes, varied_pictures
from support.programs import program_at
from support.random_models import needs_avx512, random_weights
from support.tiny_run import NORMALIZE, write_config

FOLDER = ROOT / "deploy" / "python"
deploy = program_at("deploy/python/predict.py")
engines = program_at("deploy/python/engines.py")
recipe = program_at("deploy/python/preprocess.py")
IMAGENET = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "order": "",
    }
}
DECODE, CHW = {"DecodeImage": {"to_rgb": True, "channel_first": False}}, {"ToCHWImage": None}


def resize(backend="pil", **arguments):
    return {"ResizeImage": {"backend": backend, **arguments}}


PIPELINES = {
    "published recipe": [
        DECODE,
        resize(resize_short=256, interpolation="bicubic"),
        {"CropImage": {"size": 224}},
        IMAGENET,
        CHW,
    ],
    "tiny": [DECODE, resize(size=32, interpolation="bicubic"), NORMALIZE, CHW],
    "no ToCHWImage": [
        DECODE,
        resize(resize_short=37),
        {"CropImage": {"size": [35, 33]}},
        NORMALIZE,
    ],
    "crop beyond the image": [
        DECODE,
        resize(resize_short=33, interpolation="lanczos"),
        {"CropImage": {"size": [64, 301]}},
        IMAGENET,
        CHW,
    ],
    "width and height": [DECODE, resize(size=[47, 35], interpolation="bilinear"), IMAGENET, CHW],
    "channels first, then normalised": [
        DECODE,
        resize(size=40, interpolation="box"),
        CHW,
        {"NormalizeImage": {"order": "chw"}},
    ],
    "BGR": [{"DecodeImage": {"to_rgb": False}}, {"CropImage": {"size": 33}}, NORMALIZE, CHW],
    "BGR resized": [
        {"DecodeImage": {"to_rgb": False}},
        resize(size=50, interpolation="hamming"),
        NORMALIZE,
        CHW,
    ],
    "not normalised": [DECODE, resize(size=50, interpolation="nearest"), CHW],
    "OpenCV": [
        DECODE,
        resize("cv2", resize_short=48, interpolation="bicubic"),
        {"CropImage": {"size": 40}},
        IMAGENET,
        CHW,
    ],
    "OpenCV area": [DECODE, resize("cv2", size=40, interpolation="area"), NORMALIZE, CHW],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return varied_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(model folder, configuration, weights): the tiny configuration, exported by the tool."""
    folder = tmp_path_factory.mktemp("exported")
    weights, config = random_weights(folder / "w.pdparams"), write_config(folder)
    arguments = [
        "-c",
        str(config),
        "-o",
        f"Global.pretrained_model={weights}",
        "-o",
        f"Global.save_inference_dir={folder / 'model'}",
    ]
    assert program_at("tools/export_model.py").main(arguments) == 0
    return folder / "model", config, weights


@pytest.fixture
def model(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported[0], tmp_path / "model")


@pytest.mark.parametrize("name", PIPELINES)
def test_preprocessing_is_that_of_evaluation_bit_for_bit(pictures, name):
    if "OpenCV" in name:
        pytest.importorskip("cv2")
    ours = Preprocess(PIPELINES[name])
    described = yaml.safe_load(yaml.safe_dump({"transform_ops": ours.describe()}))["transform_ops"]
    theirs = recipe.Preprocess(described, min_size=1)
    files = sorted(pictures.iterdir())
    assert len(files) == 14
    seen = set()
    for file in files:
        expected, got = ours(str(file)), theirs(file)
        assert (got.dtype, got.shape, got.flags.c_contiguous) == (
            np.float32,
            expected.shape,
            True,
        ), file.name
        assert got.tobytes() == expected.tobytes(), file.name
        seen.add(got.tobytes())
    assert len(seen) >= len(files) - 1, "the pictures differ (1-pixel images may be swallowed)"


def test_same_predictions_as_infer(exported, pictures, tmp_path):
    folder, config, weights = exported
    arguments = [
        "-c",
        str(config),
        "-o",
        f"Global.pretrained_model={weights}",
        "-o",
        f"Infer.infer_imgs={pictures}",
    ]
    assert (
        program_at("tools/infer.py").main([*arguments, "--json", str(tmp_path / "infer.json")]) == 0
    )
    expected = json.loads((tmp_path / "infer.json").read_text())
    assert len({tuple(result["class_ids"]) for result in expected}) > 3, (
        "all images alike would show nothing"
    )
    gaps = np.diff([result["scores"] for result in expected])
    assert np.abs(gaps).min() > 2e-5, "a tie could come out either way"
    for options in (
        ["--batch-size", "1"],
        ["--batch-size", "5", "--threads", "2"],
        ["--no-onednn"],
    ):
        assert (
            deploy.main(
                [
                    "--model",
                    str(folder),
                    "--images",
                    str(pictures),
                    "--json",
                    str(tmp_path / "deploy.json"),
                    *options,
                ]
            )
            == 0
        )
        results = json.loads((tmp_path / "deploy.json").read_text())
        for key in ("file_name", "class_ids", "label_names"):
            assert [result[key] for result in results] == [result[key] for result in expected]
        assert np.allclose(
            [result["scores"] for result in results],
            [result["scores"] for result in expected],
            atol=1e-5,
        )


def test_logits_become_probabilities(exported, pictures, tmp_path):
    folder, config, weights = exported
    arguments = [
        "-c",
        str(config),
        "-o",
        f"Global.pretrained_model={weights}",
        "-o",
        f"Global.save_inference_dir={tmp_path / 'logits'}",
    ]
    assert (
        program_at("tools/export_model.py").main([*arguments, "-o", "Arch.infer_add_softmax=False"])
        == 0
    )
    found = []
    for model in (folder, tmp_path / "logits"):
        assert (
            deploy.main(
                [
                    "--model",
                    str(model),
                    "--images",
                    str(pictures),
                    "--json",
                    str(tmp_path / "out.json"),
                    "--topk",
                    "10",
                ]
            )
            == 0
        )
        found.append(
            [result["scores"] for result in json.loads((tmp_path / "out.json").read_text())]
        )
    assert np.allclose(found[0], found[1], atol=1e-5) and np.allclose(
        np.sum(found, axis=2), 1, atol=1e-5
    )


def test_onednn_is_really_off(exported, monkeypatch):
    from paddle import inference

    seen, create = [], inference.create_predictor
    monkeypatch.setattr(
        inference,
        "create_predictor",
        lambda config: seen.append(config.onednn_enabled()) or create(config),
    )
    description = deploy.read_description(exported[0])
    for onednn in (True, False):
        engines.paddle_engine(exported[0], description, onednn=onednn)
    assert seen == [True, False]


@pytest.mark.slow
@needs_avx512
def test_pdmodel_of_a_fixed_batch_and_bfloat16(exported, pictures, tmp_path):
    """The older format, batches filled up to the exported one; bfloat16 as exported or as asked
    for.
    """
    folder, config, weights = exported
    arguments = ["-c", str(config), "-o", f"Global.pretrained_model={weights}"]
    for name, options in (
        ("pdmodel", ["--format", "pdmodel", "--batch", "4"]),
        ("bf16", ["--precision", "bf16"]),
    ):
        options += ["-o", f"Global.save_inference_dir={tmp_path / name}"]
        assert program_at("tools/export_model.py").main([*arguments, *options]) == 0
    scores = {}
    runs = {
        "fp32": [folder],
        "pdmodel": [tmp_path / "pdmodel", "--batch-size", "6"],
        "bf16": [tmp_path / "bf16"],
        "asked": [folder, "--precision", "bf16"],
    }
    for name, (model, *options) in runs.items():
        arguments = [
            "--model",
            str(model),
            "--images",
            str(pictures),
            "--json",
            str(tmp_path / "out.json"),
            "--topk",
            "10",
            *options,
        ]
        assert deploy.main(arguments) == 0
        results = json.loads((tmp_path / "out.json").read_text())
        scores[name] = np.array(
            [
                [
                    score
                    for _, score in sorted(zip(result["class_ids"], result["scores"], strict=True))
                ]
                for result in results
            ]
        )
    assert np.abs(scores["pdmodel"] - scores["fp32"]).max() < 1e-5
    assert (scores["bf16"] == scores["asked"]).all()
    assert 1e-4 < np.abs(scores["bf16"] - scores["fp32"]).max() < 0.05


def test_latency_is_of_the_runs_asked_for(exported, capsys):
    arguments = [
        "--model",
        str(exported[0]),
        "--images",
        str(ROOT / "ppcls_nextvit" / "export" / "photos"),
        "--batch-size",
        "3",
        "--repeat",
        "5",
    ]
    assert deploy.main([*arguments, "--warmup", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[-1].startswith("latency_ms: runs=10 batch=3 threads=1 min=")


def test_a_strip_that_resizing_would_blow_up_is_refused(exported, model, tmp_path, capsys):
    description = yaml.safe_load((model / "inference.yml").read_text())
    description["PreProcess"]["transform_ops"][1] = {
        "ResizeImage": {"resize_short": 256, "backend": "pil"}
    }
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    (model / "export.json").unlink()  # it describes the export that was
    Image.new("RGB", (50_000, 1)).save(tmp_path / "strip.png")
    assert deploy.main(["--model", str(model), "--images", str(tmp_path / "strip.png")]) == 1
    assert (
        "strip.png: 12800000 x 256 pixels after resizing are more than the limit"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (["--precision", "fp16"], "--precision fp16 needs --device gpu; a CPU has bf16"),
        (["--precision", "bf16", "--no-onednn"], "--precision bf16 is for a CPU with oneDNN"),
        (
            ["--tensorrt"],
            "--tensorrt needs --device gpu and a model exported with --format pdmodel",
        ),
    ],
)
def test_options_that_do_not_go_together(exported, capsys, options, message):
    assert (
        deploy.main(
            [
                "--model",
                str(exported[0]),
                "--images",
                str(ROOT / "ppcls_nextvit" / "export" / "photos"),
                *options,
            ]
        )
        == 1
    )
    assert message in capsys.readouterr().err


def test_images_of_several_sizes(exported, pictures, model, tmp_path, capsys):
    """Without a resize or crop, images run size by size, and those below the model's minimum are
    named.
    """
    description = yaml.safe_load((model / "inference.yml").read_text())
    description["PreProcess"]["transform_ops"] = [
        op for op in description["PreProcess"]["transform_ops"] if "ResizeImage" not in op
    ]
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    (model / "export.json").unlink()  # it describes the export that was
    assert (
        deploy.main(
            [
                "--model",
                str(model),
                "--images",
                str(pictures),
                "--json",
                str(tmp_path / "out.json"),
                "--batch-size",
                "14",
            ]
        )
        == 1
    )
    results = json.loads((tmp_path / "out.json").read_text())
    assert [result["file_name"] for result in results] == [
        str(path) for path in sorted(pictures.iterdir())
    ]
    bad = {os.path.basename(result["file_name"]) for result in results if "error" in result}
    assert bad == {"00000.png", "one_pixel.png", "stripe.bmp"}
    assert (
        "9 x 200 pixels after preprocessing; the model needs at least 32" in capsys.readouterr().err
    )


def test_bad_images_are_named_and_the_others_done(exported, tmp_path, capsys):
    folder = clothes(tmp_path / "clothes", 4)
    (folder / "00001.png").write_bytes((folder / "00001.png").read_bytes()[:200])
    (folder / "00002.png").write_bytes(b"")
    (folder / "00003.png").write_bytes(b"no image at all")
    assert (
        deploy.main(
            [
                "--model",
                str(exported[0]),
                "--images",
                str(folder),
                "--json",
                str(tmp_path / "out.json"),
            ]
        )
        == 1
    )
    assert ["error" in result for result in json.loads((tmp_path / "out.json").read_text())] == [
        False,
        True,
        True,
        True,
    ]
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert [f"0000{i}.png" in error for i, error in enumerate(errors, start=1)] == [True] * 3


def test_names_of_every_kind_are_one_line_each_and_in_the_json(exported, tmp_path):
    """Also where the terminal's encoding has no Chinese, and a JSON of before is replaced whole."""
    folder = clothes(tmp_path / "clothes", 3)
    names = [b"latin\xe9.png", b"two\nlines.png", "\u540d\u524d.png".encode()]
    for path, name in zip(sorted(folder.iterdir()), names, strict=True):
        os.rename(path, os.fsencode(folder) + b"/" + name)
    (folder / "bad\x1b[2J.png").write_bytes(b"no image")
    (tmp_path / "out.json").write_text("[]")
    command = [sys.executable, FOLDER / "predict.py", "--model", exported[0], "--images", folder]
    done = subprocess.run(
        [*command, "--json", tmp_path / "out.json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": ""},
        timeout=300,
    )
    lines = done.stdout.decode("ascii").splitlines()
    assert (done.returncode, len(lines)) == (1, 3), done.stderr
    for shown in ("latin\\udce9.png: ", "two\\nlines.png: ", "\\u540d\\u524d.png: "):
        assert sum(shown in line for line in lines) == 1, (shown, lines)
    assert b"bad\\x1b[2J.png: not an image" in done.stderr and b"\x1b" not in done.stderr
    results = {one["file_name"]: one for one in json.loads((tmp_path / "out.json").read_bytes())}
    assert set(results) == {str(path) for path in folder.iterdir()}
    assert [name for name, one in results.items() if "error" in one] == [f"{folder}/bad\x1b[2J.png"]
    assert not list(tmp_path.glob(".*.tmp"))


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def with_eleven_classes(folder):
    text = (folder / "inference.yml").read_text()
    (folder / "inference.yml").write_text(text.replace("class_num: 10", "class_num: 11"))
    (folder / "export.json").unlink()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: shutil.rmtree(f), "no such directory"),
        (lambda f: [path.unlink() for path in f.iterdir()], "export.json: no such file"),
        (lambda f: (f / "inference.json").unlink(), "inference.json: no such file"),
        (lambda f: (f / "inference.pdiparams").unlink(), "inference.pdiparams: no such file"),
        (
            lambda f: (f / "inference.yml").write_text(""),
            "not a description of an exported model",
        ),
        (
            lambda f: (f / "inference.yml").write_text("a: [1"),
            "not a description of an exported model",
        ),
        (
            lambda f: (f / "inference.yml").write_text("!!python/object/apply:os.getcwd []"),
            "not a description of an exported model",
        ),
        (
            lambda f: os.truncate(f / "inference.json", 5000),
            "inference.json: does not match inference.yml",
        ),
        (
            lambda f: os.truncate(f / "inference.pdiparams", 0),
            "inference.pdiparams: does not match inference.yml",
        ),
        (
            with_eleven_classes,
            "10 class names for 11 classes",
        ),
        (
            lambda f: flip_byte(f / "inference.pdiparams"),
            "inference.pdiparams: does not match inference.yml",
        ),
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


def test_program_that_this_paddle_cannot_read(model, tmp_path, capsys):
    """The hashes agree, yet Paddle refuses: still one line, naming the version that wrote the
    files.
    """
    (model / "inference.json").write_text('{"a": 1}')
    description = yaml.safe_load((model / "inference.yml").read_text())
    description["Files"]["inference.json"]["sha256"] = hashlib.sha256(b'{"a": 1}').hexdigest()
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    (model / "export.json").unlink()  # it describes the export that was
    assert (
        deploy.main(["--model", str(model), "--images", str(clothes(tmp_path / "clothes", 1))]) == 1
    )
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (
        len(error) == 1
        and f"cannot load the model, which paddle {description['Versions']['paddle']} exported"
        in error[0]
    )


@pytest.mark.parametrize(
    "images, message",
    [("none", "no such file or directory"), ("empty", "no images in this directory")],
)
def test_no_images_is_one_line(exported, tmp_path, capsys, images, message):
    (tmp_path / "empty").mkdir()
    assert deploy.main(["--model", str(exported[0]), "--images", str(tmp_path / images)]) == 1
    assert message in capsys.readouterr().err


def test_unknown_transform_and_cuda_are_refused(exported, model, tmp_path, capsys):
    import paddle

    images = str(clothes(tmp_path / "clothes", 1))
    if not paddle.is_compiled_with_cuda():
        assert deploy.main(["--model", str(model), "--images", images, "--device", "gpu"]) == 1
        assert "install paddlepaddle-gpu" in capsys.readouterr().err
    description = yaml.safe_load((model / "inference.yml").read_text())
    description["PreProcess"]["transform_ops"].append({"Sharpen": {}})
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    (model / "export.json").unlink()  # it describes the export that was
    assert deploy.main(["--model", str(model), "--images", images]) == 1
    assert "unknown transform 'Sharpen'" in capsys.readouterr().err


def test_either_description_will_do(exported, model, tmp_path):
    """inference.yml alone, without the section Export, is how the oldest exports are described."""
    images = clothes(tmp_path / "clothes", 3)
    description = yaml.safe_load((model / "inference.yml").read_text())
    del description["Export"]
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    (model / "export.json").unlink()
    recent = shutil.copytree(exported[0], tmp_path / "recent")
    (recent / "inference.yml").unlink()
    written = []
    for folder in (exported[0], model, recent):
        arguments = ["--model", str(folder), "--images", str(images)]
        assert deploy.main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
        written.append((tmp_path / "out.json").read_text())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(
    "target, engine",
    [
        ("paddle", "paddle"),
        ("onnx", "onnxruntime"),
        ("tensorrt", "onnxruntime"),
        ("openvino", "openvino"),
    ],
)
def test_the_export_says_which_engine(target, engine):
    assert engines.engine_of("model", {"Export": {"target": target}}) == engine


def test_exports_for_other_programs_are_refused(model, tmp_path, capsys):
    description = yaml.safe_load((model / "inference.yml").read_text())
    description["Export"]["target"] = "lite"
    (model / "inference.yml").write_text(yaml.safe_dump(description))
    assert (
        deploy.main(["--model", str(model), "--images", str(clothes(tmp_path / "clothes", 1))]) == 1
    )
    assert (
        "an export to lite; this program runs exports to paddle, onnx, tensorrt, openvino"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "module, message",
    [
        ("paddle", "--engine paddle is not installed: pip install paddlepaddle"),
        ("yaml", "inference.yml cannot be read: pip install PyYAML"),
    ],
)
def test_missing_packages_are_named(exported, monkeypatch, capsys, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    assert deploy.main(["--model", str(exported[0]), "--images", str(exported[0])]) == 1
    assert message in capsys.readouterr().err


def run_copy(folder, *arguments):
    """predict.py of `folder`, run there without PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "predict.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_copied_away_it_runs_without_this_project(exported, tmp_path):
    copies = [shutil.copy(path, tmp_path) for path in sorted(FOLDER.glob("*.py"))]
    roots = {
        name.split(".")[0]
        for copy in copies
        for node in ast.walk(ast.parse(open(copy, encoding="utf-8").read()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert roots - set(sys.stdlib_module_names) == {
        "PIL",
        "agreement",
        "classify",
        "cv2",
        "decoding",
        "dense",
        "description",
        "drawing",
        "engines",
        "fields",
        "fonts",
        "joint",
        "labels",
        "listing",
        "notes",
        "numpy",
        "objects",
        "onnxruntime",
        "openvino",
        "paddle",
        "preprocess",
        "startup",
        "winners",
        "yaml",
    }
    images = clothes(tmp_path / "clothes", 2)
    done = run_copy(tmp_path, "--model", exported[0], "--images", images, "--topk", "1")
    assert done.returncode == 0, done.stderr
    assert "ccache" not in done.stderr
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        str(images / "00000.png"),
        str(images / "00001.png"),
    ]


@pytest.mark.parametrize(
    "program, advice",
    [
        ("python", "predict.py needs all of deploy/python/*.py beside it"),
        ("onnx", "copy deploy/python/*.py in place of this file"),
    ],
)
def test_copied_alone_it_says_what_to_copy(tmp_path, program, advice):
    (tmp_path / "target").mkdir()
    shutil.copy(ROOT / "deploy" / program / "predict.py", tmp_path / "target")
    done = run_copy(tmp_path / "target", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert advice in done.stderr
