"""Training of the heads against mmdetection 3.3 (losses and gradients), and the detector's training
at the edges.
"""

import json
import math

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit.models.detectors import rpn
from ppcls_nextvit.models.detectors.mask_rcnn import MaskRCNN
from ppcls_nextvit.models.detectors.roi import BoxHead, MaskHead, RoIHead, _Sample
from ppcls_nextvit.models.detectors.rpn import RPNHead
from ppcls_nextvit.models.detectors.targets import sample
from ppcls_nextvit.models.necks.fpn import FPN
from scripts import seeded
from support.goldens import assert_loads, paddle_state_dict
from support.paths import GOLDEN

REFERENCE = json.loads((GOLDEN / "mask_rcnn_losses_seed0.json").read_text())
EVERY = 10**6  # so many samples that chance has no part
STRIDES = (4, 8, 16, 32, 64)


def ellipses(objects, height, width):
    """uint8 [n, H, W]: the ellipse in each box (x1, y1, x2, y2, label)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.array(
        [
            ((x - (x1 + x2) / 2) * 2 / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) * 2 / (y2 - y1)) ** 2
            <= 1
            for x1, y1, x2, y2, _ in objects
        ],
        np.uint8,
    ).reshape(-1, height, width)


def truth(objects, height, width):
    """(boxes, labels, masks) tensors of a list of (x1, y1, x2, y2, label)."""
    table = np.array(objects, np.float64).reshape(-1, 5)
    return (
        paddle.to_tensor(table[:, :4].astype(np.float32)),
        paddle.to_tensor(table[:, 4].astype(np.int64)),
        paddle.to_tensor(ellipses(objects, height, width)),
    )


class Heads(nn.Layer):
    def __init__(self):
        super().__init__()
        channels, classes = REFERENCE["channels"], REFERENCE["classes"]
        self.rpn_head = RPNHead(channels, STRIDES, (8.0,), (0.5, 1.0, 2.0), 0.7, EVERY)
        self.roi_head = RoIHead(
            channels,
            REFERENCE["hidden"],
            channels,
            REFERENCE["mask_convs"],
            classes,
            STRIDES[:4],
            EVERY,
        )


@pytest.fixture(scope="module")
def heads():
    heads = Heads()
    linear = {
        f"{name}.weight" for name, layer in heads.named_sublayers() if isinstance(layer, nn.Linear)
    }
    shapes = {
        key: value.shape[::-1] if key in linear else value.shape
        for key, value in heads.state_dict().items()
    }
    assert_loads(heads, paddle_state_dict(heads, seeded.state_dict(shapes)))
    return heads


@pytest.mark.parametrize(
    "case", REFERENCE["cases"], ids=["many objects", "an image without", "no object at all"]
)
def test_losses_and_gradients_equal_the_references(heads, case):
    (height, width), shapes = REFERENCE["size"], case["shapes"]
    maps = [
        paddle.to_tensor(
            seeded.image((len(shapes), REFERENCE["channels"], -(-height // s), -(-width // s)), s),
            stop_gradient=False,
        )
        for s in STRIDES
    ]
    boxes, labels, masks = zip(
        *(truth(objects, height, width) for objects in case["objects"]), strict=True
    )
    logits, deltas, anchors = heads.rpn_head.flat(*heads.rpn_head(maps))
    parts = dict(
        zip(
            ("rpn_cls", "rpn_box"),
            heads.rpn_head.losses(logits, deltas, anchors, boxes, shapes),
            strict=True,
        )
    )
    with paddle.no_grad():
        proposals = [
            heads.rpn_head.proposals(
                [x[i] for x in logits],
                [x[i] for x in deltas],
                anchors,
                paddle.to_tensor([w, h, w, h], dtype="float32"),
                2000,
                1000,
            )[0]
            for i, (h, w) in enumerate(shapes)
        ]
    second, right, seen = heads.roi_head.losses(maps[:4], proposals, boxes, labels, masks)
    parts.update(second)

    expected = dict(case["losses"])
    assert [len(boxes) for boxes in proposals] == expected.pop("proposals")
    assert 100 * int(right) / seen == pytest.approx(expected.pop("acc"), abs=1e-4)
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(
        expected, rel=1e-5, abs=1e-7
    )

    sum(parts.values()).backward()
    norms = {name: float(p.grad.norm()) for name, p in heads.named_parameters()}
    heads.clear_gradients()
    assert norms == pytest.approx(case["gradients"], rel=1e-4, abs=1e-7)
    for x, expected_norm, stride in zip(maps, case["map_gradients"], STRIDES, strict=True):
        # boxes below one cell of the finest map have another gradient in Paddle; the others' is
        # equal
        assert float(x.grad.norm()) == pytest.approx(
            expected_norm, rel=0.03 if stride == 4 else 1e-5
        )


SMALL = {"name": "NextViT_small", "depths": (1, 1, 5, 1), "frozen_stages": 1, "norm_eval": True}


@pytest.fixture(scope="module")
def detector():
    paddle.seed(0)
    return MaskRCNN(backbone=SMALL, num_classes=3, fpn_channels=16, fc_channels=32, mask_convs=1)


def batch(counts, height=64, width=96, seed=0):
    """A training batch with counts[i] objects in image i."""
    rng, objects = np.random.default_rng(seed), sum(counts)
    corner, size = rng.uniform(0, 30, (objects, 2)), rng.uniform(5, 30, (objects, 2))
    rows = np.c_[corner, corner + size, rng.integers(0, 3, objects)].tolist()
    boxes, labels, masks = truth(rows, height, width)
    return {
        "image": paddle.to_tensor(
            rng.standard_normal((len(counts), 3, height, width)).astype(np.float32)
        ),
        "shape": paddle.to_tensor([[height - 4, width]] * len(counts), dtype="int32"),
        "boxes": boxes,
        "labels": labels,
        "masks": masks,
        "counts": paddle.to_tensor(counts, dtype="int32"),
    }


def boxes_at(count, left):
    """`count` boxes of 10 x 10 pixels in a column."""
    top = np.arange(count, dtype=np.float32) * 20
    return np.stack([left + 0 * top, top, left + 10 + 0 * top, top + 10], axis=1)


def test_a_quarter_of_the_proposals_that_learn_stand_for_objects():
    """512 an image, a share of 0.25 from an overlap of 0.5 on, as in the reference's recipes."""
    samples = MaskRCNN.__init__.__kwdefaults__["roi_samples"]
    objects = paddle.to_tensor(boxes_at(300, 0))
    near, far = objects.clone(), boxes_at(700, 500)
    near[:, 3] -= 5  # overlaps of 0.5
    almost = objects.clone()
    almost[:, 3] -= 5.01
    labels = paddle.arange(300) % 3
    chosen = _Sample(paddle.concat([near, paddle.to_tensor(far)]), objects, labels, samples, 3)
    assert (samples, chosen.positives, len(chosen.boxes)) == (512, 128, 512)
    assert (chosen.classes[:128] < 3).all() and (chosen.classes[128:] == 3).all()
    np.testing.assert_array_equal(chosen.classes[:128], labels[chosen.objects])
    # what overlaps less is background, however few objects there are; the objects are proposals
    chosen = _Sample(almost[:100], objects[:100], labels[:100], samples, 3)
    assert (chosen.positives, len(chosen.boxes)) == (100, 200)
    assert (chosen.boxes[:100] == objects[:100]).all()


def test_half_of_the_anchors_that_learn_may_stand_for_objects(monkeypatch):
    """256 an image, a share of 0.5, from an overlap of 0.7 on and below 0.3."""
    samples = MaskRCNN.__init__.__kwdefaults__["rpn_samples"]
    drawn = []
    monkeypatch.setattr(
        rpn,
        "sample",
        lambda *arguments: drawn.append((arguments, sample(*arguments))) or drawn[-1][1],
    )
    head = RPNHead(8, (4,), (8.0,), (1.0,), 0.7, samples)
    objects = paddle.to_tensor(boxes_at(400, 0))
    heights = {7.01: 1, 6.99: -1, 3.01: -1, 2.99: 0}  # of 10: the overlap, and what it stands for
    anchors = []
    for height in heights:
        part = objects.clone()
        part[:, 3] = part[:, 1] + height
        anchors.append(part)
    anchors = [paddle.concat([objects, *anchors])]
    count = len(anchors[0])
    logits, deltas = paddle.zeros([1, count]), paddle.zeros([1, count, 4])
    head.losses([logits], [deltas], anchors, [objects], np.array([[10_000, 10_000]]))
    (((assigned, _, _), (positives, negatives)),) = drawn
    assert (samples, len(positives), len(negatives)) == (256, 128, 128)
    meant = np.repeat([1, *heights.values()], 400)
    np.testing.assert_array_equal(np.sign(assigned.numpy()), meant)


@pytest.mark.parametrize("counts", [[2, 1], [0, 3], [1, 0], [0, 0], [500, 1]])
def test_every_trained_parameter_gets_a_gradient(detector, counts):
    detector.train()
    statistics = {
        key: value.numpy().copy()
        for key, value in detector.state_dict().items()
        if key.endswith(("._mean", "._variance"))
    }
    parts, counted = detector.losses(batch(counts))
    right, seen = counted["acc"]
    assert tuple(counted) == detector.shown and 0 <= right <= seen <= 1024
    assert (float(parts["mask"]) == 0) == (float(parts["box"]) == 0) == (sum(counts) == 0)
    total = sum(parts.values())
    assert np.isfinite(float(total))
    total.backward()
    frozen = {
        name
        for name, p in detector.named_parameters()
        if p.stop_gradient and not name.endswith(("._mean", "._variance"))
    }
    assert frozen and all(
        name.startswith(("backbone.stem.", "backbone.features.0.")) for name in frozen
    )
    for name, parameter in detector.named_parameters():
        assert (parameter.grad is None) == parameter.stop_gradient, name
        assert parameter.stop_gradient or np.isfinite(parameter.grad.numpy()).all(), name
    detector.clear_gradients()
    for key, value in statistics.items():
        np.testing.assert_array_equal(detector.state_dict()[key].numpy(), value)


@pytest.mark.parametrize("box", [[10.0, 10.0, 10.0, 30.0], [10.0, float("nan"), 20.0, 30.0]])
def test_a_box_without_width_names_its_image(detector, box):
    given = batch([2, 1])
    given["boxes"][2] = paddle.to_tensor(box)
    with pytest.raises(ValueError, match=r"^image 1 of the batch: the box \[10.0, .* no width"):
        detector.train().losses(given)


def test_a_mask_without_pixels_trains(detector):
    detector.train()
    given = batch([2, 1])
    given["masks"][0] = 0
    parts, _ = detector.losses(given)
    total = sum(parts.values())
    total.backward()
    gradients = [p.grad for p in detector.parameters() if not p.stop_gradient]
    detector.clear_gradients()
    assert np.isfinite(float(total)) and float(parts["mask"]) > 0
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients)


def test_train_returns_the_model_and_reaches_the_backbone(detector):
    assert detector.train() is detector
    assert detector.neck.training and not detector.backbone.stem.training
    assert not any(
        layer.training
        for layer in detector.backbone.sublayers()
        if isinstance(layer, nn.BatchNorm2D)
    )
    detector.eval()
    assert not detector.neck.training


@pytest.mark.parametrize("size", [(32, 512), (512, 32), (33, 47)])
def test_wide_tall_and_odd_images(detector, size):
    detector.eval()
    with paddle.no_grad():
        (found,) = detector(paddle.randn([1, 3, *size]))
    boxes = found.boxes.numpy()
    assert (
        len(boxes)
        and (boxes >= 0).all()
        and (boxes[:, 2] <= size[1]).all()
        and (boxes[:, 3] <= size[0]).all()
    )
    assert np.isfinite(found.masks.numpy()).all()


@pytest.mark.parametrize("empty", ["no proposal", "no score above the threshold"])
def test_nothing_found(detector, empty):
    detector.eval()
    bias, threshold = detector.rpn_head.rpn_reg.bias.numpy(), detector.score_threshold
    # every box is thrown out of the image
    if empty == "no proposal":
        detector.rpn_head.rpn_reg.bias.set_value(np.full_like(bias, 1000.0))
    else:
        detector.score_threshold = 0.999
    try:
        with paddle.no_grad():
            (found,) = detector(paddle.randn([1, 3, 64, 64]))
        assert [part.shape for part in found] == [[0, 4], [0], [0], [0, 28, 28]]
        # and in training the frame stands in
        if empty == "no proposal":
            detector.train()
            parts, _ = detector.losses(batch([0, 0]))
            assert np.isfinite(float(parts["cls"]))
    finally:
        detector.rpn_head.rpn_reg.bias.set_value(bias)
        detector.score_threshold = threshold


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 0}, "num_classes must be 1 or more; got 0"),
        ({"anchor_scales": ()}, "anchor_scales must be numbers above 0"),
        ({"nms_threshold": 1.5}, r"nms_threshold must be in \[0, 1\]; got 1.5"),
        ({"backbone": "NextViT_small"}, "expected a mapping such as"),
        ({"backbone": {"name": "NextViT_smal"}}, "Did you mean 'NextViT_small'"),
    ],
)
def test_what_cannot_be_meant(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskRCNN(**{"backbone": SMALL, **arguments})


def test_a_mask_head_begins_by_fan_out():
    """mmdetection: kaiming_normal of mode fan_out for the upsampling, as for the convolutions."""
    head = MaskHead(32, 64, 1, 8)
    for weight, fan_out in ((head.upsample.weight, 4 * 64), (head.convs[0].conv.weight, 9 * 64)):
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert float(head.conv_logits.weight.std()) == pytest.approx(math.sqrt(2 / 8), rel=0.15)


def test_what_the_other_layers_begin_with():
    """mmdetection's: normal for the RPN and for the outputs, Xavier's for what is before them."""
    paddle.seed(0)
    proposing = RPNHead(64, STRIDES, (8.0,), (0.5, 1.0, 2.0), 0.7, EVERY)
    boxes, pyramid = BoxHead(16, 256, 40), FPN((32, 64), 128, num_outs=3)
    xavier = lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))  # noqa: E731
    for layer, std in (
        (proposing.rpn_conv, 0.01),
        (proposing.rpn_cls, 0.01),
        (proposing.rpn_reg, 0.01),
        (boxes.fc_cls, 0.01),
        (boxes.fc_reg, 0.001),
        (boxes.shared_fcs[0], xavier(16 * 7 * 7, 256)),
        (boxes.shared_fcs[1], xavier(256, 256)),
        (pyramid.lateral_convs[1].conv, xavier(64, 128)),
        (pyramid.fpn_convs[0].conv, xavier(9 * 128, 9 * 128)),
    ):
        assert float(layer.weight.std()) == pytest.approx(std, rel=0.2), layer
        assert not layer.bias.numpy().any()
