"""Mask R-CNN in Core ML's packages: the saved ones, run by mil.py and joined by numpy, against the
model, on pictures of cell nuclei; deploy/coreml; and what is refused.
"""

import json
import shutil
import sys

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from PIL import Image

from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data.rle import decompressed
from ppcls_nextvit.export import coreml, mil
from ppcls_nextvit.export.target import Target
from ppcls_nextvit.export.target import export as export_layer
from ppcls_nextvit.export.verify import ExportError, Signature
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.base import ExportRequest
from ppcls_nextvit.tasks.detection.export import export
from support.dense_exports import dense_export
from support.goldens import max_difference
from support.paths import ROOT
from support.programs import program_at

pytest.importorskip("coremltools", reason="needs the extra `coreml`")
pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")

deploy = program_at("deploy/coreml/predict.py")
PACKAGES = ["inference.boxes.mlpackage", "inference.masks.mlpackage", "inference.mlpackage"]
NUCLEI = sorted((ROOT / "dataset/nuclei/images/validation").glob("*.png"))


def test_operators_of_the_heads_equal_paddle_s():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 3), dtype=np.float32)
    for kernel, stride in ((2, 2), (3, 2), (2, 3)):
        weight = rng.standard_normal((4, 6, kernel, kernel), dtype=np.float32)
        bias = rng.standard_normal(6, dtype=np.float32)
        expected = F.conv2d_transpose(*map(paddle.to_tensor, (x, weight, bias)), stride=stride)
        strides, no_pad, one = np.array([stride] * 2), np.zeros(4, np.int32), np.array([1, 1])
        found = mil.OPERATORS["conv_transpose"](
            x, weight, strides, "custom", no_pad, one, 1, bias, expected.shape
        )
        assert max_difference(found, expected) < 1e-5
        pooled = mil.OPERATORS["max_pool"](x, np.array([kernel] * 2), strides, "custom", no_pad)
        assert max_difference(pooled, F.max_pool2d(paddle.to_tensor(x), kernel, stride)) == 0
    with pytest.raises(ExportError, match="'conv_transpose' is run here with one group"):
        mil.OPERATORS["conv_transpose"](x, weight, strides, "custom", no_pad, one, 2, bias)
    with pytest.raises(ExportError, match="'max_pool' is run here with no padding, sizes rounded"):
        mil.OPERATORS["max_pool"](x, one, one, "custom", no_pad, True)


def test_samples_equal_paddle_s():
    """At places inside, at the edges, and beyond."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 8), dtype=np.float32)
    places = rng.uniform(-1.6, 1.6, (2, 40, 4, 2)).astype(np.float32)
    places[0, 0] = [[-1, -1], [1, 1], [-1, 0.5], [0, 1]]
    told = ("bilinear", "constant", np.float32(0), "normalized_minus_one_to_one")
    expected = F.grid_sample(paddle.to_tensor(x), paddle.to_tensor(places), align_corners=False)
    assert max_difference(mil.OPERATORS["resample"](x, places, *told, False), expected) < 1e-5
    with pytest.raises(ExportError, match="'resample' is run here with bilinear samples, 0 outsi"):
        mil.OPERATORS["resample"](x, places, *told, True)


def test_choices_equal_paddle_s():
    x = np.random.default_rng(0).integers(0, 9, (2, 30)).astype(np.float32)  # some are equal
    values, places = mil.OPERATORS["topk"](x, 7, 1, False, sort=True, return_indices=True)
    assert (values == paddle.topk(paddle.to_tensor(x), 7, axis=1)[0].numpy()).all()
    assert (np.take_along_axis(x, places, 1) == values).all() and (np.diff(places[0]) != 0).all()
    gathered = mil.OPERATORS["gather_along_axis"](x, places, 1, validate_indices=False)
    assert (gathered == values).all()
    sums = mil.OPERATORS["cumsum"](x, 1, False, False)
    assert (sums == paddle.cumsum(paddle.to_tensor(x), 1).numpy()).all()
    for operator, arguments in (("topk", (x, 7, 1, True)), ("cumsum", (x, 1, True))):
        with pytest.raises(ExportError, match=f"'{operator}' is run here with"):
            mil.OPERATORS[operator](*arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The export of a small detector of seeded weights at 128 x 128."""
    return dense_export(tmp_path_factory.mktemp("coreml") / "model", "MaskRCNN", "coreml")


def config_of(folder, *overrides):
    return load_config(folder.with_name("model_work") / "config.yaml", list(overrides))


class StandIn:
    """coremltools' model, which runs on a Mac alone: of arrays."""

    def __init__(self, path, units):
        self.program = mil.MilProgram(path)

    def predict(self, arrays):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        return self.program(**arrays)


@pytest.mark.chain
def test_the_export_describes_itself(folder):
    told = json.loads((folder / "export.json").read_text())
    assert told["Check"]["difference"]["objects"] < 1e-4 > told["Check"]["difference"]["masks"]
    assert told["Check"]["shapes"] == [[1, 3, 128, 128]] * 3
    assert told["Model"]["input"]["shape"] == [1, 3, 128, 128]
    assert sorted({name.partition("/")[0] for name in told["Files"]}) == PACKAGES
    programs = told["Model"]["two_stage"]["programs"]
    for name, entry in programs.items():
        described = mil.MilProgram(folder / name).spec.description
        inputs = {value.name: list(value.type.multiArrayType.shape) for value in described.input}
        assert inputs == entry["inputs"]
        assert [value.name for value in described.output] == entry["outputs"]
    assert programs["inference.boxes.mlpackage"]["inputs"] == {"regions": [100, 16, 7, 7]}
    operators = mil.MilProgram(folder / PACKAGES[1]).operators
    assert "conv_transpose" in operators
    settings = json.loads(
        mil.MilProgram(folder / coreml.PACKAGE).spec.description.metadata.userDefined["two_stage"]
    )
    assert {**settings, "programs": programs} == told["Model"]["two_stage"]


@pytest.fixture(scope="module")
def images(folder, tmp_path_factory):
    """Two pictures of nuclei, of 128 x 128, and one that is padded."""
    images = tmp_path_factory.mktemp("images")
    for path in [*NUCLEI[:2], folder.with_name("model_work") / "pictures" / "1.png"]:
        shutil.copy(path, images)
    return images


@pytest.fixture(scope="module")
def expected(folder, images, tmp_path_factory):
    """The JSON of tools/infer.py, of the model itself, whose pictures are padded as the packages'
    are: what lies beyond an edge is seen.
    """
    path = tmp_path_factory.mktemp("expected")
    steps = "[{Resize: {scale: [128, 96]}}, {Normalize: {}}, {Pad: {size: [128, 128]}}]"
    given = ["-c", str(folder.with_name("model_work") / "config.yaml")]
    for setting in (f"Infer.infer_imgs={images}", f"Infer.transforms={steps}"):
        given += ["-o", setting]
    given += ["--json", str(path / "model.json")]
    assert program_at("tools/infer.py").main([*given, "--out", str(path)]) == 0
    return json.loads((path / "model.json").read_text())


def pixels_of(told):
    """COCO's run lengths as the image's pixels, down its columns."""
    counts = decompressed(told["counts"].encode())
    return np.repeat(np.arange(len(counts)) % 2, counts)


def assert_same(found, expected):
    """Objects in the same order: scores within 1e-4, boxes within 0.02 pixels, of the masks'
    pixels all but 1 in 1000.
    """
    assert sum(len(image["objects"]) for image in expected) > 30
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"])
        for one, other in zip(ours["objects"], theirs["objects"], strict=True):
            assert one["label_name"] == other["label_name"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["box"] == pytest.approx(other["box"], abs=0.02)
            assert ("mask" in one) == ("mask" in other)
            if "mask" in one:
                assert (pixels_of(one["mask"]) != pixels_of(other["mask"])).mean() < 1e-3


@pytest.mark.chain
def test_the_program_finds_what_the_model_finds(
    folder, images, expected, tmp_path, monkeypatch, capsys
):
    """deploy/coreml, with mil.py in place of Core ML: the objects of tools/infer.py."""
    given = ["--model", str(folder), "--images", str(images)]
    if sys.platform != "darwin":
        assert deploy.main(given) == 1
        assert "Core ML runs on macOS alone" in capsys.readouterr().err
        monkeypatch.setattr(deploy, "load_package", StandIn)
    out = tmp_path / "out"
    assert deploy.main([*given, "--json", str(tmp_path / "got.json"), "--out", str(out)]) == 0
    found = json.loads((tmp_path / "got.json").read_text())
    assert_same(found, expected)
    assert len(list(out.glob("*_objects.png"))) == 3
    assert deploy.main([*given, "--score-threshold", "1", "--json", str(out / "none.json")]) == 0
    none = json.loads((out / "none.json").read_text())
    assert [image["objects"] for image in none] == [[]] * 3


@pytest.mark.chain
def test_the_folder_answers_as_the_model(folder, images, expected, tmp_path):
    """`nextvit infer --model FOLDER`."""
    told = tmp_path / "got.json"
    given = ["--model", str(folder), "--images", str(images), "--out", str(tmp_path)]
    assert main(["infer", *given, "--json", str(told)]) == 0
    assert_same(json.loads(told.read_text()), expected)


@pytest.mark.chain
def test_dino_is_one_package(tmp_path, monkeypatch, capsys):
    """Its queries are chosen in the program: the objects of tools/infer.py."""
    folder = dense_export(tmp_path / "model", "DINO", "coreml")
    config = str(tmp_path / "model_work" / "config.yaml")
    steps = "[{Resize: {scale: [128, 96]}}, {Normalize: {}}, {Pad: {size: [128, 128]}}]"
    images, told = tmp_path / "model_work" / "pictures", tmp_path / "told.json"
    shown = ["--json", str(told), "--out", str(tmp_path)]
    overrides = ["-o", f"Infer.transforms={steps}", "-o", "Infer.PostProcess.score_threshold=0"]
    assert program_at("tools/infer.py").main(["-c", config, *overrides, *shown]) == 0
    expected = json.loads(told.read_text())
    monkeypatch.setattr(deploy, "load_package", StandIn)
    given = ["--model", str(folder), "--images", str(images)]
    assert deploy.main([*given, "--score-threshold", "0", *shown]) == 0
    assert_same(json.loads(told.read_text()), expected)
    described = json.loads((folder / "export.json").read_text())
    assert {name.partition("/")[0] for name in described["Files"]} == {coreml.PACKAGE}
    described["Export"]["outputs"] = ["objects", "boxes"]
    (folder / "export.json").write_text(json.dumps(described))
    capsys.readouterr()
    assert deploy.main(given) == 1
    assert "Export.outputs: the package gives no 'boxes'" in capsys.readouterr().err


@pytest.mark.chain
def test_half_precision(folder, tmp_path):
    """Packages of half the size; what is found is compared object by object."""
    config = config_of(folder, f"Global.save_inference_dir={tmp_path / 'half'}")
    exported = export(config, ExportRequest("coreml", "fp16"))
    whole = json.loads((folder / "export.json").read_text())["Files"]
    assert exported.size < 0.55 * sum(entry["bytes"] for entry in whole.values())
    assert 1e-4 < exported.report.difference["objects"] < 1e-2


@pytest.mark.chain
@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda folder, told: (folder / PACKAGES[1] / mil.WEIGHTS).write_bytes(b"cut"),
            "masks.mlpackage/Data/com.apple.CoreML/weights/weight.bin is missing, damaged or of",
        ),
        (
            lambda folder, told: shutil.rmtree(folder / PACKAGES[0]),
            "inference.boxes.mlpackage/Data/com.apple.CoreML/model.mlmodel is missing, damaged or",
        ),
        (
            lambda folder, told: told["Files"].update({"other.mlpackage/x": {"sha256": ""}}),
            "other.mlpackage/x is no file of a Core ML export",
        ),
        (
            lambda folder, told: told["Model"].pop("two_stage"),
            "inference.boxes.mlpackage/Data/com.apple.CoreML/model.mlmodel is no file of a",
        ),
        (
            lambda folder, told: told["Model"]["two_stage"]["boxes"].update(rows=7),
            "the program declares",
        ),
        (
            lambda folder, told: told["Model"]["two_stage"]["levels"].pop(),
            "the description has 4080 anchors",
        ),
    ],
)
def test_what_does_not_belong_together(
    folder, images, tmp_path, monkeypatch, capsys, change, message
):
    copied = shutil.copytree(folder, tmp_path / "model")
    told = json.loads((copied / "export.json").read_text())
    change(copied, told)
    (copied / "export.json").write_text(json.dumps(told))
    monkeypatch.setattr(deploy, "load_package", StandIn)
    assert deploy.main(["--model", str(copied), "--images", str(images)]) == 1
    errors = capsys.readouterr().err
    assert message in errors and all(line.startswith("error: ") for line in errors.splitlines())


@pytest.mark.chain
def test_options_of_other_tasks(folder, images, capsys):
    for option, message in (
        (["--topk", "3"], "--topk: for classification; this export is for detection"),
        (["--batch-size", "2"], "--batch-size: for classification; this export is for detection"),
    ):
        assert deploy.main(["--model", str(folder), "--images", str(images), *option]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.chain
def test_images_larger_than_the_program_s(folder, tmp_path, monkeypatch, capsys):
    """Are refused, and smaller ones padded, as the description of one size says."""
    copied = shutil.copytree(folder, tmp_path / "model")
    told = json.loads((copied / "export.json").read_text())
    del told["PreProcess"]["transform_ops"][0]  # Resize
    (copied / "export.json").write_text(json.dumps(told))
    Image.new("RGB", (160, 96)).save(tmp_path / "wide.png")
    monkeypatch.setattr(deploy, "load_package", StandIn)
    assert deploy.main(["--model", str(copied), "--images", str(tmp_path / "wide.png")]) == 1
    assert "96 x 160 pixels when transformed, more than the 128 x 128 of the exported program" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "request_, message",
    [
        (
            ExportRequest("coreml", any_size=True),
            "MaskRCNN goes to coreml for one size; leave --size dynamic out",
        ),
        (ExportRequest("coreml", batch=2), "one image at a time; got a batch of 2"),
    ],
)
def test_what_is_refused(request_, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        export(load_config(str(ROOT / "configs/quickstart/nuclei_mask_rcnn.yaml")), request_)


def test_packages_of_an_older_export_go(tmp_path):
    """Those that the new one does not have; nothing else."""
    folder = tmp_path / "model"

    def target(*names):
        def write(layer, folder, *given):
            for name in names:
                (folder / name).mkdir()
                (folder / name / "data").write_text(name)
            return 1

        return Target("coreml", ("fp32",), write, lambda *given: None)

    def written(*names):
        export_layer(None, target(*names), folder, Signature({"x": (1,)}, ("y",)), [], {})
        return sorted(path.name for path in folder.iterdir())

    assert written(*PACKAGES) == ["export.json", *PACKAGES]
    (folder / "mine").mkdir()
    assert written(coreml.PACKAGE) == ["export.json", coreml.PACKAGE, "mine"]
    told = json.loads((folder / "export.json").read_text())
    told["Files"]["mine/own.txt"] = told["Files"]["../other"] = {}
    (folder / "export.json").write_text(json.dumps(told))
    assert written(coreml.PACKAGE) == ["export.json", coreml.PACKAGE, "mine"]
