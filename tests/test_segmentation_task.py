"""Training, evaluation, prediction and export of segmentors on the nuclei tiles: small networks,
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
from PIL import Image

from ppcls_nextvit import create_model
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.engine.distributed import Processes, SyncBatchNorm2D, synchronise_batch_norms
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.engine.parameter_groups import split_by_decay
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.models.segmentors.encoder_decoder import SemanticFPN
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import evaluate, load_config, train
from ppcls_nextvit.tasks.base import ExportRequest
from ppcls_nextvit.tasks.pictures import palette
from ppcls_nextvit.tasks.segmentation.benchmark import measure
from ppcls_nextvit.tasks.segmentation.export import LabelMap, difference, export, export_segmentor
from ppcls_nextvit.tasks.segmentation.metrics import MeanIoU
from ppcls_nextvit.tasks.segmentation.pictures import class_areas, draw_labels, overlay
from ppcls_nextvit.tasks.segmentation.predict import infer, predict_image
from ppcls_nextvit.tasks.segmentation.task import SegmentationTask
from ppcls_nextvit.tasks.segmentation.views import Views
from ppcls_nextvit.weights.rules import LoadError
from support.paths import ROOT
from support.tiny_run import launch

pytest.importorskip("cv2", reason="needs the extra `cv2`")

pytestmark = pytest.mark.slow  # whole runs

QUICKSTART = ROOT / "configs" / "quickstart" / "nuclei_semfpn.yaml"
TINY = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}


def config_of(tmp_path, *overrides, dataset=None):
    """The quickstart's configuration, made small: one epoch of 2 batches of 2 crops of 64 pixels, a
    narrow head.
    """
    content = yaml.safe_load(QUICKSTART.read_text())
    content["Global"].update(
        epochs=1,
        output_dir=str(tmp_path / "output"),
        save_inference_dir=str(tmp_path / "inference"),
    )
    content["Arch"].update(fpn_channels=32, channels=16)
    root = str(dataset or ROOT / "dataset" / "nuclei")
    for mode in ("Train", "Eval"):
        content["DataLoader"][mode]["dataset"]["dataset_root"] = root
    content["DataLoader"]["Train"]["sampler"].update(batch_size=2, iterations=2)
    for transform in content["DataLoader"]["Train"]["dataset"]["transform_ops"]:
        for name in {"RandomCrop", "Pad"} & transform.keys():
            transform[name] = {"size": [64, 64]}
    content["Infer"].update(
        infer_imgs=str(ROOT / "dataset/nuclei/images/validation"),
        PostProcess={"class_id_map_file": str(ROOT / "dataset/nuclei/labels.txt")},
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path, overrides)


def folder_of(tmp_path, sizes):
    """A set in ADE20K's layout of random images (height, width) with labels 0, 1 and 255; what is
    to be learnt is not in it.
    """
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / "set" / kind / split).mkdir(parents=True)
        for i, size in enumerate(sizes):
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(
                tmp_path / f"set/images/{split}/{i}.png"
            )
            Image.fromarray(rng.choice(np.uint8([0, 1, 255]), size)).save(
                tmp_path / f"set/annotations/{split}/{i}.png"
            )
    return tmp_path / "set"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, output directory) of a run of two steps."""
    tmp_path = tmp_path_factory.mktemp("trained")
    config = config_of(tmp_path)
    assert train(config) == 0
    return config, config.output_dir


def test_a_run_logs_losses_pixel_accuracy_and_every_class(trained):
    config, where = trained
    last, evaluation = (
        [line for line in read_figures(where) if line["kind"] == "train"][-1],
        read_figures(where)[-1],
    )
    assert last["update"] == 2 and last["loss"] > 0 and 0 <= last["aAcc"] <= 1
    assert evaluation["images"] == 4 and set(evaluation["class_iou"]) == {"background", "nucleus"}
    known = [value for value in evaluation["class_iou"].values() if value is not None]
    assert evaluation["mIoU"] == pytest.approx(np.mean(known))
    curves = np.asarray(Image.open(where / "curves.png").convert("RGB"))
    assert curves.shape[:2] == (360, 1350) and len(np.unique(curves.reshape(-1, 3), axis=0)) > 100
    result = evaluate(load_config(config.path, [f"Global.pretrained_model={where / 'best_model'}"]))
    assert result["mIoU"] == evaluation["mIoU"] and result["class_iou"] == evaluation["class_iou"]


def test_a_run_s_sheet_shows_images_truths_and_predictions(trained):
    config, where = trained
    weights = f"Global.pretrained_model={where / 'latest'}"
    task = SegmentationTask(load_config(config.path, [weights]), Processes(), training=False)
    sheet = np.asarray(Image.open(where / "predictions.png"))
    side = 2 * 128  # grown, and under all a legend
    assert sheet.shape == (18 + 4 * (side + 4) + 18 + 4, 3 * (side + 4) - 4, 3)
    for row, (index, found) in enumerate(task.predictions()):
        dataset, top = task.eval_loader.dataset, 18 + (side + 4) * row
        image = dataset.image(index)
        truth, prediction = (
            overlay(image, labels, task.class_names) for labels in (dataset.label(index), found)
        )
        assert (truth != image).any()
        for column, picture in enumerate((image, truth, prediction)):
            left = (side + 4) * column
            shown = sheet[top : top + side, left : left + side]
            np.testing.assert_array_equal(shown, picture.repeat(2, 0).repeat(2, 1))


class Matched(SemanticFPN):
    """A segmentor with losses, and a count, of its own."""

    brings_losses, shown = True, ("matched",)

    def losses(self, batch):
        logits = self.decode_head(self.neck(self.backbone(batch["image"])))
        parts = {"masks": logits.square().mean(), "classes": logits.abs().mean()}
        return parts, {"matched": (1, len(batch["image"]))}


def test_a_segmentor_with_losses_of_its_own_needs_no_edit_of_the_task(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS._items, "Matched", Matched)
    path = Path(config_of(tmp_path).path)
    content = yaml.safe_load(path.read_text())
    content["Arch"]["name"] = "Matched"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="Loss: Matched brings its own losses; leave the section"):
        load_config(path)
    del content["Loss"]
    path.write_text(yaml.safe_dump(content))
    config = load_config(path)
    assert train(config) == 0
    trained, evaluated = read_figures(config.output_dir)
    assert trained["loss"] == pytest.approx(trained["masks"] + trained["classes"], rel=1e-5)
    assert trained["matched"] == 0.5 and "aAcc" not in trained and 0 <= evaluated["mIoU"] <= 1
    assert "matched 0.5000 lr" in (config.output_dir / "train.log").read_text()


def balance(model, height, width):
    """Random scores that give each of two classes half of a random image's pixels; an untrained
    head finds one class everywhere.
    """
    paddle.seed(1)
    model.eval()
    head = model.decode_head.conv_seg
    head.weight.set_value(paddle.randn(head.weight.shape))
    with paddle.no_grad():
        logits = model(paddle.randn([1, 3, height, width]))
        head.bias.set_value(
            paddle.stack([-(logits[:, 0] - logits[:, 1]).median(), paddle.zeros([])])
        )


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("Arch.inference={mode: slide, crop_size: [48, 48], stride: [32, 32]}",),
        ("Arch.inference={ratios: [0.75, 1.25], flip: True}",),
    ],
    ids=["whole", "slide", "multi-scale"],
)
def test_images_of_any_size_are_scored_at_their_own(tmp_path, overrides):
    """evaluate() equals one image after the other through predict_image and the metric."""
    config = config_of(
        tmp_path,
        "DataLoader.Eval.dataset.transform_ops=[{Resize: {scale: [96, 64]}}, {Normalize: {}}]",
        "DataLoader.Eval.sampler.batch_size=1",
        *overrides,
        dataset=folder_of(tmp_path, [(40, 70), (64, 64), (91, 50)]),
    )
    task = SegmentationTask(config, Processes())
    dataset, metric = task.eval_loader.dataset, MeanIoU(2)
    balance(task.model, 64, 64)
    result = task.evaluate()
    views = Views(
        config.DataLoader["Eval"]["dataset"]["transform_ops"], task.model.inference, "here"
    )
    for i in range(3):
        labels = predict_image(task.model, dataset.image(i), views, dataset.name(i))
        assert labels.shape == dataset.label(i).shape and len(np.unique(labels)) == 2
        metric.update(labels, dataset.label(i))
    expected = metric.result(metric.counts())
    assert result["images"] == 3
    assert {key: result[key] for key in ("mIoU", "mAcc", "aAcc")} == {
        key: expected[key] for key in ("mIoU", "mAcc", "aAcc")
    }


def test_an_image_too_small_to_evaluate_is_named(tmp_path):
    config = config_of(
        tmp_path,
        "DataLoader.Eval.dataset.transform_ops=[{Normalize: {}}]",
        "DataLoader.Eval.sampler.batch_size=1",
        dataset=folder_of(tmp_path, [(64, 64), (16, 90)]),
    )
    with pytest.raises(
        ImageError, match=r"1\.png: 16 x 90 pixels when transformed; the model needs 32 or more"
    ):
        SegmentationTask(config, Processes()).evaluate()


def test_pretrained_weights_fill_the_backbone_to_train_from_and_no_more(tmp_path):
    paddle.seed(5)
    classifier = create_model("NextViT_small", num_classes=7, depths=(1, 1, 5, 1))
    paddle.save(classifier.state_dict(), str(tmp_path / "classifier.pdparams"))
    config = config_of(tmp_path, f"Arch.pretrained={tmp_path / 'classifier'}")
    backbone = SegmentationTask(config, Processes()).model.backbone.state_dict()
    for key in ("stem.0.conv.weight", "features.7.e_mhsa.q.weight"):
        assert np.array_equal(backbone[key].numpy(), classifier.state_dict()[key].numpy())
    for use in (evaluate, lambda config: infer(config, tmp_path / "out")):
        with pytest.raises(ConfigError, match="no weights"):
            use(config)


def test_predictions_leave_gradients_on_between_images(tmp_path):
    task = SegmentationTask(config_of(tmp_path), Processes())
    first, second = task.predictions(), task.predictions()
    for generator in (first, second):
        next(generator)
        assert paddle.is_grad_enabled()
    first.close(), second.close()
    assert paddle.is_grad_enabled()


def test_evaluation_by_pixel_accuracy_alone(tmp_path):
    task = SegmentationTask(config_of(tmp_path, "Metric.Eval=[{PixelAccuracy: {}}]"), Processes())
    assert task.best_metric == "aAcc"
    result = task.evaluate()
    assert list(result) == ["aAcc", "images"] and result["images"] == 4 and 0 < result["aAcc"] < 1


def test_names_that_do_not_fit_are_an_error_before_the_work(tmp_path):
    config = config_of(
        tmp_path,
        f"Infer.PostProcess.class_id_map_file={ROOT / 'dataset/nuclei/instance_labels.txt'}",
    )
    with pytest.raises(ValueError, match="has 1 classes, the model 2"):
        SegmentationTask(config, Processes())


def test_scales_need_a_resize(tmp_path):
    with pytest.raises(
        ConfigError, match="DataLoader.Eval.dataset.transform_ops: .* there is no Resize"
    ):
        SegmentationTask(config_of(tmp_path, "Arch.inference={ratios: [0.5]}"), Processes())


def test_a_label_of_another_size_than_its_image_is_named(tmp_path):
    folder = folder_of(tmp_path, [(64, 64)])
    Image.new("L", (60, 64)).save(folder / "annotations/validation/0.png")
    task = SegmentationTask(config_of(tmp_path, dataset=folder), Processes())
    with pytest.raises(
        ImageError, match=r"validation/0\.png: 64 x 64 pixels, but its labels are 60 x 64"
    ):
        task.evaluate()


@pytest.mark.chain
def test_a_few_steps_find_more_nuclei_than_an_untrained_head(tmp_path):
    """The quickstart with half of its steps and smaller crops: 0.81 to 0.84 for six seeds, where
    50 steps gave 0.09 to 0.70. Calling everything a nucleus would score 0.22.
    """
    config = config_of(
        tmp_path,
        "Arch.fpn_channels=128",
        "Arch.channels=64",
        "Global.epochs=1",
        "DataLoader.Train.sampler={name: IterationSampler, batch_size: 6, iterations: 100}",
    )
    paddle.seed(config.Global.seed)
    untrained = SegmentationTask(config, Processes()).evaluate()["class_iou"]["nucleus"]
    assert train(config) == 0
    assert read_figures(config.output_dir)[-1]["class_iou"]["nucleus"] > 0.7 > 2 * untrained


@pytest.mark.chain
def test_two_processes_train_like_one_with_the_doubled_batch(tmp_path):
    """Heads and backbone with synchronised BatchNorm, dropout aside; SGD, whose steps are linear in
    the gradients.
    """
    shared = (
        "Arch.use_sync_bn=True",
        "Arch.dropout=0.0",
        "Arch.backbone.drop_path_rate=0.0",
        "Global.print_batch_step=1",
        "Optimizer={name: Momentum, lr: {learning_rate: 0.01}}",
    )
    figures, weights = [], []
    for processes, batch in ((1, 4), (2, 2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        path = config_of(folder).path
        where = launch(
            Path(path), processes, *shared, f"DataLoader.Train.sampler.batch_size={batch}"
        )
        figures.append([line for line in read_figures(where) if line["kind"] == "train"])
        weights.append(load_checkpoint(where / "latest")[".pdparams"])
    for one, two in zip(*figures, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4) and two["aAcc"] == pytest.approx(
            one["aAcc"], abs=1e-3
        )
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key], value, atol=2e-5, rtol=2e-3, err_msg=key)


@pytest.mark.chain
def test_two_processes_evaluate_every_image_once(trained, tmp_path):
    config, where = trained
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
        f"Global.pretrained_model={where / 'best_model'}",
        "-o",
        "DataLoader.Eval.sampler.batch_size=3",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    line = next(
        line
        for line in (tmp_path / "workerlog.0").read_text().splitlines()
        if line.startswith('{"mIoU"')
    )
    alone = evaluate(load_config(config.path, [f"Global.pretrained_model={where / 'best_model'}"]))
    assert json.loads(line) == alone


def test_heads_take_part_in_synchronised_batch_norm():
    model = create_model(
        "UPerNet", num_classes=3, backbone=TINY, channels=16, auxiliary_channels=16
    )
    synchronise_batch_norms(model, "cpu")
    for layer in (
        model.decode_head.bottleneck.bn,
        model.auxiliary_head.convs[0].bn,
        model.backbone.norm,
    ):
        assert type(layer) is SyncBatchNorm2D


def test_the_upernet_recipe_spares_norms_and_nothing_else():
    config = load_config(ROOT / "configs/segmentation/upernet_160k_nextvit_small_ade20k.yaml")
    model = create_model(
        "UPerNet", num_classes=3, backbone=TINY, channels=16, auxiliary_channels=16
    )
    decayed, spared = split_by_decay(model, config.Optimizer["no_weight_decay_name"])
    # the last: extra_norm_list
    assert {name.rsplit(".", 2)[-2] for name in spared} == {
        "bn",
        "norm",
        "norm1",
        "norm2",
        "0",
        "1",
        "2",
    }
    assert {"decode_head.conv_seg.bias", "backbone.features.0.mlp.conv1.bias"} <= set(decayed)
    assert not any("norm" in name or "bn" in name for name in decayed)
    fpn = load_config(ROOT / "configs/segmentation/semfpn_80k_nextvit_small_ade20k.yaml").Optimizer
    assert "no_weight_decay_name" not in fpn and fpn["weight_decay"] == "1e-4"


def test_infer_draws_writes_labels_and_goes_on_after_a_bad_image(trained, tmp_path):
    _, where = trained
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (
        ("wide.png", (40, 90)),
        ("wide.jpg", (64, 64)),
        ("b.png", (33, 32)),
        ("strip.png", (32, 700)),
    ):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "small.png")
    config = config_of(
        tmp_path,
        f"Global.pretrained_model={where / 'best_model'}",
        f"Infer.infer_imgs={tmp_path / 'in'}",
    )
    assert infer(config, tmp_path / "out", tmp_path / "out.json") == 1
    results = {
        result["file_name"].rsplit("/")[-1]: result
        for result in json.loads((tmp_path / "out.json").read_text())
    }
    assert (
        "broken.png" in results["broken.png"]["error"]
        and "needs 32 or more" in results["small.png"]["error"]
    )
    labels = Image.open(tmp_path / "out" / "wide.png_labels.png")
    assert labels.mode == "P" and labels.size == (90, 40)
    overlaid = np.asarray(Image.open(tmp_path / "out" / "wide.png_overlay.png"))
    picture = np.asarray(Image.open(tmp_path / "in" / "wide.png"))
    names = ["background", "nucleus"]
    assert np.array_equal(overlaid[:40, :90], overlay(picture, np.asarray(labels), names))
    assert overlaid.shape[1] > 90 + 8, "the legend is beside it"
    areas = results["wide.png"]["classes"]
    assert (
        areas == class_areas(np.array(labels), ["background", "nucleus"])
        and sum(area["pixels"] for area in areas) == 40 * 90
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{stem}_{kind}.png"
        for stem in ("wide.png", "wide.jpg", "b", "strip")
        for kind in ("overlay", "labels")
    }


def test_weights_of_another_head_are_refused(tmp_path):
    other = create_model(
        "UPerNet", num_classes=2, backbone=TINY, channels=16, auxiliary_channels=16
    )
    paddle.save(other.state_dict(), str(tmp_path / "upernet.pdparams"))
    with pytest.raises(LoadError, match="The file is UPerNet, the model Semantic FPN"):
        infer(
            config_of(tmp_path, f"Global.pretrained_model={tmp_path / 'upernet'}"), tmp_path / "out"
        )


def test_prediction_needs_weights_and_images(tmp_path):
    with pytest.raises(ConfigError, match="untrained model predicts noise"):
        infer(config_of(tmp_path), tmp_path / "out")
    with pytest.raises(ConfigError, match="no images"):
        infer(config_of(tmp_path, "Infer.infer_imgs=None"), tmp_path / "out")


def test_colours_are_mixed_and_listed_by_area():
    names, image = ["background", "cat", "dog"], np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), int)
    labels[:10], labels[10], labels[39] = 2, 1, 255
    mixed = overlay(image, labels, names)
    # background and what is not labelled stay
    assert (mixed[20] == 100).all() and (mixed[39] == 100).all()
    assert mixed[0, 0].tolist() == np.round(0.45 * 100 + 0.55 * palette(3)[2]).astype(int).tolist()
    areas = [(area["label_name"], area["pixels"]) for area in class_areas(labels, names)]
    assert areas == [("background", 1680), ("dog", 600), ("cat", 60)]
    sheet = np.array(draw_labels(image, labels, names))
    assert np.array_equal(sheet[:40, :60], mixed)
    assert (
        sheet[9, 60 + 8 + 6].tolist() == palette(3)[2].tolist()
        and sheet[18 + 9, 60 + 8 + 6].tolist() == palette(3)[1].tolist()
    )


def test_a_palette_tells_150_classes_apart():
    colours = palette(150).astype(int)
    gaps = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 999 * np.eye(150, dtype=int)
    assert gaps.min() > 0 and np.array_equal(palette(5), palette(150)[:5])
    assert np.abs(np.diff(colours[:20], axis=0)).sum(axis=1).min() > 60  # neighbours differ most


def random_segmentor(name, **widths):
    """A small segmentor with statistics and scores that are not all the same."""
    paddle.seed(0)
    model = create_model(name, num_classes=4, backbone=TINY, **widths)
    for layer in model.sublayers():
        if hasattr(layer, "_variance"):
            layer._variance.set_value(paddle.rand(layer._variance.shape) + 0.5)
            layer._mean.set_value(0.1 * paddle.randn(layer._mean.shape))
    model.decode_head.conv_seg.weight.set_value(
        paddle.randn(model.decode_head.conv_seg.weight.shape)
    )
    model.eval()
    return model


@pytest.mark.chain
@pytest.mark.parametrize("to", ["paddle", "onnx", "openvino"])
@pytest.mark.parametrize(
    "name, widths",
    [
        ("SemanticFPN", {"fpn_channels": 32, "channels": 16}),
        ("UPerNet", {"channels": 16, "auxiliary_channels": 16}),
    ],
)
def test_exported_files_equal_the_model_at_any_size(tmp_path, name, widths, to):
    converter = ("paddle2onnx", "onnxslim")
    needed = {"onnx": (*converter, "onnxruntime"), "openvino": (*converter, "openvino")}
    for package in needed.get(to, ()):
        pytest.importorskip(package, reason=f"needs the extra `{to}`")
    model = random_segmentor(name, **widths)
    exported = export_segmentor(model, TARGETS[to], tmp_path / "out", {}, image_size=(64, 96))
    assert (
        len({tuple(shape) for shape in exported.report.shapes}) == 3
        and exported.report.difference["logits"] < 1e-5
    )
    image = paddle.randn([2, 3, 50, 77])
    with paddle.no_grad():
        labels, logits = LabelMap(model)(image)
        assert (
            np.array_equal(labels.numpy(), model(image).argmax(axis=1).numpy())
            and len(np.unique(labels.numpy())) > 1
        )
    description = json.loads((tmp_path / "out" / "export.json").read_text())
    assert description["Export"]["outputs"] == ["labels", "logits"] and description["Model"][
        "input"
    ]["shape"] == [None, 3, None, None]


def test_export_from_a_configuration_describes_its_preprocessing(trained, tmp_path):
    _, where = trained
    config = config_of(
        tmp_path,
        f"Global.pretrained_model={where / 'best_model'}",
        "Global.image_shape=[3, 64, 64]",
    )
    photo = ROOT / "dataset/nuclei/images/validation/3_0.png"
    exported = export(config, ExportRequest(photos=photo))
    description = json.loads((tmp_path / "inference" / "export.json").read_text())
    assert description["PreProcess"]["transform_ops"] == [{"Normalize": None}]
    assert (
        description["PostProcess"]["label_list"] == ["background", "nucleus"]
        and description["Weights"]["file"] == "best_model.pdparams"
    )
    # random ones and the photo, at three sizes
    assert len(exported.report.shapes) == 6


@pytest.mark.parametrize(
    "train, names",
    [
        (False, {"preprocessing", "network", "postprocessing", "peak_memory_mb"}),
        (True, {"step", "peak_memory_mb"}),
    ],
)
def test_the_benchmark_times_every_part(train, names):
    measured = measure(
        random_segmentor("SemanticFPN", fpn_channels=32, channels=16),
        size=(64, 64),
        original=(70, 80),
        runs=2,
        train=train,
    )
    assert set(measured) == names and measured.pop("peak_memory_mb") > 0
    assert all(len(times) == 2 and min(times) > 0 for times in measured.values())


def test_labels_and_scores_are_each_compared_in_their_way():
    assert difference(np.array([[[1, 2], [0, 0]]]), np.array([[[1, 1], [0, 0]]])) == 0.25
    assert difference(np.ones((1, 2, 1, 1)), np.full((1, 2, 1, 1), 2.0)) == 0.5


@pytest.mark.parametrize(
    "override, message",
    [
        ("Arch.inference={mode: sliding}", "Arch.inference.mode"),
        (
            "Arch.inference={mode: slide, crop_size: [64, 31], stride: [16, 16]}",
            "Arch.inference.crop_size: the model needs 32 pixels or more, got",
        ),
        ("Arch.backbone.depth=3", "Did you mean 'depths'"),
        ("Loss.Train=[{CELoss: {}}]", "unknown segmentation loss 'CELoss'"),
        ("Metric.Eval=[{TopkAcc: {}}]", "unknown segmentation metric"),
        ("Infer.transforms=[{Normalise: {}}]", "Did you mean 'Normalize'"),
        (
            "Infer.transforms=[{RandomFlip: {prob: 1.0}}]",
            "Infer.transforms: evaluation and prediction leave nothing to chance",
        ),
        ("Infer.PostProcess.topk=3", "Infer.PostProcess.topk: unknown key"),
    ],
)
def test_bad_configurations_are_refused_by_name(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(QUICKSTART, [override])
