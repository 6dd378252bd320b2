"""Our exports in PaddleX: its results are those of the exported folder itself, and what it asks for
that an export has decided is refused by name.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ppcls_nextvit as nv
from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.export.opened import open_export
from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.hosts import paddlex as host
from ppcls_nextvit.models.api import Instances
from ppcls_nextvit.tasks.detection.results import DetectionResult
from ppcls_nextvit.tasks.inputs import InputImage
from support.paths import NUCLEI
from support.pictures import clothes
from support.random_models import random_weights
from support.small_quickstart import quickstart
from support.tiny_run import write_config


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of an exported classifier with random weights."""
    folder = tmp_path_factory.mktemp("classifier")
    weights = random_weights(folder / "w.pdparams")
    config = write_config(folder / "config", train=16, test=8)
    nv.load(config, weights=weights, device="cpu").export(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return clothes(tmp_path_factory.mktemp("photos"), 5)


class Runner:
    """What PaddleX's runners are to a predictor: arrays in the order of their inputs' names in,
    outputs in the program's order out.
    """

    def __init__(self, folder):
        self.opened = open_export(folder)

    def __call__(self, arrays):
        names = sorted(self.opened.signature.inputs)
        outputs = self.opened(dict(zip(names, arrays, strict=True)))
        return [outputs[name] for name in self.opened.signature.outputs]


def test_a_runner_of_theirs_runs_the_program(classifier, photos):
    opened = host.opened_by(Runner(classifier), classifier)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
    (name,) = opened.signature.inputs
    expected = open_export(classifier)({name: images})
    found = opened({name: images})
    assert list(found) == list(expected)
    np.testing.assert_allclose(*(next(iter(x.values())) for x in (found, expected)), atol=1e-6)


def test_what_needs_settings_of_ours_is_refused(classifier, tmp_path, monkeypatch):
    described = json.loads((classifier / "export.json").read_text())
    described["Export"]["precision"] = "bf16"
    for file in classifier.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "export.json").write_text(json.dumps(described))
    with pytest.raises(ExportError, match="'paddle' in 'bf16'; PaddleX runs exports to paddle in"):
        host.opened_by(Runner(classifier), tmp_path)


def test_arrays_of_theirs_are_bgr():
    bgr = np.zeros((4, 6, 3), np.uint8)
    bgr[..., 0] = 255
    assert host.input_image(bgr, None).pixels()[0, 0].tolist() == [0, 0, 255]
    grey = host.input_image(np.full((4, 6), 7, np.uint8), "page")
    assert grey.name == "page" and grey.pixels()[0, 0].tolist() == [7, 7, 7]


def test_objects_are_cut_to_the_image_and_masks_to_their_boxes():
    grid = np.zeros((10, 12), np.uint8)
    grid[2:5, 3:9] = 1
    masks = [SimpleNamespace(full=lambda: grid), SimpleNamespace(full=lambda: grid)]
    found = Instances(
        np.array([[-3.0, 1.6, 9.4, 5.2], [20.0, 2.0, 30.0, 4.0]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([1, 0]),
        masks,
    )
    image = InputImage("x", content=np.zeros((10, 12, 3), np.uint8))
    told = host.answer(DetectionResult(image, found, ["a", "b"]))
    (box,), (part,) = told["boxes"], told["masks"]
    assert (box["cls_id"], box["label"], round(box["score"], 4)) == (1, "b", 0.9)
    np.testing.assert_allclose(box["coordinate"], [0, 1.6, 9.4, 5.2], atol=1e-5)
    assert np.array_equal(part, grid[2:5, 0:9])


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.5", True])
def test_a_threshold_is_a_number_from_0_to_1(value):
    with pytest.raises(ConfigError, match="threshold: expected a number from 0 to 1"):
        host._checked_threshold(value)


def test_without_paddlex_the_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddlex", None)
    with pytest.raises(ImportError, match="PaddleX is not installed: pip install"):
        host.register()


# With PaddleX.


@pytest.fixture(scope="module")
def paddlex():
    # both are read when it is imported: ask nobody whether the hubs are there, fetch no font
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    fonts = Path(pytest.importorskip("matplotlib").get_data_path()) / "fonts" / "ttf"
    os.environ["PADDLE_PDX_LOCAL_FONT_FILE_PATH"] = str(fonts / "DejaVuSans.ttf")
    pytest.importorskip("pypdfium2", reason="needs paddlex[cv], see docs/suites.md")
    module = pytest.importorskip("paddlex", reason="needs PaddleX, see docs/suites.md")
    names = host.register()
    assert host.register() == names and {"NextViT_small_224", "MaskRCNN"} <= set(names)
    return module


@pytest.mark.slow
def test_a_classifier_answers_as_the_export(paddlex, classifier, photos, tmp_path):
    name = open_export(classifier).model_name
    model = paddlex.create_model(name, model_dir=str(classifier))
    theirs = list(model.predict(str(photos), batch_size=2, topk=3))
    ours = nv.load(classifier).predict(photos)
    assert len(theirs) == len(ours) == 5
    for their, our in zip(theirs, ours, strict=True):
        best = our.top(3)
        assert their["class_ids"].tolist() == [one.class_id for one in best]
        assert their["label_names"] == [one.label_name for one in best]
        np.testing.assert_allclose(their["scores"], [one.score for one in best], atol=2e-5)
        assert np.array_equal(their["input_img"], our.image.pixels())
    theirs[0].save_to_json(str(tmp_path / "result.json"))
    assert json.loads((tmp_path / "result.json").read_text())["class_ids"]
    array = np.asarray(Image.open(photos / "00000.png").convert("RGB"))[..., ::-1]
    (from_array,) = model.predict(array, topk=3)
    assert from_array["class_ids"].tolist() == theirs[0]["class_ids"].tolist()
    (photos.parent / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="bad.png"):
        list(model.predict(str(photos.parent / "bad.png")))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """The folder of an exported Mask R-CNN with random weights, all of whose objects count."""
    folder = tmp_path_factory.mktemp("detector")
    path, weights = quickstart(
        folder, "nuclei_mask_rcnn", fpn_channels=16, fc_channels=32, mask_convs=1
    )
    options = {"Infer.PostProcess.score_threshold": 0.0}
    nv.load(path, weights=weights, options=options, device="cpu").export(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentor")
    path, weights = quickstart(folder, "nuclei_semfpn", fpn_channels=32, channels=16)
    nv.load(path, weights=weights, device="cpu").export(folder / "model")
    return folder / "model"


PHOTO = str(NUCLEI / "images" / "validation" / "3_0.png")


@pytest.mark.slow
def test_a_detector_answers_as_the_export(paddlex, detector, tmp_path):
    model = paddlex.create_model("MaskRCNN", model_dir=str(detector))
    (their,) = model.predict(PHOTO)
    (our,) = nv.load(detector).predict(PHOTO)
    assert len(their["boxes"]) == len(their["masks"]) > 0
    by_score = sorted(our.top(len(our)), key=lambda one: -one.score)
    scores = [box["score"] for box in their["boxes"]]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(scores[:5], [one.score for one in by_score[:5]], atol=1e-5)
    for box, part in zip(their["boxes"], their["masks"], strict=True):
        left, top, right, bottom = (round(side) for side in box["coordinate"])
        assert part.shape == (bottom - top, right - left)
    their.save_to_img(str(tmp_path))
    their.save_to_json(str(tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".json"}
    (none,) = model.predict(PHOTO, threshold=1.0)
    assert none["boxes"] == none["masks"] == []
    with pytest.raises(ConfigError, match="img_size: the export decides it"):
        paddlex.create_model("MaskRCNN", model_dir=str(detector), img_size=64)


@pytest.mark.slow
def test_a_segmentor_answers_as_the_export(paddlex, segmentor, tmp_path):
    model = paddlex.create_model("SemanticFPN", model_dir=str(segmentor))
    (their,) = model.predict(PHOTO)
    (our,) = nv.load(segmentor).predict(PHOTO)
    assert their["pred"].shape == (1, 128, 128)
    assert (their["pred"][0] == our.labels).mean() > 0.999
    their.save_to_img(str(tmp_path / "labels.png"))
    assert Image.open(tmp_path / "labels.png").size == (128, 128)
    with pytest.raises(ConfigError, match="target_size: the export decides it"):
        list(model.predict(PHOTO, target_size=64))


@pytest.mark.slow
def test_a_pipeline_takes_the_folder(paddlex, classifier, photos):
    config = {
        "pipeline_name": "image_classification",
        "SubModules": {
            "ImageClassification": {
                "module_name": "image_classification",
                "model_name": open_export(classifier).model_name,
                "model_dir": str(classifier),
                "batch_size": 2,
                "topk": 2,
            }
        },
    }
    theirs = list(paddlex.create_pipeline(config=config).predict(str(photos)))
    assert [one["class_ids"].tolist() for one in theirs] == [
        [best.class_id for best in our.top(2)] for our in nv.load(classifier).predict(photos)
    ]
