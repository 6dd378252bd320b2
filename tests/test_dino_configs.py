"""DINO's committed COCO recipes: in step with their table, loadable, and TransNeXt's to the last
hyperparameter.
"""

import hashlib
import json

import paddle
import pytest

from ppcls_nextvit import create_model, zoo
from ppcls_nextvit.data.transforms.joint import JointPipeline, opencv
from ppcls_nextvit.engine.parameter_groups import parameter_settings
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.tasks import load_config
from support.paths import GOLDEN, ROOT
from support.programs import program_at

FILES = {
    path: text
    for path, text in program_at("scripts/make_configs.py").all_configs().items()
    if path.name.startswith("dino_")
}
# of the published models: drop path, parameters
PUBLISHED = {
    "dino_4scale_transnext_tiny": (0.3, 47_825_396),
    "dino_5scale_transnext_tiny": (0.3, 48_140_660),
    "dino_5scale_transnext_small": (0.5, 69_623_264),
    "dino_5scale_transnext_base": (0.6, 109_945_724),
}
NORMALIZE = {"Normalize": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}}
SCALES = [[1333, side] for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]


def config_of(name):
    opencv()
    return load_config(ROOT / "configs" / "detection" / f"{name}_12e_coco.yaml")


def model_of(config):
    with paddle.LazyGuard():
        return create_model(
            config.Arch.name, num_classes=config.Arch.class_num, **config.Arch.arguments
        )


def test_there_are_five_and_no_others():
    assert set((ROOT / "configs" / "detection").glob("dino_*.yaml")) == set(FILES)
    assert {path.stem.removesuffix("_12e_coco") for path in FILES} == {
        *PUBLISHED,
        "dino_4scale_nextvit_small",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_are_what_the_tool_writes_and_load(path):
    assert path.read_text(encoding="utf-8") == FILES[path], "run scripts/make_configs.py"
    config = config_of(path.stem.removesuffix("_12e_coco"))
    levels = int(path.stem[5])
    model = model_of(config)
    assert (model.num_queries, model.level_embed.shape) == (900, [levels, 256])
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (6, 6)
    assert (model.bbox_head.num_classes, model.bbox_head.max_detections) == (80, 300)
    assert model.dn_query_generator.queries == 100

    train, evaluation = config.DataLoader["Train"], config.DataLoader["Eval"]
    assert (train["sampler"]["batch_size"], config.Global.update_freq) == (1, 2)
    assert evaluation["sampler"]["batch_size"] == 1 and not train["sampler"]["drop_last"]
    assert train["dataset"]["filter_empty"] is False
    assert evaluation["dataset"]["transform_ops"] == config.Infer.transforms
    assert config.Infer.transforms == [{"Resize": {"scale": [1333, 800]}}, NORMALIZE]
    flip, augment, normalize = train["dataset"]["transform_ops"]
    assert (flip, normalize) == ({"RandomFlip": {"prob": 0.5}}, NORMALIZE)
    (plain,), (small, crop, last) = augment["AutoAugment"]["policies"]
    assert plain == last == {"Resize": {"scale": SCALES, "multiscale_mode": "value"}}
    assert small["Resize"]["scale"] == [[4200, 400], [4200, 500], [4200, 600]]
    assert crop == {"RandomCrop": {"size": [384, 600], "crop_type": "absolute_range"}}
    assert JointPipeline(train["dataset"]["transform_ops"])

    optimizer = config.Optimizer
    settings = ("name", "beta1", "beta2", "weight_decay", "clip_global_norm")
    assert [optimizer[key] for key in settings] == ["AdamW", 0.9, 0.999, 0.05, 0.1]
    rate = build_schedule(optimizer["lr"], config.Global.epochs, 7330).lr
    assert [rate(step) for step in (0, 1, 11 * 7330 - 1, 11 * 7330, 12 * 7330 - 1)] == (
        pytest.approx([1e-4, 1e-4, 1e-4, 1e-5, 1e-5])
    )
    assert config.Global.epochs == 12 and config.AMP is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_backbones_and_parameters_are_the_published_ones(name):
    config, (drop_path, parameters) = config_of(name), PUBLISHED[name]
    assert config.Arch.arguments["backbone"] == {
        "name": f"TransNeXt_{name.split('_')[-1]}",
        "drop_path_rate": drop_path,
        "pretrain_size": 224,
        "position_bias": "interpolation",
        "table_size": 800,
    }
    assert sum(p.size for p in model_of(config).parameters()) == parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_record_is_evaluated_as_the_recipe(name):
    config, (_, levels, _, variant) = config_of(name), name.split("_")
    record = zoo.get(f"transnext_{variant}.dino_{levels}_12e.official")
    resize, normalize = record.transforms
    assert (resize, *normalize) == (config.Infer.transforms[0], "Normalize")
    arch = config.Arch.arguments
    assert record.arguments["num_levels"] == arch["num_levels"] and record.model == "DINO"
    trained = {key: value for key, value in arch["backbone"].items() if key != "drop_path_rate"}
    assert record.arguments["backbone"] == trained


@pytest.mark.parametrize("name", PUBLISHED)
def test_groups_are_the_references(name):
    """Which parameters are slowed and which decay, name by name: see the goldens' page."""
    config = config_of(name)
    optimizer = config.Optimizer
    settings = parameter_settings(
        model_of(config), None, optimizer["one_dim_param_no_weight_decay"], optimizer["groups"]
    )
    found = {}
    for setting in settings:
        decay = 1.0 if setting.weight_decay is None else setting.weight_decay
        found.setdefault((setting.lr_multiplier, decay), []).append(setting.name)
    expected = json.loads((GOLDEN / "transnext_optimizer_groups.json").read_text())[name]
    assert len(settings) == expected["tensors"] and len(found) == len(expected["groups"])
    for group in expected["groups"]:
        names = sorted(found[group["lr_mult"], group["decay_mult"]])
        digest = hashlib.sha1("\n".join(names).encode()).hexdigest()
        assert (len(names), digest) == (group["tensors"], group["names_sha1"])


def test_on_nextvit_the_whole_backbone_is_slowed_and_keeps_its_statistics():
    config = config_of("dino_4scale_nextvit_small")
    model = model_of(config)
    optimizer = config.Optimizer
    settings = parameter_settings(model, None, True, optimizer["groups"])
    for setting in settings:
        slowed = setting.name.startswith("backbone.")
        assert setting.lr_multiplier == (0.1 if slowed else 1.0)
        assert setting.weight_decay == (0.0 if setting.parameter.ndim == 1 else None)
    assert config.Arch.arguments["backbone"]["norm_eval"] is True
