"""DINO in the programs: training on the nuclei tiles, evaluation of boxes alone, pictures,
exports.
"""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit import create_model
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.transforms.joint import opencv
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.export.target import export as export_layer
from ppcls_nextvit.models import export_form
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import evaluate, train
from ppcls_nextvit.tasks.base import ExportRequest
from ppcls_nextvit.tasks.common import build_model
from ppcls_nextvit.tasks.detection.benchmark import measure
from ppcls_nextvit.tasks.detection.export import ObjectTable, export, set_difference
from ppcls_nextvit.tasks.detection.predict import infer, model_inputs, transforms_of
from ppcls_nextvit.tasks.detection.task import DetectionTask
from ppcls_nextvit.tasks.joint import check_request
from test_detection_task import NUCLEI, config_of

pytestmark = pytest.mark.slow  # whole runs

SIZES = {
    "num_queries": 60,
    "channels": 32,
    "heads": 4,
    "points": 2,
    "hidden": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "dn_queries": 20,
    "max_detections": 30,
}
OF_MASK_RCNN = (
    "fpn_channels",
    "fc_channels",
    "mask_convs",
    "anchor_scales",
    "train_proposals",
    "test_proposals",
    "rpn_samples",
    "roi_samples",
)


@pytest.fixture(scope="module", autouse=True)
def extras():
    for package in ("pycocotools", "scipy"):
        pytest.importorskip(package, reason="the extra det")
    try:
        opencv()
    except ImportError as error:
        pytest.skip(str(error))


def dino_config(folder, *overrides):
    """As the quickstart of Mask R-CNN, two batches of two tiles."""
    return config_of(folder, *overrides, leave_out=OF_MASK_RCNN, name="DINO", **SIZES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(its folder, its configuration with the weights that it saved)."""
    folder = tmp_path_factory.mktemp("run")
    assert train(dino_config(folder, "Global.update_freq=2")) == 0
    weights = folder / "output" / "DINO" / "latest.pdparams"
    threshold = "Infer.PostProcess.score_threshold=0.001"
    return folder, dino_config(folder, f"Global.pretrained_model={weights}", threshold)


@pytest.fixture(scope="module")
def decided(run, tmp_path_factory):
    """Weights of another network of the kind: two steps of training leave scores nearly equal, so
    that roundings, which are a processor's and an engine's own, would choose the queries.
    """
    paddle.seed(0)
    arch = run[1].Arch
    model = create_model(arch.name, num_classes=arch.class_num, **arch.arguments)
    scatter_places(model)
    weights = tmp_path_factory.mktemp("decided") / "weights.pdparams"
    paddle.save(model.state_dict(), str(weights))
    return weights


def test_training_logs_every_loss_and_measures_boxes_alone(run):
    folder, _ = run
    figures = read_figures(folder / "output" / "DINO")
    (trained,), (evaluated,) = (
        [f for f in figures if f["kind"] == kind] for kind in ("train", "eval")
    )
    names = [
        f"{layer}{kind}_{loss}"
        for layer, kind in (
            ("", "loss"),
            ("d0.", "loss"),
            ("", "dn_loss"),
            ("d0.", "dn_loss"),
            ("", "enc_loss"),
        )
        for loss in ("cls", "bbox", "iou")
    ]
    parts = [trained[name] for name in names]
    assert trained["loss"] == pytest.approx(sum(parts), rel=1e-5) and min(parts) > 0
    assert 0 <= trained["acc"] <= 1 and trained["update"] == 1  # of two batches
    assert {"box_map", "box_map_50"} <= set(evaluated) and evaluated["images"] == 4
    assert not [name for name in evaluated if "mask" in name]
    for file in ("best_model.pdparams", "curves.png", "predictions.png"):
        assert (folder / "output" / "DINO" / file).exists()


def without_outlines(folder):
    """The nuclei's two json with boxes alone: (path to train with, path to evaluate on)."""
    paths = []
    for part in ("training", "validation"):
        content = json.loads((NUCLEI / f"instances_{part}.json").read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        paths.append(folder / f"{part}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def test_boxes_without_outlines(tmp_path):
    train_path, eval_path = without_outlines(tmp_path)
    given = [
        f"DataLoader.Train.dataset.annotation_path={train_path}",
        f"DataLoader.Eval.dataset.annotation_path={eval_path}",
        "Global.epochs=1",
    ]
    assert train(dino_config(tmp_path, *given)) == 0
    folder = tmp_path / "output" / "DINO"
    (evaluated,) = [f for f in read_figures(folder) if f["kind"] == "eval"]
    assert "box_map" in evaluated and (folder / "predictions.png").is_file()
    with pytest.raises(ConfigError, match="boxes without outlines .* MaskRCNN learns from"):
        train(config_of(tmp_path, *given))


def test_evaluation_of_saved_weights(run):
    folder, config = run
    (evaluated,) = [f for f in read_figures(folder / "output" / "DINO") if f["kind"] == "eval"]
    figures = evaluate(config)
    assert figures["box_map_50"] == evaluated["box_map_50"] and figures["images"] == 4


def test_prediction_writes_boxes_without_masks(run, tmp_path):
    _, config = run
    assert infer(config, tmp_path, str(tmp_path / "all.json")) == 0
    results = json.loads((tmp_path / "all.json").read_text())
    assert len(results) == 4
    for result in results:
        assert 0 < len(result["objects"]) <= SIZES["max_detections"]
        scores = [entry["score"] for entry in result["objects"]]
        assert scores == sorted(scores, reverse=True)
        for entry in result["objects"]:
            assert set(entry) == {"class_id", "label_name", "score", "box"}
            left, top, right, bottom = entry["box"]
            assert 0 <= left <= right <= 128 and 0 <= top <= bottom <= 128
    assert len(list(tmp_path.glob("*_objects.png"))) == 4


def test_an_image_with_too_few_tokens_is_named(run):
    """28 pixels leave a token to each of 10 queries, not of 60."""
    _, config = run
    model = build_model(config)
    assert model.min_size == 49
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ImageError, match="small.png: 32 x 32 pixels .* the model needs 49"):
        model_inputs(image, transforms_of(config), "small.png", model.min_size)


@pytest.mark.chain
@pytest.mark.parametrize(
    "to, size",
    [
        ("paddle", None),
        ("paddle", (160, 224)),
        ("onnx", None),
        pytest.param("onnx", (160, 224), marks=pytest.mark.long),
        pytest.param("openvino", None, marks=pytest.mark.long),
        ("openvino", (160, 224)),
        pytest.param("coreml", (160, 224), marks=pytest.mark.long),
    ],
)
def test_exported_files_find_the_same_objects(run, decided, tmp_path, to, size):
    """The best pairs of query and class are chosen by the file itself, at any size or one."""
    if to != "paddle":
        for package in ("paddle2onnx", "onnxruntime", "coremltools" if to == "coreml" else to):
            pytest.importorskip(package, reason="the extras onnx, openvino, coreml")
    folder, _ = run
    weights = f"Global.pretrained_model={decided}"
    config = dino_config(folder, weights, f"Global.save_inference_dir={tmp_path / to}")
    exported = export(config, ExportRequest(to, size=size))
    assert set(exported.report.difference) == {"objects"} and exported.report.worst < 1e-4
    model = build_model(config)
    model.eval()
    signature = Signature(
        {"image": (1, 3, *(size or (None, None))), "im_shape": (1, 2), "scale_factor": (1, 2)},
        ("objects",),
    )
    program = TARGETS[to].load(tmp_path / to, signature, "fp32")
    tile = Image.open(NUCLEI / "images" / "validation" / "3_1.png").convert("RGB")
    picture = np.asarray(tile.resize((200, 150)))
    made = model_inputs(picture, transforms_of(config), "another size", model.min_size)
    inputs = {
        "image": made["image"],
        "im_shape": made["shape"],
        "scale_factor": np.float32([[2.0, 0.5]]),
    }
    for _ in range(2):
        found = program(inputs)["objects"]
        with paddle.no_grad():
            (expected,) = ObjectTable(model)(*map(paddle.to_tensor, inputs.values()))
        assert found.shape == (SIZES["max_detections"], 6)
        assert set_difference(found, expected.numpy()) < 1e-3


@pytest.mark.long
@pytest.mark.parametrize(
    "to, size, position_bias",
    [
        ("onnx", (160, 224), {"position_bias": "interpolation", "table_size": 160}),
        ("openvino", None, {}),
    ],
)
def test_on_transnext_they_find_the_same_objects(tmp_path, to, size, position_bias):
    """At sizes that were not traced, padded and not."""
    for package in ("paddle2onnx", "onnxruntime", to):
        pytest.importorskip(package, reason="the extras onnx, openvino")
    backbone = {"name": "TransNeXt_micro", "depths": (1, 1, 1, 1), **position_bias}
    paddle.seed(0)
    model = create_model("DINO", num_classes=1, backbone=backbone, **SIZES)
    scatter_places(model)
    table = ObjectTable(model)
    sides = size or (None, None)
    signature = Signature(
        {"image": (1, 3, *sides), "im_shape": (1, 2), "scale_factor": (1, 2)}, ("objects",)
    )
    given = [inputs_of(image, size or image) for image in ((128, 160), (120, 200), (97, 131))]
    traced, *others = given
    export_layer(
        export_form(table),
        TARGETS[to],
        tmp_path / to,
        signature,
        [traced],
        {},
        reference=table,
        compare=set_difference,
    )
    program = TARGETS[to].load(tmp_path / to, signature, "fp32")
    for inputs in others:
        with paddle.no_grad():
            (expected,) = table(*map(paddle.to_tensor, inputs.values()))
        assert set_difference(program(inputs)["objects"], expected.numpy()) < 1e-3


def scatter_places(model):
    """Offsets that are no whole cells, and classes that differ: nothing is decided by rounding."""
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "branches" in name:
            values = rng.standard_normal(parameter.shape, np.float32)
            parameter.set_value(parameter.numpy() + 0.2 * values)


def inputs_of(size, padded):
    """A program's inputs for noise of `size`, padded."""
    image = np.zeros((1, 3, *padded), np.float32)
    noise = np.random.default_rng(size[0]).standard_normal((1, 3, *size), np.float32)
    image[:, :, : size[0], : size[1]] = noise
    scale = np.float32([[1.5, 0.5]])
    return {"image": image, "im_shape": np.float32([size]), "scale_factor": scale}


def test_where_it_cannot_go(run):
    _, config = run
    for to in ("lite", "lite-x86"):
        reason = r"Paddle \(3.3.1\) cannot write its square roots"
        with pytest.raises(ConfigError, match=f"DINO does not go to {to}: {reason}"):
            check_request(config, ExportRequest(to))
    with pytest.raises(ConfigError, match="DINO goes to coreml in fp32: half precision cannot"):
        export(config, ExportRequest("coreml", "fp16"))


def test_its_speed_is_measured(run):
    _, config = run
    model = build_model(config)
    figures = measure(model, (64, 96), (48, 60), runs=1)
    assert {"preprocessing", "network", "postprocessing"} <= set(figures)
    assert figures["postprocessing"][0] > 0
    assert measure(model, (64, 96), runs=1, train=True)["step"][0] > 0


def test_more_classes_than_the_data_have(tmp_path):
    with pytest.raises(ConfigError, match="1 categories, but the model has 3 classes"):
        train(dino_config(tmp_path, "Arch.class_num=3"))


def test_costs_that_are_not_finite_name_the_image(tmp_path):
    task = DetectionTask(dino_config(tmp_path), Processes())
    with paddle.no_grad():
        task.model.bbox_head.cls_branches[0].bias[0] = float("nan")
    batch = next(iter(task.train_loader.epoch(0)))
    file = task.train_loader.dataset.name(int(batch["index"][0]))
    with pytest.raises(FloatingPointError, match="the costs of matching .* not finite") as caught:
        task.losses(batch)
    assert str(caught.value).startswith(f"{file}: ") and file.endswith(".png")


def test_a_group_that_matches_nothing_stops_before_the_first_step(tmp_path):
    groups = "Optimizer.groups=[{match: '^backbon\\.', lr_multiplier: 0.1}]"
    with pytest.raises(ConfigError, match=r"Optimizer.groups.0.match: .* matches none of the"):
        train(dino_config(tmp_path, groups))
