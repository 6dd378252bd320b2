"""The committed recipe files: in step with their table, loadable, and the official recipe."""

import pytest

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
    if path.name.startswith("NextViT_")
}


def test_there_are_twelve_and_no_others():
    assert set((ROOT / "configs").glob("NextViT_*.yaml")) == set(FILES) and len(FILES) == 12


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


def test_check_mode_reports_a_stale_file_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_configs, "CONFIGS", tmp_path)
    assert make_configs.main(["--check"]) == 1
    named = capsys.readouterr().err
    for name in (
        "NextViT_small_224.yaml",
        "mask_rcnn_nextvit_base_3x_coco.yaml",
        "upernet_160k_nextvit_base_ade20k.yaml",
    ):
        assert name in named
    assert not list(tmp_path.iterdir())
    assert make_configs.main([]) == 0 and make_configs.main(["--check"]) == 0
