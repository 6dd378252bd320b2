"""Mask2Former against the reference's goldens, stage by stage and one training step, and what it
does with batches that are not ordinary.
"""

import itertools
import json

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model
from ppcls_nextvit.models.complexity import count_parameters
from ppcls_nextvit.models.segmentors.mask2former import Mask2Former
from ppcls_nextvit.models.segmentors.mask_decoder import Predictions, outside, semantic
from ppcls_nextvit.models.segmentors.mask_losses import (
    PointLosses,
    Target,
    class_loss,
    matching_costs,
    sample_points,
    targets_of,
)
from ppcls_nextvit.models.segmentors.pixel_decoder import Memory
from scripts import seeded
from support.goldens import assert_loads, paddle_state_dict, ruled_state_dict
from support.paths import GOLDEN
from test_dino import assert_equals, check_gradients

pytest.importorskip("scipy", reason="needs the extra `seg`")

TINY = {"name": "TransNeXt_tiny", "drop_path_rate": 0.0, "position_bias": "interpolation"}
NARROW = {"name": "NextViT_small", "depths": (1, 1, 5, 1)}
SHALLOW = {"name": "TransNeXt_micro", "depths": (1, 1, 1, 1)}
MANIFEST = json.loads((GOLDEN / "mask2former_transnext_tiny_manifest.json").read_text())


def golden(name):
    return np.load(GOLDEN / f"mask2former_transnext_tiny_{name}_seed0.npz")


def filled(arrays, size):
    """Mask2Former with the weights of a golden, in the default type."""
    model = create_model("Mask2Former", backbone={**TINY, "table_size": size})
    state = paddle_state_dict(model, ruled_state_dict(MANIFEST, arrays))
    kind = paddle.get_default_dtype()
    assert_loads(model, {key: value.astype(kind) for key, value in state.items()})
    return model


def toy(num_classes=3, backbone=SHALLOW, seed=0, **arguments):
    paddle.seed(seed)
    return create_model(
        "Mask2Former",
        num_classes=num_classes,
        backbone=backbone,
        **{**Mask2Former.toy, **arguments},
    )


# ---------------------------------------------------------------- goldens


@pytest.mark.slow
def test_forward():
    arrays, size = golden("128x160_img128"), (128, 160)
    model = filled(arrays, 128).eval()
    image = paddle.to_tensor(seeded.image((1, 3, *size), int(arrays["seed"])))
    with paddle.no_grad():
        maps = model.backbone(image)
        for i, tensor in enumerate(maps):
            assert_equals(tensor, arrays, f"backbone{i}")
        features, memories = model.decode_head.pixel_decoder(maps)
        assert_equals(features, arrays, "mask_features")
        for i, memory in enumerate(memories):
            tokens = memory.tokens.transpose([0, 2, 1]).reshape([1, -1, *memory.size])
            assert_equals(tokens, arrays, f"memory{i}")
        layers = model.decode_head.decode(features, memories)
        for i, layer in enumerate(layers):
            assert_equals(layer.logits, arrays, f"dec{i}_cls")
            assert_equals(layer.masks, arrays, f"dec{i}_mask")
        for i, count in enumerate(arrays["fully_masked_queries"]):
            memory = memories[i % 3]
            resized = F.interpolate(layers[i].masks, memory.size, mode="bilinear")
            away = (F.sigmoid(resized) < 0.5).flatten(2).unsqueeze(1)
            nowhere = away.all(-1, keepdim=True)
            assert int(nowhere.sum()) == count
            share = float(away.astype("float32").mean())
            assert share == pytest.approx(arrays["masked_share"][i], abs=1e-6)
            expected = (away & ~nowhere).numpy()
            assert (outside(layers[i].masks, memory).numpy() == expected).all()
        scores = model(image)
    assert_equals(scores, arrays, "logits")
    best = seeded.sample(scores.numpy().argmax(axis=1), 2048)
    assert (best == arrays["argmax_sample"]).all()


@pytest.mark.chain
def test_one_training_step_in_double_precision():
    """In single precision a few of the points at which maps are sampled lie on the other side of a
    cell's centre, where gradients jump.
    """
    paddle.set_default_dtype("float64")
    try:
        check_training_step(golden("train_96x96_img96"))
    finally:
        paddle.set_default_dtype("float32")


def check_training_step(arrays):
    model, kind = filled(arrays, 96), paddle.get_default_dtype()
    model.train()
    names, seed = iter(arrays["points.names"].tolist()), int(arrays["seed"])

    def draw(shape):
        points = seeded.generator(next(names), seed).random(tuple(shape))
        return paddle.to_tensor(points.astype("float32").astype(kind))

    pairs, losses = [], model.point_losses
    matched = losses.matched

    def recorded(found, targets):
        pairs.append(matched(found, targets))
        return pairs[-1]

    losses.draw, losses.matched = draw, recorded
    label = arrays["segmentation"]
    batch = {
        "image": paddle.to_tensor(seeded.image((len(label), 3, 96, 96), seed).astype(kind)),
        "segmentation": paddle.to_tensor(label),
    }
    parts, counts = model.losses(batch)
    sum(parts.values()).backward()

    assert list(names) == []
    assert set(parts) == set(arrays["loss.names"].tolist())
    for name, value in zip(arrays["loss.names"], arrays["loss.values"], strict=True):
        assert float(parts[str(name)]) == pytest.approx(float(value), rel=1e-5), name
    assert len(pairs) == 10
    for layer, of_layer in enumerate(pairs):
        for i, (queries, own) in enumerate(of_layer):
            present = np.setdiff1d(label[i], [255])
            place = f"match.layer{layer}.image{i}"
            assert queries.tolist() == arrays[f"{place}.query"].tolist()
            assert present[own].tolist() == arrays[f"{place}.label"].tolist()
    assert counts["acc"][1] == sum(len(queries) for queries, _ in pairs[-1])
    check_gradients(model, arrays, 16)


# ---------------------------------------------------------------- sizes, keys, first values


@pytest.mark.parametrize(
    "backbone, parameters",
    [
        ("TransNeXt_tiny", 47_508_735),
        ("TransNeXt_small", 68_991_339),
        ("TransNeXt_base", 108_871_431),
    ],
)
def test_parameter_counts_are_the_published_ones(backbone, parameters):
    with paddle.LazyGuard():
        model = create_model("Mask2Former", backbone={"name": backbone})
    assert count_parameters(model) == parameters
    if backbone == "TransNeXt_tiny":
        assert set(model.state_dict()) == set(MANIFEST)


def test_first_values_are_the_references():
    paddle.seed(0)
    model = create_model("Mask2Former", backbone=NARROW, encoder_layers=1, decoder_layers=1)
    state = {key: value.numpy() for key, value in model.decode_head.state_dict().items()}
    encoder, decoder = "pixel_decoder.encoder.layers.0.", "transformer_decoder.layers.0."
    for key, std in {
        f"{encoder}ffn.layers.0.0.weight": (2 / (256 + 1024)) ** 0.5,
        f"{encoder}self_attn.value_proj.weight": (2 / 512) ** 0.5,
        f"{decoder}cross_attn.attn.in_proj_weight": (2 / (256 + 768)) ** 0.5,
        f"{decoder}ffn.layers.1.weight": (2 / (256 + 2048)) ** 0.5,
        f"{decoder}ffn.layers.0.0.bias": 1 / 16 / 3**0.5,
        "pixel_decoder.input_convs.0.conv.weight": (2 / (1024 + 256)) ** 0.5,
        "pixel_decoder.lateral_convs.0.conv.weight": 96**-0.5,
        "pixel_decoder.output_convs.0.conv.weight": (9 * 256) ** -0.5,
        "pixel_decoder.mask_feature.weight": 256**-0.5,
        "pixel_decoder.level_encoding.weight": 1.0,
        "level_embed.weight": 1.0,
        "query_embed.weight": 1.0,
        "query_feat.weight": 1.0,
        "cls_embed.weight": 1 / 16 / 3**0.5,
        "mask_embed.4.bias": 1 / 16 / 3**0.5,
    }.items():
        assert state[key].std() == pytest.approx(std, rel=0.1), key
    # normal, not uniform
    weight = state[f"{decoder}cross_attn.attn.in_proj_weight"]
    assert np.abs(weight).max() > 3 * weight.std()
    zeros = [f"pixel_decoder.{name}.bias" for name in ("mask_feature", "input_convs.1.conv")]
    zeros += [f"{encoder}self_attn.attention_weights.{x}" for x in ("weight", "bias")]
    assert not any(state[key].any() for key in zeros)


# ---------------------------------------------------------------- parts, by their definitions


def test_a_query_looks_where_its_mask_is_or_everywhere():
    masks = paddle.full([1, 2, 4, 4], -1.0)
    masks[0, 0, :2, :2] = 1.0
    memory = Memory(paddle.zeros([1, 4, 8]), paddle.zeros([1, 4, 8]), (2, 2))
    blocked = outside(masks, memory)
    assert blocked.numpy().tolist() == [[[[False, True, True, True], [False] * 4]]]


def test_scores_are_sums_over_queries():
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((2, 3, 5)).astype("float32")
    masks = draw.standard_normal((2, 3, 4, 6)).astype("float32")
    found = Predictions(paddle.to_tensor(logits), paddle.to_tensor(masks))
    scores = semantic(found, paddle.zeros([2, 3, 4, 6])).numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bqc,bqhw->bchw", p[..., :-1], 1 / (1 + np.exp(-masks)))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_points_are_places_between_pixels():
    maps = paddle.arange(12, dtype="float32").reshape([1, 1, 3, 4])
    points = paddle.to_tensor([[[2.5 / 4, 1.5 / 3], [0.5, 0.5], [0.0, 0.5 / 3]]])
    # a pixel's centre; between two; half of the border's pixel, zero outside
    found = sample_points(maps + 2, points).numpy()
    np.testing.assert_allclose(found, [[[8.0, 7.5, 1.0]]], rtol=1e-5)


def test_costs_by_their_definition():
    draw = np.random.default_rng(0)
    logits, masks = draw.standard_normal((4, 3)), draw.standard_normal((4, 9))
    truth = draw.random((2, 9)).round()
    tensors = [paddle.to_tensor(x.astype("float32")) for x in (logits, masks, truth)]
    found = matching_costs(*tensors[:2], np.array([1, 0]), tensors[2])
    chance, p = np.exp(logits), 1 / (1 + np.exp(-masks))
    chance /= chance.sum(-1, keepdims=True)
    for query, (k, label) in itertools.product(range(4), enumerate([1, 0])):
        t, own = truth[k], p[query]
        entropy = -(t * np.log(own) + (1 - t) * np.log(1 - own)).mean()
        dice = 1 - (2 * (t * own).sum() + 1) / (t.sum() + own.sum() + 1)
        expected = 5 * entropy + 5 * dice - 2 * chance[query, label]
        assert found[query, k] == pytest.approx(expected, abs=1e-5)


def test_the_class_loss_weighs_none_by_a_tenth():
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((1, 3, 4))
    target = Target(np.array([2]), paddle.zeros([1, 4, 4]), "an image")
    pairs = [(np.array([1]), np.array([0]))]
    found = float(class_loss(paddle.to_tensor(logits.astype("float32")), [target], pairs))
    entropy = np.log(np.exp(logits).sum(-1))[0] - logits[0, range(3), [3, 2, 3]]
    expected = 2 * (0.1 * entropy[0] + entropy[1] + 0.1 * entropy[2]) / 1.2
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_least_sure_points_are_kept():
    """Three quarters of the points are the drawn ones with the smallest logits; then new ones."""
    losses, drawn = PointLosses(100, 3.0, 0.75), []
    draw = losses.draw
    losses.draw = lambda shape: drawn.append(draw(shape)) or drawn[-1]
    masks = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 1, 8, 8), "float32"))
    points = losses.points_near_edges(masks)
    assert [x.shape for x in drawn] == [[2, 300, 2], [2, 25, 2]] and points.shape == [2, 100, 2]
    assert (points[:, 75:] == drawn[1]).all()
    doubt = np.sort(sample_points(masks, drawn[0]).abs().numpy()[:, 0])[:, :75]
    kept = np.sort(sample_points(masks, points[:, :75]).abs().numpy()[:, 0])
    np.testing.assert_allclose(kept, doubt, rtol=1e-5, atol=1e-6)
    assert PointLosses(10, 1.0, 0.0).points_near_edges(masks).shape == [2, 10, 2]
    assert PointLosses(10, 1.0, 1.0).points_near_edges(masks).shape == [2, 10, 2]


# ---------------------------------------------------------------- batches that are not ordinary


def trained(model, label):
    image = np.random.default_rng(0).standard_normal((len(label), 3, 64, 64), "float32")
    model.train()
    batch = {"image": paddle.to_tensor(image), "segmentation": paddle.to_tensor(label)}
    parts, counts = model.losses(batch)
    sum(parts.values()).backward()
    without = [
        name for name, p in model.named_parameters() if not p.stop_gradient and p.grad is None
    ]
    assert without == []
    assert all(np.isfinite(float(part)) for part in parts.values())
    return {name: float(part) for name, part in parts.items()}, counts


@pytest.mark.parametrize("empty", [(0,), (0, 1)])
def test_images_of_no_class_train(empty):
    label = np.full((2, 64, 64), 1, np.uint8)
    label[list(empty)] = 255
    parts, counts = trained(toy(), label)
    assert counts["acc"][1] == 2 - len(empty)
    masks = [value for name, value in parts.items() if name.endswith(("mask", "dice"))]
    assert len(masks) == 8 and (max(masks) == 0) == (len(empty) == 2)


def test_a_mask_of_one_pixel_trains():
    label = np.zeros((1, 64, 64), np.uint8)
    label[0, 5, 7] = 2
    _, counts = trained(toy(), label)
    assert counts["acc"][1] == 2


def test_more_classes_than_queries():
    label = np.arange(64 * 64).reshape(1, 64, 64) % 5
    _, counts = trained(toy(num_classes=5, num_queries=2), label.astype("uint8"))
    assert counts["acc"][1] == 2


def test_a_label_beyond_the_classes_names_the_image():
    label = paddle.zeros([2, 8, 8], "uint8")
    label[1, 2, 3] = 3
    batch = {"segmentation": label, "index": paddle.to_tensor([11, 12])}
    with pytest.raises(
        ValueError, match=r"image 1 of the batch \(number 12\): .*labelled 3.* 3 cl"
    ):
        targets_of(batch, 3)
    (_, target) = targets_of(batch, 4)
    assert target.labels.tolist() == [0, 3] and float(target.masks[1].sum()) == 1


def test_costs_that_are_not_finite_name_the_image():
    model, label = toy(), np.zeros((2, 64, 64), np.uint8)
    with paddle.no_grad():
        model.decode_head.cls_embed.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="image 0 of the batch: the costs .* not finite"):
        trained(model, label)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 1}, "num_classes must be 2 or more"),
        ({"num_queries": 0}, "num_queries must be 1 or more; got 0"),
        ({"channels": 48}, "channels must be a multiple of 32; got 48"),
        ({"heads": 3}, "channels must be a multiple of heads, 3; got 32"),
        ({"num_points": 0}, "num_points must be 1 or more; got 0"),
        ({"oversample_ratio": 0.5}, "oversample_ratio must be 1 or more; got 0.5"),
        ({"importance_ratio": 1.5}, r"importance_ratio must be in \[0, 1\]; got 1.5"),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy(**arguments)


def test_a_backbone_of_other_maps_is_refused():
    backbone = create_model(**NARROW, num_classes=None)
    backbone.stage_channels = backbone.stage_channels[1:]
    with pytest.raises(ValueError, match="takes 4 maps of a backbone, but this one has 3"):
        Mask2Former(backbone=backbone)


@pytest.mark.parametrize("mode", ["slide", "several"])
def test_windows_and_scales(mode):
    """Windows that cover the image once give what each gives alone; views are averaged."""
    inference = {"mode": "slide", "crop_size": [32, 64], "stride": [32, 64]}
    model = toy(inference=inference if mode == "slide" else None).eval()
    image = paddle.randn([1, 3, 64, 64])
    with paddle.no_grad():
        scores = model.predict({"image": image})
        expected = [model(image)]
        if mode == "slide":
            expected = [model(image[:, :, rows]) for rows in (slice(0, 32), slice(32, 64))]
    np.testing.assert_allclose(scores.numpy(), paddle.concat(expected, axis=2).numpy(), atol=1e-6)
    assert float(scores.min()) >= 0
