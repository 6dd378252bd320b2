"""The committed ADE20K recipes: in step with their table, loadable, and the published ones to the
last hyperparameter.
"""

import re

import pytest

from ppcls_nextvit.data.lists import read_class_names
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.models.segmentors.inference import Inference
from ppcls_nextvit.tasks import load_config
from support.paths import ROOT
from support.programs import program_at

pytest.importorskip("cv2", reason="needs the extra `cv2`")

FILES = {
    path: text
    for path, text in program_at("scripts/make_configs.py").all_configs().items()
    if path.parent.name == "segmentation" and "nextvit" in path.name
}
NORMALIZE = {"Normalize": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}}


def test_there_are_six_and_no_others():
    assert (
        set((ROOT / "configs" / "segmentation").glob("*nextvit*.yaml")) == set(FILES)
        and len(FILES) == 6
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_are_what_the_tool_writes_and_load(path):
    assert path.read_text(encoding="utf-8") == FILES[path], "run scripts/make_configs.py"
    config = load_config(path)
    train, evaluation = config.DataLoader["Train"], config.DataLoader["Eval"]
    assert train["dataset"]["transform_ops"] == [
        {"Resize": {"scale": [2048, 512], "ratio_range": [0.5, 2.0]}},
        {"RandomCrop": {"size": [512, 512], "cat_max_ratio": 0.75}},
        {"RandomFlip": {"prob": 0.5}},
        {"PhotoMetricDistortion": None},
        NORMALIZE,
        {"Pad": {"size": [512, 512]}},
    ]
    assert config.Infer.transforms == [{"Resize": {"scale": [2048, 512]}}, NORMALIZE]
    assert train["dataset"]["reduce_zero_label"] and evaluation["dataset"]["reduce_zero_label"]
    assert [config.Optimizer[key] for key in ("name", "beta1", "beta2")] == ["AdamW", 0.9, 0.999]
    assert (
        float(config.Optimizer["weight_decay"]),
        config.Optimizer.get("no_weight_decay_name"),
    ) == ((1e-4, None) if path.stem.startswith("semfpn") else (0.01, "bn norm"))
    assert (
        evaluation["dataset"]["transform_ops"] == config.Infer.transforms
        and evaluation["sampler"]["batch_size"] == 1
    )
    assert config.Arch.arguments["backbone"] == {
        "name": f"NextViT_{path.stem.split('_')[3]}",
        "extra_norms": True,
        "drop_path_rate": 0.2,
    }
    assert (
        config.Arch.use_sync_bn
        and config.AMP is None
        and "clip_global_norm" not in config.Optimizer
    )
    steps = train["sampler"]["iterations"]
    schedule = build_schedule(config.Optimizer["lr"], config.Global.epochs, steps)
    if path.stem.startswith("semfpn_80k"):
        assert (config.Global.epochs * steps, 8 * train["sampler"]["batch_size"]) == (40_000, 32)
        assert [schedule.lr(0), schedule.lr(40_000)] == pytest.approx([1e-4, 1e-6])
    else:
        assert (config.Global.epochs * steps, 8 * train["sampler"]["batch_size"]) == (160_000, 16)
        assert [schedule.lr(1500), schedule.lr(160_000)] == pytest.approx(
            [6e-5 * (1 - 1500 / 160_000), 0.0]
        )
        assert config.Loss["Train"] == [
            {"CrossEntropyLoss": {"weight": 1.0, "auxiliary_weight": 0.4}}
        ]


def test_the_multi_scale_evaluation_is_as_the_headers_say():
    path = next(iter(FILES))
    overrides = [
        part.removeprefix("-o ")
        for part in re.findall(
            r"-o \S+", FILES[path].split("Multi-scale and flip:")[1].splitlines()[0]
        )
    ]
    inference = Inference.from_yaml(load_config(path, overrides).Arch.arguments["inference"])
    assert inference == Inference(mode="whole", ratios=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)


def test_ade20k_has_150_names():
    names = read_class_names(ROOT / "configs" / "segmentation" / "ade20k_labels.txt", 150)
    assert [names[i] for i in (0, 1, 2, 12, 20, 149)] == [
        "wall",
        "building",
        "sky",
        "person",
        "car",
        "flag",
    ] and len(set(names)) == 150
