"""The transforms of detection and segmentation: against mmdetection's and mmsegmentation's, by
hand, and as properties.
"""

import copy
from pathlib import Path

import numpy as np
import pytest

from support.annotated_example import example

pytest.importorskip("cv2", reason="needs the extra `cv2`")

from ppcls_nextvit.data.images import ImageError  # noqa: E402
from ppcls_nextvit.data.transforms.joint import JointPipeline, padded, rescaled_size  # noqa: E402
from ppcls_nextvit.schema import ConfigError  # noqa: E402

GOLDEN = np.load(Path(__file__).parent / "golden" / "mm_transforms.npz")
SCALES = [[128, 48], [128, 64], [128, 80]]
DETECTION = [
    {"RandomFlip": {"prob": 0.5}},
    {
        "AutoAugment": {
            "policies": [
                [{"Resize": {"scale": SCALES}}],
                [
                    {"Resize": {"scale": [[128, 40], [128, 50], [128, 60]]}},
                    {"RandomCrop": {"size": [38, 60], "crop_type": "absolute_range"}},
                    {"Resize": {"scale": SCALES}},
                ],
            ]
        }
    },
]
SEGMENTATION = [
    {"Resize": {"scale": [256, 64], "ratio_range": [0.5, 2.0]}},
    {"RandomCrop": {"size": [64, 64], "cat_max_ratio": 0.75}},
    {"RandomFlip": None},
    {"PhotoMetricDistortion": None},
]


class Legacy:
    """numpy's old generator under the new one's names: the draws of the reference, as far as they
    come in the same order.
    """

    def __init__(self, seed):
        state = np.random.RandomState(seed)
        self.integers, self.uniform, self.random = state.randint, state.uniform, state.random_sample


def run(ops, rng=0, sample=None):
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    return JointPipeline(ops)(example() if sample is None else sample, rng, "picture")


def assert_same_pixels(ours, theirs):
    """One level apart at most: OpenCV rounds differently on other processors."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_augmentation_of_the_3x_recipe_equals_mmdetection(seed):
    ours, theirs = (
        run(DETECTION, Legacy(seed)),
        {key: GOLDEN[f"detection{seed}.{key}"] for key in ("image", "boxes", "labels", "masks")},
    )
    assert_same_pixels(ours["image"], theirs["image"])
    np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=1e-4)
    assert np.array_equal(ours["labels"], theirs["labels"])
    assert ours["masks"].shape == (len(theirs["labels"]), *ours["image"].shape[:2])
    assert np.array_equal(np.packbits(ours["masks"]), theirs["masks"])


@pytest.mark.parametrize("seed", [0, 2, 5, 7])
def test_augmentation_of_the_segmentation_recipes_equals_mmsegmentation(seed):
    ours = run(SEGMENTATION, Legacy(seed))
    assert np.array_equal(ours["segmentation"], GOLDEN[f"segmentation{seed}.segmentation"])
    assert ours["image"].shape == GOLDEN[f"segmentation{seed}.image"].shape
    difference = np.abs(ours["image"].astype(int) - GOLDEN[f"segmentation{seed}.image"])
    # OpenCV rounds differently on other processors and in other versions
    assert difference.mean() < 0.3


def test_sizes_equal_mmcv():
    assert [rescaled_size(h, w, [1333, 800]) for h, w in GOLDEN["sizes"]] == [
        tuple(np.maximum(size, 1)) for size in GOLDEN["rescaled"]
    ]
    # 800 / 480 * 640 = 1066.67
    assert rescaled_size(480, 640, (1333, 800)) == (800, 1067)
    # in whatever order
    assert rescaled_size(333, 500, (800, 1333)) == (800, 1201)
    # mmcv has height 0 here and fails
    assert rescaled_size(1, 5000, (1333, 800)) == (1, 1333)


def test_normalisation_and_padding_equal_mmcv():
    sample = run([{"Normalize": None}, {"Pad": {"size_divisor": 32}}])
    assert sample["image"].dtype == np.float32 and sample["image"].shape == (96, 128, 3)
    np.testing.assert_allclose(sample["image"][::7, ::7], GOLDEN["normalized"], atol=1e-5)


def test_resize_by_hand():
    sample = {
        "image": np.zeros((10, 20, 3), np.uint8),
        "boxes": np.float32([[-3, 2, 5, 15]]),
        "labels": np.zeros(1, np.int64),
        "masks": np.ones((1, 10, 20), np.uint8),
        "ignore_boxes": np.zeros((0, 4), np.float32),
        "scale": (1.0, 1.0),
        "flip": False,
    }
    result = run([{"Resize": {"scale": [50, 15]}}], sample=copy.deepcopy(sample))
    assert (
        result["image"].shape == (15, 30, 3)
        and result["masks"].shape == (1, 15, 30)
        and result["scale"] == (1.5, 1.5)
    )
    assert result["boxes"].tolist() == [[0, 3, 7.5, 15]] and result["ignore_boxes"].shape == (0, 4)
    # width, height
    result = run([{"Resize": {"scale": [30, 40], "keep_ratio": False}}], sample=sample)
    assert (
        result["image"].shape == (40, 30, 3)
        and result["scale"] == (4.0, 1.5)
        and result["boxes"].tolist() == [[0, 8, 7.5, 40]]
    )


@pytest.mark.parametrize(
    "scale, more, expected",
    [
        ([[200, 40], [200, 60]], {}, {40, 60}),
        ([[200, 40], [200, 44]], {"multiscale_mode": "range"}, {40, 41, 42, 43, 44}),
    ],
)
def test_drawn_scales(scale, more, expected):
    rng = np.random.default_rng(0)
    assert {
        run([{"Resize": {"scale": scale, **more}}], rng)["image"].shape[0] for _ in range(60)
    } == expected


def test_ratios_cover_their_range():
    rng = np.random.default_rng(0)
    heights = [
        run([{"Resize": {"scale": [512, 64], "ratio_range": [0.5, 2.0]}}], rng)["image"].shape[0]
        for _ in range(200)
    ]
    assert 32 <= min(heights) < 40 and 120 < max(heights) <= 128 and 75 < np.mean(heights) < 85


def test_flip_by_hand_and_twice():
    flipped = run([{"RandomFlip": {"prob": 1}}])
    # 128 - 30, 128 - 3.5
    assert flipped["flip"] and flipped["boxes"][0].tolist() == [98, 4.25, 124.5, 20.5]
    assert np.array_equal(flipped["image"], example()["image"][:, ::-1])
    assert all(
        np.array_equal(flipped[key], example()[key][..., ::-1]) for key in ("masks", "segmentation")
    )
    twice = run([{"RandomFlip": {"prob": 1}}, {"RandomFlip": {"prob": 1}}])
    assert all(np.array_equal(twice[key], value) for key, value in example().items())
    assert not run([{"RandomFlip": {"prob": 0}}])["flip"]
    rng = np.random.default_rng(0)
    assert 60 < sum(run([{"RandomFlip": None}], rng)["flip"] for _ in range(150)) < 90


def test_crop_keeps_what_it_shows():
    for seed in range(30):
        before, after = example(), run([{"RandomCrop": {"size": [30, 40]}}], seed)
        assert after["image"].shape == (30, 40, 3) and len(after["boxes"]) == len(
            after["labels"]
        ) == len(after["masks"])
        places = [
            (top, left)
            for top in range(67)
            for left in range(89)
            if np.array_equal(before["image"][top : top + 30, left : left + 40], after["image"])
        ]
        assert len(places) == 1
        top, left = places[0]
        assert np.array_equal(
            before["segmentation"][top : top + 30, left : left + 40], after["segmentation"]
        )
        kept = [
            i
            for i, (x1, y1, x2, y2) in enumerate(before["boxes"])
            if x1 < left + 40 and x2 > left and y1 < top + 30 and y2 > top
        ]
        assert np.array_equal(after["labels"], before["labels"][kept])
        assert np.array_equal(
            after["masks"], before["masks"][kept, top : top + 30, left : left + 40]
        )
        shift = before["boxes"][kept] - [left, top, left, top]
        assert np.allclose(after["boxes"], np.clip(shift, 0, [40, 30, 40, 30]))


def test_a_crop_may_have_no_object():
    sample = {
        **example(),
        "boxes": np.float32([[0, 0, 1, 1]]),
        "labels": np.zeros(1, np.int64),
        "masks": example()["masks"][:1],
    }
    result = run(
        [
            {"RandomCrop": {"size": [10, 10]}},
            {"Resize": {"scale": [20, 20]}},
            {"RandomFlip": {"prob": 1}},
        ],
        1,
        sample,
    )
    assert (
        result["boxes"].shape == (0, 4)
        and result["masks"].shape == (0, 20, 20)
        and result["labels"].shape == (0,)
    )


def test_crop_sizes():
    # a smaller image is taken whole
    assert run([{"RandomCrop": {"size": [500, 40]}}])["image"].shape == (96, 40, 3)
    rng = np.random.default_rng(0)
    shapes = {
        run([{"RandomCrop": {"size": [94, 98], "crop_type": "absolute_range"}}], rng)[
            "image"
        ].shape[:2]
        for _ in range(150)
    }
    # the image has 96 x 128
    assert shapes == {(height, width) for height in (94, 95, 96) for width in (94, 95, 96, 97, 98)}


def test_a_second_size_multiplies_the_first_along_each_side():
    sample = {"image": np.zeros((10, 20, 3), np.uint8), "scale": (1.0, 1.0), "flip": False}
    sizes = [{"Resize": {"scale": size, "keep_ratio": False}} for size in ([30, 40], [60, 20])]
    assert run(sizes, sample=sample)["scale"] == (2.0, 3.0)
    assert run([{"Resize": {"scale": [1, 1]}}], sample=sample)["image"].shape == (1, 1, 3)


def test_the_first_crop_of_several_classes_is_kept():
    labels = np.indices((96, 128)).sum(axis=0).astype(np.uint8) % 2  # no crop has one class alone
    sample, sizes = {**example(), "segmentation": labels}, {"size": [24, 24]}
    for seed in range(5):
        first, mixed = (
            run(
                [{"RandomCrop": {**sizes, "cat_max_ratio": ratio}}],
                np.random.default_rng(seed),
                sample,
            )
            for ratio in (1.0, 0.75)
        )
        np.testing.assert_array_equal(first["image"], mixed["image"])


def test_crops_avoid_a_single_class():
    """Labels of 0 but for a corner: with cat_max_ratio nearly every crop has some of the corner,
    without it few have.
    """
    labels = np.zeros((96, 128), np.uint8)
    labels[:48, :64], labels[40:] = 1, 255
    shares = {}
    for ratio in (1.0, 0.75):
        rng, sample = np.random.default_rng(0), {**example(), "segmentation": labels}
        crops = [
            run([{"RandomCrop": {"size": [24, 24], "cat_max_ratio": ratio}}], rng, sample)[
                "segmentation"
            ]
            for _ in range(200)
        ]
        counts = [np.bincount(crop[crop != 255], minlength=2) for crop in crops]
        shares[ratio] = np.mean([0 < c.max() < 0.75 * c.sum() for c in counts])
    # 1 - (1 - 0.055) ** 11 = 0.46
    assert shares[1.0] < 0.1 and shares[0.75] > 0.4


def test_boxes_follow_their_masks():
    """Through every geometric transform a mask stays in its box, but for what `nearest` makes of a
    pixel that is enlarged twofold.
    """
    seen = 0
    for seed in range(60):
        sample = example()
        sample["boxes"] = np.clip(sample["boxes"], 0, [128, 96, 128, 96]).astype(np.float32)
        result = run(
            [*DETECTION, {"RandomCrop": {"size": [50, 70]}}, {"RandomFlip": None}], seed, sample
        )
        for (x1, y1, x2, y2), mask in zip(result["boxes"], result["masks"], strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if rows.size:
                assert (
                    x1 - 3 <= columns[0]
                    and columns[-1] + 1 <= x2 + 3
                    and y1 - 3 <= rows[0]
                    and rows[-1] + 1 <= y2 + 3
                )
                seen += 1
        assert (
            (result["boxes"] >= 0)
            & (result["boxes"] <= np.array(result["image"].shape)[[1, 0, 1, 0]])
        ).all()
    assert seen > 60


def test_padding():
    sample = run(
        [{"Resize": {"scale": [100, 70]}}, {"Normalize": None}, {"Pad": {"size_divisor": 32}}]
    )
    assert (
        sample["shape"] == (70, 93)
        and sample["image"].shape == (96, 96, 3)
        and sample["masks"].shape == (6, 96, 96)
    )
    assert (
        (sample["image"][70:] == 0).all()
        and (sample["image"][:, 93:] == 0).all()
        and (sample["image"][:70, :93] != 0).all()
    )
    assert (sample["segmentation"][70:] == 255).all() and not sample["masks"][:, 70:].any()
    sample = run([{"Normalize": None}, {"Pad": {"size": [100, 100]}}])
    # never smaller
    assert sample["image"].shape == (100, 128, 3) and sample["shape"] == (96, 128)
    assert padded(np.ones((2, 3)), (2, 3)).shape == (2, 3)


def test_colours_change_and_nothing_else():
    sample, result = example(), run([{"PhotoMetricDistortion": None}], 4)
    assert (
        not np.array_equal(sample["image"], result["image"]) and result["image"].dtype == np.uint8
    )
    assert all(np.array_equal(sample[key], result[key]) for key in sample if key != "image")
    same = {
        "brightness_delta": 0,
        "contrast_range": [1, 1],
        "saturation_range": [1, 1],
        "hue_delta": 1,
    }
    differences = [
        np.abs(
            run([{"PhotoMetricDistortion": same}], seed)["image"].astype(int) - sample["image"]
        ).max()
        for seed in range(10)
    ]
    # hue 0 or -1 of 180, and the round trip through HSV in bytes
    assert min(differences) == 0 and max(differences) <= 12


def test_transforms_leave_their_input_alone():
    sample = example()
    for seed in range(5):
        run(
            [*DETECTION, *SEGMENTATION, {"Normalize": None}, {"Pad": {"size_divisor": 32}}],
            seed,
            sample,
        )
    assert all(np.array_equal(sample[key], value) for key, value in example().items())


def test_same_place_same_sample():
    first, second, other = (run(DETECTION + SEGMENTATION, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert first["image"].shape != other["image"].shape or not np.array_equal(
        first["image"], other["image"]
    )


@pytest.mark.parametrize(
    "ops, expected",
    [
        (DETECTION, 128 * 80),
        (SEGMENTATION, 64 * 64),
        ([{"Normalize": None}], 96 * 128),
        ([{"RandomCrop": {"size": [10, 20]}}], 200),
    ],
)
def test_largest_size(ops, expected):
    assert JointPipeline(ops).max_pixels(96 * 128) == expected
    assert max(np.prod(run(ops, seed)["image"].shape[:2]) for seed in range(8)) <= expected


@pytest.mark.parametrize(
    "ops, message",
    [
        (
            [{"Resise": {"scale": [8, 8]}}],
            "unknown transform of detection and segmentation 'Resise'. Did you mean 'Resize'",
        ),
        ([{"Resize": {}}], "transform_ops.0.Resize.scale: missing"),
        ([{"Resize": {"scale": [8]}}], "expected \\[longer, shorter side\\]"),
        ([{"Resize": {"scale": []}}], "expected \\[longer, shorter side\\]"),
        (
            [{"Resize": {"scale": [[8, 8], [9, 9], [7, 7]], "multiscale_mode": "range"}}],
            "range needs two scales",
        ),
        ([{"Resize": {"scale": [8, 8], "ratio_range": [2, 1]}}], "ratio_range: expected"),
        (
            [{"Resize": {"scale": [[8, 8], [9, 9]], "ratio_range": [1, 2]}}],
            "ratio_range: expected .* a single scale; got",
        ),
        ([{"RandomFlip": {"prob": 1.5}}], "prob: expected 0 to 1"),
        ([{"RandomCrop": {"size": [60, 38], "crop_type": "absolute_range"}}], "smallest, largest"),
        ([{"RandomCrop": {"size": [60, 38], "cat_max_ratio": 0}}], "cat_max_ratio"),
        ([{"AutoAugment": {"policies": []}}], "policies: expected"),
        (
            [{"AutoAugment": {"policies": [[{"Rezize": None}]]}}],
            "AutoAugment.policies.0.0.Rezize: unknown transform",
        ),
        ([{"Normalize": {"std": [1, 0, 1]}}], "mean and std"),
        ([{"Pad": {}}], "either size or size_divisor"),
        ([{"Pad": {"size": [0, 3]}}], "1 or more"),
        ([{"PhotoMetricDistortion": {"hue_delta": 0}}], "hue_delta from 1"),
        ([{"PhotoMetricDistortion": {"contrast_range": [2, 1]}}], "contrast_range"),
        (
            [{"Normalize": None}, {"Resize": {"scale": [8, 8]}}],
            "Resize needs uint8 pixels; put it before Normalize",
        ),
        ([{"Pad": {"size_divisor": 32}}, {"RandomFlip": None}], "Pad must come last"),
    ],
)
def test_bad_lists(ops, message):
    with pytest.raises(ConfigError, match=message):
        JointPipeline(ops)


def test_a_sample_that_does_not_fit_is_named():
    with pytest.raises(ImageError, match="^picture: "):
        run([{"Resize": {"scale": [8, 8]}}], sample={**example(), "boxes": np.zeros((2, 3))})
