"""Mask2Former on TransNeXt as published: the recipes to the last hyperparameter, the groups of the
optimiser, the zoo's records, and evaluation as the records say.
"""

import hashlib
import json

import paddle
import pytest

from ppcls_nextvit import create_model, zoo
from ppcls_nextvit.engine.parameter_groups import parameter_settings
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.models.complexity import count_parameters
from ppcls_nextvit.models.segmentors.inference import Inference
from ppcls_nextvit.reproduce import dense
from ppcls_nextvit.reproduce.datasets import PUBLISHED_DATASETS
from ppcls_nextvit.tasks import load_config
from support.paths import GOLDEN, ROOT
from support.programs import program_at

pytest.importorskip("cv2", reason="needs the extra `cv2`")

DROP_PATH = {"tiny": 0.3, "small": 0.5, "base": 0.6}
PUBLISHED = json.loads((GOLDEN / "transnext_optimizer_groups.json").read_text())
NORMALIZE = {"Normalize": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}}
variants = pytest.mark.parametrize("variant", DROP_PATH)


def path_of(variant):
    name = f"mask2former_160k_transnext_{variant}_ade20k.yaml"
    return ROOT / "configs" / "segmentation" / name


def built(config):
    """The recipe's model, without values."""
    with paddle.LazyGuard():
        return create_model(
            config.Arch.name, num_classes=config.Arch.class_num, **config.Arch.arguments
        )


def test_there_are_three_and_they_are_what_the_tool_writes():
    written = {
        path: text
        for path, text in program_at("scripts/make_configs.py").all_configs().items()
        if path.name.startswith("mask2former")
    }
    assert set(written) == {path_of(variant) for variant in DROP_PATH}
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, "run scripts/make_configs.py"


@variants
def test_the_model_is_the_published_one(variant):
    config = load_config(path_of(variant))
    assert config.Arch.arguments["backbone"] == {
        "name": f"TransNeXt_{variant}",
        "drop_path_rate": DROP_PATH[variant],
        "pretrain_size": 224,
        "position_bias": "interpolation",
        "table_size": 512,
    }
    model = built(config)
    expected = PUBLISHED[f"mask2former_transnext_{variant}"]["parameters"]
    assert count_parameters(model) == expected
    losses = model.point_losses
    assert (losses.num_points, losses.oversampled, losses.important) == (12544, 37632, 9408)
    assert config.Loss == {} and config.AMP is None
    assert Inference.from_yaml(config.Arch.arguments["inference"]) == Inference(mode="whole")


@variants
def test_optimiser_groups_are_the_references(variant):
    config = load_config(path_of(variant))
    published = PUBLISHED[f"mask2former_transnext_{variant}"]
    optimizer = config.Optimizer
    assert [optimizer[key] for key in ("name", "beta1", "beta2")] == ["AdamW", 0.9, 0.999]
    assert float(optimizer["epsilon"]) == 1e-8 and optimizer["clip_global_norm"] == 0.01
    assert optimizer["weight_decay"] == published["weight_decay"] == 0.05
    assert float(optimizer["lr"]["learning_rate"]) == published["lr"]
    keys = ("no_weight_decay_name", "one_dim_param_no_weight_decay", "groups")
    settings = parameter_settings(built(config), **{key: optimizer[key] for key in keys})
    found = []
    for rate in (0.1, 1.0):
        for decay in (0.0, None):
            chosen = [s for s in settings if (s.lr_multiplier, s.weight_decay) == (rate, decay)]
            names = "\n".join(sorted(one.name for one in chosen))
            found.append(
                {
                    "lr_mult": rate,
                    "decay_mult": 1.0 if decay is None else 0.0,
                    "tensors": len(chosen),
                    "elements": sum(one.parameter.size for one in chosen),
                    "names_sha1": hashlib.sha1(names.encode()).hexdigest(),
                }
            )
    assert found == published["groups"]


@variants
def test_schedule_and_data_are_the_published_ones(variant):
    config = load_config(path_of(variant))
    train, evaluation = config.DataLoader["Train"], config.DataLoader["Eval"]
    steps = train["sampler"]["iterations"]
    assert (config.Global.epochs * steps, train["sampler"]["batch_size"]) == (160_000, 2)
    # validated every 5000
    assert (steps, config.Global.eval_interval) == (5000, 1)
    rate = build_schedule(config.Optimizer["lr"], config.Global.epochs, steps).lr
    assert [rate(0), rate(80_000), rate(160_000)] == pytest.approx([1e-4, 1e-4 * 0.5**0.9, 0])
    resize, *others = train["dataset"]["transform_ops"]
    sides = [256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024]
    assert resize == {
        "Resize": {"scale": [[2048, side] for side in sides], "multiscale_mode": "value"}
    }
    assert others == [
        {"RandomCrop": {"size": [512, 512], "cat_max_ratio": 0.75}},
        {"RandomFlip": {"prob": 0.5}},
        {"PhotoMetricDistortion": None},
        NORMALIZE,
        {"Pad": {"size": [512, 512]}},
    ]
    whole = [{"Resize": {"scale": [2048, 512]}}, NORMALIZE, {"Pad": {"size_divisor": 32}}]
    assert evaluation["dataset"]["transform_ops"] == config.Infer.transforms == whole
    assert train["dataset"]["reduce_zero_label"] and evaluation["dataset"]["reduce_zero_label"]


@variants
def test_the_record_is_evaluated_as_the_recipe(variant):
    config = load_config(path_of(variant))
    record = zoo.get(f"transnext_{variant}.mask2former_160k_in1k.official")
    backbone = config.Arch.arguments["backbone"]
    assert record.backbone_arguments == {
        key: value for key, value in backbone.items() if key not in ("name", "drop_path_rate")
    }
    header = path_of(variant).read_text(encoding="utf-8").partition("Global:")[0]
    assert all(str(figure) in header for figure in record.published.values())
    dataset = PUBLISHED_DATASETS["ade20k"]
    transforms = dense.transforms_of(record, dataset)
    names = [name for entry in transforms for name in entry]
    assert names == ["Resize", "Normalize", "Pad"]
    assert (transforms[0], transforms[2]) == (
        config.Infer.transforms[0],
        config.Infer.transforms[2],
    )
    # the other segmentors are not padded
    other = zoo.get(f"transnext_{variant}.upernet_160k_in1k.official")
    assert dense.transforms_of(other, dataset) == list(dataset.transforms)
    arguments = dense.architecture(record, dataset, 150).arguments
    assert arguments["inference"] == {"ratios": [1.0], "flip": False}


def test_a_group_that_matches_nothing_is_refused():
    config = load_config(path_of("tiny"))
    model = built(config)
    groups = [{"match": r"^backbone\.stage5\.", "lr_multiplier": 0.1}]
    with pytest.raises(ValueError, match="stage5.* matches none of the 907 parameters"):
        parameter_settings(model, groups=groups)
