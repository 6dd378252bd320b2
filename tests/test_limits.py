"""The limits of what a YAML may say: the last value that is taken, the first that is refused."""

import pytest

from ppcls_nextvit import create_model
from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.data import BATCH_TRANSFORMS, JOINT_TRANSFORMS, TRANSFORMS
from ppcls_nextvit.data.datasets.registry import SECTIONS
from ppcls_nextvit.data.samplers import SAMPLERS
from ppcls_nextvit.engine import optim
from ppcls_nextvit.engine.parameter_groups import _SECTIONS as GROUPS
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.models.backbones import transnext
from ppcls_nextvit.models.backbones.nextvit import NextViTConfig
from ppcls_nextvit.models.backbones.transnext import TransNeXtConfig
from ppcls_nextvit.models.detectors import dino, mask_rcnn
from ppcls_nextvit.models.necks.channel_mapper import ChannelMapper
from ppcls_nextvit.models.necks.fpn import FPN
from ppcls_nextvit.models.segmentors import mask2former
from ppcls_nextvit.models.segmentors.inference import _INFERENCE
from ppcls_nextvit.models.segmentors.mask_losses import PointLosses
from ppcls_nextvit.tasks.classification.losses import LOSSES
from ppcls_nextvit.tasks.classification.metrics import METRICS
from ppcls_nextvit.tasks.segmentation.losses import LOSSES as SEGMENTATION_LOSSES

EPS = 1e-6
# registry, name, arguments that are right, key: (values taken, values refused)
LIMITS = [
    (TRANSFORMS, "CropImage", {"size": 8}, {"size": ([1, [1, 1]], [0, [1, 0], [8, 8, 8]])}),
    (
        TRANSFORMS,
        "RandCropImage",
        {"size": 8},
        {
            "scale": ([[EPS, EPS], [0.5, 1.0]], [[0, 1.0], [0.5, 0.4], [0.5]]),
            "ratio": ([[1, 1]], [[0, 1], [2, 1]]),
        },
    ),
    (
        TRANSFORMS,
        "ColorJitter",
        {},
        {
            "brightness": ([0, 3.0], [-EPS]),
            "contrast": ([0], [-EPS]),
            "saturation": ([0], [-EPS]),
            "hue": ([0, 0.5], [-EPS, 0.5 + EPS]),
        },
    ),
    (JOINT_TRANSFORMS, "RandomFlip", {}, {"prob": ([0, 1], [-EPS, 1 + EPS])}),
    (
        JOINT_TRANSFORMS,
        "RandomCrop",
        {"size": [8, 8]},
        {
            "size": ([[1, 1], [9, 8]], [[0, 8], [8, 0], [8], [8, 8, 8]]),
            "cat_max_ratio": ([EPS, 1.0], [0, 1 + EPS]),
        },
    ),
    (
        JOINT_TRANSFORMS,
        "RandomCrop",
        {"size": [8, 8], "crop_type": "absolute_range"},
        {"size": ([[8, 8], [7, 8]], [[9, 8]])},
    ),
    (JOINT_TRANSFORMS, "Resize", {"scale": [8, 8]}, {"scale": ([[1, 1]], [[0, 1], [1, 0], [8]])}),
    (
        JOINT_TRANSFORMS,
        "PhotoMetricDistortion",
        {},
        {"brightness_delta": ([0], [-1]), "hue_delta": ([1, 90], [0, 91])},
    ),
    (
        JOINT_TRANSFORMS,
        "Normalize",
        {},
        {
            "std": ([[EPS, 1, 1]], [[0, 1, 1], [1, 1], [1, 1, 1, 1]]),
            "mean": ([[0, 0, 0]], [[0, 0]]),
        },
    ),
    (JOINT_TRANSFORMS, "Pad", {"size": [8, 8]}, {"size": ([[1, 1]], [[0, 1], [8]])}),
    (JOINT_TRANSFORMS, "Pad", {"size_divisor": 2}, {"size_divisor": ([1], [0])}),
    (BATCH_TRANSFORMS, "MixupOperator", {}, {"alpha": ([EPS], [0])}),
    (BATCH_TRANSFORMS, "CutmixOperator", {}, {"alpha": ([EPS], [0])}),
    (LOSSES, "CELoss", {}, {"epsilon": ([0, 1 - EPS], [-EPS, 1])}),
    (LOSSES, "FocalLoss", {}, {"gamma": ([0], [-EPS])}),
    (
        LOSSES,
        "MultiLabelAsymmetricLoss",
        {},
        {
            "gamma_pos": ([0], [-EPS]),
            "gamma_neg": ([0], [-EPS]),
            "clip": ([0, 1 - EPS, None], [-EPS, 1]),
            "epsilon": ([EPS, 1 - EPS], [0, 1]),
        },
    ),
    (
        SEGMENTATION_LOSSES,
        "OhemCrossEntropyLoss",
        {},
        {"thresh": ([EPS, 1], [0, 1 + EPS]), "min_kept": ([1], [0])},
    ),
    (SEGMENTATION_LOSSES, "DiceLoss", {}, {"smooth": ([0], [-EPS])}),
    (
        SEGMENTATION_LOSSES,
        "FocalLoss",
        {},
        {"alpha": ([0, 1], [-EPS, 1 + EPS]), "gamma": ([0], [-EPS])},
    ),
    (
        SEGMENTATION_LOSSES,
        "MultiClassFocalLoss",
        {},
        {"alpha": ([EPS], [0]), "gamma": ([0], [-EPS])},
    ),
    (SEGMENTATION_LOSSES, "LovaszSoftmaxLoss", {}, {"classes": ([[0]], [[-1], []])}),
    (
        SEGMENTATION_LOSSES,
        "MixedLoss",
        {"losses": [{"CrossEntropyLoss": {}}, {"DiceLoss": {}}]},
        {"coef": ([[0.0, EPS]], [[0.0, 0.0], [1.0, -EPS], [1.0], [1.0, 1.0, 1.0]])},
    ),
    (
        LOSSES,
        "DistillationLoss",
        {"teacher": {"name": "NextViT_small"}},
        {"temperature": ([EPS], [0])},
    ),
    (METRICS, "TopkAcc", {}, {"topk": ([1, [1]], [0, [0, 1], [], [2, 2]])}),
    (METRICS, "HammingDistance", {}, {"threshold": ([EPS, 1 - EPS], [0, 1])}),
    (
        TRANSFORMS,
        "RandomErasing",
        {},
        {
            "EPSILON": ([0, 1], [-EPS, 1 + EPS]),
            "sl": ([EPS, 0.4], [0, 0.4 + EPS]),
            "sh": ([0.02, 1], [0.02 - EPS, 1 + EPS]),
            "r1": ([EPS, 1], [0, 1 + EPS]),
            "max_count": ([1], [0]),
            "mean": ([[0, 0, 0]], [[0, 0], [0, 0, 0, 0]]),
        },
    ),
    (TRANSFORMS, "Pad", {"padding": 1}, {"padding": ([0], [-1]), "fill": ([0, 255], [-1, 256])}),
    (
        TRANSFORMS,
        "TimmAutoAugment",
        {"config_str": "rand-m9", "img_size": 8},
        {
            "config_str": (
                ["rand-m9-n1", "rand-m9-n15", "rand-m9-p1"],
                ["rand-m9-n0", "rand-m9-n16", "rand-m9-p1.01"],
            )
        },
    ),
    (
        JOINT_TRANSFORMS,
        "Resize",
        {"scale": [8, 8]},
        {"ratio_range": ([[EPS, EPS], [0.5, 2.0]], [[0, 1], [1, 0.5], [1], [1, 1, 1]])},
    ),
    (
        JOINT_TRANSFORMS,
        "PhotoMetricDistortion",
        {},
        {
            "contrast_range": ([[0, 0], [1, 1]], [[-EPS, 1], [1, 0.5], [1]]),
            "saturation_range": ([[0, 0]], [[-EPS, 1], [1, 0.5]]),
        },
    ),
    (
        BATCH_TRANSFORMS,
        "TimmMixup",
        {},
        {
            "mixup_alpha": ([0], [-EPS]),
            "cutmix_alpha": ([0], [-EPS]),
            "prob": ([0, 1], [-EPS, 1 + EPS]),
            "switch_prob": ([0, 1], [-EPS, 1 + EPS]),
        },
    ),
    (BATCH_TRANSFORMS, "TimmMixup", {"mixup_alpha": 0}, {"cutmix_alpha": ([EPS], [0])}),
    (
        SECTIONS,
        "LoaderOptions",
        {},
        {"num_workers": ([0], [-1]), "prefetch_factor": ([1], [0])},
    ),
    (SECTIONS, "BadImages", {"policy": "skip"}, {"limit": ([1], [0, -1])}),
    (SECTIONS, "BadImages", {}, {"limit": ([0], [1, -1])}),
    (_INFERENCE, "Inference", {"crop_size": [8, 8]}, {"stride": ([[1, 8]], [[0, 8], [9, 8]])}),
    (
        _INFERENCE,
        "Inference",
        {},
        {"ratios": ([[EPS]], [[0], [1, 0], []])},
    ),
    (
        GROUPS,
        "ParameterGroup",
        {"match": "a", "lr_multiplier": 1.0, "weight_decay": 1.0},
        {"lr_multiplier": ([0], [-EPS]), "weight_decay": ([0], [-EPS])},
    ),
]


def rows():
    for registry, name, right, keys in LIMITS:
        for key, (taken, refused) in keys.items():
            for value in taken:
                yield pytest.param(
                    registry, name, right, key, value, True, id=f"{name}.{key}={value}"
                )
            for value in refused:
                yield pytest.param(
                    registry, name, right, key, value, False, id=f"{name}.{key}={value} is refused"
                )


@pytest.mark.parametrize("registry, name, right, key, value, taken", rows())
def test_the_last_value_is_taken_and_the_next_refused(registry, name, right, key, value, taken):
    arguments = {**right, key: value}
    if taken:
        registry.build(name, arguments, "here")
        return
    with pytest.raises(ConfigError) as refusal:
        registry.build(name, arguments, "here")
    assert str(refusal.value).startswith("here")


@pytest.mark.parametrize("prob, taken", [(0, True), (1, True), (-EPS, False), (1 + EPS, False)])
def test_a_probability_of_op_sampler_is_from_0_to_1(prob, taken):
    arguments = {"MixupOperator": {"prob": prob}}
    if taken:
        BATCH_TRANSFORMS.build("OpSampler", arguments, "here")
    else:
        with pytest.raises(ConfigError, match="a probability from 0 to 1"):
            BATCH_TRANSFORMS.build("OpSampler", arguments, "here")


def test_probabilities_of_op_sampler_may_add_up_to_1():
    def build(first, second):
        operators = {"MixupOperator": first, "CutmixOperator": second}
        BATCH_TRANSFORMS.build(
            "OpSampler",
            {name: {"prob": prob} for name, prob in operators.items()},
            "here",
        )

    build(0.3, 0.7)
    with pytest.raises(ConfigError, match="add up to more than 1"):
        build(0.3, 0.7 + 1e-6)


@pytest.mark.parametrize(
    "name, key, least",
    [
        ("DistributedBatchSampler", "batch_size", 1),
        ("RASampler", "num_repeats", 1),
        ("IterationSampler", "iterations", 1),
    ],
)
def test_samplers_count_from_1(name, key, least):
    right = {"batch_size": 2, **({"iterations": 3} if name == "IterationSampler" else {})}

    def build(value):
        factory = SAMPLERS.get(name)
        return factory(range(8), 0, 1, 0, True, **{**right, key: value})

    assert len(build(least)) > 0
    with pytest.raises(ConfigError, match=f"{key} must be 1 or more, got {least - 1}"):
        build(least - 1)


def test_every_process_needs_an_image():
    factory = SAMPLERS.get("DistributedBatchSampler")
    assert len(factory(range(3), 0, 3, 0, False, batch_size=1)) == 1
    with pytest.raises(ConfigError, match="2 images for 3 processes"):
        factory(range(2), 0, 3, 0, False, batch_size=1)


def test_a_schedule_has_a_step_and_a_warm_up_of_0_or_more():
    section = {"name": "Cosine", "learning_rate": 1.0}
    assert build_schedule(section, 1, 1).lr(0) == 1.0
    for epochs, steps in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="at least one epoch of at least one step"):
            build_schedule(section, epochs, steps)
    with pytest.raises(ConfigError, match="warmup_epoch must be 0 or more"):
        build_schedule({**section, "warmup_epoch": -EPS}, 1, 1)
    # a warm-up of the whole run never decays; the rate it reaches is the last
    for name in ("Cosine", "Linear"):
        schedule = build_schedule({**section, "name": name, "warmup_epoch": 2}, 2, 4)
        assert schedule.lr(8) == 1.0


def schedule(name, **arguments):
    return build_schedule({"name": name, "learning_rate": 1.0, **arguments}, 10, 2)


# name, arguments that are right, key: (values taken, values refused)
SCHEDULE_LIMITS = [
    ("Step", {"step_size": 1, "gamma": 0.5}, {"step_size": ([0.5, 1], [0, 0.4])}),
    ("ReduceOnPlateau", {}, {"factor": ([EPS, 1 - EPS], [0, 1])}),
    ("MMCVPoly", {}, {"warmup_iters": ([0], [-1]), "warmup_ratio": ([EPS, 1], [0, 1 + EPS])}),
    ("TimmCosine", {}, {"warmup_epoch": ([0, 1], [-1])}),
    ("MultiStepDecay", {}, {"milestones": ([[1, 2]], [[2, 2], [2, 1]])}),
]


@pytest.mark.parametrize("name, right, limits", SCHEDULE_LIMITS)
def test_limits_of_schedules(name, right, limits):
    for key, (taken, refused) in limits.items():
        for value in taken:
            schedule(name, **{**right, key: value})
        for value in refused:
            with pytest.raises(ConfigError, match=key):
                schedule(name, **{**right, key: value})


def test_cycles_have_a_tick_up_and_down():
    def cycle(up, down):
        arguments = {"step_size_up": up, "step_size_down": down, "base_learning_rate": 0.1}
        section = {"name": "Cyclic", "max_learning_rate": 1.0, **arguments}
        return build_schedule(section, 10, 2)

    assert [cycle(1, 1).lr(step) for step in range(3)] == pytest.approx([0.1, 1.0, 0.1])
    for up, down in ((0, 1), (1, -1)):
        with pytest.raises(ConfigError, match="step_size_up and step_size_down must be 1 or more"):
            cycle(up, down)


def small_nextvit(**arguments):
    return create_model("NextViT_small", depths=(1, 1, 5, 1), num_classes=2, **arguments)


@pytest.mark.parametrize(
    "check, taken, refused",
    [
        (lambda value: NextViTConfig((1, 1, 5, value), 0.0), [1], [0]),
        (lambda value: NextViTConfig((1, 1, value, 1), 0.0), [5, 10], [0, 4, 6]),
        (lambda value: NextViTConfig((1, 1, 5, 1), value), [0.0, 1 - EPS], [-EPS, 1.0]),
        (lambda value: NextViTConfig((1, 1, 5, 1), 0.0, (1, 1, value)), [1], [0]),
        (lambda value: small_nextvit(drop_rate=value), [0.0, 1 - EPS], [-EPS, 1.0]),
        (lambda value: small_nextvit(attn_drop_rate=value), [0.0, 1 - EPS], [-EPS, 1.0]),
        (lambda value: TransNeXtConfig((8,) * 4, (1, 1, 1, value), 0.0), [1], [0]),
        (lambda value: TransNeXtConfig((8,) * 4, (1,) * 4, value), [0.0, 1 - EPS], [-EPS, 1.0]),
        (
            lambda value: TransNeXtConfig((8,) * 4, (1,) * 4, 0.0, pretrain_size=value),
            [64],
            [63],
        ),
        (lambda value: transnext._least_size(value, (8, 4, 2, 1)), [1], [0]),
        (lambda value: transnext._table_size("interpolation", value), [32], [31, None]),
        (lambda value: mask_rcnn._check_counts(x=value), [1], [0]),
        (lambda value: mask_rcnn._check_positive(x=value), [(EPS,), (1.0, EPS)], [(0.0,), ()]),
        (lambda value: mask_rcnn._check_shares(x=value), [0.0, 1.0], [-EPS, 1 + EPS]),
        (lambda value: dino._check({"x": value}, 0, 0), [1], [0]),
        (lambda value: dino._check({}, value, 0), [0, 2], [-EPS, 2 + EPS]),
        (lambda value: dino._check({}, 0, value), [0], [-EPS]),
        (lambda value: dino._number_of_maps(value, [8, 8]), [3], [4]),
        (lambda value: mask2former._check(value, {}), [2], [1]),
        (lambda value: mask2former._check(2, {"x": value}), [1], [0]),
        (lambda value: PointLosses(value, 1, 0), [1], [0]),
        (lambda value: PointLosses(1, value, 0), [1], [1 - EPS]),
        (lambda value: PointLosses(1, 1, value), [0, 1], [-EPS, 1 + EPS]),
        (lambda value: FPN([8, 8], 8, value), [2], [1]),
        (lambda value: ChannelMapper([8, 8], 32, value), [2], [1]),
        (lambda value: optim._clip(value, None), [EPS, None], [0]),
        (lambda value: optim._clip(None, value), [EPS, None], [0]),
    ],
)
def test_limits_of_models_and_optimisers(check, taken, refused):
    for value in taken:
        check(value)
    for value in refused:
        with pytest.raises(ValueError):
            check(value)
