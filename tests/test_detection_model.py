"""Mask R-CNN against mmdetection 3.3 on the seeded weights: every stage's outputs, then what is
found.
"""

import json

import numpy as np
import paddle
import pytest

from ppcls_nextvit.models.detectors.boxes import pairwise_iou
from ppcls_nextvit.models.detectors.mask_rcnn import MaskRCNN
from ppcls_nextvit.models.detectors.masks import paste
from ppcls_nextvit.models.detectors.roi import align
from scripts import seeded
from support.goldens import assert_loads, paddle_state_dict, ruled_state_dict
from support.paths import GOLDEN

SIZE = (256, 320)
# file: its backbone, and what its name says of the size of the position bias's table
NETWORKS = {
    "nextvit_small": ({"name": "NextViT_small"}, ""),
    "transnext_tiny": (
        {"name": "TransNeXt_tiny", "position_bias": "interpolation", "table_size": 256},
        "_img256",
    ),
}


def manifest(network):
    return json.loads((GOLDEN / f"mask_rcnn_{network}_manifest.json").read_text())


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return request.param


@pytest.fixture(scope="module")
def golden(network):
    return np.load(GOLDEN / f"mask_rcnn_{network}_256x320{NETWORKS[network][1]}_seed0.npz")


@pytest.fixture(scope="module")
def model(network, golden):
    model = MaskRCNN(backbone=NETWORKS[network][0])
    shapes = manifest(network)
    ruled = "weights.rules" in golden
    state = ruled_state_dict(shapes, golden) if ruled else seeded.state_dict(shapes)
    assert_loads(model, paddle_state_dict(model, state))
    model.eval()
    return model


@pytest.fixture(scope="module")
def image():
    return paddle.to_tensor(seeded.image((1, 3, *SIZE)))


@pytest.fixture(scope="module")
def maps(model, image):
    with paddle.no_grad():
        return model.neck(model.backbone(image))


def assert_equals(tensor, golden, name):
    """A whole tensor against the golden's sample, shape and statistics of it: 1e-4 of its scale."""
    array, sample = tensor.numpy(), golden[f"{name}.sample"]
    assert list(array.shape) == golden[f"{name}.shape"].tolist()
    scale = np.abs(sample).max()
    np.testing.assert_allclose(seeded.sample(array), sample, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(
        [array.mean(), array.std(), np.abs(array).max()],
        golden[f"{name}.stats"],
        rtol=0,
        atol=1e-4 * scale,
    )


def unmatched(found, expected, atol):
    """The expected boxes that are not found, each another one, in whatever order."""
    distances = np.abs(found[None] - expected[:, None]).max(axis=-1)
    free, left = np.ones(len(found), bool), []
    for index, row in enumerate(distances):
        nearest = np.where(free, row, np.inf).argmin()
        if row[nearest] <= atol:
            free[nearest] = False
        else:
            left.append(index)
    return expected[left]


def test_pyramid_and_proposal_maps(model, maps, golden):
    assert len(maps) == 5
    with paddle.no_grad():
        logits, deltas = model.rpn_head(maps)
    for level in range(5):
        assert_equals(maps[level], golden, f"fpn{level}")
        assert_equals(logits[level], golden, f"rpn_cls{level}")
        assert_equals(deltas[level], golden, f"rpn_reg{level}")


def test_proposals(model, maps, golden, monkeypatch):
    def propose(count):
        found = model.rpn_head.proposals(
            [x[0] for x in logits],
            [x[0] for x in deltas],
            anchors,
            limit,
            model.test_proposals[0],
            count,
        )
        return [part.numpy() for part in found]

    limit = paddle.to_tensor([SIZE[1], SIZE[0]] * 2, dtype="float32")
    with paddle.no_grad():
        logits, deltas, anchors = model.rpn_head.flat(*model.rpn_head(maps))
        boxes, scores = propose(model.test_proposals[1])
        monkeypatch.setattr(model.rpn_head, "nms_threshold", 1.0)
        candidates, candidate_scores = propose(10**6)
    assert len(boxes) == golden["proposal_count"]
    np.testing.assert_allclose(scores[:100], golden["proposal_scores_top100"], atol=1e-5)
    # of two overlapping boxes whose scores are equal in float32 either may suppress the other
    for box in unmatched(boxes[:100], golden["proposals_top100"], atol=1e-4 * SIZE[1]):
        nearest = np.abs(candidates - box).max(axis=-1).argmin()
        assert np.abs(candidates[nearest] - box).max() <= 1e-4 * SIZE[1]
        tied = boxes[np.abs(scores - candidate_scores[nearest]) <= np.finfo(np.float32).eps]
        assert (pairwise_iou(*map(paddle.to_tensor, (box[None], tied))).numpy() > 0.7).any()


def test_second_stage_on_given_boxes(model, maps, golden):
    rois, strides = paddle.to_tensor(golden["fixed_rois_xyxy"]), model.roi_head.strides
    with paddle.no_grad():
        assert_equals(align(maps[:4], strides, rois, [12], 7), golden, "roi_features")
        logits, deltas = model.roi_head.boxes(maps[:4], rois, [12])
        assert_equals(
            model.roi_head.mask_head(align(maps[:4], strides, rois, [12], 14)),
            golden,
            "mask_logits",
        )
        labels = paddle.to_tensor(np.arange(12) * 7 % 80)
        chosen = model.roi_head.masks(maps[:4], rois, [12], labels)
        whole = model.roi_head.mask_head(align(maps[:4], strides, rois, [12], 14))
    for tensor, name in ((logits, "roi_cls_score"), (deltas, "roi_bbox_pred")):
        np.testing.assert_allclose(
            tensor.numpy(), golden[name], rtol=0, atol=1e-4 * np.abs(golden[name]).max()
        )
    np.testing.assert_array_equal(chosen.numpy(), whole.numpy()[np.arange(12), labels.numpy()])


@pytest.mark.slow
def test_detections(model, image, golden):
    with paddle.no_grad():
        (found,) = model(image)
    boxes, scores, labels, masks = (part.numpy() for part in found)
    expected = np.c_[golden["det_boxes"], 1000 * golden["det_labels"]]
    assert not len(unmatched(np.c_[boxes, 1000 * labels], expected, atol=1e-4 * SIZE[1])) and len(
        boxes
    ) == len(expected)
    np.testing.assert_allclose(scores, golden["det_scores"], atol=5e-4)
    areas = [paste(mask, box, *SIZE).part.sum() for mask, box in zip(masks, boxes, strict=True)]
    np.testing.assert_allclose(sorted(areas), sorted(golden["det_mask_areas"]), rtol=5e-3, atol=8)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["nextvit_small"], indirect=True)
def test_scale_divides_the_boxes_and_leaves_the_masks(model, image):
    scale = paddle.to_tensor([[0.5, 2.0]])  # y, x
    with paddle.no_grad():
        (plain,), (scaled,) = model(image), model(image, scale=scale)
    assert len(scaled.boxes) == 100 and set(scaled.labels.tolist()) & set(plain.labels.tolist())
    best = plain.boxes.numpy()[0] / [2.0, 0.5, 2.0, 0.5]
    assert np.abs(scaled.boxes.numpy() - best).max(axis=1).min() < 0.05
    same = np.abs(scaled.boxes.numpy() - best).max(axis=1).argmin()
    np.testing.assert_allclose(scaled.masks.numpy()[same], plain.masks.numpy()[0], atol=1e-3)


@pytest.mark.parametrize(
    "backbone, millions",
    [("NextViT_small", 51.12), ("NextViT_base", 64.18), ("NextViT_large", 77.24)],
)
def test_parameter_totals(backbone, millions):
    with paddle.LazyGuard():
        model = MaskRCNN(backbone={"name": backbone})
    sizes = {
        name: p.size
        for name, p in model.named_parameters()
        if not name.endswith(("._mean", "._variance"))
    }
    assert round(sum(sizes.values()) / 1e6, 2) == millions


def test_keys_are_the_references(network):
    with paddle.LazyGuard():
        model = MaskRCNN(backbone=NETWORKS[network][0])
    torch_names = {
        key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        for key in model.state_dict()
    }
    assert torch_names == {
        key for key in manifest(network) if not key.endswith("num_batches_tracked")
    }
