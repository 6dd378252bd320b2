"""Training, evaluation, prediction and export of a detector on the nuclei tiles: a small network,
the real programs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn
from paddle.nn import functional as F
from PIL import Image

from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.transforms.joint import JointPipeline, opencv
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.models.api import Detections, ImageMask, Instances
from ppcls_nextvit.models.registry import HoldsBackbone, build_backbone
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import evaluate, load_config, train
from ppcls_nextvit.tasks.base import ExportRequest
from ppcls_nextvit.tasks.common import build_model
from ppcls_nextvit.tasks.detection.benchmark import measure
from ppcls_nextvit.tasks.detection.export import ObjectTable, export, set_difference
from ppcls_nextvit.tasks.detection.pictures import (
    _colours_of_both,
    comparison_sheet,
    draw_boxes,
    draw_objects,
)
from ppcls_nextvit.tasks.detection.predict import infer, model_inputs, transforms_of
from ppcls_nextvit.tasks.detection.task import DetectionTask
from support.paths import ROOT

pytestmark = pytest.mark.slow  # whole runs

QUICKSTART = ROOT / "configs" / "quickstart" / "nuclei_mask_rcnn.yaml"
NUCLEI = ROOT / "dataset" / "nuclei"
SHOWN = "Infer.PostProcess.score_threshold=0.3"


@pytest.fixture(scope="module", autouse=True)
def extras():
    pytest.importorskip("pycocotools", reason="the extra det")
    try:
        opencv()
    except ImportError as error:
        pytest.skip(str(error))


def config_of(tmp_path, *overrides, leave_out=(), **arch):
    """The quickstart's configuration, made small: one epoch of 2 batches of 2 tiles, narrow
    heads. leave_out: keys of Arch.
    """
    content = yaml.safe_load(QUICKSTART.read_text())
    content["Global"].update(
        epochs=1,
        output_dir=str(tmp_path / "output"),
        save_inference_dir=str(tmp_path / "inference"),
    )
    content["Arch"].update({"fpn_channels": 16, "fc_channels": 32, "mask_convs": 1, **arch})
    for key in leave_out:
        del content["Arch"][key]
    for mode, name in (("Train", "training"), ("Eval", "validation")):
        content["DataLoader"][mode]["dataset"].update(
            image_root=str(NUCLEI / "images" / name),
            annotation_path=str(NUCLEI / f"instances_{name}.json"),
        )
    content["DataLoader"]["Train"]["sampler"].update(batch_size=2, iterations=2)
    content["Infer"].update(infer_imgs=str(NUCLEI / "images" / "validation"))
    content["Infer"]["PostProcess"].update(class_id_map_file=str(NUCLEI / "instance_labels.txt"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path, overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps: (its folder, its configuration with the weights it saved and a score
    threshold that lets objects pass).
    """
    folder = tmp_path_factory.mktemp("run")
    assert train(config_of(folder, SHOWN)) == 0
    weights = folder / "output" / "MaskRCNN" / "latest.pdparams"
    return folder, config_of(
        folder, f"Global.pretrained_model={weights}", "Infer.PostProcess.score_threshold=0.1"
    )


def test_training_logs_every_loss_and_measures_boxes_first(run):
    folder, _ = run
    figures = read_figures(folder / "output" / "MaskRCNN")
    (trained,), (evaluated,) = (
        [f for f in figures if f["kind"] == kind] for kind in ("train", "eval")
    )
    parts = [trained[name] for name in ("rpn_cls", "rpn_box", "cls", "box", "mask")]
    assert (
        trained["loss"] == pytest.approx(sum(parts), rel=1e-5)
        and all(np.isfinite(parts))
        and 0 <= trained["acc"] <= 1
    )
    metrics = list(evaluated)[list(evaluated).index("epoch") + 1 :]
    assert (
        f"batch 2/2 loss {trained['loss']:.4f} acc {trained['acc']:.4f} lr"
        in (folder / "output" / "MaskRCNN" / "train.log").read_text()
    )
    assert (
        metrics[0] == "box_map"
        and {"box_map_50", "mask_map", "mask_map_50"} <= set(metrics)
        and evaluated["images"] == 4
    )
    where = folder / "output" / "MaskRCNN"
    assert (where / "best_model.pdparams").exists()
    curves = np.asarray(Image.open(where / "curves.png").convert("RGB"))
    assert curves.shape[:2] == (360, 1350) and len(np.unique(curves.reshape(-1, 3), axis=0)) > 100


def test_a_run_s_sheet_shows_images_truths_and_predictions(run):
    folder, config = run
    weights = f"Global.pretrained_model={folder / 'output' / 'MaskRCNN' / 'latest'}"
    task = DetectionTask(load_config(config.path, [weights]), Processes(), training=False)
    sheet = np.asarray(Image.open(folder / "output" / "MaskRCNN" / "predictions.png"))
    assert sheet.shape == (18 + 4 * 260, 3 * 260 - 4, 3)
    for row, (index, size, found) in enumerate(task.predictions()):
        dataset = task.eval_loader.dataset
        image, truth = dataset.image(index), dataset.truth(index, size)
        shown = found.scoring(0.3)
        assert len(shown.boxes)
        _, colours = _colours_of_both(truth, shown, 1)
        pictures = (
            image.repeat(2, 0).repeat(2, 1),
            draw_boxes(image, truth["boxes"], truth["masks"], smallest=256),
            draw_boxes(image, shown.boxes, [m.full() for m in shown.masks], (), 256, colours),
        )
        for column, picture in enumerate(pictures):
            left, top = 260 * column, 18 + 260 * row
            part = sheet[top : top + 256, left : left + 256]
            np.testing.assert_array_equal(part, np.asarray(picture))


@pytest.mark.long
def test_the_quickstart_learns(tmp_path, monkeypatch):
    """In two epochs; its eight reach what the file's header says. (After one alone the masks depend
    on the processor's rounding: an AP50 of 0.03 on one, above 0.2 on another.)
    """
    monkeypatch.chdir(ROOT)
    epochs = ["Global.epochs=2", "Global.eval_interval=2"]
    config = load_config(QUICKSTART, [*epochs, f"Global.output_dir={tmp_path}"])
    paddle.seed(0)
    untrained = DetectionTask(config, Processes()).evaluate()
    assert train(config) == 0
    trained = next(f for f in read_figures(config.output_dir) if f["kind"] == "eval")
    assert untrained["box_map_50"] < 0.1 and untrained["mask_map_50"] < 0.1
    assert trained["box_map_50"] > 0.2 and trained["mask_map_50"] > 0.2


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Samples of anchors and proposals too are functions of the place in the run."""
    steps = [
        "Global.epochs=2",
        "Global.eval_during_train=False",
        "DataLoader.Train.sampler.iterations=1",
    ]
    whole = config_of(tmp_path, *steps, "Global.save_interval=1")
    train(whole)
    at = f"Global.checkpoints={tmp_path / 'output' / 'MaskRCNN' / 'epoch_1'}"
    resumed = config_of(tmp_path, *steps, f"Global.output_dir={tmp_path / 'resumed'}", at)
    train(resumed)
    expected, got = (
        next(f for f in read_figures(config.output_dir) if f["kind"] == "train" and f["epoch"] == 2)
        for config in (whole, resumed)
    )
    for name in ("loss", "rpn_cls", "rpn_box", "cls", "box", "mask", "acc"):
        assert got[name] == expected[name]


@pytest.mark.chain
def test_two_processes_evaluate_as_one(run, tmp_path):
    _, config = run
    one = evaluate(config)
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node=2",
        "--log_dir",
        str(tmp_path),
        str(ROOT / "tools" / "eval.py"),
        "-c",
        config.path,
        "-o",
        f"Global.pretrained_model={config.Global.pretrained_model}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    two = json.loads(
        next(
            line
            for line in (tmp_path / "workerlog.0").read_text().splitlines()
            if line.startswith("{")
        )
    )
    assert two["images"] == one["images"] == 4
    for name in ("box_map", "box_map_50", "mask_map", "mask_map_50"):
        assert two[name] == pytest.approx(one[name], rel=1e-3)


def test_a_perfect_detector_scores_one(run, monkeypatch):
    """The whole way of evaluation: scales, pasting, run lengths, COCO's averages; the model is
    replaced by the truth.
    """
    task = DetectionTask(run[1], Processes(), training=False)
    dataset = task.eval_loader.dataset

    def perfect(image, shape, scale):
        assert shape.tolist() == [[128, 128]] and scale.tolist() == [[1, 1]]
        index = next(
            i
            for i in range(4)
            if np.allclose(image[0].numpy(), dataset.load(i, None)["image"].transpose(2, 0, 1))
        )
        truth = dataset.truth(index, (128, 128))
        grids = []
        for (x1, y1, x2, y2), mask in zip(truth["boxes"].astype(int), truth["masks"], strict=True):
            part = Image.fromarray(255 * mask[y1:y2, x1:x2]).resize(
                (28, 28), Image.Resampling.BILINEAR
            )
            grids.append(np.asarray(part, np.float32) / 255)
        return [
            Detections(
                *map(
                    paddle.to_tensor,
                    (
                        truth["boxes"],
                        np.ones(len(grids), np.float32),
                        truth["labels"],
                        np.array(grids),
                    ),
                )
            )
        ]

    monkeypatch.setattr(task.model, "forward", perfect)
    result = task.evaluate()
    assert (
        result["box_map"] == pytest.approx(1.0)
        and result["mask_map_50"] == pytest.approx(1.0)
        and result["mask_map"] > 0.8
    )


def test_predictions_leave_gradients_on_between_images(run):
    predictions = DetectionTask(run[1], Processes(), training=False).predictions()
    next(predictions)
    assert paddle.is_grad_enabled()


def test_prediction_writes_pictures_and_json(run, tmp_path):
    _, config = run
    (tmp_path / "images").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.open(NUCLEI / "images" / "validation" / "3_0.png").save(tmp_path / "images" / name)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    config = load_config(
        config.path,
        [
            f"Global.pretrained_model={config.Global.pretrained_model}",
            f"Infer.infer_imgs={tmp_path / 'images'}",
            "Infer.PostProcess.score_threshold=0.1",
        ],
    )
    # for the bad one
    assert infer(config, tmp_path / "out", tmp_path / "out.json") == 1
    jpg, png, bad = json.loads((tmp_path / "out.json").read_text())
    assert (
        "bad.png" in bad["error"]
        and (png["height"], png["width"]) == (128, 128)
        and len(png["objects"])
    )
    scores = [found["score"] for found in png["objects"]]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.1
    first = png["objects"][0]
    assert (
        first["label_name"] == "nucleus"
        and len(first["box"]) == 4
        and first["mask"]["size"] == [128, 128]
    )
    for name in ("a.png", "a.jpg"):
        # grown, so that names fit
        assert Image.open(tmp_path / "out" / f"{name}_objects.png").size == (512, 512)


def test_an_image_too_small_is_named():
    tiny = np.zeros((20, 40, 3), np.uint8)
    with pytest.raises(
        ImageError, match="x.png: 20 x 40 pixels when transformed; the model needs 32 or more"
    ):
        model_inputs(tiny, JointPipeline([{"Normalize": {}}]), "x.png", 32)
    padding = JointPipeline([{"Normalize": {}}, {"Pad": {"size_divisor": 32}}])
    inputs = model_inputs(tiny, padding, "x.png", 32)
    assert inputs["image"].shape == (1, 3, 32, 64)
    assert inputs["shape"].tolist() == [[20, 40]] and inputs["scale"].tolist() == [[1, 1]]


def test_drawing():
    image, mask = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 1
    boxes, other = np.array([[10, 10, 30, 20.0], [40, 0, 50, 9]]), np.zeros_like(mask)
    other[0:9, 40:50] = 1
    picture = np.asarray(draw_boxes(image, boxes, [mask, other], smallest=40))
    first, second = picture[11:19, 11:29], picture[2:8, 42:48]
    assert (
        (first == first[0, 0]).all()
        and first[0, 0].any()
        and (second == second[0, 0]).all()
        and second[0, 0].any()
    )
    # a colour each
    assert (
        (first[0, 0] != second[0, 0]).any() and not picture[30:].any() and not picture[:, 55:].any()
    )
    scores, labels = np.float32([0.9, 0.1]), np.array([0, 0])
    masks = [ImageMask(mask[10:20] > 0, 10, 0, 40, 60), ImageMask(other > 0, 0, 0, 40, 60)]
    found = Instances(boxes.astype(np.float32), scores, labels, masks)
    named = np.asarray(draw_objects(image, found, ["thing"], smallest=40))
    assert (named != picture).any() and named.shape == picture.shape
    assert draw_boxes(image, boxes, [mask, other], smallest=130).size == (120, 80)
    without = np.asarray(draw_boxes(image, boxes, (), smallest=40))
    assert not without[12:18, 12:28].any() and (without[10, 10:30] == picture[10, 10:30]).all()
    truth = {"boxes": np.float32([[10, 10, 30, 20]]), "labels": np.array([0]), "masks": mask[None]}
    sheet = comparison_sheet([(image, truth, found)], threshold=0.3, smallest=120)
    assert sheet.width == 3 * (2 * 60 + 4) - 4 and sheet.height == 18 + 2 * 40 + 4
    truth_column, found_column = (
        np.asarray(sheet)[18:98, left : left + 120] for left in (124, 248)
    )
    np.testing.assert_array_equal(truth_column, found_column)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["Infer.PostProcess.score_threshold=2"], r"score_threshold: must be in \[0, 1\], got 2"),
        (
            ["Infer.transforms=[{RandomFlip: {prob: 1.0}}]"],
            "Infer.transforms: evaluation and prediction leave nothing to chance",
        ),
        (["Infer.PostProcess.topk=5"], "Infer.PostProcess.topk: unknown key"),
        (
            ["Metric.Eval=[{TopkAcc: {topk: 1}}]"],
            "Metric: MaskRCNN brings its own losses and is measured by COCO's mAP; leave the "
            "section out",
        ),
        (["Arch.fpn_chanels=8"], "Did you mean 'fpn_channels'"),
        (
            ["Arch.backbone={name: NextViT_small, num_classes: 3}"],
            "a backbone is one of the classifiers, without num_classes",
        ),
        (["Arch.rpn_samples=many"], "Arch.rpn_samples: expected int, got 'many'"),
    ],
)
def test_sections_are_verified(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, *overrides)


def test_names_are_compared_before_the_work(tmp_path, caplog):
    names = tmp_path / "names.txt"
    for content, warnings in (
        ("0 nucleus\n", []),
        (
            "0 cell\n",
            [
                f"{names} names class 0 'cell', the annotations name it 'nucleus'; "
                "predictions follow the former"
            ],
        ),
    ):
        names.write_text(content)
        caplog.clear()
        DetectionTask(
            config_of(tmp_path, f"Infer.PostProcess.class_id_map_file={names}"), Processes()
        )
        assert [
            record.getMessage() for record in caplog.records if record.levelname == "WARNING"
        ] == warnings
    names.write_text("0 nucleus\n1 cell\n")
    with pytest.raises(ValueError, match="has 2 classes, the model 1"):
        DetectionTask(
            config_of(tmp_path, f"Infer.PostProcess.class_id_map_file={names}"), Processes()
        )


def test_the_number_of_classes_must_be_the_sets(tmp_path):
    with pytest.raises(ConfigError, match="1 categories, but the model has 2 classes"):
        DetectionTask(config_of(tmp_path, "Arch.class_num=2"), Processes())


@pytest.mark.chain
@pytest.mark.parametrize("to", ["paddle", "onnx"])
def test_exported_files_find_the_same_objects(run, tmp_path, to):
    if to == "onnx":
        pytest.importorskip("paddle2onnx", reason="the extra onnx")
        pytest.importorskip("onnxruntime", reason="the extra onnx")
    _, config = run
    weights = paddle.load(f"{config.Global.pretrained_model}")
    # after two steps scores tie, and an engine's rounding says which of the boxes is first
    for name, factor in (("rpn_head.rpn_cls.weight", 100), ("roi_head.bbox_head.fc_cls.weight", 4)):
        weights[name] = factor * weights[name]
    paddle.save(weights, str(tmp_path / "apart.pdparams"))
    config = load_config(
        config.path,
        [
            f"Global.pretrained_model={tmp_path / 'apart.pdparams'}",
            f"Global.save_inference_dir={tmp_path / to}",
        ],
    )
    exported = export(config, ExportRequest(to))
    assert set(exported.report.difference) == {"objects", "masks"} and exported.report.worst < 1e-4
    # images whose scores tie are left out
    assert len(exported.report.shapes) >= 2
    assert all(shape == [1, 3, 128, 128] for shape in exported.report.shapes)

    model = build_model(config)
    model.eval()
    signature = Signature(
        {"image": (1, 3, None, None), "im_shape": (1, 2), "scale_factor": (1, 2)},
        ("objects", "masks"),
    )
    program = TARGETS[to].load(tmp_path / to, signature, "fp32")
    transforms = transforms_of(config)
    picture = np.asarray(
        Image.open(NUCLEI / "images" / "validation" / "3_1.png").convert("RGB").resize((200, 150))
    )
    made = model_inputs(picture, transforms, "another size", model.min_size)
    image, shape = made["image"], made["shape"]
    inputs = {"image": image, "im_shape": shape, "scale_factor": np.float32([[2.0, 0.5]])}
    assert image.shape == (1, 3, 160, 224) and shape.tolist() == [[150, 200]]
    with paddle.no_grad():
        (found,) = model(*map(paddle.to_tensor, inputs.values()))
        expected = ObjectTable(model)(*map(paddle.to_tensor, inputs.values()))
    outputs = program(inputs)
    assert len(found.boxes) and outputs["objects"].shape == (len(found.boxes), 6)
    for name, tensor in zip(signature.outputs, expected, strict=True):
        assert set_difference(outputs[name], tensor.numpy()) < 1e-3
    np.testing.assert_allclose(
        sorted(outputs["objects"][:, 2]), sorted(found.boxes.numpy()[:, 0]), atol=0.05
    )


def test_what_cannot_be_exported(run, tmp_path):
    _, config = run
    with pytest.raises(ValueError, match="one image at a time; got a batch of 4"):
        export(config, ExportRequest(batch=4))
    Image.new("RGB", (128, 128)).save(tmp_path / "large.png")
    with pytest.raises(
        ImageError, match="large.png: 128 x 128 pixels when transformed, more than the 64 x 64"
    ):
        export(config, ExportRequest(size=(64, 64), photos=tmp_path / "large.png"))
    with pytest.raises(ConfigError, match="does not go to tensorrt: its choice of boxes is a NonZ"):
        export(config, ExportRequest("tensorrt"))
    with pytest.raises(ConfigError, match="does not go to lite-x86: Paddle .* its sigmoid as a"):
        export(config, ExportRequest("lite-x86"))
    with pytest.raises(ConfigError, match="goes to paddle in fp32, bf16; got --precision fp16"):
        export(config, ExportRequest("paddle", "fp16"))
    with pytest.raises(ConfigError, match="no images; give -o Infer.infer_imgs=FILE_OR_DIRECTORY"):
        export(config_of(tmp_path, "Infer.infer_imgs=null"), ExportRequest())
    assert not (tmp_path / "inference").exists()


def test_set_difference():
    rows = np.array([[1.0, 0.5, 10, 20], [0.0, 0.5, 30, 40]])
    assert set_difference(rows[::-1], rows) == 0 and set_difference(rows[:0], rows[:0]) == 0
    assert set_difference(
        np.array([[1.0, 0.5, 10, 20], [0.0, 0.5, 33, 40]]), rows
    ) == pytest.approx(0.1)
    # one is missing
    assert set_difference(rows[[0, 0]], rows) == 1


def test_benchmark(run):
    model = build_model(run[1])
    threshold = model.score_threshold
    times = measure(model, size=(64, 96), original=(50, 70), runs=2)
    assert all(
        len(times[name]) == 2 and min(times[name]) > 0
        for name in ("preprocessing", "network", "postprocessing")
    )
    assert times["peak_memory_mb"] > 0 and model.score_threshold == threshold
    assert len(measure(model, size=(64, 96), runs=1, train=True)["step"]) == 1


class Corners(HoldsBackbone):
    """A detector that is no Mask R-CNN: two queries a class, matched with the objects by their
    order, no masks, no threshold, and a count of its own.
    """

    task, brings_losses, shown = "detection", True, ("close",)

    def __init__(self, *, num_classes: int = 80, backbone: dict):
        super().__init__()
        self.num_classes, self.backbone = num_classes, build_backbone(backbone)
        self.queries = nn.Linear(self.backbone.stage_channels[-1], num_classes * 2 * 5)

    def answers(self, image):
        """Corners [B, classes * 2, 4] as shares of the image, and logits [B, classes * 2]."""
        pooled = self.backbone(image)[-1].mean(axis=[2, 3])
        answer = self.queries(pooled).reshape([-1, self.num_classes * 2, 5])
        return F.sigmoid(answer[:, :, :4]), answer[:, :, 4]

    def losses(self, batch):
        corners, logits = self.answers(batch["image"])
        height, width = batch["image"].shape[2:]
        truth = batch["boxes"] / paddle.to_tensor([width, height] * 2, dtype="float32")
        apart = (corners[0, :1] - truth[:1]).abs()
        parts = {"corner": apart.sum(), "score": F.softplus(logits).mean()}
        return parts, {"close": (int((apart < 0.1).sum()), apart.size)}

    def forward(self, image, shape=None, scale=None):
        corners, logits = self.answers(image)
        labels = paddle.arange(self.num_classes * 2) // 2
        low = paddle.minimum(corners[:, :, :2], corners[:, :, 2:])
        boxes = paddle.concat([low, paddle.maximum(corners[:, :, :2], corners[:, :, 2:])], axis=-1)
        found = []
        for i in range(image.shape[0]):
            size = paddle.shape(image)[2:] if shape is None else shape[i]
            size = size.astype("float32") / (1.0 if scale is None else scale[i])
            own = boxes[i] * paddle.concat([size[1:], size[:1]] * 2)
            found.append(Detections(own, F.sigmoid(logits[i]), labels, None))
        return found

    def predict(self, batch):
        found = self(batch["image"], batch["shape"], batch["scale"])
        return [Instances(*(part.numpy() for part in one[:3]), None) for one in found]


@pytest.mark.chain
def test_a_detector_of_another_kind_needs_no_edit_of_the_task(tmp_path, monkeypatch):
    """No masks, queries for proposals: train, evaluate, predict, export, measure."""
    monkeypatch.setitem(MODELS._items, "Corners", Corners)
    content = yaml.safe_load(Path(config_of(tmp_path).path).read_text())
    backbone = content["Arch"]["backbone"]
    content["Arch"] = {"name": "Corners", "class_num": 1, "backbone": backbone}
    path = tmp_path / "corners.yaml"
    path.write_text(yaml.safe_dump(content))
    assert train(load_config(path)) == 0
    trained, evaluated = read_figures(tmp_path / "output" / "Corners")
    assert trained["loss"] == pytest.approx(trained["corner"] + trained["score"], rel=1e-5)
    assert 0 <= trained["close"] <= 1 and "acc" not in trained
    assert 0 <= evaluated["box_map"] <= 1 and "mask_map" not in evaluated
    log = (tmp_path / "output" / "Corners" / "train.log").read_text()
    assert f"close {trained['close']:.4f} lr" in log

    weights = tmp_path / "output" / "Corners" / "latest"
    config = load_config(path, [f"Global.pretrained_model={weights}"])
    assert infer(config, tmp_path / "out", tmp_path / "out.json") == 0
    first = json.loads((tmp_path / "out.json").read_text())[0]
    assert [sorted(found) for found in first["objects"]] == [
        ["box", "class_id", "label_name", "score"]
    ] * len(first["objects"])
    exported = export(config, ExportRequest())
    assert set(exported.report.difference) == {"objects"} and exported.report.worst < 1e-4
    times = measure(build_model(config), size=(64, 96), original=(50, 70), runs=1)
    assert min(times["network"] + times["postprocessing"] + times["preprocessing"]) >= 0
