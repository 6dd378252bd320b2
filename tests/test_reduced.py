"""Detectors and segmentors in lower precision, beside float32: the report, and what evaluation asks
of an exported program.
"""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model
from ppcls_nextvit.export.opened import Opened
from ppcls_nextvit.export.verify import TOLERANCES, Signature
from ppcls_nextvit.models.segmentors.inference import segment
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.base import QuantizeRequest
from ppcls_nextvit.tasks.detection.exported import ExportedDetector
from ppcls_nextvit.tasks.inputs import InputImage
from ppcls_nextvit.tasks.reduced import _table, calibration_images
from ppcls_nextvit.tasks.segmentation.exported import ExportedSegmentor, exported_predictor
from support.paths import ROOT
from support.programs import program_at

TINY = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}
QUICKSTART = ROOT / "configs" / "quickstart"


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_evaluation_asks_the_program_in_the_segmentor_s_place(mode):
    paddle.seed(0)
    inference = {"mode": mode, "crop_size": [64, 64], "stride": [32, 32]}
    model = create_model(
        "SemanticFPN", num_classes=3, backbone=TINY, fpn_channels=8, channels=8, inference=inference
    )
    model.eval()

    def program(batch):
        return {"logits": model.decode(paddle.to_tensor(batch["x"])).numpy()}

    image = paddle.randn([1, 3, 64, 96])
    with paddle.no_grad():
        labels = [
            segment(asked, [(image, [(60, 90)])], [(30, 45)], model.inference)[0].numpy()
            for asked in (model, ExportedSegmentor(program, 3, model.min_size, model.inference))
        ]
    assert np.array_equal(*labels) and labels[0].shape == (30, 45)


def test_evaluation_asks_the_program_for_each_image_of_a_batch():
    given = []

    def program(batch):
        given.append({name: array.tolist() for name, array in batch.items() if name != "image"})
        corner = float(batch["im_shape"][0, 0])
        return {"objects": np.float32([[1, 0.5, 0, 0, corner, corner]])}

    model = create_model("DINO", num_classes=2, backbone=TINY, **DINO)
    batch = {
        "image": paddle.zeros([2, 3, 64, 64]),
        "shape": paddle.to_tensor([[50, 60], [64, 32]]),
        "scale": paddle.ones([2, 2]),
        "original": paddle.to_tensor([[50, 60], [64, 32]]),
    }
    found = ExportedDetector(program, model.min_size).predict(batch)
    assert [one.boxes[0, 3] for one in found] == [50, 64] and found[0].masks is None
    assert [one["im_shape"] for one in given] == [[[50, 60]], [[64, 32]]]
    assert found[0].labels.tolist() == [1] and found[0].scores.tolist() == [0.5]


DINO = {
    "num_queries": 4,
    "max_detections": 4,
    "channels": 32,
    "heads": 4,
    "points": 2,
    "hidden": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
}


def test_calibration_images_are_those_of_training_as_prediction_sees_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(QUICKSTART / "nuclei_mask_rcnn.yaml")
    images = calibration_images(config, QuantizeRequest(images=3))
    assert [(x.shape, x.dtype) for x in images] == [((3, 128, 128), np.dtype("float32"))] * 3
    folder = str(ROOT / "dataset/nuclei/images/validation")
    held_out = calibration_images(config, QuantizeRequest(calibration=folder, images=9))
    assert len(held_out) == 4 and not any(np.array_equal(images[0], x) for x in held_out)
    assert -3 < held_out[0].min() < held_out[0].max() < 3, "normalised"
    with pytest.raises(ValueError, match="must be 1 or more; got 0"):
        calibration_images(config, QuantizeRequest(images=0))


def test_the_table_has_what_both_have_and_the_difference():
    report = {
        "images": 4,
        "latency_ratio": 0.5,
        "fp32": {"bytes": 20e6, "latency_ms": 10.0, "box_map": 0.5},
        "bf16": {"bytes": 10e6, "latency_ms": 5.0, "box_map": 0.25},
    }
    assert _table(report, "bf16", ("box_map", "mask_map")).splitlines() == [
        "| | box_map % | MB | ms, 1 image |",
        "|---|---|---|---|",
        "| fp32 | 50.00 | 20.0 | 10.00 |",
        "| bf16 | 25.00 | 10.0 | 5.00 |",
        "| bf16 to fp32 | -25.00 | x 0.50 | x 0.50 |",
        "",
        "on 4 images",
    ]


SMALL_FPN = "{name: SemanticFPN, class_num: 2, fpn_channels: 16, channels: 16, backbone: %s}"
SMALL_RCNN = (
    "{name: MaskRCNN, class_num: 1, fpn_channels: 16, fc_channels: 32, mask_convs: 1, "
    "max_detections: 10, score_threshold: 0.0, test_proposals: [20, 20], backbone: %s}"
)
EXTRAS = ("nncf", "openvino", "paddle2onnx", "onnxruntime")


def reduced(folder, recipe, arch, model, *arguments):
    """What quantize.py wrote of `model`'s weights: (accuracy.json, export.json)."""
    paddle.save(model.state_dict(), f"{folder}/weights.pdparams")
    backbone = "{name: NextViT_small, depths: [1, 1, 5, 1], extra_norms: True}"
    given = [
        *("-c", str(QUICKSTART / recipe), "-o", f"Global.pretrained_model={folder}/weights"),
        *("-o", f"Global.save_inference_dir={folder}/out", "-o", f"Arch={arch % backbone}"),
        *arguments,
    ]
    assert program_at("tools/quantize.py").main(given) == 0
    names = ("accuracy.json", "export.json")
    return [json.loads((folder / "out" / name).read_text()) for name in names]


@pytest.mark.chain
@pytest.mark.parametrize("precision, to", [("bf16", "paddle"), ("int8", "openvino")])
def test_a_segmentor_is_reduced_and_compared(tmp_path, monkeypatch, capsys, precision, to):
    for package in {"paddle": (), "openvino": EXTRAS}[to]:
        pytest.importorskip(package, reason="needs the extras `openvino` and `int8`")
    monkeypatch.chdir(ROOT)
    paddle.seed(0)
    model = create_model(
        "SemanticFPN", num_classes=2, backbone=TINY, fpn_channels=16, channels=16, dropout=0.0
    )
    asked = ("--to", to, "--precision", precision, "--images", "4")
    report, described = reduced(tmp_path, "nuclei_semfpn.yaml", SMALL_FPN, model, *asked)
    assert report["images"] == 4 and report["calibrated_on"] == (4 if precision == "int8" else 0)
    assert abs(report[precision]["mIoU"] - report["fp32"]["mIoU"]) < 0.2
    assert described["Export"]["precision"] == precision
    if precision == "int8":
        assert report["int8"]["bytes"] < 0.5 * report["fp32"]["bytes"]
    assert f"| {precision} to fp32 |" in capsys.readouterr().out


@pytest.mark.long
def test_a_detector_is_reduced_up_to_its_neck(tmp_path, monkeypatch, capsys):
    for package in EXTRAS:
        pytest.importorskip(package, reason="needs the extras `openvino` and `int8`")
    monkeypatch.chdir(ROOT)
    # of random weights, whose scores tie, other boxes are found: the files alone are looked at
    monkeypatch.setitem(TOLERANCES, "int8", 1.0)
    paddle.seed(0)
    small = {"fpn_channels": 16, "fc_channels": 32, "mask_convs": 1}
    model = create_model("MaskRCNN", num_classes=1, backbone=TINY, **small)
    asked = ("--to", "openvino", "--images", "3")
    report, described = reduced(tmp_path, "nuclei_mask_rcnn.yaml", SMALL_RCNN, model, *asked)
    assert report["images"] == 4 and report["calibrated_on"] == 3
    assert report["int8"]["bytes"] < 0.4 * report["fp32"]["bytes"]
    assert 0 <= report["int8"]["box_map"] <= 1 and described["Export"]["precision"] == "int8"
    assert described["Export"]["outputs"] == ["objects", "masks"]
    assert "| int8 to fp32 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "precision, resized, answers",
    [("fp32", False, "labels"), ("fp32", True, "logits"), ("int8", False, "logits")],
)
def test_a_segmentor_s_labels_are_the_program_s_where_they_are_exact(precision, resized, answers):
    """Here its labels say 1 and its scores 0."""
    transforms = [{"Resize": {"scale": [64, 64]}}] if resized else []
    description = {
        "Export": {"precision": precision, "outputs": ["labels", "logits"]},
        "PreProcess": {
            "transform_ops": [*transforms, {"Normalize": {}}, {"Pad": {"size": [64, 64]}}]
        },
        "PostProcess": {"label_list": ["a", "b"]},
        "Model": {"class_num": 2, "input": {"min_size": 32}},
    }
    logits = np.zeros((1, 2, 16, 16), np.float32)
    logits[:, 0] = 1
    told = {"labels": np.ones((1, 64, 64), np.int32), "logits": logits}
    signature = Signature({"x": (None, 3, None, None)}, ("labels", "logits"))
    opened = Opened(Path("folder"), description, signature, lambda batch: told)
    image = InputImage("one", content=np.zeros((40, 50, 3), np.uint8))
    (result,) = exported_predictor(opened).predict([image])
    assert result.labels.shape == (40, 50) and result.labels.dtype == np.int64
    assert np.unique(result.labels).tolist() == [int(answers == "labels")]


def test_the_benchmark_of_exports_tells_the_parts_apart():
    benchmark = program_at("benchmarks/exports.py")
    watched = benchmark.Watched(lambda batch: {"y": batch["x"] + 1})
    assert watched({"x": 1}) == {"y": 2} and 0 < watched.began <= watched.ended
    row = {"preprocessing": 1, "network": 6, "postprocessing": 1, "image": 8}
    figures = {
        "a/onnx": {**row, "first_answer": 2, "peak_memory_mb": 300},
        "a/int8": {**row, "image": 4, "first_answer": 1, "peak_memory_mb": 100},
    }
    assert benchmark.table(figures).splitlines()[2:] == [
        "| onnx | 1.0 | 6.0 | 1.0 | 8.0 | 2.0 | 300 | 1.00 | 12 % |",
        "| int8 | 1.0 | 6.0 | 1.0 | 4.0 | 1.0 | 100 | 0.50 | 25 % |",
    ]


@pytest.mark.chain
def test_the_benchmark_of_exports_names_a_folder_that_is_none(tmp_path):
    benchmark = program_at("benchmarks/exports.py")
    with pytest.raises(SystemExit, match="cannot be measured: .*export.json"):
        benchmark.main(["--models", str(tmp_path), "--images", str(tmp_path), "--rounds", "1"])
