"""The limits of what a YAML may say: the last value that is taken, the first that is refused."""

import pytest

from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.data import BATCH_TRANSFORMS, JOINT_TRANSFORMS, TRANSFORMS
from ppcls_nextvit.data.samplers import SAMPLERS
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.tasks.classification.losses import LOSSES
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
