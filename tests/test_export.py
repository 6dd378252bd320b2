"""Exported files: equal to the model at any batch and size, described completely, and never written
when they are wrong.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from ppcls_nextvit import create_model
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.export import TARGETS, onnx, static, target
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.export.verify import (
    ExportError,
    image_batches,
    log_probability_difference,
    relative_difference,
    verify,
)
from ppcls_nextvit.tasks.classification.export import export_classifier, export_features
from support.goldens import seeded_model
from support.paths import ROOT
from support.programs import program_at
from support.random_models import needs_avx512, random_model, random_weights
from support.tiny_run import DATA, write_config

export_model = program_at("tools/export_model.py")
PHOTOS = sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))
FILES = ["inference.json", "inference.pdiparams", "inference.yml"]
RECIPE = [
    {"DecodeImage": {"to_rgb": True}},
    {"ResizeImage": {"resize_short": 256, "interpolation": "bicubic", "backend": "pil"}},
    {"CropImage": {"size": 224}},
    {"NormalizeImage": {"order": ""}},
    {"ToCHWImage": None},
]
NEEDS = {
    "paddle": (),
    "onnx": ("paddle2onnx", "onnxslim", "onnxruntime"),
    "openvino": ("paddle2onnx", "onnxslim", "openvino"),
}
NEEDS["tensorrt"] = NEEDS["onnx"]
KINDS = {
    "paddle": ("paddle", {}),
    "pdmodel": ("paddle", {"format": "pdmodel"}),
    "onnx": ("onnx", {}),
    "openvino": ("openvino", {}),
}
FIXED = {
    "Conv",
    "Relu",
    "Add",
    "AveragePool",
    "GlobalAveragePool",
    "Reshape",
    "Transpose",
    "MatMul",
    "Softmax",
    "Split",
    "Concat",
}
SHAPES = [
    (1, 3, 32, 32),
    (3, 3, 32, 96),
    (2, 3, 33, 47),
    (1, 3, 35, 48),
    (1, 3, 64, 50),
    (2, 3, 128, 224),
]


def exported(name, folder, model=None, export=export_classifier, **arguments):
    """The tiny model, or `model`, as the target's files in `folder`: Exported. Skips where the
    target's extra is not installed.
    """
    for package in NEEDS[name]:
        pytest.importorskip(
            package, reason=f"needs the extra `{'openvino' if package == 'openvino' else 'onnx'}`"
        )
    return export(
        model or random_model(), TARGETS[name], folder, {}, **{"image_size": (32, 32), **arguments}
    )


def program(name, folder, outputs, precision="fp32"):
    """The exported files as a function from images to the outputs."""
    signature = Signature({"x": ()}, outputs)
    run = TARGETS[name].load(folder, signature, precision)
    return lambda batch: list(run({"x": batch}).values())


def images(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def description(folder):
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def nodes(folder):
    import onnx

    return [node.op_type for node in onnx.load(str(folder / "inference.onnx")).graph.node]


@pytest.fixture(scope="module")
def photos():
    """The repository's photos as the published recipe sees them, float32 [3, 224, 224]."""
    return [Preprocess(RECIPE)(str(path)) for path in PHOTOS]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "w.pdparams")


@pytest.fixture(scope="module", params=KINDS)
def logits_export(request, tmp_path_factory):
    """(model, kind, folder, Exported, program) without Softmax, of any batch and size, made at 32 x
    32.
    """
    name, options = KINDS[request.param]
    folder, model = tmp_path_factory.mktemp("export") / "deep" / "model", random_model()
    result = exported(name, folder, model, softmax=False, **options)
    return model, request.param, folder, result, program(name, folder, ("logits",))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_any_batch_and_size(logits_export, shape):
    """At sizes that the export did not see, down to one pooled token in an attention; the model's
    norms are unfused and random.
    """
    model, *_, run = logits_export
    batch = images(shape)
    with paddle.no_grad():
        expected = model(paddle.to_tensor(batch)).numpy()
    assert np.abs(expected).max() > 1, "weights whose output is nearly zero would show nothing"
    (output,) = run(batch)
    assert np.abs(output - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_fused_and_without_needless_operators(logits_export):
    model, kind, folder, result, _ = logits_export
    assert result.report.worst < 1e-5
    attentions = sum(hasattr(layer, "e_mhsa") for layer in model.sublayers())
    if kind == "paddle":
        names = static.operators(folder / FILES[0])
        assert result.nodes == len(names) and names.count("1.conv2d") == convolutions(model)
        assert not {"if", "while", "cond", "batch_norm", "batch_norm_", "dropout"} & {
            name.partition(".")[2] for name in names
        }
    if kind == "onnx":
        names = nodes(folder)
        assert result.nodes == len(names) and set(names) == {*FIXED, "Shape"}
        assert (
            names.count("Conv") == convolutions(model)
            and names.count("Transpose") == names.count("Shape") == attentions
        )
    if kind == "openvino":
        text = (folder / "inference.xml").read_text()
        assert text.count('type="ShapeOf"') == attentions and "BatchNorm" not in text


def convolutions(model):
    """How many the export has: the model's own, q, k with v and the projection of each attention,
    and the head.
    """
    attentions = sum(hasattr(layer, "e_mhsa") for layer in model.sublayers())
    return sum(isinstance(layer, nn.Conv2D) for layer in model.sublayers()) + 3 * attentions + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paddle", "onnx", "openvino"])
def test_fixed_batch_and_size(tmp_path, name, photos):
    result = exported(name, tmp_path, batch=3, size=(64, 48), photos=photos)
    assert result.report.shapes == [[3, 3, 64, 48]] * 3, (
        "random images, and four photos in batches of three"
    )
    assert description(tmp_path)["Model"]["input"] == {
        "name": "x",
        "dtype": "float32",
        "shape": [3, 3, 64, 48],
        "image_size": [64, 48],
        "min_size": 32,
    }
    if name == "onnx":
        import onnx

        shape = onnx.load(str(tmp_path / "inference.onnx")).graph.input[0].type.tensor_type.shape
        assert [dim.dim_value for dim in shape.dim] == [3, 3, 64, 48]
        assert set(nodes(tmp_path)) == FIXED, "nothing reads a size that is known"


@pytest.mark.slow
@pytest.mark.parametrize("name, softmax", [("onnx", False), ("openvino", True), ("tensorrt", True)])
def test_fp16_has_float32_ends(tmp_path, name, softmax, photos):
    result = exported(
        name, tmp_path, size=(64, 64), softmax=softmax, photos=photos, precision="fp16"
    )
    assert 28.7e6 < result.size < 29.5e6, "14.4 million parameters of 2 bytes"
    assert (
        1e-5 < result.report.worst < 5e-3 and result.report.same_top1 == result.report.images == 6
    )
    assert description(tmp_path)["Export"]["precision"] == "fp16"
    (output,) = program(name, tmp_path, ("probabilities" if softmax else "logits",))(
        images((2, 3, 64, 64))
    )
    assert output.dtype == np.float32
    if softmax:
        assert np.abs(output.sum(axis=1) - 1).max() < 1e-6, "the Softmax itself is float32"
    if name != "openvino":
        import onnx

        graph = onnx.load(str(tmp_path / "inference.onnx")).graph
        assert {tensor.data_type for tensor in graph.initializer} <= {
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.INT64,
        }
        assert [node.op_type for node in graph.node].count("Cast") == 2


@needs_avx512
def test_bf16_runs_in_onednn(tmp_path, photos):
    """Paddle refuses a pool of 3-D tokens in bfloat16; ours is 4-D. The difference shows that
    bfloat16 was really used.
    """
    result = exported("paddle", tmp_path, precision="bf16", photos=photos)
    assert 1e-4 < result.report.worst < 0.03
    assert result.report.same_top1 >= result.report.images - 1
    assert description(tmp_path)["Export"]["precision"] == "bf16"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paddle", "onnx"])
def test_window_pool_variant(tmp_path, name):
    assert (
        exported(
            name,
            tmp_path,
            random_model("NextViT_small_window_pool"),
            size=None,
            image_size=(48, 40),
        ).report.worst
        < 1e-5
    )


@pytest.mark.chain
@pytest.mark.parametrize(
    "variant, operators",
    [
        ("NextViT_small", 241),
        pytest.param("NextViT_base", 355, marks=pytest.mark.long),
        pytest.param("NextViT_large", 469, marks=pytest.mark.long),
    ],
)
def test_published_architectures_on_photos(tmp_path, photos, variant, operators):
    """Seeded weights at 224 x 224, through every engine: the same best class for every photo.
    `operators`: of the ONNX; the reference's own export of small, its norms merged, has 297."""
    model = seeded_model(variant)
    for name, tolerance in (("paddle", 5e-6), ("onnx", 5e-6), ("openvino", 5e-6)):
        result = exported(
            name,
            tmp_path / name,
            model,
            image_size=(224, 224),
            size=(224, 224),
            softmax=False,
            photos=photos,
        )
        assert (
            result.report.worst < tolerance and result.report.same_top1 == result.report.images == 6
        )
        if name == "onnx":
            assert result.nodes == operators


@pytest.mark.slow
def test_pdmodel_replaces_the_program_of_an_older_export(tmp_path):
    exported("paddle", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    exported("paddle", tmp_path, format="pdmodel")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "export.json",
        "inference.pdiparams",
        "inference.pdmodel",
        "inference.yml",
        "notes.txt",
    ]
    assert (
        paddle.get_flags("FLAGS_enable_pir_api")["FLAGS_enable_pir_api"]
        and "FLAGS_enable_pir_api" not in os.environ
    )


def test_conversion_starts_no_program_and_no_connection(tmp_path, monkeypatch):
    """Paddle2ONNX's own optimiser would install a package while it converts."""

    def refused(*arguments, **options):
        raise AssertionError("started a program or a connection")

    pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")
    static.save_program(
        nn.Conv2D(3, 4, 1), tmp_path / "layer", Signature({"x": (None, 3, 4, 4)}, ("y",))
    )
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(os, "system", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    onnx._paddle2onnx(str(tmp_path / "layer"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "layer.json",
        "layer.onnx",
        "layer.pdiparams",
    ]


def test_what_cannot_be_converted_is_said(tmp_path):
    pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")

    class Unknown(nn.Layer):
        def forward(self, x):
            return paddle.lgamma(x)

    with pytest.raises(
        ExportError,
        match="cannot convert this model: .*unsupported operators.*Its operators: lgamma",
    ):
        onnx.to_onnx(Unknown(), Signature({"x": (None, 3)}, ("y",)))


@pytest.mark.slow
def test_several_inputs_and_outputs(tmp_path):
    """Nothing but classification.py knows of images or classes."""

    class Pair(nn.Layer):
        def forward(self, image, scale):
            return image.mean([2, 3]) * scale, image * 2

    layer, signature = (
        Pair(),
        Signature({"image": (None, 3, None, None), "scale": (None, 1)}, ("means", "doubled")),
    )
    batches = [
        {"image": images((2, 3, 8, 9)), "scale": images((2, 1))},
        {"image": images((1, 3, 5, 4)), "scale": images((1, 1))},
    ]
    for name in ("paddle", "onnx", "openvino"):
        if all(map(has_package, NEEDS[name])):
            result = target.export(
                layer,
                TARGETS[name],
                tmp_path / name,
                signature,
                batches,
                {"Global": {"model_name": "pair"}},
            )
            assert (
                set(result.report.difference) == {"means", "doubled"}
                and result.report.worst < 1e-6
                and result.report.images == 0
            )


def has_package(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.slow
def test_tool_describes_everything(weights, tmp_path, capsys):
    folder = tmp_path / "model"
    path = write_config(
        tmp_path,
        Global={
            "pretrained_model": str(weights.with_suffix("")),
            "save_inference_dir": str(folder),
        },
    )
    assert export_model.main(["-c", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"{folder}: inference.json, inference.pdiparams, inference.yml, export.json" in printed
    assert "best class equal for 12 of 12 images" in printed and "57.6 MB, 222 operators" in printed
    assert sorted(file.name for file in folder.iterdir()) == ["export.json", *FILES]
    assert not list(tmp_path.glob(".*")), "the working folder is gone"

    described = yaml.safe_load((folder / FILES[2]).read_text())
    assert description(folder) == described
    assert described["Global"]["model_name"] == "NextViT_small"
    transforms = described["PreProcess"]["transform_ops"]
    assert [name for entry in transforms for name in entry] == [
        "DecodeImage",
        "ResizeImage",
        "NormalizeImage",
        "ToCHWImage",
    ]
    assert transforms[2]["NormalizeImage"]["scale"] == 1 / 255
    names = [line.partition(" ")[2] for line in (DATA / "labels.txt").read_text().splitlines()]
    assert described["PostProcess"]["Topk"] == {"topk": 3, "label_list": names}
    assert described["Model"] == {
        "task": "classification",
        "class_num": 10,
        "softmax": True,
        "input": {
            "name": "x",
            "dtype": "float32",
            "shape": [None, 3, None, None],
            "image_size": [32, 32],
            "min_size": 32,
        },
    }
    assert described["Weights"] == {
        "file": "w.pdparams",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert sorted(described["Files"]) == FILES[:2]
    for name, entry in described["Files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert described["Versions"]["paddle"] == paddle.__version__
    assert described["Export"] == {
        "target": "paddle",
        "precision": "fp32",
        "nodes": 222,
        "inputs": {"x": [None, 3, None, None]},
        "outputs": ["probabilities"],
    }
    check = described["Check"]
    assert (
        check["ran"] and check["tolerance"] == 1e-4 and check["difference"]["probabilities"] < 1e-5
    )
    assert (check["same_top1"], check["images"]) == (12, 12)
    assert check["shapes"] == [
        [2, 3, 32, 32],
        [4, 3, 32, 32],
        [3, 3, 56, 40],
        [1, 3, 56, 40],
        [1, 3, 32, 32],
        [1, 3, 32, 32],
    ]

    batch = images((2, 3, 32, 32))
    (probabilities,) = program("paddle", folder, ("probabilities",))(batch)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(
        probabilities,
        nn.functional.softmax(random_model()(paddle.to_tensor(batch))).numpy(),
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, shape, files",
    [
        (
            ["--to", "onnx", "--size", "dynamic", "--batch", "2"],
            [2, 3, None, None],
            ["inference.onnx"],
        ),
        (
            ["--to", "openvino", "--size", "64", "--precision", "fp16"],
            [None, 3, 64, 64],
            ["inference.bin", "inference.xml"],
        ),
        (["--to", "tensorrt"], [None, 3, 32, 32], ["inference.onnx"]),
        (
            ["--format", "pdmodel", "--size", "40", "48", "--batch", "1"],
            [1, 3, 40, 48],
            ["inference.pdiparams", "inference.pdmodel"],
        ),
    ],
)
def test_options_of_the_tool(weights, tmp_path, capsys, options, shape, files):
    name = options[1] if options[0] == "--to" else "paddle"
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"needs the extra `{name}`")
    folder = tmp_path / "model"
    path = write_config(
        tmp_path, Global={"pretrained_model": str(weights), "save_inference_dir": str(folder)}
    )
    assert export_model.main(["-c", str(path), *options]) == 0
    described = description(folder)
    assert described["Model"]["input"]["shape"] == shape and sorted(described["Files"]) == files
    for package in NEEDS[name]:
        assert described["Versions"][package]
    assert (f"build.py --model {folder}" in capsys.readouterr().out) == (name == "tensorrt")


@pytest.mark.slow
def test_infer_add_softmax_false_leaves_logits(weights, tmp_path):
    path = write_config(
        tmp_path,
        Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")},
    )
    assert export_model.main(["-c", str(path), "-o", "Arch.infer_add_softmax=False"]) == 0
    assert description(tmp_path / "model")["Model"]["softmax"] is False
    batch = np.zeros((1, 3, 32, 32), np.float32)
    (output,) = program("paddle", tmp_path / "model", ("logits",))(batch)
    assert np.allclose(output, random_model()(paddle.to_tensor(batch)).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch", "0"], "must be 1 or more, or 'dynamic'; got '0'"),
        (["--size", "32", "32", "32"], "--size takes a height and a width"),
        (["--size", "32", "dynamic"], "--size takes a height and a width"),
        (["--to", "onnx", "--format", "pdmodel"], "--format is of --to paddle"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_options_that_cannot_be_meant(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        export_model.main(["-c", "none.yaml", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("softmax", [True, False])
def test_difference_is_of_the_logits(softmax):
    """An error of 0.01 in one of logits up to 10 is 1e-3 of their scale, also for a class of
    probability e-20 and behind a Softmax.
    """
    logits = np.array([[10.0, -10.0, 3.0], [0.0, 1.0, 2.0]])
    wrong = logits + [[0.0, 0.01, 0.0], [0.0, 0.0, 0.0]]
    compare = log_probability_difference if softmax else relative_difference
    output, exact = (
        np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) if softmax else x for x in (wrong, logits)
    )
    assert compare(output, logits) == pytest.approx(1e-3, rel=1e-3)
    assert compare(exact, logits) < 1e-12


def test_verify_counts_and_refuses():
    expected = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)

    def check(output, reference=expected):
        return verify(
            lambda batch: {"y": np.asarray(output, np.float32)},
            lambda batch: {"y": reference},
            [{"x": np.zeros((2, 1))}],
            0.3,
            classes="y",
        )

    report = check([[1.0, 2.0], [3.0, 4.0]])
    assert report.difference == {"y": 0.25} and (
        report.same_top1,
        report.images,
        report.shapes,
    ) == (1, 2, [[2, 1]])
    for output, message in (
        ([[1.0, 2.0], [4.0, 5.0]], "differ from the model by 0.5"),
        ([[1.0, np.nan], [4.0, 3.0]], "by nan"),
        ([[1.0, 2.0]], r"gives? 'y' as \[1, 2\] .* the model gives \[2, 2\]"),
    ):
        with pytest.raises(ExportError, match=message):
            check(output)
    with pytest.raises(ExportError, match="the model's own output 'y' is not finite"):
        check(expected, np.full((2, 2), np.inf))


def test_batches_have_every_photo_and_several_sizes(photos):
    batches = [
        batch["x"]
        for batch in image_batches(Signature({"x": (None, 3, None, None)}, ()), (64, 48), photos)
    ]
    assert [batch.shape for batch in batches] == [
        (2, 3, 64, 48),
        (4, 3, 64, 48),
        (3, 3, 88, 56),
        (1, 3, 88, 56),
        (1, 3, 35, 36),
        (1, 3, 35, 36),
    ]
    assert all((a == b[:, :64, :48]).all() for a, b in zip(batches[1], photos, strict=True))
    larger = [
        batch["x"]
        for batch in image_batches(Signature({"x": (3, 3, 256, 230)}, ()), (256, 230), photos)
    ]
    assert [batch.shape for batch in larger] == [(3, 3, 256, 230)] * 3 and (
        larger[2][1] == larger[1][0]
    ).all(), "photos repeat to fill"
    assert (larger[1][0][:, 224:, :224] == photos[0][:, 222:190:-1]).all(), "mirrored at the edge"


@pytest.mark.slow
@pytest.mark.parametrize("softmax", [True, pytest.param(False, marks=pytest.mark.chain)])
def test_wrong_files_are_not_written_and_older_ones_stay(tmp_path, monkeypatch, softmax):
    name, model, write = "paddle", random_model(), TARGETS["paddle"].write
    folder = tmp_path / "model"
    files = [path.name for path in exported(name, folder, softmax=softmax).files]
    before = {file: (folder / file).read_bytes() for file in files}

    def wrong(layer, *arguments):
        bias = layer.body.avgpool[1].bias  # of the head, a 1x1 convolution after the pool
        # one logit, by less than 1 % of the scale
        bias.set_value(bias + paddle.eye(10)[0] * 0.05)
        return write(layer, *arguments)

    monkeypatch.setitem(TARGETS, name, target.Target(**{**vars(TARGETS[name]), "write": wrong}))
    for place in (folder, tmp_path / "new" / "model"):
        with pytest.raises(ExportError, match="differ from the model by"):
            exported(name, place, model, softmax=softmax)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert {file: (folder / file).read_bytes() for file in files} == before


def test_full_disk_leaves_nothing(weights, tmp_path, monkeypatch, capsys):
    path = write_config(
        tmp_path,
        Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")},
    )
    before = sorted(tmp_path.iterdir())

    def full(layer, prefix):
        Path(f"{prefix}.json").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paddle.jit, "save", full)
    assert export_model.main(["-c", str(path)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_are_not_finite(tmp_path):
    model = random_model()
    model.proj_head[0].bias.set_value(np.full(10, np.nan, np.float32))
    with pytest.raises(ExportError, match="not finite"):
        exported("paddle", tmp_path / "model", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "package, name, extra",
    [
        ("paddle2onnx", "onnx", "onnx"),
        ("onnxslim", "openvino", "onnx"),
        ("onnxruntime", "tensorrt", "onnx"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_missing_package_names_the_extra(tmp_path, monkeypatch, package, name, extra):
    if package == "onnxruntime":
        pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs? .*{package}.*ppcls_nextvit\[{extra}\]"):
        export_classifier(random_model(), TARGETS[name], tmp_path / "model", {}, (32, 32))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_directory_is_of_one_target(tmp_path):
    exported("paddle", tmp_path)
    with pytest.raises(
        ExportError, match="holds an export to paddle; give onnx a directory of its own"
    ):
        export_classifier(random_model(), TARGETS["onnx"], tmp_path, {}, (32, 32))
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ExportError, match="export.json: not written by an export"):
        exported("paddle", tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"precision": "fp16"},
            "--to paddle has no precision 'fp16'; expected one of: fp32, bf16, int8",
        ),
        ({"size": (16, 64)}, "at least 32 x 32 pixels; got 16 x 64"),
        ({"format": "onnx"}, "format must be one of pir, pdmodel; got 'onnx'"),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        exported("paddle", tmp_path / "model", **change)
    assert not list(tmp_path.iterdir())


def test_a_model_without_head_has_maps_alone(tmp_path):
    model = create_model("NextViT_small", num_classes=0, depths=(1, 1, 5, 1))
    with pytest.raises(
        ValueError, match="the model has no head, so there are no classes to export"
    ):
        exported("paddle", tmp_path / "model", model)
    assert exported("paddle", tmp_path / "model", model, export_features).report.worst < 1e-5


DAMAGES = {
    "paddle": [("inference.json", b"{}")],
    "pdmodel": [("inference.pdiparams", b"")],
    "onnx": [("inference.onnx", b""), ("inference.onnx", None)],
    "openvino": [("inference.xml", b"<net"), ("inference.bin", b"")],
}


@pytest.mark.slow
def test_damaged_files_do_not_load(logits_export, tmp_path):
    _, kind, folder, *_ = logits_export
    for number, (file, content) in enumerate(DAMAGES[kind]):
        damaged = Path(shutil.copytree(folder, tmp_path / str(number)))
        (damaged / file).write_bytes(
            (damaged / file).read_bytes()[:1000] if content is None else content
        )
        with pytest.raises(ExportError, match="do(es)? not run"):
            program(KINDS[kind][0], damaged, ("logits",))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "no weights, and an untrained model predicts noise"),
        (["Global.pretrained_model={tmp}/none"], "none"),
        (["Global.pretrained_model={weights}", "Arch.depths=[1,1,10,1]"], "missing"),
        (["Global.pretrained_model={weights}", "Arch.class_num=7"], "has 10 classes, the model 7"),
        (
            ["Global.pretrained_model={weights}", "Global.save_inference_dir={tmp}/tiny.yaml"],
            "is a file",
        ),
        (
            [
                "Global.pretrained_model={weights}",
                "Infer.PostProcess.class_id_map_file={tmp}/none.txt",
            ],
            "no such file",
        ),
        (
            [
                "Global.pretrained_model={weights}",
                "Infer.PostProcess.class_id_map_file={tmp}/short.txt",
            ],
            "short.txt",
        ),
    ],
)
def test_bad_input_is_one_line(weights, tmp_path, capfd, overrides, message):
    path = write_config(tmp_path, Global={"save_inference_dir": str(tmp_path / "model")})
    (tmp_path / "short.txt").write_text("0 shirt\n1 shoe\n")
    arguments = [
        part
        for override in overrides
        for part in ("-o", override.format(tmp=tmp_path, weights=weights))
    ]
    assert export_model.main(["-c", str(path), *arguments]) == 1
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert not (tmp_path / "model").exists()


def test_bad_photo_is_named(weights, tmp_path, capsys):
    path = write_config(
        tmp_path,
        Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")},
    )
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert export_model.main(["-c", str(path), "--photos", str(tmp_path / "bad.png")]) == 1
    assert f"error: {tmp_path / 'bad.png'}: not an image" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
