"""Mask2Former through the programs, small, on the nuclei tiles: training, evaluation whole, in
windows and at several scales, pictures, exports.
"""

import json

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

from ppcls_nextvit import create_model
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.models.segmentors.mask2former import Mask2Former
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import evaluate, load_config, train
from ppcls_nextvit.tasks.base import ExportRequest
from ppcls_nextvit.tasks.segmentation.benchmark import measure
from ppcls_nextvit.tasks.segmentation.export import (
    LabelMap,
    export,
    export_segmentor,
    mean_difference,
)
from ppcls_nextvit.tasks.segmentation.predict import infer
from support.paths import ROOT
from test_segmentation_task import TINY, config_of

pytest.importorskip("cv2", reason="needs the extra `cv2`")
pytest.importorskip("scipy", reason="needs the extra `seg`")

PACKAGES = {"onnx": ("paddle2onnx", "onnxruntime"), "openvino": ("paddle2onnx", "openvino")}


def configured(tmp_path, *overrides):
    """Semantic FPN's small configuration with a small Mask2Former."""
    path = config_of(tmp_path).path
    content = yaml.safe_load(open(path))
    content["Arch"] = {"name": "Mask2Former", "class_num": 2, "backbone": TINY, **Mask2Former.toy}
    del content["Loss"], content["Metric"]["Train"]
    with open(path, "w") as file:
        yaml.safe_dump(content, file)
    return load_config(path, overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, output directory) of a run of two steps."""
    tmp_path = tmp_path_factory.mktemp("trained")
    config = configured(tmp_path)
    assert train(config) == 0
    return tmp_path, config.output_dir


@pytest.mark.slow
def test_a_run_logs_its_losses_and_every_class(trained):
    folder, where = trained
    figures = read_figures(where)
    last = [line for line in figures if line["kind"] == "train"][-1]
    assert last["update"] == 2 and 0 <= last["acc"] <= 1
    assert set(figures[-1]["class_iou"]) == {"background", "nucleus"}
    weights = f"Global.pretrained_model={where / 'best_model'}"
    assert evaluate(load_config(folder / "config.yaml", [weights]))["mIoU"] == figures[-1]["mIoU"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "inference",
    [
        "{mode: slide, crop_size: [64, 64], stride: [48, 48]}",
        "{mode: whole, ratios: [0.5, 1.0], flip: True}",
    ],
)
def test_windows_and_scales_are_evaluated(trained, inference):
    folder, where = trained
    overrides = [f"Global.pretrained_model={where / 'best_model'}", f"Arch.inference={inference}"]
    resize = "[{Resize: {scale: [128, 128]}}, {Normalize: {}}, {Pad: {size_divisor: 32}}]"
    overrides += [f"DataLoader.Eval.dataset.transform_ops={resize}"]
    result = evaluate(load_config(folder / "config.yaml", overrides))
    assert result["images"] == 4 and 0 <= result["mIoU"] <= 1


@pytest.mark.slow
def test_predictions_and_pictures(trained, tmp_path):
    folder, where = trained
    photo = ROOT / "dataset/nuclei/images/validation/3_0.png"
    overrides = [f"Global.pretrained_model={where / 'best_model'}", f"Infer.infer_imgs={photo}"]
    config = load_config(folder / "config.yaml", overrides)
    assert infer(config, tmp_path, tmp_path / "out.json") == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert sum(one["pixels"] for one in found["classes"]) == 128 * 128
    labels = np.asarray(Image.open(tmp_path / "3_0_labels.png"))
    assert labels.shape == (128, 128) and set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["Loss={Train: [{CrossEntropyLoss: {}}]}"], "Loss: Mask2Former brings its own losses"),
        (["Arch.num_querys=3"], "Arch.num_querys: unknown key. Did you mean 'num_queries'"),
        (["Arch.num_points=0"], "num_points must be 1 or more; got 0"),
    ],
)
def test_configurations_that_cannot_be_meant(tmp_path, overrides, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        train(configured(tmp_path, *overrides))


def test_targets_that_it_does_not_go_to(tmp_path):
    config = configured(tmp_path)
    for to in ("lite", "lite-x86"):
        with pytest.raises(ConfigError, match=f"Mask2Former does not go to {to}: "):
            export(config, ExportRequest(to=to))


def decided():
    """A small model that looks at places between cells, and whose pixels are not all of one
    class.
    """
    paddle.seed(0)
    model = create_model("Mask2Former", num_classes=4, backbone=TINY, **Mask2Former.toy)
    for layer in model.decode_head.sublayers():
        if isinstance(layer, paddle.nn.Linear) and not float(layer.weight.abs().max()):
            layer.weight.set_value(0.1 * paddle.randn(layer.weight.shape))
    classes = model.decode_head.cls_embed.weight
    classes.set_value(paddle.randn(classes.shape))
    return model


@pytest.mark.chain
def test_a_core_ml_package_of_one_size(tmp_path):
    """Of pictures, run by mil.py."""
    for package in ("paddle2onnx", "coremltools"):
        pytest.importorskip(package, reason="needs the extra `coreml`")
    description = {"PreProcess": {"transform_ops": [{"Normalize": {}}]}}
    options = {"size": (64, 96), "batch": 1}
    where = tmp_path / "out"
    exported = export_segmentor(
        decided(), TARGETS["coreml"], where, description, (64, 96), **options
    )
    assert exported.report.difference["logits"] < 1e-4
    assert exported.report.difference["labels"] < 1e-3
    (shape,) = {tuple(shape) for shape in exported.report.shapes}
    assert shape == (1, 3, 64, 96)


@pytest.mark.chain
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_exported_files_equal_the_model_at_any_size(tmp_path, to):
    for package in PACKAGES[to]:
        pytest.importorskip(package, reason=f"needs the extra `{to}`")
    model = decided()
    exported = export_segmentor(model, TARGETS[to], tmp_path / "out", {}, image_size=(64, 96))
    report = exported.report
    assert len({tuple(shape) for shape in report.shapes}) == 3
    assert report.difference["logits"] < 1e-4 and report.difference["labels"] < 1e-3
    image = paddle.randn([2, 3, 50, 77])
    with paddle.no_grad():
        labels, scores = LabelMap(model)(image)
    assert scores.shape == [2, 4, 50, 77] and len(np.unique(labels.numpy())) > 1
    description = json.loads((tmp_path / "out" / "export.json").read_text())
    assert description["Model"]["input"]["shape"] == [None, 3, None, None]


def test_a_few_scores_may_differ_by_more_than_rounding():
    """As where a mask's logit is on the other side of 0; not all, and none by much."""
    expected = np.ones((1, 2, 100, 100))
    few, much, all_ = expected.copy(), expected.copy(), expected + 2e-4
    few[0, 0, :10], much[0, 0, 0, 0] = 1 + 5e-4, 1.02
    assert mean_difference(few, expected) < 1e-4
    assert mean_difference(much, expected) > 1e-4 and mean_difference(all_, expected) > 1e-4
    labels = np.zeros((1, 10, 10), int)
    assert mean_difference(labels + 1, labels) == 1.0


def test_it_is_measured():
    model = create_model("Mask2Former", num_classes=2, backbone=TINY, **Mask2Former.toy)
    times = measure(model, (64, 64), (48, 48), runs=1, train=True)
    assert set(times) == {"step", "peak_memory_mb"}
