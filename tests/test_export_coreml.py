"""The target `coreml` and deploy/coreml: the saved package, run by mil.py, against the model, from
real pixels to named classes.
"""

import json
import shutil
import sys

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from PIL import Image

from ppcls_nextvit import create_model
from ppcls_nextvit.data.transforms.joint.colour import MEAN, STD
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.export import TARGETS, coreml, mil
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.models.registry import variant_of
from ppcls_nextvit.models.resizing import resize
from ppcls_nextvit.tasks.classification.export import export_classifier, export_features
from ppcls_nextvit.tasks.segmentation.export import export_segmentor
from support.dense_exports import ARCH
from support.goldens import max_difference, seeded_model
from support.paths import ROOT
from support.programs import program_at
from support.random_models import random_model, random_weights, small_transnext
from support.tiny_run import DATA, write_config

pytest.importorskip("coremltools", reason="needs the extra `coreml`")
pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")

deploy = program_at("deploy/coreml/predict.py")
pytestmark = pytest.mark.slow  # the converter takes seconds
PHOTOS = sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))
PACKAGE = "inference.mlpackage"
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}
SMALL = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}
FLOAT16, FLOAT32 = 10, 11  # MIL.proto's DataType
NAMES = ["crane", "shoe", "shirt", "bag", "crane", "coat", "dress", "boot", "sandal", "shoe (1)"]


def recipe(size, **decode):
    """ImageNet's: another mean and std in each channel."""
    resize = {"resize_short": size * 8 // 7, "interpolation": "bicubic", "backend": "pil"}
    return Preprocess(
        [
            {"DecodeImage": decode},
            {"ResizeImage": resize},
            {"CropImage": {"size": size}},
            {"NormalizeImage": {"order": ""}},
            {"ToCHWImage": None},
        ]
    )


def exported(
    folder,
    precision="fp32",
    model=None,
    pixels=64,
    export=export_classifier,
    preprocess=None,
    names=NAMES,
    **arguments,
):
    """The tiny model, or `model`, as a package that was compared on the photos: Exported."""
    preprocess = preprocess or recipe(pixels)
    description = {
        "Global": {"model_name": "tiny"},
        "PreProcess": {"transform_ops": preprocess.describe()},
        "PostProcess": {"Topk": {"topk": 3, "label_list": names}},
    }
    arguments = {"image_size": (pixels, pixels), "size": (pixels, pixels), **arguments}
    arguments["photos"] = [preprocess(str(path)) for path in arguments.get("photos", PHOTOS)]
    return export(
        model or random_model(),
        TARGETS["coreml"],
        folder,
        description,
        precision=precision,
        **arguments,
    )


def types(program, nodes):
    return {output.type.tensorType.dataType for node in nodes for output in node.outputs}


@pytest.fixture(scope="module", params=["fp32", pytest.param("fp16", marks=pytest.mark.chain)])
def classifier(request, tmp_path_factory):
    """(precision, Exported, folder) of the tiny model with Softmax at 64 x 64."""
    folder = tmp_path_factory.mktemp("coreml") / "model"
    return request.param, exported(folder, request.param), folder


def test_saved_package_equals_the_model(classifier):
    precision, result, folder = classifier
    program = mil.MilProgram(folder / PACKAGE)
    assert (
        result.report.worst < TOLERANCE[precision]
        and result.report.same_top1 == result.report.images == 6
    )
    assert result.nodes == len(program.operators) and program.operators.count("conv") == 53
    *body, softmax, classify = program.nodes
    assert (softmax.type, classify.type) == ("softmax", "classify") and types(
        program, [softmax]
    ) == {FLOAT32}
    if precision == "fp16":
        assert result.report.worst > 1e-4, "what is not rounded to half shows nothing"
        assert types(program, body[:-1]) == {FLOAT16} and 28.7e6 < result.size < 29.5e6, (
            "14.4 million parameters of 2 bytes"
        )
    else:
        assert types(program, body) == {FLOAT32} and 57.4e6 < result.size < 58e6


def test_pixels_of_real_photos(classifier):
    """8-bit pixels, as an app has them, give what the model gives for preprocessing's floats;
    colours in another order do not.
    """
    precision, _, folder = classifier
    program, preprocess, model = mil.MilProgram(folder / PACKAGE), recipe(64), random_model()
    pixels_of = Preprocess(
        [entry for entry in preprocess.describe() if "NormalizeImage" not in entry]
    )
    for path in PHOTOS:
        pixels = pixels_of(str(path))[None]
        assert (pixels == pixels.astype(np.uint8)).all() and pixels.max() > 200
        expected = F.log_softmax(
            model(paddle.to_tensor(preprocess(str(path))[None])), axis=-1
        ).numpy()[0]
        label, scores = program(x=pixels).values()
        assert (
            list(scores) == coreml.distinct(NAMES)
            and label == coreml.distinct(NAMES)[expected.argmax()]
        )
        scale = np.abs(expected).max()
        assert (
            max_difference(np.log(list(scores.values())), expected) < TOLERANCE[precision] * scale
        )
    turned = np.log(list(program(x=pixels[:, ::-1])["classLabel_probs"].values()))
    assert max_difference(turned, expected) > 2 * TOLERANCE["fp16"] * scale


def test_the_package_describes_itself(classifier):
    precision, _, folder = classifier
    described = mil.MilProgram(folder / PACKAGE).spec.description
    (picture,) = described.input
    assert picture.name == "x" and picture.type.imageType.colorSpace == picture.type.imageType.RGB
    assert (picture.type.imageType.width, picture.type.imageType.height) == (64, 64)
    assert (described.predictedFeatureName, described.predictedProbabilitiesName) == (
        "classLabel",
        "classLabel_probs",
    )
    assert json.loads(described.metadata.userDefined["transform_ops"]) == recipe(64).describe()
    written = json.loads((folder / "export.json").read_text())
    assert (
        written["Export"]["target"] == "coreml"
        and written["Export"]["precision"] == precision
        and written["Versions"]["coremltools"]
    )
    assert sorted(written["Files"]) == [
        f"{PACKAGE}/{name}" for name in (mil.MODEL, mil.WEIGHTS, "Manifest.json")
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", PACKAGE]


def test_names_that_occur_twice():
    assert coreml.distinct(["crane", "boot", "crane"]) == ["crane (0)", "boot", "crane (2)"]
    assert len(set(coreml.distinct(NAMES))) == len(NAMES)
    assert deploy.distinct(NAMES) == coreml.distinct(NAMES)


@pytest.mark.chain
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_any_size(tmp_path, precision):
    """Sizes that the export did not see, odd ones among them, where pools round up."""
    result = exported(tmp_path, precision, softmax=False, image_size=(64, 48), size=None)
    assert {tuple(shape[2:]) for shape in result.report.shapes} == {(64, 48), (88, 56), (35, 36)}
    assert (
        result.report.worst < TOLERANCE[precision]
        and result.report.same_top1 == result.report.images == 12
    )
    sizes = (
        mil.MilProgram(tmp_path / PACKAGE).spec.description.input[0].type.imageType.imageSizeRange
    )
    assert (sizes.heightRange.lowerBound, sizes.widthRange.upperBound) == (32, 1024)


@pytest.mark.chain
def test_feature_maps_of_blue_first_pictures(tmp_path):
    """Four float32 outputs; the window-pool variant; the picture's colours as the recipe says."""
    result = exported(
        tmp_path,
        "fp16",
        random_model("NextViT_small_window_pool"),
        40,
        export_features,
        recipe(40, to_rgb=False),
    )
    assert (
        set(result.report.difference) == {"stage1", "stage2", "stage3", "stage4"}
        and 1e-4 < result.report.worst < 5e-3
    )
    described = mil.MilProgram(tmp_path / PACKAGE).spec.description
    assert [tuple(output.type.multiArrayType.shape) for output in described.output] == [
        (1, 96, 10, 10),
        (1, 256, 5, 5),
        (1, 512, 3, 3),
        (1, 1024, 2, 2),
    ]
    assert {output.type.multiArrayType.dataType for output in described.output} == {65568}, (
        "FLOAT32"
    )
    assert described.input[0].type.imageType.colorSpace == described.input[0].type.imageType.BGR


@pytest.mark.chain
@pytest.mark.parametrize(
    "variant",
    [
        "NextViT_small",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("NextViT_base", "NextViT_large")),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_published_architectures_on_photos(tmp_path, variant, precision):
    names = [str(index) for index in range(1000)]
    result = exported(
        tmp_path, precision, seeded_model(variant), 224, names=names, batch=1, photos=PHOTOS[:2]
    )
    assert (
        result.report.worst < TOLERANCE[precision]
        and result.report.same_top1 == result.report.images == 3
    )


@pytest.mark.chain
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_transnext_at_one_size(tmp_path, precision):
    model = small_transnext(num_classes=10)
    result = exported(tmp_path, precision, model, 40, batch=1, photos=PHOTOS[:2])
    assert result.report.worst < TOLERANCE[precision]
    assert result.report.same_top1 == result.report.images == 3


@pytest.mark.chain
def test_transnext_at_any_size_is_refused(tmp_path):
    """Its tables are computed by operators that are not here."""
    message = r"no rule for Core ML of the operators .*Range.*; a program for one size \(--size\)"
    with pytest.raises(ExportError, match=message):
        exported(tmp_path / "model", model=small_transnext(num_classes=10), size=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.chain
@pytest.mark.parametrize(
    "name, precision",
    [
        ("SemanticFPN", "fp32"),
        ("SemanticFPN", "fp16"),
        ("UPerNet", "fp32"),
    ],
)
def test_a_segmentor_of_pictures(tmp_path, name, precision):
    """Labels and scores of 8-bit pixels, whose mean and deviation the dense tasks count from 0 to
    255.
    """
    paddle.seed(0)
    toy = variant_of(name).family.toy
    model = create_model(name, num_classes=3, backbone=SMALL, **toy)
    recipe = [{"Normalize": {}}, {"Pad": {"size_divisor": 32}}]
    description = {"PreProcess": {"transform_ops": recipe}}
    size, target = (64, 96), TARGETS["coreml"]
    options = {"size": size, "precision": precision}
    result = export_segmentor(model, target, tmp_path, description, size, **options)
    assert result.report.difference["logits"] < TOLERANCE[precision]
    assert result.report.difference["labels"] < 0.02
    program = mil.MilProgram(tmp_path / PACKAGE)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96)).astype(np.float32)
    normal = (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    expected = model.decode(paddle.to_tensor(normal.astype(np.float32))).numpy()
    found = program(x=pixels)
    assert max_difference(found["logits"], expected) < TOLERANCE[precision] * abs(expected).max()
    assert (found["labels"].shape, found["labels"].dtype) == ((1, 64, 96), np.int32)
    (picture,) = program.spec.description.input
    assert (picture.type.imageType.width, picture.type.imageType.height) == (96, 64)


def test_resizing_equals_paddle_s():
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 8), dtype=np.float32)
    for size in ((10, 16), (7, 3), (1, 8), (13, 1)):
        found = mil.OPERATORS["resize_bilinear"](x, *size, "UNALIGN_CORNERS")
        assert max_difference(found, resize(paddle.to_tensor(x), size)) < 1e-6
    with pytest.raises(ExportError, match="'resize_bilinear' is run here with half-pixel centres"):
        mil.OPERATORS["resize_bilinear"](x, 10, 16, "DEFAULT")


def test_tensors_where_there_is_no_recipe(tmp_path):
    result = export_classifier(
        random_model(),
        TARGETS["coreml"],
        tmp_path,
        {},
        (32, 40),
        size=(32, 40),
        batch=2,
        softmax=False,
    )
    assert result.report.shapes == [[2, 3, 32, 40]] and result.report.worst < 1e-5
    assert tuple(
        mil.MilProgram(tmp_path / PACKAGE).spec.description.input[0].type.multiArrayType.shape
    ) == (2, 3, 32, 40)
    with pytest.raises(
        ValueError, match="needs fixed sizes where the input is no picture; give --batch and --size"
    ):
        export_classifier(random_model(), TARGETS["coreml"], tmp_path, {}, (32, 40), size=(32, 40))


def test_a_picture_comes_alone(tmp_path):
    with pytest.raises(
        ValueError, match=r"one picture of 3 channels at a time \(give --batch 1\); got 2 of 3"
    ):
        exported(tmp_path / "model", batch=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.chain
def test_a_wrong_scale_is_not_written_and_an_older_package_is_replaced_whole(tmp_path, monkeypatch):
    """One scale for all channels, as Core ML's own ImageType has, is off by 2 % in two of them."""
    folder = tmp_path / "model"
    exported(folder, softmax=False, pixels=32)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        write, right = coreml.to_mil, coreml.normalization
        patch.setattr(
            coreml,
            "to_mil",
            lambda model, signature, normalize: write(
                model,
                signature,
                (np.full((1, 3, 1, 1), right(recipe(32).describe())[0].mean()), normalize[1]),
            ),
        )
        with pytest.raises(ExportError, match="differ from the model by"):
            exported(folder, softmax=False, pixels=32)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    exported(folder, "fp16", softmax=False, pixels=32)
    assert mil.MilProgram(folder / PACKAGE).operators[0] == "cast" and len(before) == sum(
        path.is_file() for path in folder.rglob("*")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "file, size, message",
    [
        (mil.MODEL, 1000, "inference.mlpackage does not run"),
        (mil.MODEL, 0, "does not run"),
        (mil.MODEL, None, "does not run"),
        (mil.WEIGHTS, 5000, "does not run"),
        (mil.WEIGHTS, None, "does not run"),
    ],
)
def test_damaged_packages_do_not_load(classifier, tmp_path, file, size, message):
    shutil.copytree(classifier[2] / PACKAGE, tmp_path / PACKAGE)
    path = tmp_path / PACKAGE / file
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ExportError, match=message):
        coreml.load(tmp_path, Signature({"x": ()}, ("probabilities",)))


def graph_of(operator, **attributes):
    from onnx import TensorProto, helper

    value = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy"
    }
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    return helper.make_model(helper.make_graph([node], "graph", [value["x"]], [value["y"]]))


@pytest.mark.parametrize(
    "operator, attributes, message",
    [
        ("Acos", {}, "no rule for Core ML of the operators Acos; there are for Add, And, ArgMax, "),
        (
            "AveragePool",
            {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"},
            "of AveragePool with auto_pad = b'SAME_UPPER'",
        ),
    ],
)
def test_what_has_no_rule_is_named(operator, attributes, message):
    with pytest.raises(ExportError, match=message):
        coreml.to_mil(graph_of(operator, **attributes), Signature({"x": (1, 3, 4, 4)}, ("y",)))


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(
        ImportError, match=r"need coremltools: pip install 'ppcls_nextvit\[coreml\]'"
    ):
        exported(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# mil.py by itself: what the models above do not have.


@pytest.mark.parametrize(
    "channels, groups, kernel, stride, pad",
    [(6, 1, 3, 2, 1), (6, 3, 3, 1, 1), (4, 4, 2, 3, 0), (5, 1, 1, 1, 0)],
)
def test_convolution(channels, groups, kernel, stride, pad):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, channels, 9, 12), dtype=np.float32)
    weight = rng.standard_normal(
        (2 * channels, channels // groups, kernel, kernel), dtype=np.float32
    )
    bias = rng.standard_normal(2 * channels, dtype=np.float32)
    expected = F.conv2d(
        *map(paddle.to_tensor, (x, weight, bias)), stride=stride, padding=pad, groups=groups
    )
    output = mil.OPERATORS["conv"](
        x,
        weight,
        np.array([stride] * 2),
        "custom",
        np.array([pad] * 4),
        np.array([1, 1]),
        groups,
        bias,
    )
    assert max_difference(output, expected) < 1e-5


@pytest.mark.parametrize("ceil", [False, True])
def test_average_pool(ceil):
    x = np.arange(2 * 5 * 7, dtype=np.float32).reshape(1, 2, 5, 7)
    output = mil.OPERATORS["avg_pool"](
        x, np.array([2, 3]), np.array([2, 3]), "custom", np.zeros(4, np.int32), True, ceil
    )
    assert (
        max_difference(output, F.avg_pool2d(paddle.to_tensor(x), (2, 3), (2, 3), ceil_mode=ceil))
        < 1e-5
    )
    assert output.shape == ((1, 2, 3, 3) if ceil else (1, 2, 2, 2))


# deploy/coreml


class StandIn:
    """`predict` of coremltools, which has it on a Mac alone."""

    def __init__(self, path, units):
        self.program = mil.MilProgram(path)

    def predict(self, pictures):
        ((name, picture),) = pictures.items()
        assert isinstance(picture, Image.Image) and picture.mode == "RGB"
        return self.program(
            **{name: np.asarray(picture).transpose(2, 0, 1)[None].astype(np.float32)}
        )


@pytest.mark.chain
def test_tool_and_program(tmp_path, monkeypatch, capsys):
    """A user's two commands, with mil.py in place of Core ML: the predictions of tools/infer.py."""
    config, model, found = write_config(tmp_path), tmp_path / "model", {}
    arguments = [
        "-c",
        str(config),
        "-o",
        f"Global.pretrained_model={random_weights(tmp_path / 'w.pdparams')}",
    ]
    assert (
        program_at("tools/export_model.py").main(
            [*arguments, "-o", f"Global.save_inference_dir={model}", "--to", "coreml"]
        )
        == 0
    )
    assert f"{model}: inference.mlpackage, export.json" in capsys.readouterr().out
    assert (
        program_at("tools/infer.py").main(
            [
                *arguments,
                "-o",
                f"Infer.infer_imgs={ROOT / 'ppcls_nextvit' / 'export' / 'photos'}",
                "--json",
                str(tmp_path / "infer.json"),
            ]
        )
        == 0
    )
    command = [
        "--model",
        str(model),
        "--images",
        str(ROOT / "ppcls_nextvit" / "export" / "photos"),
        "--json",
        str(tmp_path / "predict.json"),
    ]
    if sys.platform != "darwin":
        assert deploy.main(command) == 1
        assert (
            f"{PACKAGE}: Core ML runs on macOS alone; this is {sys.platform}"
            in capsys.readouterr().err
        )
        monkeypatch.setattr(deploy, "load_package", StandIn)
    assert deploy.main(command) == 0
    for name in ("infer", "predict"):
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    for ours, expected in zip(found["predict"], found["infer"], strict=True):
        assert (
            ours["class_ids"] == expected["class_ids"]
            and ours["label_names"] == expected["label_names"]
        )
        assert np.allclose(ours["scores"], expected["scores"], atol=1e-4)
    labels = (DATA / "labels.txt").read_text()
    assert found["predict"][0]["label_names"][0] in labels
    path = model / PACKAGE / mil.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    assert deploy.main(command) == 1
    assert "weights/weight.bin is missing, damaged or of another export" in capsys.readouterr().err


@pytest.mark.chain
def test_tool_and_program_for_a_segmentor(tmp_path, monkeypatch, capsys):
    """As above: the labels of tools/infer.py, as run lengths."""
    arch = ARCH["SemanticFPN"]
    paddle.seed(0)
    model = create_model("SemanticFPN", num_classes=2, **arch)
    # both classes in each picture
    head = model.decode_head.conv_seg.weight
    head.set_value(head - head.mean(axis=1, keepdim=True))
    paddle.save(model.state_dict(), str(tmp_path / "w.pdparams"))
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((ROOT / "dataset/nuclei/images/validation").glob("*.png"))[:2]:
        with Image.open(path) as picture:
            picture.crop((0, 0, 96, 64)).save(images / path.name)
    settings = {
        "Global.pretrained_model": tmp_path / "w.pdparams",
        "Global.image_shape": "[3,64,96]",
        "Global.save_inference_dir": tmp_path / "model",
        "Arch.fpn_channels": arch["fpn_channels"],
        "Arch.channels": arch["channels"],
        "Infer.infer_imgs": images,
        "Infer.PostProcess.class_id_map_file": ROOT / "dataset/nuclei/labels.txt",
    }
    options = ["-c", str(ROOT / "configs/quickstart/nuclei_semfpn.yaml")]
    options += [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    assert program_at("tools/export_model.py").main([*options, "--to", "coreml"]) == 0
    told = [tmp_path / "infer.json", tmp_path / "predict.json"]
    drawn = ["--out", str(tmp_path / "infer")]
    assert program_at("tools/infer.py").main([*options, "--json", str(told[0]), *drawn]) == 0
    monkeypatch.setattr(deploy, "load_package", StandIn)
    command = ["--model", str(tmp_path / "model"), "--images", str(images)]
    drawn = ["--out", str(tmp_path / "predict")]
    assert deploy.main([*command, "--json", str(told[1]), *drawn]) == 0
    expected, found = (json.loads(path.read_text()) for path in told)
    assert len(found) == len(list((tmp_path / "predict").glob("*_labels.png"))) == 2
    for ours, theirs in zip(found, expected, strict=True):
        shares = [
            {one["class_id"]: one["share"] for one in told["classes"]} for told in (ours, theirs)
        ]
        assert shares[0] == pytest.approx(shares[1], abs=2e-3) and len(shares[0]) == 2
        assert {one["mask"]["size"] == [64, 96] for one in ours["classes"]} == {True}
    capsys.readouterr()
    assert deploy.main([*command, "--topk", "3"]) == 1
    told = "--topk: for classification; this export is for segmentation"
    assert told in capsys.readouterr().err
    with Image.open(next(images.iterdir())) as picture:
        picture.crop((0, 0, 90, 64)).save(images / "small.png")
    assert deploy.main(command) == 1
    assert "64 x 90 pixels when transformed; the exported program takes 64 x 96" in (
        capsys.readouterr().err
    )


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS alone")
def test_core_ml_itself(classifier):
    """The saved package in Core ML, on its CPU, against mil.py, on real photos."""
    precision, _, folder = classifier
    package, program = (
        deploy.load_package(folder / PACKAGE, "cpu"),
        mil.MilProgram(folder / PACKAGE),
    )
    pixels_of = Preprocess(
        [entry for entry in recipe(64).describe() if "NormalizeImage" not in entry]
    )
    for path in PHOTOS:
        pixels = pixels_of(str(path))
        found = package.predict({"x": Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8))})[
            "classLabel_probs"
        ]
        expected = program(x=pixels[None])["classLabel_probs"]
        assert (
            max(abs(found[label] - score) for label, score in expected.items())
            < TOLERANCE[precision]
        )
