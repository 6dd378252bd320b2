"""DINO against the reference's goldens, stage by stage and one training step, and what it does with
batches that are not ordinary.
"""

import itertools
import json

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model
from ppcls_nextvit.models.complexity import count_parameters
from ppcls_nextvit.models.detectors import dino, dino_head
from ppcls_nextvit.models.detectors.boxes import generalised_iou, inverse_sigmoid
from ppcls_nextvit.models.detectors.deformable import valid_cells
from ppcls_nextvit.models.detectors.denoising import Denoising, Noise
from ppcls_nextvit.models.detectors.dino_head import Selection, token_boxes, xyxy
from ppcls_nextvit.models.detectors.dino_losses import (
    Predictions,
    denoising_losses,
    matched,
    matching_losses,
    objects_of,
)
from ppcls_nextvit.models.detectors.matching import assign, detection_costs
from scripts import seeded
from support.goldens import assert_loads, paddle_state_dict, ruled_state_dict
from support.paths import GOLDEN
from test_detection_model import unmatched

pytest.importorskip("scipy", reason="needs the extra `det`")

TINY = {
    "name": "TransNeXt_tiny",
    "drop_path_rate": 0.0,
    "position_bias": "interpolation",
}
FORWARD = {4: "4scale_transnext_tiny_256x320_img256", 5: "5scale_transnext_tiny_192x256_img256"}
TRAINING = "4scale_transnext_tiny_train_256x320_img256"
TOY = {**dino.DINO.toy, "num_classes": 3}
# parameters whose gradients come through no place of a sample
SMOOTH = (
    "bbox_head.",
    "decoder.norm.",
    "decoder.layers.5.cross_attn.value_proj.",
    "memory_trans_fc.",
)


def manifest(levels):
    return json.loads((GOLDEN / f"dino_{levels}scale_transnext_tiny_manifest.json").read_text())


def golden(name):
    return np.load(GOLDEN / f"dino_{name}_seed0.npz")


def filled(levels, arrays):
    """DINO with the weights of a golden, in the default type."""
    model = create_model("DINO", backbone={**TINY, "table_size": 256}, num_levels=levels)
    state = paddle_state_dict(model, ruled_state_dict(manifest(levels), arrays))
    kind = paddle.get_default_dtype()
    assert_loads(model, {key: value.astype(kind) for key, value in state.items()})
    return model


def sample(array, count):
    flat = np.asarray(array, np.float64).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, count).astype(np.int64)]


def assert_equals(tensor, arrays, name, tolerance=1e-4):
    """A whole tensor against the golden's sample of it, as a share of its scale."""
    expected = arrays[f"{name}.sample"]
    if f"{name}.shape" in arrays.files:
        assert list(tensor.shape) == arrays[f"{name}.shape"].tolist(), name
    difference = np.abs(sample(tensor.numpy(), len(expected)) - expected).max()
    assert difference <= tolerance * np.abs(expected).max(), name


def selection(logits, boxes, indices):
    """The given tokens, whatever float32 makes of nearly equal scores."""
    indices = paddle.to_tensor(indices.reshape(len(logits), -1).astype("int64"))
    return Selection(
        indices, dino_head._gathered(logits, indices), dino_head._gathered(boxes, indices)
    )


# ---------------------------------------------------------------- goldens


@pytest.mark.slow
@pytest.mark.parametrize("levels", [4, pytest.param(5, marks=pytest.mark.chain)])
def test_forward_in_single_precision(levels, monkeypatch):
    arrays = golden(FORWARD[levels])
    model = filled(levels, arrays).eval()
    size = [int(side) for side in FORWARD[levels].split("_")[3].split("x")]
    image = paddle.to_tensor(seeded.image((1, 3, *size), int(arrays["seed"])))
    shape, scale = paddle.to_tensor([size]), float(arrays["scale_factor"])
    chosen = []

    def select(logits, boxes, number):
        assert_equals(logits.max(-1), arrays, "token_score")
        own, given = dino_head.select(logits, boxes, number), arrays["topk_indices"]
        # those whose scores lie apart are the same tokens in the same order
        assert (own.indices.numpy() == given.reshape(1, -1)).mean() > 0.99
        assert set(own.indices.tolist()[0]) == set(given.reshape(-1).tolist())
        chosen.append(selection(logits, boxes, given))
        return chosen[-1]

    monkeypatch.setattr(dino, "select", select)
    with paddle.no_grad():
        maps = model.backbone(image)[-model.num_maps :]
        for i, (tensor, neck) in enumerate(zip(maps, model.neck(maps), strict=False)):
            assert_equals(tensor, arrays, f"backbone{i}")
            assert_equals(neck, arrays, f"neck{i}")
        memory = model.encode(image, shape)
        cells = [valid_cells(shape, size, level) for level in memory.shapes]
        assert_equals(model.positions(cells), arrays, "position")
        assert_equals(memory.tokens, arrays, "memory")
        _, inside = token_boxes(memory)
        assert int((~inside).sum()) == arrays["invalid_tokens"]
        selected = model.propose(memory)
        boxes = F.sigmoid(selected.boxes)
        layers = model.decode(memory, model.queries(1), boxes)
        (found,) = model.bbox_head.found(layers[-1], xyxy(shape), paddle.full([1, 2], scale))
    assert_equals(boxes, arrays, "topk_coords")
    scores = selected.logits.max(-1).numpy()[0]
    np.testing.assert_allclose(scores, arrays["topk_scores"].reshape(-1), rtol=0, atol=1e-4)
    for i, layer in enumerate(layers):
        assert_equals(layer.logits, arrays, f"dec{i}_cls")
        assert_equals(layer.boxes, arrays, f"dec{i}_box")
    np.testing.assert_allclose(found.scores.numpy(), arrays["det_scores"], rtol=0, atol=1e-5)
    rows = np.c_[found.boxes.numpy(), 1000 * found.labels.numpy()]
    expected = np.c_[arrays["det_boxes"], 1000 * arrays["det_labels"].astype(int)]
    # of pairs with nearly the last one's score either may be left out
    left = unmatched(rows, expected, atol=1e-4 * max(size))
    assert len(left) <= 2, left


@pytest.mark.chain
def test_one_training_step_in_double_precision(monkeypatch):
    arrays = golden(TRAINING)
    paddle.set_default_dtype("float64")
    try:
        check_training_step(arrays, monkeypatch)
    finally:
        paddle.set_default_dtype("float32")


def training_batch(arrays):
    shapes = arrays["image_shapes"]
    image = seeded.image((len(shapes), 3, *shapes.max(axis=0)), int(arrays["seed"]))
    for one, (height, width) in zip(image, shapes, strict=True):
        one[:, height:], one[:, :, width:] = 0, 0
    batch = {
        "image": image.astype(paddle.get_default_dtype()),
        "shape": shapes.astype("int32"),
        "boxes": arrays["gt_boxes"],
        "labels": arrays["gt_labels"].astype("int64"),
        "counts": arrays["gt_counts"].astype("int32"),
    }
    return {key: paddle.to_tensor(value) for key, value in batch.items()}


def check_training_step(arrays, monkeypatch):
    model = filled(4, arrays)
    model.train()
    names = [("dn.flip", "float64"), ("dn.label", "int64"), ("dn.sign", "float64")]
    noise = [paddle.to_tensor(arrays[name].astype(kind)) for name, kind in names]
    noise.append(paddle.to_tensor(arrays["dn.part"].astype("float64")))
    monkeypatch.setattr(model.dn_query_generator, "draw", lambda count: Noise(*noise))
    denoise, pairs, queries = model.dn_query_generator.forward, [], []

    def recorded(results, function):
        def run(*arguments):
            results.append(function(*arguments))
            return results[-1]

        return run

    monkeypatch.setattr(dino, "matched", recorded(pairs, matched))
    monkeypatch.setattr(model.dn_query_generator, "forward", recorded(queries, denoise))
    parts, counts = model.losses(training_batch(arrays))
    sum(parts.values()).backward()

    (noisy,) = queries
    assert (noisy.groups, noisy.reference.shape[1]) == (arrays["dn.groups"], arrays["dn.queries"])
    reference = F.sigmoid(noisy.reference).numpy()
    np.testing.assert_allclose(reference, arrays["dn.reference"], rtol=0, atol=1e-6)
    assert_equals(noisy.content, arrays, "dn.content", 1e-6)
    assert_equals(noisy.blocked.astype("float32"), arrays, "dn.mask", 0)

    assert set(parts) == set(arrays["loss.names"].tolist())
    for name, value in zip(arrays["loss.names"], arrays["loss.values"], strict=True):
        assert float(parts[str(name)]) == pytest.approx(float(value), rel=1e-5), name
    assert counts["acc"][1] == len(arrays["gt_labels"]) >= counts["acc"][0]
    for layer, of_layer in zip([*(f"layer{i}" for i in range(6)), "encoder"], pairs, strict=True):
        for i, (chosen, own) in enumerate(of_layer):
            assert chosen.tolist() == arrays[f"match.{layer}.image{i}.query"].tolist()
            assert own.tolist() == arrays[f"match.{layer}.image{i}.gt"].tolist()
    check_gradients(model, arrays)


def check_gradients(model, arrays, number=20):
    """Every parameter has one; the norm of all together, and `number` of them, are the reference's.

    A bilinear sample's gradient by its place jumps where the place crosses a cell's centre: images
    moved by 1e-9 (measured) move the loss by 2e-10 of it and single gradients behind such places by
    up to 2e-4 of the largest. They are held that closely, and 100 times as closely what lies behind
    none.
    """
    gradients = {name: p.grad for name, p in model.named_parameters() if not p.stop_gradient}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    total = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assert total == pytest.approx(float(arrays["grad.total_norm"]), rel=1e-5)
    linear = {
        f"{name}.weight"
        for name, layer in model.named_sublayers()
        if isinstance(layer, paddle.nn.Linear)
    }
    stored = [key[5:-7] for key in arrays.files if key.startswith("grad.") and ".sample" in key]
    assert len(stored) == number
    for name in stored:
        gradient = gradients[name].numpy()
        gradient = gradient.T if name in linear else gradient
        norm, expected = float(arrays[f"grad.{name}.norm"]), arrays[f"grad.{name}.sample"]
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=1e-5), name
        difference = np.abs(sample(gradient, len(expected)) - expected).max()
        tolerance = 2e-6 if name.startswith(SMOOTH) else 2e-4
        assert difference <= tolerance * np.abs(expected).max(), name


# ---------------------------------------------------------------- sizes, keys, first values


@pytest.mark.parametrize(
    "backbone, levels, parameters",
    [
        ("TransNeXt_tiny", 4, 47_825_396),
        ("TransNeXt_tiny", 5, 48_140_660),
        ("TransNeXt_small", 5, 69_623_264),
        ("TransNeXt_base", 5, 109_945_724),
    ],
)
def test_parameter_counts_are_the_published_ones(backbone, levels, parameters):
    with paddle.LazyGuard():
        model = create_model("DINO", backbone={"name": backbone}, num_levels=levels)
    assert count_parameters(model) == parameters


@pytest.mark.parametrize("levels", [4, 5])
def test_keys_are_the_references(levels):
    with paddle.LazyGuard():
        model = create_model("DINO", backbone={"name": "TransNeXt_tiny"}, num_levels=levels)
    assert set(model.state_dict()) == set(manifest(levels))


def test_first_values_are_the_references():
    """Standard deviations as measured there, of the smallest model with the published widths."""
    paddle.seed(0)
    model = create_model(
        "DINO",
        backbone={"name": "NextViT_small", "depths": (1, 1, 5, 1)},
        encoder_layers=1,
        decoder_layers=1,
    )
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    layer = "decoder.layers.0."
    for key, std in {
        f"{layer}self_attn.attn.in_proj_weight": (2 / (256 + 768)) ** 0.5,
        f"{layer}self_attn.attn.out_proj.weight": (2 / 512) ** 0.5,
        "encoder.layers.0.ffn.layers.0.0.weight": (2 / (256 + 2048)) ** 0.5,
        "encoder.layers.0.ffn.layers.0.0.bias": 1 / 16 / 3**0.5,
        "encoder.layers.0.ffn.layers.1.bias": 2048**-0.5 / 3**0.5,
        "decoder.ref_point_head.layers.0.bias": 512**-0.5 / 3**0.5,
        "level_embed": 1.0,
        "dn_query_generator.label_embedding.weight": 1.0,
        "query_embedding.weight": (2 / (900 + 256)) ** 0.5,
        "memory_trans_fc.weight": (2 / 512) ** 0.5,
        "bbox_head.cls_branches.1.weight": 1 / 16 / 3**0.5,
        "bbox_head.reg_branches.0.2.weight": 1 / 16 / 3**0.5,
        "neck.convs.0.conv.weight": (2 / (256 + 256)) ** 0.5,
        "neck.extra_convs.0.conv.weight": (2 / (9 * (1024 + 256))) ** 0.5,
    }.items():
        assert state[key].std() == pytest.approx(std, rel=0.1), key
    assert (state["bbox_head.cls_branches.0.bias"] == np.float32(-4.59511985)).all()
    zeros = [f"{layer}self_attn.attn.{x}" for x in ("in_proj_bias", "out_proj.bias")]
    zeros += [f"bbox_head.reg_branches.1.4.{x}" for x in ("weight", "bias")]
    assert not any(state[key].any() for key in zeros)


# ---------------------------------------------------------------- matching and losses


def test_matching_finds_the_lowest_total():
    costs = np.random.default_rng(0).standard_normal((6, 3)).astype("float32")
    queries, objects = assign(costs, "an image")
    best = min(sum(costs[list(order), range(3)]) for order in itertools.permutations(range(6), 3))
    assert costs[queries, objects].sum() == pytest.approx(best, abs=1e-6)
    assert (np.diff(queries) > 0).all() and sorted(objects) == [0, 1, 2]


def test_more_objects_than_queries_leave_the_dearest_out():
    costs = np.array([[3.0, 1.0, 2.0], [1.0, 5.0, 0.5]])
    queries, objects = assign(costs, "an image")
    assert (queries.tolist(), objects.tolist()) == ([0, 1], [1, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_costs_that_are_not_finite_name_the_image(value):
    with pytest.raises(FloatingPointError, match="image 3 of the batch: the costs .* not finite"):
        assign(np.array([[0.0, value]]), "image 3 of the batch")


def test_generalised_iou_of_known_boxes():
    a = paddle.to_tensor([[0.0, 0.0, 2.0, 2.0]])
    b = paddle.to_tensor(
        [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [3.0, 0.0, 5.0, 2.0], [1.0, 1.0, 1.0, 1.0]]
    )
    found = generalised_iou(a, b).numpy()
    # equal; a third shared; apart, a fifth of the frame empty; of no area, within
    np.testing.assert_allclose(found, [1.0, 1 / 3, -0.2, 0.0], atol=1e-6)


def test_costs_of_matching_are_the_sum_of_three():
    logits = paddle.to_tensor([[0.0, 2.0], [-1.0, 1.0]])
    boxes = paddle.to_tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.2, 0.2]])
    size = paddle.to_tensor([100.0, 50.0, 100.0, 50.0])
    objects = paddle.to_tensor([[40.0, 15.0, 60.0, 35.0]])  # the first box
    costs = detection_costs(logits, boxes, objects, paddle.to_tensor([1]), size)
    p = 1 / (1 + np.exp(-np.array([2.0, 1.0])))
    focal = 0.25 * (1 - p) ** 2 * -np.log(p) - 0.75 * p**2 * -np.log(1 - p)
    distance = np.array([0.0, 0.2 + 0.2 + 0.2])
    overlap = np.array([1.0, (0.0 - (0.4 * 0.5 - 0.12) / (0.4 * 0.5))])
    np.testing.assert_allclose(costs[0, 0], 2 * focal[0] - 2, rtol=1e-5)
    assert costs[1, 0] > 2 * focal[1] + 5 * distance[1] - 2 * 0.2 and overlap[1] < 0


def test_losses_are_shared_out_over_the_objects_of_all_processes(monkeypatch):
    """By their average number, so that the mean of the gradients is that of one large batch; and
    every process asks once, whether it has objects or not.
    """
    asked = []

    def all_reduce(total):
        asked.append(float(total))
        total.set_value(total + 5.0)  # the other process's

    def losses(logits, counts):
        objects = objects_for(counts)
        found = Predictions(logits, F.sigmoid(logits.tile([1, 1, 2])[..., :4]))
        parts = matching_losses(found, objects, matched(found, objects))
        return {name: float(part) for name, part in parts.items()}

    logits = paddle.to_tensor(seeded.image((1, 1, 6, 3))[0])
    alone = losses(logits, [3])
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(paddle.distributed, "all_reduce", all_reduce)
    together = losses(logits, [3])  # 3 here, 5 there: 4 on average
    for name, loss in alone.items():
        assert together[name] == pytest.approx(loss * 3 / 4, rel=1e-5)
    losses(logits, [0])
    denoising_losses(Predictions(None, None), objects_for([0]), None)
    assert asked == [3.0, 0.0, 0.0]


# ---------------------------------------------------------------- denoising


def objects_for(counts, size=(64, 96)):
    draw = np.random.default_rng(0)
    number = sum(counts)
    low = draw.uniform(0, 30, (number, 2))
    boxes = np.concatenate([low, low + draw.uniform(4, 30, (number, 2))], axis=1)
    batch = {
        "boxes": paddle.to_tensor(boxes.astype("float32").reshape(-1, 4)),
        "labels": paddle.to_tensor(draw.integers(0, 3, number)),
        "counts": paddle.to_tensor(np.array(counts)),
    }
    return objects_of(batch, xyxy(paddle.to_tensor([size] * len(counts))))


@pytest.mark.parametrize(
    "counts, groups", [([3, 1], 33), ([0, 2], 50), ([100], 1), ([130, 0], 1), ([1], 100)]
)
def test_groups_share_the_denoising_queries(counts, groups):
    made = Denoising(3, 8, 100, 0.5, 1.0)(*objects_for(counts)[:3], 7)
    total = 2 * groups * max(counts)
    assert made.groups == groups and made.content.shape == [len(counts), total, 8]
    assert made.blocked.shape == [total + 7] * 2
    for count, places in zip(counts, made.places, strict=True):
        assert len(places) == groups * count
    # places without an object: no content, a box in the middle
    empty = [i for i in range(total) if i % max(counts) >= counts[-1]]
    assert not made.content[-1].numpy()[empty].any()
    assert not made.reference[-1].numpy()[empty].any()


def test_no_object_makes_no_denoising():
    assert Denoising(3, 8, 100, 0.5, 1.0)(*objects_for([0, 0])[:3], 7) is None
    zero = denoising_losses(Predictions(None, None), objects_for([0, 0]), None)
    assert {name: float(loss) for name, loss in zero.items()} == dict.fromkeys(
        ("loss_cls", "loss_bbox", "loss_iou"), 0.0
    )


def test_near_boxes_stay_near_and_far_ones_go():
    objects = objects_for([4, 2])
    made = Denoising(3, 8, 40, 0.5, 1.0)(*objects[:3], 7)
    boxes = F.sigmoid(made.reference).numpy() * [96, 64, 96, 64]
    for i, places in enumerate(made.places):
        true = np.tile(objects.boxes[i].numpy(), (made.groups, 1))
        side = np.abs(true[:, 2:] - true[:, :2])
        centre = (true[:, :2] + true[:, 2:]) / 2
        near, far = boxes[i, places], boxes[i, places + 4]
        # a corner moves by less than half a side, and the frame may cut it
        assert (np.abs(near[:, :2] - centre) <= 0.5 * side + 0.1).all()
        assert (near[:, 2:] <= 2 * side + 0.1).all()
        assert np.abs(far - near).max() > 1


def test_what_queries_see_of_each_other():
    made = Denoising(3, 8, 6, 0.5, 1.0)(*objects_for([3])[:3], 2)
    assert made.groups == 2
    group = np.r_[np.repeat([0, 1], 6), [-1, -1]]
    expected = [[other >= 0 and own != other for other in group] for own in group]
    assert made.blocked.tolist() == expected


def test_labels_change_in_a_quarter_of_the_cases():
    paddle.seed(0)
    denoising = Denoising(1000, 8, 100, 0.5, 1.0)
    noise = denoising.draw(20000)
    noisy = denoising._labels(paddle.full([100], 7, "int64"), 100, noise)
    assert float((noisy != 7).astype("float32").mean()) == pytest.approx(0.25, abs=0.01)
    assert set(noise.sign.unique().tolist()) == {-1.0, 1.0}
    assert 0 <= float(noise.part.min()) and float(noise.part.max()) < 1


def test_inverse_sigmoid_holds_off_the_ends():
    found = inverse_sigmoid(paddle.to_tensor([-1.0, 0.0, 0.5, 1.0, 3.0]), 1e-3).numpy()
    np.testing.assert_allclose(found, np.log([1e-3, 1e-3, 1, 1e3, 1e3]), atol=1e-5)


# ---------------------------------------------------------------- batches that are not ordinary


def toy(**arguments):
    paddle.seed(0)
    backbone = {"name": "NextViT_small", "depths": (1, 1, 5, 1)}
    return create_model("DINO", **{**TOY, "backbone": backbone, **arguments})


def batch_of(counts, labels=None):
    objects = objects_for(counts)
    number = sum(counts)
    return {
        "image": paddle.to_tensor(seeded.image((len(counts), 3, 64, 96))),
        "shape": paddle.to_tensor([[64, 96]] * len(counts)),
        "boxes": paddle.concat(objects.boxes) if number else paddle.zeros([0, 4]),
        "labels": paddle.concat(objects.labels) if number else paddle.zeros([0], "int64"),
        "counts": paddle.to_tensor(np.array(counts, "int32")),
        "index": paddle.to_tensor([40 + i for i in range(len(counts))]),
    }


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [12, 1]])
def test_images_without_objects_and_with_more_than_queries(counts):
    model = toy()
    model.train()
    parts, shares = model.losses(batch_of(counts))
    sum(parts.values()).backward()
    assert len(parts) == 3 * (2 + 2 + 1) and all(np.isfinite(float(x)) for x in parts.values())
    assert shares["acc"][1] == sum(min(count, 10) for count in counts)
    missing = [n for n, p in model.named_parameters() if not p.stop_gradient and p.grad is None]
    assert missing == []
    if not sum(counts):
        assert {name for name, part in parts.items() if float(part)} == {
            "loss_cls",
            "d0.loss_cls",
            "enc_loss_cls",
        }


def test_a_box_of_no_width_trains():
    model = toy()
    model.train()
    batch = batch_of([2])
    batch["boxes"][0] = paddle.to_tensor([10.0, 10.0, 10.0, 20.0])
    parts, _ = model.losses(batch)
    assert all(np.isfinite(float(x)) for x in parts.values())


def test_a_box_that_is_not_finite_is_named_with_its_image():
    model = toy()
    model.train()
    batch = batch_of([1, 2])
    batch["boxes"][2] = float("nan")
    with pytest.raises(FloatingPointError, match=r"image 1 of the batch \(number 41\): the costs"):
        model.losses(batch)


def test_padding_changes_nothing_of_an_image():
    model = toy().eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 64)))
    padded = F.pad(image, [0, 64, 0, 64])
    shape = paddle.to_tensor([[64, 64]])
    with paddle.no_grad():
        model.backbone = Halved()
        model.neck = Identity()
        plain, other = model.encode(image, shape), model.encode(padded, shape)
    start = 0
    for level, (height, width) in enumerate(plain.shapes):
        rows, columns = other.shapes[level]
        whole = other.tokens[:, start : start + rows * columns].reshape([1, rows, columns, -1])
        part = whole[:, :height, :width].flatten(1, 2).numpy()
        begin = sum(h * w for h, w in plain.shapes[:level])
        expected = plain.tokens[:, begin : begin + height * width].numpy()
        np.testing.assert_allclose(part, expected, atol=1e-4)
        start += rows * columns


class Halved(paddle.nn.Layer):
    """Four maps of local means, which know nothing of what lies beyond their cells."""

    def forward(self, x):
        maps = [F.avg_pool2d(x, 2**i) for i in (2, 3, 4, 5)]
        return [paddle.concat([m] * 22, axis=1)[:, :64] for m in maps]


class Identity(paddle.nn.Layer):
    def forward(self, maps):
        return [*maps, F.avg_pool2d(maps[-1], 2)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_levels": 3}, "num_levels: got 3. Expected one of: 4, 5"),
        ({"num_queries": 0}, "num_queries must be 1 or more"),
        ({"channels": 40}, "out_channels must be a multiple of 32; got 40"),
        ({"heads": 7}, "channels must be a multiple of heads, 7; got 64"),
        ({"label_noise": 3.0}, r"label_noise must be in \[0, 2\]"),
        ({"box_noise": -1.0}, "box_noise must be 0 or more"),
    ],
)
def test_what_cannot_be_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy(**arguments)


def test_a_backbone_of_too_few_maps_is_refused():
    backbone = create_model("NextViT_small", num_classes=None, depths=(1, 1, 5, 1))
    backbone.stage_channels = backbone.stage_channels[-2:]
    with pytest.raises(ValueError, match="takes 3 maps of the backbone .* has 2"):
        dino.DINO(**{**TOY, "backbone": backbone})


def test_small_images_have_too_few_tokens():
    """201 pixels for the published 900 queries of four levels, as in the reference."""
    with paddle.LazyGuard():
        whole = create_model("DINO", backbone={"name": "TransNeXt_tiny"})
    assert whole.min_size == 201
    model = toy(num_queries=100)
    assert model.min_size == 65
    with pytest.raises(ValueError, match="64 x 64 pixels have 85 tokens, fewer than num_queries"):
        model(paddle.zeros([1, 3, 64, 64]))
    assert len(model(paddle.zeros([1, 3, 64, 96]))[0].boxes) == 8


def test_scale_divides_the_boxes():
    model = toy().eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    with paddle.no_grad():
        (plain,), (scaled,) = model(image), model(image, scale=paddle.to_tensor([[0.5, 2.0]]))
    expected = plain.boxes.numpy() / [2.0, 0.5, 2.0, 0.5]
    np.testing.assert_allclose(scaled.boxes.numpy(), expected, rtol=1e-5)
    assert plain.masks is None and plain.scores.shape == [8]
