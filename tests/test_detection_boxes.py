"""Boxes, targets and masks against numbers worked out by hand."""

import numpy as np
import paddle
import pytest

from ppcls_nextvit.data.rle import encode_mask
from ppcls_nextvit.models.api import Detections, ImageMask
from ppcls_nextvit.models.detectors.boxes import (
    base_anchors,
    batched_nms,
    decode,
    encode,
    generalised_iou,
    grid_anchors,
    pairwise_iou,
)
from ppcls_nextvit.models.detectors.masks import instances, paste
from ppcls_nextvit.models.detectors.roi import mask_targets
from ppcls_nextvit.models.detectors.targets import assign, sample

STDS = (0.1, 0.1, 0.2, 0.2)


def boxes(*rows):
    return paddle.to_tensor(np.array(rows, np.float32).reshape(-1, 4))


def test_anchors():
    np.testing.assert_allclose(
        base_anchors(4, (8.0,), (0.25, 1.0, 4.0)),
        [[-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32]],
    )
    grid = grid_anchors(base_anchors(4, (2.0,), (1.0,)), 2, 3, 4).numpy()
    # row by row
    np.testing.assert_allclose(grid[:, :2], [[-4, -4], [0, -4], [4, -4], [-4, 0], [0, 0], [4, 0]])
    np.testing.assert_allclose(grid[:, 2:] - grid[:, :2], 8)


def test_overlaps():
    overlaps = pairwise_iou(
        boxes([0, 0, 10, 10], [5, 5, 5, 9]), boxes([0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30])
    ).numpy()
    np.testing.assert_allclose(overlaps, [[1, 1 / 3, 0], [0, 0, 0]], atol=1e-6)


def test_deltas():
    """The numbers of mmdetection's documentation of its coder, and one by hand."""
    rois = boxes(*[[0, 0, 1, 1]] * 3, [5, 5, 5, 5])
    deltas = paddle.to_tensor(
        [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, -1], [0.7, -1.9, -0.5, 0.3]], dtype="float32"
    )
    decoded = decode(rois, deltas, (1.0,) * 4, paddle.full([4], 32.0)).squeeze(1).numpy()
    expected = [
        [0, 0, 1, 1],
        [0.1409, 0.1409, 2.8591, 2.8591],
        [0, 0.3161, 4.1945, 0.6839],
        [5, 5, 5, 5],
    ]
    np.testing.assert_allclose(decoded, expected, atol=1e-4)
    coded = encode(boxes([0, 0, 10, 20]), boxes([5, 0, 25, 20]), STDS).numpy()
    np.testing.assert_allclose(coded, [[1.0 / 0.1, 0, np.log(2) / 0.2, 0]], rtol=1e-6)


def test_decoding_reverts_coding_class_by_class_and_cuts():
    source, target = boxes([10, 20, 40, 60], [0, 0, 9, 9]), boxes([15, 18, 70, 66], [2, 1, 5, 12])
    deltas = encode(source, target, STDS)
    # classes 0 and 1
    both = paddle.concat([paddle.zeros_like(deltas), deltas], axis=1)
    decoded = decode(source, both, STDS, paddle.to_tensor([64.0, 100.0, 64.0, 100.0])).numpy()
    np.testing.assert_allclose(decoded[:, 0], source.numpy(), atol=1e-4)
    np.testing.assert_allclose(decoded[:, 1], [[15, 18, 64, 66], [2, 1, 5, 12]], atol=1e-4)
    huge = (
        decode(source[:1], paddle.to_tensor([[0, 0, 99.0, 99.0]]), STDS, paddle.full([4], 1e6))
        .numpy()
        .reshape(4)
    )
    # sides grow to 1000 / 16 at most
    assert huge[2] == pytest.approx(25 + 15 * 1000 / 16, rel=1e-5)


def test_suppression_leaves_other_groups_alone():
    rows = boxes([0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60])
    scores = paddle.to_tensor([0.5, 0.9, 0.7, 0.1])
    assert batched_nms(rows, scores, paddle.zeros([4], "int64"), 0.6).tolist() == [1, 3]
    assert batched_nms(rows, scores, paddle.to_tensor([0, 0, 1, 0]), 0.6).tolist() == [1, 2, 3]
    assert batched_nms(rows, scores, paddle.zeros([4], "int64"), 0.95).tolist() == [1, 2, 0, 3]
    assert batched_nms(rows[:0], scores[:0], paddle.zeros([0], "int64"), 0.5).shape == [0]


def test_assignment():
    objects = boxes([0, 0, 10, 10], [0, 0, 10, 20], [100, 100, 110, 110])
    anchors = boxes(
        [0, 0, 10, 10],
        [0, 0, 10, 17],
        [0, 0, 10, 14],
        [50, 50, 60, 60],
        [100, 100, 110, 104],
        [100, 100, 103, 103],
    )
    # IoU with object 1: 1, .59, .71, 0; with object 2: .5, .85, .7, 0; object 3: .4 and .09 are all
    # it gets
    assert assign(anchors, objects, 0.7, 0.3, 0.3).tolist() == [1, 2, 1, 0, 3, 0]
    assert assign(anchors, objects, 0.8, 0.3, 0.3).tolist() == [1, 2, -1, 0, 3, 0]
    # .4 is too little to be rescued
    assert assign(anchors, objects, 0.7, 0.3, 0.45).tolist() == [1, 2, 1, 0, -1, 0]
    assert assign(anchors, objects[:0], 0.7, 0.3, 0.3).tolist() == [0] * 6
    assert assign(anchors[:0], objects, 0.7, 0.3, 0.3).shape == [0]


def test_the_last_object_wins_a_box_that_several_overlap_best():
    objects, anchors = (
        boxes([0, 0, 10, 10], [0, 0, 10, 9]),
        boxes([0, 0, 10, 10], [200, 200, 210, 210]),
    )
    assert assign(anchors, objects, 0.7, 0.3, 0.3).tolist() == [2, 0]


def test_samples():
    assigned = paddle.to_tensor([1] * 30 + [0] * 100 + [-1] * 70)
    paddle.seed(3)
    positives, negatives = sample(assigned, 40, 0.25)
    assert len(positives) == len(set(positives.tolist())) == 10 and max(positives.tolist()) < 30
    assert len(negatives) == len(set(negatives.tolist())) == 30 and all(
        30 <= i < 130 for i in negatives.tolist()
    )
    paddle.seed(3)
    # a function of Paddle's seed
    assert sample(assigned, 40, 0.25)[0].tolist() == positives.tolist()
    paddle.seed(4)
    assert sample(assigned, 40, 0.25)[0].tolist() != positives.tolist()
    few, many = sample(assigned[28:], 40, 0.25)
    # negatives fill up
    assert few.tolist() == [0, 1] and len(many) == 38


def test_mask_targets():
    masks = np.zeros((2, 40, 40), np.uint8)
    masks[0, 10:20, 10:20], masks[1, :, 20:] = 1, 1
    targets = mask_targets(
        paddle.to_tensor(masks),
        boxes([10, 10, 20, 20], [0, 0, 40, 40], [0, 0, 40, 40], [30, 0, 40, 40]),
        paddle.to_tensor([0, 1, 0, 1]),
    ).numpy()
    assert targets.shape == (4, 28, 28) and set(np.unique(targets)) == {0, 1}
    corners = np.zeros((28, 28), bool)
    corners[::27, ::27] = True
    # there, less than half of what is around is object
    np.testing.assert_array_equal(targets[0] == 0, corners)
    assert targets[3].all()
    np.testing.assert_array_equal(targets[1], np.repeat([[0, 1]], 28, 0).repeat(14, 1))
    # 10 to 20 of 40 are cells 7 to 13 of 28
    np.testing.assert_array_equal(np.flatnonzero(targets[2].any(0)), np.arange(7, 14))


def test_pasting():
    mask = np.zeros((28, 28))
    # the left half of the box
    mask[:, :14] = 1
    pixels = paste(mask, (10, 5, 30, 15), 40, 50).full()
    expected = np.zeros((40, 50), np.uint8)
    expected[5:15, 10:20] = 1
    np.testing.assert_array_equal(pixels, expected)
    # as much of it as the image has
    inside = paste(np.ones((28, 28)), (-10, 35, 8, 60), 40, 50).full()
    np.testing.assert_array_equal(np.argwhere(inside).max(0), [39, 7])
    for box in ((10, 10, 10, 20), (60, 10, 70, 20), (-9, -9, -3, -3)):
        assert not paste(np.ones((28, 28)), box, 40, 50).full().any()


def test_instances_are_what_was_found_at_the_image_s_size():
    parts = [
        np.float32([[10, 5, 30, 15], [0, 0, 9, 9]]),
        np.float32([0.9, 0.1]),
        np.array([3, 0]),
        np.ones((2, 28, 28), np.float32),
    ]
    found = instances(Detections(*map(paddle.to_tensor, parts)), 40, 50)
    for array, part in zip(found[:3], parts, strict=False):
        np.testing.assert_array_equal(array, part)
    assert [mask.full().sum() for mask in found.masks] == [200, 81]
    assert all(mask.full().shape == (40, 50) for mask in found.masks)
    best = found.scoring(0.5)
    assert best.scores.tolist() == found.scores[:1].tolist() and best.masks == found.masks[:1]
    boxes_alone = instances(Detections(*map(paddle.to_tensor, parts[:3]), None), 40, 50)
    assert boxes_alone.masks is None and boxes_alone.scoring(0.5).masks is None


def test_run_lengths_are_cocos():
    tools = pytest.importorskip("pycocotools.mask", reason="the extra det")
    rng = np.random.default_rng(0)
    for density in (0, 0.02, 0.5, 0.98, 1):
        for _ in range(20):
            height, width = rng.integers(1, 60, 2)
            h, w = rng.integers(0, height + 1), rng.integers(0, width + 1)
            mask = ImageMask(
                rng.random((h, w)) < density,
                int(rng.integers(0, height - h + 1)),
                int(rng.integers(0, width - w + 1)),
                int(height),
                int(width),
            )
            code = encode_mask(mask)
            assert code["size"] == [height, width]
            expected = tools.encode(np.asfortranarray(mask.full()))
            assert code["counts"] == expected["counts"].decode()


def test_generalised_iou_of_parts_of_an_image():
    """In shares of the image, as DINO has boxes: areas far below 1."""
    a = paddle.to_tensor([[0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    b = paddle.to_tensor([[0.1, 0.1, 0.3, 0.3], [0.2, 0.2, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]])
    found = generalised_iou(a, b).numpy()
    assert np.allclose(found[:2], [1.0, 0.0 - (0.16 - 0.08) / 0.16], atol=1e-6)
    assert np.isfinite(found).all()


def test_generalised_iou_where_no_two_sides_are_alike():
    wide = [0.1, 0.2, 0.5, 0.4]
    low, inside, above = [0.3, 0.1, 0.6, 0.3], [0.2, 0.25, 0.3, 0.35], [0.0, 0.7, 0.3, 0.8]
    expected = [0.02 / 0.12 - (0.15 - 0.12) / 0.15, 0.01 / 0.08, -(0.3 - 0.11) / 0.3]
    a, b = paddle.to_tensor([wide]), paddle.to_tensor([low, inside, above])
    for found in (generalised_iou(a, b), generalised_iou(b, a)):
        assert np.allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 9, 9, 5), (40, 2, 50, 9), (-9, 2, -3, 9), (2, -9, 9, -3)]
)
def test_an_object_without_a_pixel_in_the_image(box):
    with np.errstate(all="raise"):
        mask = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), 20, 30)
    assert mask.part.size == 0 and 0 <= mask.top <= 20 and 0 <= mask.left <= 30
