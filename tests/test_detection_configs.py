"""The committed COCO recipes: in step with their table, loadable, and the published ones to the
last hyperparameter.
"""

import paddle
import pytest
import yaml

from ppcls_nextvit import create_model
from ppcls_nextvit.data.lists import read_class_names
from ppcls_nextvit.data.transforms.joint import opencv
from ppcls_nextvit.engine.parameter_groups import split_by_decay
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.tasks import load_config
from support.paths import ROOT
from support.programs import program_at

FILES = {
    path: text
    for path, text in program_at("scripts/make_configs.py").all_configs().items()
    if path.name.startswith("mask_rcnn_nextvit")
}
NORMALIZE = {"Normalize": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}}
BATCHES = 7330  # per epoch, in the official logs


def test_there_are_six_and_no_others():
    assert (
        set((ROOT / "configs" / "detection").glob("mask_rcnn_nextvit*.yaml")) == set(FILES)
        and len(FILES) == 6
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_are_what_the_tool_writes_and_load(path):
    opencv()
    assert path.read_text(encoding="utf-8") == FILES[path], "run scripts/make_configs.py"
    config, (variant, schedule) = load_config(path), path.stem.split("_")[3:5]
    arch, train, evaluation = config.Arch, config.DataLoader["Train"], config.DataLoader["Eval"]
    assert arch.arguments["backbone"] == {
        "name": f"NextViT_{variant}",
        "drop_path_rate": 0.1 if variant == "small" else 0.2,
        "frozen_stages": 1,
        "norm_eval": True,
    }
    with paddle.LazyGuard():
        written = create_model(arch.name, num_classes=arch.class_num, **arch.arguments)
        default = create_model(arch.name, backbone=arch.arguments["backbone"])
    assert {key: list(value.shape) for key, value in written.state_dict().items()} == {
        # what the goldens were made with
        key: list(value.shape)
        for key, value in default.state_dict().items()
    }
    for name in (
        "train_proposals",
        "test_proposals",
        "score_threshold",
        "nms_threshold",
        "max_detections",
    ):
        assert getattr(written, name) == getattr(default, name)
    assert (written.rpn_head.samples, written.roi_head.samples, written.rpn_head.nms_threshold) == (
        256,
        512,
        0.7,
    )
    assert not arch.use_sync_bn and "clip_global_norm" not in config.Optimizer
    assert (
        config.AMP.level,
        config.AMP.dtype,
        config.AMP.scale_loss,
        config.AMP.use_dynamic_loss_scaling,
    ) == ("O1", "float16", 512, False)
    assert (
        train["sampler"]["name"],
        train["sampler"]["batch_size"],
        evaluation["sampler"]["batch_size"],
    ) == ("AspectRatioSampler", 2, 1)
    assert [name for op in train["dataset"]["transform_ops"] for name in op] == (
        ["Resize", "RandomFlip", "Normalize", "Pad"]
        if schedule == "1x"
        else ["RandomFlip", "AutoAugment", "Normalize", "Pad"]
    )
    assert evaluation["dataset"]["transform_ops"] == config.Infer.transforms
    assert config.Infer.transforms == [
        {"Resize": {"scale": [1333, 800]}},
        NORMALIZE,
        {"Pad": {"size_divisor": 32}},
    ]
    assert train["dataset"]["transform_ops"][-2:] == config.Infer.transforms[-2:]
    assert {"RandomFlip": {"prob": 0.5}} in train["dataset"]["transform_ops"]
    if schedule == "1x":
        assert train["dataset"]["transform_ops"][0] == config.Infer.transforms[0]
    assert [config.Optimizer[key] for key in ("name", "beta1", "beta2", "weight_decay")] == [
        "AdamW",
        0.9,
        0.999,
        0.05,
    ]
    assert config.Optimizer["no_weight_decay_name"] == ("bn norm" if schedule == "1x" else "norm")

    epochs = {"1x": 12, "3x": 36}[schedule]
    rate = build_schedule(config.Optimizer["lr"], config.Global.epochs, BATCHES).lr
    first, second = {12: (8, 11), 36: (27, 33)}[epochs]
    # as the log prints
    assert config.Global.epochs == epochs and rate(49) == pytest.approx(9.8e-6, rel=1e-3)
    assert [
        rate(epoch * BATCHES) for epoch in (1, first - 1, first, second, epochs - 1)
    ] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6, 1e-6])


def test_the_long_recipe_draws_one_of_two_policies():
    path = next(path for path in FILES if "3x" in path.stem)
    augment = yaml.safe_load(FILES[path])["DataLoader"]["Train"]["dataset"]["transform_ops"][1][
        "AutoAugment"
    ]["policies"]
    (plain,), (small, crop, last) = augment
    sizes = [[1333, side] for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]
    assert plain["Resize"] == last["Resize"] == {"scale": sizes, "multiscale_mode": "value"}
    assert small["Resize"]["scale"] == [[1333, 400], [1333, 500], [1333, 600]]
    assert crop["RandomCrop"] == {"size": [384, 600], "crop_type": "absolute_range"}


@pytest.mark.parametrize("schedule", ["1x", "3x"])
def test_norms_are_not_decayed_and_biases_are(schedule):
    config = load_config(next(path for path in FILES if f"small_{schedule}" in path.stem))
    with paddle.LazyGuard():
        model = create_model("MaskRCNN", num_classes=80, **config.Arch.arguments)
    decayed, spared = split_by_decay(model, config.Optimizer["no_weight_decay_name"])
    assert (
        spared
        and all("norm" in name for name in spared)
        and not any("norm" in name for name in decayed)
    )
    assert "roi_head.bbox_head.fc_cls.bias" in decayed and "neck.fpn_convs.0.conv.bias" in decayed
    # frozen
    assert not any(name.startswith("backbone.stem.") for name in (*decayed, *spared))


def test_coco_has_80_names():
    names = read_class_names(ROOT / "configs" / "detection" / "coco_labels.txt", 80)
    assert [names[i] for i in (0, 1, 2, 14, 15, 56, 79)] == [
        "person",
        "bicycle",
        "car",
        "bird",
        "cat",
        "chair",
        "toothbrush",
    ]
    assert len(set(names)) == 80
