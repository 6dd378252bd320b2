"""TransNeXt's detectors and segmentors: the published recipes to the last hyperparameter;
evaluation by windows and at several scales as the reference's.
"""

import hashlib
import json
import re

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model, zoo
from ppcls_nextvit.engine.parameter_groups import parameter_settings
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.models.complexity import count_parameters
from ppcls_nextvit.models.segmentors import inference
from ppcls_nextvit.models.segmentors.inference import Inference, view_logits
from ppcls_nextvit.tasks import load_config
from scripts import seeded
from support.goldens import assert_loads, max_difference, paddle_state_dict
from support.paths import GOLDEN, ROOT
from support.programs import program_at

pytest.importorskip("cv2", reason="needs the extra `cv2`")

VARIANTS = ("tiny", "small", "base")
DROP_PATH = {"tiny": 0.4, "small": 0.6, "base": 0.7}
PARAMETERS_M = {  # as the repository's tables round them
    "detection": {"tiny": 47.86, "small": 69.35, "base": 109.23},
    "segmentation": {"tiny": 58.52, "small": 80.00, "base": 121.37},
}
NAMES = {
    "detection": "mask_rcnn_transnext_{}_1x_coco",
    "segmentation": "upernet_160k_transnext_{}_ade20k",
}
PUBLISHED = json.loads((GOLDEN / "transnext_optimizer_groups.json").read_text())
HEADS = {"detection": "mask_rcnn", "segmentation": "upernet"}
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
RECIPES = pytest.mark.parametrize(
    "task, variant", [(task, variant) for task in NAMES for variant in VARIANTS]
)


def recipe(task, variant, overrides=()):
    path = ROOT / "configs" / task / f"{NAMES[task].format(variant)}.yaml"
    return path, load_config(path, overrides)


def built(config, **arguments):
    """The recipe's model, without values."""
    with paddle.LazyGuard():
        return create_model(
            config.Arch.name,
            num_classes=config.Arch.class_num,
            **{**config.Arch.arguments, **arguments},
        )


# ---------------------------------------------------------------- the recipes


def test_there_are_six_and_they_are_what_the_tool_writes():
    written = {
        path: text
        for path, text in program_at("scripts/make_configs.py").all_configs().items()
        if re.match(r"(mask_rcnn|upernet_160k)_transnext", path.name)
    }
    assert set(written) == {recipe(task, variant)[0] for task in NAMES for variant in VARIANTS}
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, "run scripts/make_configs.py"


@RECIPES
def test_backbones_are_the_published_ones(task, variant):
    config = recipe(task, variant)[1]
    assert config.Arch.arguments["backbone"] == {
        "name": f"TransNeXt_{variant}",
        "drop_path_rate": DROP_PATH[variant],
        "pretrain_size": 224,
        "position_bias": "interpolation",
        "table_size": {"detection": 800, "segmentation": 512}[task],
    }
    model = built(config)
    expected = PUBLISHED[f"{HEADS[task]}_transnext_{variant}"]["parameters"]
    assert count_parameters(model) == expected
    assert round(expected / 1e6, 2) == PARAMETERS_M[task][variant]


@RECIPES
def test_optimiser_groups_are_the_references(task, variant):
    config = recipe(task, variant)[1]
    published = PUBLISHED[f"{HEADS[task]}_transnext_{variant}"]
    assert config.Optimizer["name"] == "AdamW"
    assert config.Optimizer["weight_decay"] == published["weight_decay"] == 0.05
    assert float(config.Optimizer["lr"]["learning_rate"]) == published["lr"]
    assert "clip_global_norm" not in config.Optimizer
    settings = parameter_settings(built(config), config.Optimizer["no_weight_decay_name"])
    found = []
    for spared in (True, False):
        chosen = [one for one in settings if (one.weight_decay == 0.0) == spared]
        names = "\n".join(sorted(one.name for one in chosen))
        found.append(
            {
                "lr_mult": 1.0,
                "decay_mult": 0.0 if spared else 1.0,
                "tensors": len(chosen),
                "elements": sum(one.parameter.size for one in chosen),
                "names_sha1": hashlib.sha1(names.encode()).hexdigest(),
            }
        )
    assert found == published["groups"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_detectors_train_and_are_evaluated_as_published(variant):
    config = recipe("detection", variant)[1]
    rate = build_schedule(config.Optimizer["lr"], config.Global.epochs, 7330).lr
    assert config.Global.epochs == 12
    # of 500 steps, from a thousandth
    assert [rate(0), rate(250), rate(500)] == pytest.approx([1e-7, 5.005e-5, 1e-4], rel=1e-3)
    assert [rate(epoch * 7330) for epoch in (7, 8, 11)] == pytest.approx([1e-4, 1e-5, 1e-6])
    # mixed precision in one of the three
    assert (config.AMP is not None) == (variant == "base")
    if config.AMP is not None:
        assert (config.AMP.scale_loss, config.AMP.use_dynamic_loss_scaling) == (512, False)
    model = built(config)
    default = built(config, backbone=config.Arch.arguments["backbone"])
    for name in ("train_proposals", "test_proposals", "score_threshold", "max_detections"):
        assert getattr(model, name) == getattr(default, name)
    train = config.DataLoader["Train"]
    assert train["sampler"]["batch_size"] == 2
    assert train["dataset"]["transform_ops"][0] == {"Resize": {"scale": [1333, 800]}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_segmentors_train_as_published(variant):
    config = recipe("segmentation", variant)[1]
    steps = config.DataLoader["Train"]["sampler"]["iterations"]
    rate = build_schedule(config.Optimizer["lr"], config.Global.epochs, steps).lr
    assert (config.Global.epochs * steps, config.AMP) == (160_000, None)
    assert [rate(1500), rate(160_000)] == pytest.approx([6e-5 * (1 - 1500 / 160_000), 0.0])
    assert config.Loss["Train"] == [{"CrossEntropyLoss": {"weight": 1.0, "auxiliary_weight": 0.4}}]


def header_overrides(path):
    """({position bias: its -o}, the -o of several scales) of a segmentor's header."""
    text = path.read_text(encoding="utf-8")
    shared = re.findall(r"-o (\S+)", text.split("Multi-scale and flip:")[1].splitlines()[0])
    lines = [line for line in text.splitlines() if line.startswith("#   ") and " -o " in line]
    own = [re.findall(r"-o (\S+)", line) for line in lines]
    return dict(zip(("interpolation", "extrapolation"), own, strict=True)), shared


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_evaluations_are_chosen_by_overrides(variant):
    path, config = recipe("segmentation", variant)
    one = Inference.from_yaml(config.Arch.arguments["inference"])
    assert one == Inference(mode="slide", crop_size=(512, 512), stride=(341, 341))
    own, shared = header_overrides(path)
    for position_bias, expected in (("interpolation", 800), ("extrapolation", None)):
        config = recipe("segmentation", variant, [*shared, *own[position_bias]])[1]
        asked = Inference.from_yaml(config.Arch.arguments["inference"])
        assert (asked.mode, asked.flip) == ("whole", True)
        assert asked.ratios == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
        model = built(config)
        assert model.backbone.table_size == expected
        # what depends on the size is not saved: the same weights fit all three
        assert set(model.state_dict()) == set(
            built(recipe("segmentation", variant)[1]).state_dict()
        )


@RECIPES
def test_the_records_say_how_the_weights_were_trained(task, variant):
    config = recipe(task, variant)[1]
    suffix = {"detection": "mask_rcnn_1x", "segmentation": "upernet_160k_in1k"}[task]
    record = zoo.get(f"transnext_{variant}.{suffix}.official")
    own = {
        key: value
        for key, value in config.Arch.arguments["backbone"].items()
        if key not in ("name", "drop_path_rate")
    }
    assert record.backbone_arguments == own
    header = recipe(task, variant)[0].read_text(encoding="utf-8").partition("Global:")[0]
    assert all(str(figure) in header for figure in record.published.values())


# ---------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def segmentor():
    manifest = json.loads((GOLDEN / "upernet_transnext_tiny_manifest.json").read_text())
    model = create_model("UPerNet", num_classes=150, backbone={"name": "TransNeXt_tiny"})
    assert_loads(model, paddle_state_dict(model, seeded.state_dict(manifest)))
    model.eval()
    return model


def assert_equals(array, golden, name):
    sample = golden[f"{name}.sample"]
    assert list(array.shape) == golden[f"{name}.shape"].tolist()
    assert max_difference(seeded.sample(array, len(sample)), sample) < 1e-4 * np.abs(sample).max()


@pytest.mark.slow
def test_windows_equal_the_reference(segmentor, monkeypatch):
    golden = np.load(GOLDEN / "upernet_transnext_tiny_slide_96x128_img64_seed0.npz")
    crop, stride = (2 * (int(golden[name]),) for name in ("crop", "stride"))
    windows = Inference(mode="slide", crop_size=crop, stride=stride)
    monkeypatch.setattr(segmentor.backbone, "table_size", 64)
    monkeypatch.setattr(segmentor, "inference", windows)
    image = paddle.to_tensor(seeded.image((1, 3, 96, 128)))
    with paddle.no_grad():
        logits = segmentor.predict({"image": image}).numpy()
    assert_equals(logits, golden, "logits")
    best = seeded.sample(logits.argmax(axis=1), 2048)
    np.testing.assert_array_equal(best, golden["argmax_sample"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "position_bias, table_size", [("interpolation", 96), ("extrapolation", None)]
)
def test_several_scales_equal_the_reference(segmentor, monkeypatch, position_bias, table_size):
    name = "upernet_transnext_tiny_ms_90x120_img96_{}_seed0.npz"
    golden = np.load(GOLDEN / name.format(position_bias))
    images = np.load(GOLDEN / name.format("interpolation"))
    asked = Inference(ratios=tuple(golden["ratios"].tolist()), flip=True)
    monkeypatch.setattr(segmentor.backbone, "table_size", table_size)
    views = []
    for index in range(len(asked.ratios)):
        image = (images[f"resized_rgb{index}"].astype(np.float32) - MEAN) / STD
        batch = paddle.to_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
        views.append((batch, [image.shape[:2]]))
    seen = []

    def kept(*arguments):
        seen.append(view_logits(*arguments))
        return seen[-1]

    monkeypatch.setattr(inference, "view_logits", kept)
    size = (90, 120)
    with paddle.no_grad():
        (labels,) = inference.segment(segmentor, views, [size], asked)
    total = 0.0
    for index, logits in enumerate(seen):
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
        logits = logits.flip(-1) if index % 2 else logits
        assert_equals(logits.numpy(), golden, f"logits{index}")
        total = total + F.softmax(logits, axis=0)
    assert len(seen) == 6
    mean = (total / len(seen)).numpy()
    assert_equals(mean, golden, "probabilities")
    # the best two of a pixel may tie
    first, second = np.sort(mean, axis=0)[[-1, -2]]
    clear = first - second > 1e-5
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(labels.numpy()[clear], golden["argmax"][clear])
