"""A Mask R-CNN in parts, joined by numpy: the pieces against Paddle's, the whole against the model,
and what is refused.
"""

import copy

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model
from ppcls_nextvit.export import two_stage
from ppcls_nextvit.export.two_stage import Level, TwoStage
from ppcls_nextvit.models.detectors.boxes import base_anchors, batched_nms, decode, grid_anchors
from ppcls_nextvit.models.detectors.roi import align
from ppcls_nextvit.tasks.detection.differences import set_difference
from ppcls_nextvit.tasks.detection.export import ObjectTable
from support.dense_exports import ARCH, apart
from support.paths import ROOT

SIZE = (96, 128)


def boxes_of(rng, count, largest=200.0):
    """Some beyond the image, some without a width."""
    low = rng.uniform(-20, 130, (count, 2))
    high = low + rng.uniform(0, 1, (count, 2)) ** 3 * largest
    high[::7, 0] = low[::7, 0]
    return np.concatenate([low, high], axis=1).astype(np.float32)


def test_the_file_is_deploy_s():
    here = ROOT / "ppcls_nextvit" / "export" / "two_stage.py"
    assert here.read_bytes() == (ROOT / "deploy" / "python" / "two_stage.py").read_bytes()


@pytest.mark.parametrize("cells", [7, 14])
def test_pooled_regions_equal_paddle_s(cells):
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((1, 3, 128 // s, 160 // s), dtype=np.float32) for s in (4, 8, 16)]
    boxes = boxes_of(rng, 60)
    expected = align(
        [paddle.to_tensor(x) for x in maps], (4, 8, 16), paddle.to_tensor(boxes), [60], cells
    )
    rows = [x[0].transpose(1, 2, 0) for x in maps]
    found = two_stage.roi_align(rows, (4, 8, 16), boxes, cells, 56)
    assert found.shape == tuple(expected.shape) and np.abs(expected.numpy()).max() > 1
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    assert two_stage.roi_align(rows, (4, 8, 16), boxes[:0], cells, 56).shape == (0, 3, cells, cells)


def test_survivors_equal_paddle_s():
    rng = np.random.default_rng(0)
    boxes, groups = boxes_of(rng, 300), rng.integers(0, 4, 300)
    boxes[150:] = boxes[:150] + rng.standard_normal((150, 1), dtype=np.float32)
    groups[150:220] = groups[:70]
    scores = rng.integers(0, 100, 300).astype(np.float32) / 100  # many are equal
    for overlap in (0.3, 0.7):
        tensors = (paddle.to_tensor(array) for array in (boxes, scores, groups))
        expected = batched_nms(*tensors, overlap).numpy()
        assert 100 < len(expected) < 300
        assert (two_stage.survivors(boxes, scores, groups, overlap, 1000) == expected).all()
        assert (two_stage.survivors(boxes, scores, groups, overlap, 9) == expected[:9]).all()
    assert not len(two_stage.survivors(boxes[:0], scores[:0], groups[:0], 0.5, 9))


def test_anchors_and_decoded_boxes_equal_paddle_s():
    rng, base = np.random.default_rng(0), base_anchors(8, (4.0,), (0.5, 1.0, 2.0))
    anchors = grid_anchors(base, paddle.to_tensor(5), paddle.to_tensor(7), 8)
    places = rng.permutation(len(anchors))[:50]
    found = two_stage.anchors_at(Level(8, (5, 7), base), places)
    assert (found == anchors.numpy()[places]).all()
    deltas, limit = rng.standard_normal((50, 8), dtype=np.float32) * 3, np.float32([56, 40, 56, 40])
    expected = decode(
        paddle.to_tensor(found), paddle.to_tensor(deltas), (1,) * 4, paddle.to_tensor(limit)
    )
    np.testing.assert_allclose(two_stage.decoded(found, deltas, limit), expected.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def detector():
    paddle.seed(2)
    model = apart(create_model("MaskRCNN", num_classes=3, **ARCH["MaskRCNN"]))
    model.eval()
    return model


@pytest.fixture(scope="module")
def settings(detector):
    return detector.parts(SIZE)[1]


def joined(model, size=SIZE, **changed):
    """(TwoStage of the model's own parts, run by Paddle, what they were given)."""
    programs, settings = model.parts(size)
    given = []

    def run(part, inputs):
        assert {name: array.shape for name, array in inputs.items()} == part.inputs
        given.append(inputs)
        with paddle.no_grad():
            outputs = part.layer(*map(paddle.to_tensor, inputs.values()))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {name: value.numpy() for name, value in zip(part.outputs, outputs, strict=True)}

    runs = {name: lambda inputs, part=part: run(part, inputs) for name, part in programs.items()}
    runs = {**runs, **changed}
    return TwoStage(settings, runs[""], runs["boxes"], runs["masks"]), given


def image_of(seed=0, size=SIZE):
    """A smooth picture, normalised, of which a part was padded; (image, shape, scale)."""
    rng = np.random.default_rng(seed)
    blots = paddle.to_tensor(rng.standard_normal((1, 3, 8, 10), dtype=np.float32))
    image = paddle.nn.functional.interpolate(blots, size=size, mode="bicubic").numpy()
    image[..., 110:] = 0
    return image, np.float32([[size[0], 110]]), np.float32([[1.5, 0.75]])


def test_the_whole_equals_the_model(detector):
    whole, given = joined(detector)
    for seed in range(2):
        inputs = image_of(seed)
        with paddle.no_grad():
            expected = [
                part.numpy() for part in ObjectTable(detector)(*map(paddle.to_tensor, inputs))
            ]
        found = whole(*inputs)
        assert 10 < len(found[0]) == len(expected[0]) <= detector.max_detections
        assert found[1].shape == expected[1].shape
        for ours, theirs in zip(found, expected, strict=True):
            assert set_difference(np.float64(ours), np.float64(theirs)) < 1e-4
        assert (np.diff(found[0][:, 1]) <= 0).all() and len(set(found[0][:, 0])) > 1
    # of 100 objects the masks in tens, and boxes all at once
    assert len(given) > 4


def test_an_image_without_objects(detector):
    least, detector.score_threshold = detector.score_threshold, 1.0
    try:
        objects, masks = joined(detector)[0](*image_of())
    finally:
        detector.score_threshold = least
    assert objects.shape == (0, 6) and masks.shape == (0, 28, 28)


def test_no_proposals(detector):
    """Boxes that are all empty: nothing is pooled, and nothing found."""
    whole, _ = joined(detector)
    image, shape, scale = image_of()
    objects, masks = whole(image, 0 * shape, scale)
    assert objects.shape == (0, 6) and masks.shape == (0, 28, 28)


def changed(settings, place, value):
    *path, last = place.split(".")
    settings = copy.deepcopy(settings)
    inner = settings
    for key in path:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    return settings


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("levels", [], r"two_stage.levels: expected a list, got '\[\]'"),
        ("levels", [3], "levels.0.anchors: expected a list, got 'None'"),
        ("levels.1.stride", True, "levels.1.stride: expected a whole number, got 'True'"),
        ("levels.1.grid", [3, 0.5], "levels.1.grid: expected rows and columns"),
        ("levels.0.anchors", [[1, 2, 3]], "levels.0.anchors: expected 1 x 4 numbers"),
        ("maps", 9, "maps: expected a whole number from 1 to 5, got '9'"),
        ("finest_scale", 0, "finest_scale: expected a number from 1"),
        ("proposals.count", 0, "proposals.count: expected a whole number from 1 to 1048576"),
        ("proposals.nms_threshold", 1.5, "proposals.nms_threshold: expected a number from 0 to 1"),
        ("boxes.rows", 10**6, "boxes.rows: expected a whole number from 1 to 1000, got '1000000'"),
        ("boxes.stds", [1, 2, 3, float("nan")], "boxes.stds: expected 4 numbers"),
        ("boxes.score_threshold", "0.05", "boxes.score_threshold: expected a number, got '0.05'"),
        ("masks", None, "masks.cells: expected a whole number, got 'None'"),
    ],
)
def test_wrong_settings_are_named(settings, place, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        TwoStage(changed(settings, place, value), None, None, None)
    assert "\n" not in str(raised.value)


def test_no_settings_at_all():
    for settings in (None, [], "levels", 3):
        with pytest.raises(ValueError, match="Model.two_stage.levels: expected a list, got 'None'"):
            TwoStage(settings, None, None, None)


@pytest.mark.parametrize(
    "part, outputs, message",
    [
        ("", {}, "the program gives no 'map0'; export again"),
        (
            "",
            {f"map{i}": np.zeros((1, 16, 4, 4)) for i in range(4)}
            | {"objectness": np.zeros((1, 10)), "deltas": np.zeros((1, 10, 4))},
            r"gives 10 scores and \[10, 4\] deltas; the description has 3072 anchors; export again",
        ),
        ("", {"map0": np.full((1, 16, 4, 4), np.inf)}, "'map0' as .* of finite numbers"),
        ("", {"map0": np.zeros((16, 4, 4))}, r"'map0' as \[16, 4, 4\]; expected 4 axes"),
        (
            "boxes",
            {"logits": np.zeros((100, 4)), "deltas": np.zeros((100, 16))},
            "the program of the boxes gives .* which do not go together; export again",
        ),
        ("masks", {"logits": np.zeros((10, 1, 28, 28))}, r"the masks of more than 2 classes"),
    ],
)
def test_programs_that_give_something_else(detector, part, outputs, message):
    whole, _ = joined(detector, **{part: lambda inputs: outputs})
    with pytest.raises(ValueError, match=message):
        whole(*image_of())
