"""Transforms of training and mixing of batches: timm's values, hand-computed values, and
distributions.
"""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import BATCH_TRANSFORMS, TRANSFORMS
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.mixing import cutmix, cutmix_box, mixing_op, mixup
from ppcls_nextvit.data.transforms import autoaugment
from ppcls_nextvit.data.transforms.autoaugment import (
    RAND_DECREASING,
    RAND_INCREASING,
    apply_operation,
    parse_rand,
)
from ppcls_nextvit.data.transforms.pipeline import Pipeline
from ppcls_nextvit.data.transforms.random_geometry import random_resized_box
from ppcls_nextvit.schema import ConfigError

# timm 1.0.31's AugmentOp, Pillow 13, fill (124, 116, 104), bicubic
GOLDEN = Path(__file__).parent / "golden" / "timm_augment.npz"


def build(name, **arguments):
    return TRANSFORMS.build(name, arguments, "here")


def mixer(name, **arguments):
    return BATCH_TRANSFORMS.build(name, arguments, "here")


def gradient(width=40, height=30):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("name", sorted({*RAND_DECREASING, *RAND_INCREASING}))
def test_operation_equals_timm(name):
    with np.load(GOLDEN) as golden:
        image = Image.fromarray(golden["image"])
        cases = [key for key in golden if key.startswith(name + "|")]
        # magnitudes 3, 9.3 and 10, both signs
        assert len(cases) == 6
        for key in cases:
            _, magnitude, sign = key.split("|")
            ours = np.asarray(apply_operation(name, image, float(magnitude), int(sign)))
            # Pillow versions may round differently
            assert np.abs(ours.astype(int) - golden[key]).max() <= 1, key


def test_rand_config_strings():
    config = parse_rand("rand-m9-mstd0.5-inc1")
    assert (
        config.magnitude,
        config.magnitude_std,
        config.magnitude_max,
        config.layers,
        config.probability,
    ) == (9, 0.5, 10, 2, 0.5)
    assert config.names == RAND_INCREASING and len(config.names) == 15 and config.weights is None
    assert parse_rand("rand-m7-n3-p0.8-mmax20").names == RAND_DECREASING
    assert parse_rand("rand-mstd101").magnitude_std == math.inf
    weighted = parse_rand("rand-tweights")
    assert weighted.names[
        int(weighted.weights.argmax())
    ] == "Rotate" and weighted.weights.sum() == pytest.approx(1)
    for wrong in ("augmix-m5", "rand-q3", "rand-m", "rand-n99", "rand-p2"):
        with pytest.raises(ValueError, match="config_str"):
            parse_rand(wrong)


def test_rand_augment_leaves_a_quarter_untouched_and_is_a_function_of_the_generator():
    augment, image = build("TimmAutoAugment"), gradient(16, 16)
    outputs = [np.asarray(augment(image, np.random.default_rng(i))) for i in range(600)]
    untouched = np.mean([np.array_equal(output, image) for output in outputs])
    # 0.5 ** 2, and a few operations that change nothing
    assert 0.20 < untouched < 0.36
    assert np.array_equal(outputs[7], augment(image, np.random.default_rng(7)))


def test_random_interpolation_is_drawn_in_training_and_refused_in_evaluation():
    ops = [{"ResizeImage": {"resize_short": 9, "interpolation": "random", "backend": "pil"}}]
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    resize, rng = Pipeline(ops), np.random.default_rng(0)
    assert len({resize(image, rng).tobytes() for _ in range(20)}) == 2
    with pytest.raises(ImageError, match="a.png: ResizeImage: interpolation: random is for train"):
        resize(image, name="a.png")


def test_random_resized_box():
    rng = np.random.default_rng(0)
    boxes = np.array(
        [random_resized_box(500, 375, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(4000)]
    )
    left, top, width, height = boxes.T
    assert (
        left.min() >= 0
        and top.min() >= 0
        and (left + width).max() <= 500
        and (top + height).max() <= 375
    )
    # the far edges are reached
    assert (left + width).max() == 500 and (top + height).max() == 375
    share = width * height / (500 * 375)
    assert share.min() == pytest.approx(0.08, abs=0.005) and share.max() > 0.97
    assert (width / height).min() > 0.74 and (width / height).max() < 1.35
    # never fits: the central 4:3
    assert random_resized_box(300, 10, (0.9, 1.0), (3 / 4, 4 / 3), rng) == (143, 0, 13, 10)
    assert random_resized_box(10, 300, (0.9, 1.0), (3 / 4, 4 / 3), rng) == (0, 143, 10, 13)


@pytest.mark.parametrize("name", ["RandomResizedCrop", "RandCropImage"])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 2), (37, 41)])
def test_random_crops_take_images_of_any_size(name, size):
    crop = build(name, size=[20, 20], interpolation="bicubic", backend="pil")
    for i in range(30):
        assert crop(gradient(*size), np.random.default_rng(i)).size == (20, 20)


def test_random_resized_crop_of_everything_is_a_resize():
    image = gradient(40, 40)
    crop = build(
        "RandomResizedCrop", size=17, scale=[1.0, 1.0], ratio=[1.0, 1.0], interpolation="bicubic"
    )
    expected = image.resize((17, 17), Image.Resampling.BICUBIC)
    assert np.array_equal(crop(image, np.random.default_rng(0)), expected)


def test_backend_cv2_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    image = np.asarray(gradient())
    # PaddleClas's defaults: OpenCV, bilinear
    resized = build("ResizeImage", size=[20, 10])(image)
    assert np.array_equal(resized, cv2.resize(image, (20, 10), interpolation=cv2.INTER_LINEAR))


def test_flips():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for code, expected in ((1, image[:, ::-1]), (0, image[::-1]), (-1, image[::-1, ::-1])):
        flip, seen = build("RandFlipImage", flip_code=code), []
        for i in range(200):
            as_array = flip(image, np.random.default_rng(i))
            assert np.array_equal(
                as_array, np.asarray(flip(Image.fromarray(image), np.random.default_rng(i)))
            )
            assert np.array_equal(as_array, image) or np.array_equal(as_array, expected)
            seen.append(np.array_equal(as_array, expected))
        assert 0.4 < np.mean(seen) < 0.6
    with pytest.raises(ConfigError, match="flip_code"):
        build("RandFlipImage", flip_code=2)


def test_pad_and_fixed_crop():
    image = gradient(4, 3)
    padded = np.asarray(build("Pad", padding=2, fill=7)(image, None))
    assert (
        padded.shape == (7, 8, 3)
        and (padded[:2] == 7).all()
        and np.array_equal(padded[2:5, 2:6], image)
    )
    crop, corners = build("RandCropImageV2", size=[3, 2]), set()
    for i in range(100):
        part = np.asarray(crop(image, np.random.default_rng(i)))
        corners |= {
            (y, x)
            for y in range(2)
            for x in range(2)
            if np.array_equal(part, np.asarray(image)[y : y + 2, x : x + 3])
        }
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}
    with pytest.raises(ValueError, match="4 x 3, smaller than the crop of 5 x 5"):
        build("RandCropImageV2", size=5)(image, np.random.default_rng(0))


def test_color_jitter():
    grey = Image.new("RGB", (2, 2), (100, 100, 100))
    values = [
        int(
            np.asarray(build("ColorJitter", brightness=0.4)(grey, np.random.default_rng(i)))[
                0, 0, 0
            ]
        )
        for i in range(300)
    ]
    assert 60 <= min(values) < 64 and 136 < max(values) <= 140
    # all four at once: a grey picture stays one, in other brightness
    every = build("ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    levels = {tuple(np.asarray(every(grey, np.random.default_rng(i)))[0, 0]) for i in range(50)}
    assert len(levels) > 20 and all(max(level) - min(level) <= 1 for level in levels)
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    hues = {
        tuple(np.asarray(build("ColorJitter", hue=0.5)(red, np.random.default_rng(i)))[0, 0])
        for i in range(200)
    }
    # full saturation and value are kept
    assert len(hues) > 100 and all(max(hue) == 255 and min(hue) == 0 for hue in hues)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_random_erasing(mode):
    recipe = dict(
        EPSILON=0.25,
        sl="0.02",
        sh="1.0/3.0",
        r1=0.3,
        attempt=10,
        use_log_aspect=True,
        mode=mode,
        mean=[5.0, 6.0, 7.0],
    )
    erasing, shares, values = build("RandomErasing", **recipe), [], []
    for i in range(1000):
        image = np.full((60, 50, 3), 99, np.float32)
        changed = (erasing(image, np.random.default_rng(i)) != 99).any(-1)
        if changed.any():
            ys, xs = np.nonzero(changed)
            # one full rectangle
            assert changed.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
            shares.append(changed.mean())
            values.append(image[ys[0] : ys[-1] + 1, xs.min() : xs.max() + 1])
    assert 0.21 < len(shares) / 1000 < 0.29
    assert 0.017 < min(shares) < 0.03 and 0.30 < max(shares) < 0.35
    flat = [value.reshape(-1, 3) for value in values]
    if mode == "const":
        assert all((value == [5, 6, 7]).all() for value in flat)
    elif mode == "rand":
        assert (
            all((value == value[0]).all() for value in flat)
            and 0.8 < np.std([value[0] for value in flat]) < 1.2
        )
    else:
        assert np.std(np.concatenate(flat)) == pytest.approx(1, abs=0.02) and np.mean(
            np.concatenate(flat)
        ) == pytest.approx(0, abs=0.02)


def test_random_erasing_needs_floats():
    with pytest.raises(ValueError, match="NormalizeImage"):
        build("RandomErasing", EPSILON=1.0)(gradient(), np.random.default_rng(0))


def batch(size=4):
    image = np.arange(size, dtype=np.float32)[:, None, None, None] * np.ones(
        (size, 3, 8, 8), np.float32
    )
    return {"image": image, "label": np.arange(size)}


def test_mixup_by_hand():
    mixed = mixup(batch(), slice(None, None, -1), 0.75)
    # 0.75 * i + 0.25 * (3 - i)
    assert mixed["image"][:, 0, 0, 0].tolist() == [0.75, 1.25, 1.75, 2.25]
    assert (
        mixed["label_b"].tolist() == [3, 2, 1, 0]
        and mixed["lam"].tolist() == [0.75] * 4
        and mixed["lam"].dtype == np.float32
    )


def test_cutmix_lam_is_the_share_that_is_left():
    for seed in range(20):
        mixed = cutmix(batch(), np.array([1, 2, 3, 0]), 0.4, np.random.default_rng(seed))
        assert (mixed["image"][0] == 0).mean() == pytest.approx(mixed["lam"][0])
        assert (mixed["image"][3] == 3).mean() == pytest.approx(mixed["lam"][3])
        assert set(np.unique(mixed["image"][3])) <= {0.0, 3.0} and mixed["label_b"].tolist() == [
            1,
            2,
            3,
            0,
        ]


def test_cutmix_box():
    # sides 100 * 0.5 and 60 * 0.5
    boxes = [cutmix_box(100, 60, 0.75, np.random.default_rng(i)) for i in range(500)]
    assert max(b - t for t, b, _, _ in boxes) == 50 and max(r - l for _, _, l, r in boxes) == 30
    assert min(t for t, *_ in boxes) == 0 and max(b for _, b, _, _ in boxes) == 100
    assert (
        cutmix_box(100, 60, 1.0, np.random.default_rng(0))[0]
        == cutmix_box(100, 60, 1.0, np.random.default_rng(0))[1]
    )


def kinds(op, count=400):
    """Shares of batches that `op` left alone, mixed up, cut."""
    seen = np.zeros(3)
    for i in range(count):
        mixed = op(batch(), np.random.default_rng(i))
        assert mixed["label_b"].dtype == np.int64 and mixed["lam"].shape == (4,)
        flat = (mixed["image"] == mixed["image"][:, :1, :1, :1]).all()
        untouched = np.array_equal(mixed["image"], batch()["image"])
        if untouched:
            assert (mixed["lam"] == 1).all() or np.array_equal(mixed["label_b"], mixed["label"])
        seen[0 if untouched else 1 if flat else 2] += 1
    return seen / count


def test_op_sampler_draws_with_its_probabilities():
    none, mixed, cut = kinds(
        mixer(
            "OpSampler",
            MixupOperator={"alpha": 5.0, "prob": 0.3},
            CutmixOperator={"alpha": 5.0, "prob": 0.5},
        )
    )
    assert (
        none == pytest.approx(0.24, abs=0.08)
        and mixed == pytest.approx(0.3, abs=0.07)
        and cut == pytest.approx(0.46, abs=0.08)
    )


def test_rand_augment_is_two_operations_each_half_of_the_time_and_either_way():
    config = autoaugment.parse_rand("rand-m9-mstd0.5-inc1")
    assert (config.layers, config.probability, config.magnitude_max) == (2, 0.5, 10.0)
    assert autoaugment.parse_rand("rand").magnitude == 10.0
    signs = []

    def noted(name, image, magnitude, sign, *rest):
        signs.append(sign)
        return image

    with mock.patch.object(autoaugment, "apply_operation", noted):
        augment = build("TimmAutoAugment")
        for seed in range(1000):
            augment(gradient(), np.random.default_rng(seed))
    assert len(signs) / 1000 == pytest.approx(1, abs=0.08)
    assert signs.count(-1) / len(signs) == pytest.approx(0.5, abs=0.06)


def test_magnitudes_are_normal_or_even_from_0_on():
    def drawn(config_str):
        augment = build("TimmAutoAugment", config_str=config_str)
        return [augment.draw_magnitude(np.random.default_rng(seed)) for seed in range(1000)]

    normal, even = drawn("rand-m5-mstd0.5"), drawn("rand-m5-mstd101")
    assert np.mean(normal) == pytest.approx(5, abs=0.06) and np.std(normal) < 0.55
    assert np.mean(even) == pytest.approx(2.5, abs=0.15) and 0 <= min(even) < max(even) <= 5


def test_rand_augment_s_weights_are_timms():
    """The order and the shares of the weighted policy, w0."""
    rest = ["SolarizeIncreasing", "SolarizeAdd", "ContrastIncreasing", "BrightnessIncreasing"]
    rest += ["Equalize", "PosterizeIncreasing", "Invert"]
    some = ["ColorIncreasing", "SharpnessIncreasing", "AutoContrast"]
    most = {"Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1}
    expected = {**most, **dict.fromkeys(some, 0.25), **dict.fromkeys(rest, 0.05)}
    assert list(autoaugment.RAND_WEIGHTS.items()) == list(expected.items())


def test_unmixed_labels_are_the_first_s_alone():
    plain = mixer("TimmMixup", prob=0.0)(batch(), np.random.default_rng(0))
    assert (plain["lam"] == 1).all()


def test_timm_mixup_shares():
    none, mixed, cut = kinds(mixer("TimmMixup"))
    assert (
        none < 0.08
        and mixed == pytest.approx(0.5, abs=0.08)
        and cut == pytest.approx(0.47, abs=0.08)
    )
    assert kinds(mixer("TimmMixup", prob=0.0))[0] == 1
    assert kinds(mixer("TimmMixup", cutmix_alpha=0.0))[2] == 0
    # a cut may cover the whole image
    assert kinds(mixer("TimmMixup", mixup_alpha=0.0))[1] < 0.05


def test_mixup_lam_follows_beta():
    lams = [
        mixer("MixupOperator", alpha=0.8)(batch(), np.random.default_rng(i))["lam"][0]
        for i in range(3000)
    ]
    assert np.mean(lams) == pytest.approx(0.5, abs=0.02) and np.var(lams) == pytest.approx(
        1 / (4 * (2 * 0.8 + 1)), abs=0.006
    )


@pytest.mark.parametrize(
    "ops, message",
    [
        ([{"MixupOperator": {"alpha": 0}}], "alpha must be above 0"),
        (
            [{"OpSampler": {"MixupOperator": {"alph": 1, "prob": 0.5}}}],
            "OpSampler.MixupOperator.alph: unknown key. Did you mean 'alpha'",
        ),
        ([{"OpSampler": {"MixupOperator": {"alpha": 1}}}], "OpSampler: MixupOperator.prob"),
        (
            [{"OpSampler": {"MixupOperator": {"prob": 0.7}, "CutmixOperator": {"prob": 0.7}}}],
            "more than 1",
        ),
        ([{"MixupOperator": None}, {"CutmixOperator": None}], "2 operators"),
        ([{"FmixOperator": None}], "unknown batch transform 'FmixOperator'"),
        ([{"TimmMixup": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}}], "one of them above 0"),
        ([{"TimmMixup": {"mixup_alpha": -0.1}}], "alphas of 0 or more"),
        ([{"TimmMixup": {"prob": 1.1}}], "probabilities from 0 to 1"),
        ([{"TimmMixup": {"switch_prob": -0.1}}], "probabilities from 0 to 1"),
        ([{"TimmMixup": {"switch_prob": 1.1}}], "probabilities from 0 to 1"),
        ([{"TimmMixup": {"prob": -0.1}}], "probabilities from 0 to 1"),
    ],
)
def test_wrong_mixing_is_refused(ops, message):
    with pytest.raises(ConfigError, match=message):
        mixing_op(ops, "batch_transform_ops")


@pytest.mark.parametrize(
    "ops, message",
    [
        (
            [{"RandCropImag": {"size": 3}}],
            r"ops.0.RandCropImag: unknown transform 'RandCropImag'. Did you mean 'RandCropImage'",
        ),
        (
            [{"RandCropImage": {"size": 3, "interpolatio": "bicubic"}}],
            r"RandCropImage.interpolatio: unknown key. Did you mean 'interpolation'",
        ),
        ([{"RandCropImage": {"size": "x"}}], r"ops.0.RandCropImage.size"),
        (
            [{"RandCropImage": {"size": 3, "backend": "pil", "interpolation": "area"}}],
            "interpolation: backend 'pil' has no 'area'",
        ),
        ([{"RandomErasing": {"mode": "pixels"}}], "mode: got 'pixels'. Did you mean 'pixel'"),
        *(
            ([{"RandomErasing": {key: value}}], r"expected EPSILON in \[0, 1\], 0 < sl <= sh <= 1")
            for key, value in (
                ("EPSILON", -0.1),
                ("EPSILON", 1.1),
                ("sl", 0.0),
                ("sl", 0.5),
                ("sh", 1.1),
                ("r1", 0.0),
                ("r1", 1.1),
                ("max_count", 0),
            )
        ),
        ([{"GridMask": {}}], "unknown transform 'GridMask'"),
        ([{"A": {}, "B": {}}], "expected one entry"),
        ("DecodeImage", "expected a list"),
        ([{"CropImage": [3]}], "expected a mapping"),
        ([{"CropImage": {"size": 0}}], "1 or more"),
    ],
)
def test_wrong_transforms_are_refused(ops, message):
    with pytest.raises(ConfigError, match=message):
        Pipeline(ops, "ops")
