"""The package in Python: what `load` takes, what `predict` takes, what results say, and that all of
it is what the commands give.
"""

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

import ppcls_nextvit as nv
from ppcls_nextvit import zoo
from ppcls_nextvit.api import sources
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.tasks import common
from support.paths import NUCLEI, ROOT
from support.pictures import clothes
from support.random_models import random_weights
from support.small_quickstart import quickstart
from support.tiny_run import DATA, write_config

NAMES = [line.partition(" ")[2] for line in (DATA / "labels.txt").read_text().splitlines()]
SHALLOW = {"depths": (1, 1, 5, 1)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "w.pdparams")


@pytest.fixture(scope="module")
def config(weights, tmp_path_factory):
    """A YAML of the tiny classifier."""
    return write_config(tmp_path_factory.mktemp("config"), train=16, test=8)


@pytest.fixture(scope="module")
def model(config, weights):
    return nv.load(config, weights=weights, device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return clothes(tmp_path_factory.mktemp("photos"), 5)


def probabilities(results):
    return np.stack([result.probabilities for result in results])


def test_importing_the_package_imports_no_paddle():
    code = "import sys, ppcls_nextvit as nv; nv.__version__; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert set(nv.__all__) >= {"load", "train", "evaluate", "export_model", "Model"}
    assert all(getattr(nv, name) for name in nv.__all__)


def test_a_folder_gives_what_the_command_gives(model, photos, config, weights, tmp_path, capsys):
    results = model.predict(photos)
    words = ["-c", config, "-o", f"Global.pretrained_model={weights}"]
    assert (
        main(["infer", *map(str, words), "--images", str(photos), "--json", f"{tmp_path}/o"]) == 0
    )
    assert json.loads(results.to_json()) == json.loads((tmp_path / "o").read_text())
    best = results[0].top(1)[0]
    assert f"{photos / '00000.png'}: {best.label_name} {best.score:.4f}" in capsys.readouterr().out
    assert (model.task, model.names) == ("classification", NAMES)
    assert "10 classes" in repr(model) and repr(results).startswith("5 results\nClassificationRes")


def test_every_way_to_give_images_gives_the_same(model, photos):
    paths = [photos / f"{index:05d}.png" for index in range(5)]
    expected = probabilities(model.predict(photos, batch_size=2))
    # the compiled product sums in another order for another number of rows
    np.testing.assert_allclose(probabilities(model.predict(photos)), expected, atol=1e-5)
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    (photos / "list.txt").write_text("".join(f"{path.name}\n" for path in paths))
    for source in (
        paths,
        [str(path) for path in paths],
        f"{photos}/*.png",
        photos / "list.txt",
        pictures,
        [path.read_bytes() for path in paths],
        arrays,
        np.stack(arrays),
        [array[:, :, 0] for array in arrays],  # grey
        (path for path in paths),
        [paths[:2], iter(arrays[2:])],
    ):
        found = model.predict(source, batch_size=2)
        np.testing.assert_allclose(probabilities(found), expected, atol=1e-6)
    assert [result.file_name for result in model.predict(arrays)][:2] == ["image_0", "image_1"]


def test_a_picture_in_memory_is_turned_as_its_file_is(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene = Image.effect_mandelbrot((60, 40), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    scene.save(tmp_path / "turned.png", exif=exif)
    from_file, opened = model.predict(
        [tmp_path / "turned.png", Image.open(tmp_path / "turned.png")]
    )
    assert np.array_equal(from_file.image.pixels(), opened.image.pixels())
    assert from_file.image.pixels().shape == (60, 40, 3)


def test_a_stream_asks_for_no_more_than_a_batch(model, photos):
    asked = []

    def endless():
        for index in itertools.count():
            asked.append(index)
            yield photos / "00000.png"

    stream = model.stream(endless(), batch_size=3)
    assert [len(next(stream).probabilities) for _ in range(4)] == [10] * 4
    assert len(asked) == 6
    results = list(itertools.islice(model.stream(endless(), batch_size=2), 4))
    assert results[0].image._picture is None, "pixels of files are forgotten"


def test_an_image_that_cannot_be_read(model, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (tmp_path / "good.png").write_bytes((photos / "00000.png").read_bytes())
    source = [tmp_path / "good.png", tmp_path / "bad.png", np.zeros((8, 8, 3), np.float32)]
    with pytest.raises(ImageError, match="bad.png: "):
        model.predict(source)
    good, bad, array = results = model.predict(source, errors="keep")
    assert good.error is None and "bad.png" in bad.error
    assert array.error == (
        "image_0: an array of float32 [8, 8, 3]; expected uint8 [H, W, 3] in the order RGB, or "
        "[H, W]"
    )
    assert results.errors == [bad.error, array.error]
    assert bad.to_dict() == {"file_name": str(tmp_path / "bad.png"), "error": bad.error}
    with pytest.raises(ImageError):
        bad.draw()
    results.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good_classes.png",
        "predictions.json",
    ]


@pytest.mark.parametrize(
    "source, options, error, message",
    [
        (7, {}, ValueError, "images: got 7; expected the path of an image"),
        ([{"a": 1}], {}, ValueError, "images: got"),
        ("none", {}, FileNotFoundError, "none: no such file or directory"),
        ([], {"errors": "ignore"}, ValueError, "expected 'raise' or 'keep', got 'ignore'"),
        ([], {"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        (np.zeros((0, 4, 3), np.uint8), {}, ImageError, "expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), {}, ImageError, "expected uint8"),
        (b"", {}, ImageError, "the file is empty"),
    ],
)
def test_what_cannot_be_predicted(model, source, options, error, message):
    with pytest.raises(error, match=message):
        model.predict(source, **options)


def test_no_images_are_no_results(model):
    assert len(model.predict([])) == 0 and model.predict([]).to_json() == "[]"


def test_pictures_tables_and_slices(model, photos, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    results = model.predict(photos)
    assert isinstance(results.to_pandas(), pandas.DataFrame)
    table = results[:2].to_pandas()
    assert list(table.columns) == ["file_name", "rank", "class_id", "label_name", "score"]
    assert len(table) == 2 * 3 and table["rank"].tolist() == [1, 2, 3] * 2
    assert table["label_name"][0] == results[0].top(1)[0].label_name
    assert len(results[0].top(10)) == 10 and sum(one.score for one in results[0].top(10)) == (
        pytest.approx(1, abs=1e-5)
    )
    folder = results.save(tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        *(f"{index:05d}_classes.png" for index in range(5)),
        "predictions.json",
    }
    assert json.loads((folder / "predictions.json").read_text()) == json.loads(results.to_json())
    (written,) = results[0].save(tmp_path / "one.jpg")
    assert Image.open(written).size == results[0].draw().size
    assert Image.open(io.BytesIO(results[0]._repr_png_())).size == results[0].draw().size
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda *given: shown.append(given))
    results[0].show()
    assert len(shown) == 1
    # the pixels of the photo are in the picture, enlarged by a whole factor
    boot = np.asarray(Image.open(photos / "00000.png").convert("RGB")).repeat(13, 0).repeat(13, 1)
    sheet = np.asarray(results[0].draw())
    assert np.array_equal(sheet[:364, 10:374], boot)


@pytest.mark.slow
def test_a_network_by_its_name(weights, photos, model):
    named = nv.load("NextViT_small", weights=weights, names=NAMES, **SHALLOW)
    assert named.names == NAMES and named.config.Infer.transforms[1] == {
        "ResizeImage": {"resize_short": 256, "interpolation": "bicubic", "backend": "pil"}
    }
    assert named.predict(photos)[0].probabilities.shape == (10,)
    assert nv.load("NextViT_small", weights=weights, **SHALLOW).names == [str(i) for i in range(10)]
    few = nv.load(
        "NextViT_small", weights=weights, options={"Infer.PostProcess.topk": 2}, **SHALLOW
    )
    assert len(few.predict(photos)[0].top()) == 2


def test_a_thousand_classes_have_imagenets_names(tmp_path, photos):
    paddle.seed(0)
    network = nv.create_model("TransNeXt_micro", depths=(1, 1, 1, 1))
    paddle.save(network.state_dict(), str(tmp_path / "w.pdparams"))
    model = nv.load("TransNeXt_micro", weights=tmp_path / "w.pdparams", depths=(1, 1, 1, 1))
    assert len(model.names) == 1000 and "tench" in model.names[0]


@pytest.mark.parametrize(
    "source, options, message",
    [
        ("nowhere", {}, "'nowhere': no such folder, file, weights of the zoo or network"),
        ("NextViT_small", {}, "no weights, and an untrained model predicts noise"),
        ("MaskRCNN", {}, "give the folder of a run"),
        ("{weights}", {}, "which network is this"),
        (".", {}, "neither a run .* nor an export"),
        ("NextViT_small", {"weights": "{weights}", "names": ["a"], **SHALLOW}, "names: got 1, but"),
        ("NextViT_small", {"weights": "{weights}", "depth": 3}, "depth: unknown key"),
        ("NextViT_small", {"weights": "{weights}", "device": "tpu", **SHALLOW}, "device"),
        (
            "NextViT_small",
            {"weights": "{weights}", "options": {"Infer.topk": 3}, **SHALLOW},
            "Infer.topk: unknown key",
        ),
    ],
)
def test_what_cannot_be_loaded(source, options, message, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "weights" in options:
        options = {**options, "weights": weights}
    with pytest.raises(ConfigError, match=message):
        nv.load(source.format(weights=weights), **options)


def test_weights_of_the_zoo_that_are_not_here():
    with pytest.raises(FileNotFoundError, match="nextvit_small_in1k_224.pth"):
        nv.load("nextvit_small.in1k_224.official")
    file = "x/nextvit_small_in1k_224.pth"
    for given in ({"source": file}, {"source": "NextViT_small", "weights": file}):
        with pytest.raises(FileNotFoundError, match="weights get nextvit_small.in1k_224.official"):
            nv.load(**given)


@pytest.mark.parametrize("name", zoo.list_weights())
def test_every_record_of_the_zoo_is_a_model(name, monkeypatch):
    record = zoo.get(name)
    classes = {"classification": 1000, "detection": 80, "segmentation": 150}[record.task]
    monkeypatch.setattr(sources, "read_file", lambda path: {})
    monkeypatch.setattr(sources, "head_classes", lambda tree: classes)
    monkeypatch.setattr(sources, "resolve", lambda source: record.file)
    config = sources.config_of(sources.Asked(name))
    assert config.Arch.name == record.model and config.Arch.class_num == classes
    assert len(set(common.class_names(config))) > 0.98 * classes, "names, not numbers"
    assert not common.class_names(config)[0].isdecimal()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on folders of images, whose YAML names no classes."""
    here = tmp_path_factory.mktemp("run")
    for name in ("boot", "a bag"):
        clothes(here / "images" / name, 4)
    dataset = {
        "name": "ImageFolder",
        "image_root": str(here / "images"),
        "transform_ops": [
            {"DecodeImage": {"to_rgb": True}},
            {"ResizeImage": {"size": 32}},
            {"NormalizeImage": {"order": ""}},
        ],
    }
    path = write_config(here, Global={"epochs": 1}, Arch={"class_num": 2})
    content = yaml.safe_load(path.read_text())
    del content["Infer"]
    for mode in ("Train", "Eval"):
        content["DataLoader"][mode]["dataset"] = dataset
    path.write_text(yaml.safe_dump(content))
    return nv.train(path)


@pytest.mark.chain
def test_a_run_s_folder_is_a_model(run, photos, tmp_path, monkeypatch, capsys):
    assert run.name == "NextViT_small"
    assert (run / "class_names.txt").read_text() == "0 a bag\n1 boot\n"
    monkeypatch.chdir(tmp_path)
    for source in (run, run.parent, run / "best_model.pdparams", run / "best_model"):
        model = nv.load(source)
        assert model.names == ["a bag", "boot"]
        assert (
            model.config.Infer.transforms
            == model.config.DataLoader["Eval"]["dataset"]["transform_ops"]
        )
    results = model.predict(photos)
    assert main(["infer", "--model", str(run), "--images", str(photos), "--json", "o.json"]) == 0
    assert json.loads(Path("o.json").read_text()) == json.loads(results.to_json())
    capsys.readouterr()
    assert main(["eval", "--model", str(run.parent), "-o", "Global.device=cpu"]) == 0
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert evaluated == nv.evaluate(run) and evaluated["images"] == 8


@pytest.mark.slow
def test_a_folder_of_several_runs_and_one_without_weights(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(ConfigError, match="has 2 runs in it; name one"):
        nv.load(tmp_path)
    with pytest.raises(ConfigError, match="has saved no weights yet"):
        nv.load(tmp_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("request_", [{}, {"batch": 2, "size": (32, 32)}])
def test_an_exported_classifier_is_a_model(model, config, photos, tmp_path, request_, capfd):
    written = model.export(tmp_path / "model", **request_)
    assert "!!!!!" not in capfd.readouterr().err
    assert written.report.worst < 1e-4
    exported = nv.load(tmp_path / "model")
    assert (exported.names, exported.config) == (NAMES, None)
    expected = model.predict(photos)
    found = exported.predict(photos)
    np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-5)
    assert len(found[0].top()) == 3
    with pytest.raises(ConfigError, match="an export names no images to be evaluated on"):
        exported.evaluate()
    same_figures(exported.evaluate(config), model.evaluate())
    with pytest.raises(ConfigError, match="only what it was made of can be explained"):
        exported.explain("cam", photos)
    with pytest.raises(ConfigError, match="give it alone"):
        nv.load(tmp_path / "model", weights="x")


def same_figures(found, expected):
    """Of an export and its model: equal but for the engine's rounding."""
    assert found.keys() == expected.keys() and found["images"] == expected["images"] > 0
    for name, figure in expected.items():
        if figure is not None:
            assert found[name] == pytest.approx(figure, rel=1e-4, abs=1e-3), name


def test_an_export_that_is_none(tmp_path):
    for content, message in (
        ("{", "not written by an export"),
        ("[]", "not written by an export"),
        ('{"Export": {"inputs": 3}}', "not written by an export"),
        (_export(target="abacus"), "'abacus', which is no target here"),
        (_export(files={"gone.bin": {"sha256": "0"}}), "gone.bin' is missing; export it anew"),
        (_export(files={"export.json": {"sha256": "0"}}), "'export.json' is not what export.json"),
    ):
        (tmp_path / "export.json").write_text(content)
        with pytest.raises(ExportError, match=message):
            nv.load(tmp_path)


def _export(target="paddle", files=None):
    made = {"target": target, "precision": "fp32", "inputs": {"x": [1, 3, 8, 8]}, "outputs": ["o"]}
    return json.dumps(
        {"Export": made, "Files": files or {}, "Global": {"model_name": "NextViT_small"}}
    )


@pytest.mark.chain
def test_a_detector(tmp_path):
    pytest.importorskip("pycocotools", reason="the extra det")
    path, weights = quickstart(
        tmp_path, "nuclei_mask_rcnn", fpn_channels=16, fc_channels=32, mask_convs=1
    )
    model = nv.load(path, weights=weights, options={"Infer.PostProcess.score_threshold": 0.0})
    photo = NUCLEI / "images" / "validation" / "3_0.png"
    result, other = model.predict([photo, np.asarray(Image.open(photo).convert("RGB"))])
    assert len(result) > 0 and result.boxes.shape == (len(result), 4)
    assert result.masks.shape == (len(result), 128, 128) and set(np.unique(result.masks)) <= {0, 1}
    assert np.array_equal(other.boxes, result.boxes)
    middle = float(np.median(result.scores))
    fewer = result.scoring(middle)
    assert 0 < len(fewer) < len(result) and fewer.scores.min() >= middle
    best = result.top(1)[0]
    assert best.label_name == "nucleus" and best.score == result.scores.max()
    assert len(result.rows()) == len(result) and result.rows()[0]["x1"] == best.box[0]
    assert (
        main(
            ["infer", "-c", str(path), "-o", f"Global.pretrained_model={weights}", "-o"]
            + ["Infer.PostProcess.score_threshold=0.0", "--images", str(photo)]
            + ["--json", f"{tmp_path}/o.json", "--out", f"{tmp_path}/out"]
        )
        == 0
    )
    assert json.loads((tmp_path / "o.json").read_text()) == [result.to_dict()]
    result.save(tmp_path / "mine")
    written = (tmp_path / "mine" / "3_0_objects.png").read_bytes()
    assert written == (tmp_path / "out" / "3_0_objects.png").read_bytes()
    model.export(tmp_path / "model")
    exported = nv.load(tmp_path / "model").predict(photo)[0]
    assert len(exported) == len(result)
    np.testing.assert_allclose(np.sort(exported.scores), np.sort(result.scores), atol=1e-4)
    assert exported.masks.mean() == pytest.approx(result.masks.mean(), abs=1e-3)
    same_figures(nv.evaluate(tmp_path / "model", data=path), model.evaluate())


@pytest.mark.chain
def test_a_segmentor(tmp_path):
    pytest.importorskip("cv2", reason="the extra cv2")
    path, weights = quickstart(tmp_path, "nuclei_semfpn", fpn_channels=32, channels=16)
    model = nv.load(path, weights=weights)
    photo = NUCLEI / "images" / "validation" / "3_0.png"
    (result,) = model.predict(photo)
    assert result.labels.shape == (128, 128) and set(np.unique(result.labels)) <= {0, 1}
    assert sum(area.pixels for area in result.top()) == 128 * 128
    assert np.array_equal(result.mask("nucleus"), result.labels == 1)
    with pytest.raises(ValueError, match="no class 'cat'"):
        result.mask("cat")
    assert (
        main(
            ["infer", "-c", str(path), "-o", f"Global.pretrained_model={weights}"]
            + ["--images", str(photo), "--json", f"{tmp_path}/o.json", "--out", f"{tmp_path}/out"]
        )
        == 0
    )
    assert json.loads((tmp_path / "o.json").read_text()) == [result.to_dict()]
    result.save(tmp_path / "mine")
    for kind in ("overlay", "labels"):
        mine = (tmp_path / "mine" / f"3_0_{kind}.png").read_bytes()
        assert mine == (tmp_path / "out" / f"3_0_{kind}.png").read_bytes()
    model.export(tmp_path / "model")
    exported = nv.load(tmp_path / "model").predict(photo)[0]
    assert (exported.labels == result.labels).mean() > 0.999
    same_figures(nv.evaluate(tmp_path / "model", data=path), model.evaluate())


def test_paths_from_standard_input(photos, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos}/00001.png\n\n{photos}/00000.png\n"))
    assert common.list_images("-") == [photos / "00001.png", photos / "00000.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(ConfigError, match="standard input: the list is empty"):
        common.list_images("-")
