"""The committed recipe files: in step with their table, loadable, and the official recipe."""

import pytest

from ppcls_nextvit import create_model, zoo
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.engine.parameter_groups import split_by_decay
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.classification.losses import build_loss
from ppcls_nextvit.tasks.classification.metrics import build_metric
from support.paths import ROOT
from support.programs import program_at

make_configs = program_at("scripts/make_configs.py")
FILES = {
    path: text
    for path, text in make_configs.all_configs().items()
    if path.parent == ROOT / "configs"
}


def test_there_are_nineteen_and_no_others():
    assert set((ROOT / "configs").glob("*.yaml")) == set(FILES) and len(FILES) == 19


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_are_what_the_tool_writes_and_load(path):
    assert path.read_text(encoding="utf-8") == FILES[path], "run scripts/make_configs.py"
    config = load_config(path)
    assert path.stem.startswith(config.Arch.name)
    size = int(config.Arch.name.rsplit("_", 1)[1])
    assert config.Global.image_shape == (3, size, size)
    (
        build_loss(config.Loss["Train"]),
        build_loss(config.Loss["Eval"]),
        build_metric(config.Metric["Eval"]),
    )
    assert build_schedule(config.Optimizer["lr"], config.Global.epochs, 625).lr(625 * 20) > 0


def test_the_224_recipe_scales_its_learning_rate_with_the_batch_it_states():
    config = load_config(ROOT / "configs" / "NextViT_small_224.yaml")
    schedule = build_schedule(config.Optimizer["lr"], config.Global.epochs, 625)
    assert schedule.peak == 5e-4 * 8 * config.DataLoader["Train"]["sampler"]["batch_size"] / 512
    assert schedule.lr(625 * 21) == pytest.approx(1.978e-3, rel=5e-4)
    assert config.Optimizer["clip_global_norm"] == 5.0 and "clip_norm" not in config.Optimizer


@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_the_384_recipe_is_the_constant_fine_tune(variant):
    config = load_config(ROOT / "configs" / f"NextViT_{variant}_384.yaml")
    schedule = build_schedule(config.Optimizer["lr"], config.Global.epochs, 1251)
    batch = 8 * config.DataLoader["Train"]["sampler"]["batch_size"]
    assert [schedule.lr(0), schedule.lr(1251 * 29)] == pytest.approx([5e-6 * batch / 512] * 2)
    assert config.Global.epochs == 30 and config.Global.pretrained_model.endswith(
        f"NextViT_{variant}_224/best_model"
    )


TRANSNEXT_DROP_PATH = {
    "micro_224": 0.15,
    "tiny_224": 0.25,
    "small_224": 0.45,
    "base_224": 0.6,
    "micro_AAAA_256": 0.15,
    "small_384": 0.7,
    "base_384": 0.8,
}


@pytest.mark.parametrize("name", TRANSNEXT_DROP_PATH)
def test_the_recipes_of_transnext_are_the_official_ones(name):
    config = load_config(ROOT / "configs" / f"TransNeXt_{name}.yaml")
    finetune = name.endswith("_384")
    train = config.DataLoader["Train"]
    assert (train["sampler"]["name"], train["sampler"]["batch_size"]) == ("RASampler", 128)
    mixup = train["dataset"]["batch_transform_ops"][0]["TimmMixup"]
    assert (mixup["mixup_alpha"], mixup["cutmix_alpha"]) == (0.8, 0.0 if finetune else 1.0)
    assert config.Optimizer["weight_decay"] == 0.05
    assert config.Optimizer["clip_global_norm"] == 1.0
    assert config.Arch.arguments == {
        "drop_path_rate": TRANSNEXT_DROP_PATH[name],
        "pretrain_size": 256 if "AAAA" in name else 224,
    }
    schedule = build_schedule(config.Optimizer["lr"], config.Global.epochs, 1251)
    rates = [schedule.lr(1251 * epoch) for epoch in range(config.Global.epochs)]
    if finetune:
        assert rates == [1e-5] * 5
    else:
        assert len(rates) == 300 and rates[:2] == [1e-6, 1e-6]
        assert max(rates) == pytest.approx(1e-3, rel=1e-3) and rates[-1] < 1.1e-5


@pytest.mark.parametrize("name", TRANSNEXT_DROP_PATH)
def test_transnext_is_evaluated_as_its_record_says(name):
    config = load_config(ROOT / "configs" / f"TransNeXt_{name}.yaml")
    variant, size = name.rsplit("_", 1)
    record = zoo.get(f"transnext_{variant}.in1k_{size}.official")
    assert Preprocess(config.DataLoader["Eval"]["dataset"]["transform_ops"]).describe() == (
        Preprocess(record.preprocess.transform_ops()).describe()
    )
    assert dict(record.arguments).items() <= config.Arch.arguments.items()


def test_the_model_itself_spares_parameters_from_decay():
    config = load_config(ROOT / "configs" / "TransNeXt_micro_224.yaml")
    model = create_model(config.Arch.name, depths=(1, 1, 1, 1))
    options = {
        key: config.Optimizer[key]
        for key in ("no_weight_decay_name", "one_dim_param_no_weight_decay")
    }
    decayed, spared = split_by_decay(model, **options)
    shaped = {name for name, parameter in spared.items() if parameter.ndim > 1}
    assert shaped == {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1
        and any(
            word in name
            for word in ("query_embedding", "relative_pos_bias_local", "cpb", "temperature")
        )
    }
    assert all(parameter.ndim > 1 for parameter in decayed.values())
    assert any(name.endswith("learnable_bias") for name in decayed)


def test_check_mode_reports_a_stale_file_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_configs, "CONFIGS", tmp_path)
    assert make_configs.main(["--check"]) == 1
    named = capsys.readouterr().err
    for name in (
        "NextViT_small_224.yaml",
        "TransNeXt_small_384.yaml",
        "mask_rcnn_nextvit_base_3x_coco.yaml",
        "upernet_160k_nextvit_base_ade20k.yaml",
    ):
        assert name in named
    assert not list(tmp_path.iterdir())
    assert make_configs.main([]) == 0 and make_configs.main(["--check"]) == 0
