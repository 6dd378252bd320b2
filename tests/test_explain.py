"""What explain computes, on cases whose answer is known beforehand, and against the layers' own
forward passes.
"""

import math
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from ppcls_nextvit import create_model, explain
from ppcls_nextvit.explain.looking import held, watched_maps
from ppcls_nextvit.models.backbones.base import BaseBackbone
from ppcls_nextvit.models.backbones.nextvit import E_MHSA
from ppcls_nextvit.tasks.subject import Evidence, View

SHALLOW = {"NextViT_small": (1, 1, 5, 1), "TransNeXt_micro": (1, 1, 1, 1)}


@cache
def small(name, **arguments):
    """A shallow classifier in eval mode whose weights tell inputs apart; tests leave it as it
    is.
    """
    paddle.seed(0)
    depths = SHALLOW["NextViT_small" if name.startswith("Next") else "TransNeXt_micro"]
    model = create_model(name, num_classes=3, depths=depths, **arguments)
    for layer in model.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Linear)):
            weight = layer.weight
            inputs = weight.shape[0] if weight.ndim == 2 else weight[0].size
            weight.set_value(weight * (1.5 * inputs**-0.5 / float(weight.std())))
    model.eval()
    return model


def image(height, width, seed=0):
    draw = np.random.default_rng(seed)
    return paddle.to_tensor(draw.standard_normal((1, 3, height, width), "float32"))


# Attention.


def spied(model, x):
    """{id of an attention layer: (its inputs, its output)} of a forward pass."""
    kept, hooks = {}, []

    def keep(layer, inputs, output):
        kept[id(layer)] = (inputs, output)

    for place in explain.attention_layers(model):
        hooks.append(place.layer.register_forward_post_hook(keep))
    with paddle.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return kept


def mixed_values(layer, found, inputs):
    """What the weights that were found make of the layer's values for their query: [C]."""
    if isinstance(layer, E_MHSA):
        pooled = layer.norm(layer.sr(inputs[0])).transpose([0, 2, 1])
        values = layer.heads(layer.v(pooled))[0].numpy()  # [heads, M, d]
        mixed = np.einsum("hk,hkd->hd", found.weights, values)
    elif not found.window:
        x, _ = inputs
        parts = layer.qkv(x).reshape([x.shape[1], 3, layer.num_heads, -1])
        mixed = np.einsum("hk,khd->hd", found.weights, parts[:, 2].numpy())
    else:
        x, places = inputs
        channels = x.shape[2]
        heads = (layer.num_heads, channels // layer.num_heads)
        of_tokens = layer.kv(x)[0, :, channels:].numpy().reshape(-1, *heads)
        of_pool = layer.kv(layer.pooled(x, places))[0, :, channels:].numpy().reshape(-1, *heads)
        weights = found.weights.copy()
        weights[:, : found.window] += found.learnt
        mixed = np.einsum("hk,khd->hd", weights[:, found.window :], of_pool)
        side = math.isqrt(found.window)
        for neighbour in range(found.window):
            row = found.query[0] + neighbour // side - side // 2
            column = found.query[1] + neighbour % side - side // 2
            if 0 <= row < found.size[0] and 0 <= column < found.size[1]:
                value = of_tokens[row * found.size[1] + column]
                mixed += weights[:, neighbour, None] * value
    return layer.proj(paddle.to_tensor(mixed.reshape(1, -1).astype("float32")))[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("NextViT_small", {}),
        ("NextViT_small_window_pool", {}),
        ("TransNeXt_micro", {"attention_form": "sliced"}),
        ("TransNeXt_micro", {"attention_form": "native", "window": 5}),
        ("TransNeXt_micro_AAAA", {"position_bias": "interpolation", "table_size": 96}),
    ],
)
def test_the_weights_are_the_forward_pass_s_own(name, arguments):
    """Weights times values, projected, are what the layer gave without being looked at."""
    model, x = small(name, **arguments), image(72, 100)
    passed = spied(model, x)
    points = [(0, 0), (57, 31), (99, 71)]
    found = explain.attention(model, x, points, every_block=True)
    layers = explain.attention_layers(model)
    assert len(layers) >= 3
    for row, point in zip(found, points, strict=True):
        for block, place in zip(row, layers, strict=True):
            stride = model.stage_strides[block.stage - 1]
            assert block.query == (point[1] // stride, point[0] // stride)
            inputs, output = passed[id(place.layer)]
            index = block.query[0] * block.size[1] + block.query[1]
            expected = output[0, index].numpy()
            with paddle.no_grad():
                got = mixed_values(place.layer, block, inputs)
            np.testing.assert_allclose(got, expected, atol=2e-4 * np.abs(expected).max())
            np.testing.assert_allclose(block.weights.sum(1), 1, atol=1e-5)
            assert block.weights.min() >= 0 and np.ptp(block.weights) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_looking_leaves_the_model_as_it_was(name):
    model, x = small(name), image(64, 64)
    before = model(x).numpy()
    layers = [place.layer for place in explain.attention_layers(model)]
    explain.attention(model, x, [(5, 5)])
    with held(model, model):
        assert all(p.stop_gradient for p in model.parameters()) and model.recompute
        assert not any(part.training for block in model.blocks()[0] for part in block.children())
    assert not any(layer._forward_post_hooks for layer in layers)
    assert not model.recompute and not any(part.training for part in model.sublayers())
    assert not all(p.stop_gradient for p in model.parameters())
    assert np.array_equal(model(x).numpy(), before)


def peak_of(run):
    """Bytes of Paddle's tensors that `run` takes at most, beside those there before."""
    core = paddle.base.core
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    run()
    return core.host_memory_stat_peak_value("Allocated", 0) - before


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_rows_take_memory_as_pixels_do_not_as_their_squares(name):
    """Four times the pixels: rows take up to four times the memory, whole weights take 16 times."""
    model, peaks = small(name), {}
    for side in (128, 256):
        x = image(side, side)
        passed = spied(model, x)
        for number, place in enumerate(explain.attention_layers(model)):
            inputs, output = passed[id(place.layer)]
            with paddle.no_grad():
                peaks[number, side] = peak_of(lambda: place.layer.rows([0, 7], *inputs))  # noqa: B023
            if side == 256 and number == 0:
                whole = 4 * place.layer.num_heads * output.shape[1] * (side // 32) ** 2
    for number, _ in enumerate(explain.attention_layers(model)):
        assert peaks[number, 256] < 6 * peaks[number, 128], peaks
    with paddle.no_grad():
        forward = peak_of(lambda: model.forward_features(x))
    looked = peak_of(lambda: explain.attention(model, x, [(9, 9)], every_block=True))
    assert looked - forward < whole / 4, (looked, forward, whole)


def test_more_maps_than_memory_allows_are_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["ppcls_nextvit.explain.attention"], "LARGEST", 2**14)
    # of a point 960 values: 16 x 16 of 2 heads, 8 x 8 of 4, 4 x 4 of 8, 2 x 2 of 16
    model, points = small("TransNeXt_micro"), [(1, 1)] * 5
    assert len(explain.attention(model, image(64, 64), points[:4])) == 4
    with pytest.raises(
        ValueError, match="5 points in 4 blocks take more than 0.015625 MiB; choose"
    ):
        explain.attention(model, image(64, 64), points)


def test_weights_of_runs_of_tokens_go_to_their_tokens():
    layer = E_MHSA(32, 2, "sequence", 0.0, 0.0)
    x = paddle.zeros([1, 32, 3, 5])  # 15 tokens, 3 runs of 4
    maps = layer.on_tokens(paddle.to_tensor([[0.5, 0.3, 0.2]]), 0, x).numpy()
    expected = np.repeat([0.5, 0.3, 0.2, 0], [4, 4, 4, 3]) / 4
    np.testing.assert_allclose(maps[0].ravel(), expected, atol=1e-7)


def test_weights_of_squares_and_of_a_window_go_to_their_tokens():
    layer = E_MHSA(32, 2, "window", 0.0, 0.0)
    maps = layer.on_tokens(paddle.to_tensor([[0.4, 0.6]]), 0, paddle.zeros([1, 32, 2, 3])).numpy()
    # the second square is cut by the border
    np.testing.assert_allclose(maps[0], [[0.1, 0.1, 0.3], [0.1, 0.1, 0.3]], atol=1e-7)

    model = small("TransNeXt_micro")
    layer = explain.attention_layers(model)[2].layer  # pooled by 2
    places = model._places(2, (4, 4), layer)
    weights = np.zeros((1, 13), "float32")
    weights[0, 4], weights[0, 8], weights[0, 9] = 0.5, 0.3, 0.2  # itself, down right, a pooled one
    maps = layer.on_tokens(paddle.to_tensor(weights), 0, None, places).numpy()
    expected = np.zeros((4, 4))
    expected[:2, :2] = 0.05
    expected[0, 0] += 0.5
    expected[1, 1] += 0.3
    np.testing.assert_allclose(maps[0], expected, atol=1e-7)


def test_points_outside_and_models_without_attention_are_refused():
    model = small("TransNeXt_micro")
    for point in ((64, 0), (0, 32), (-1, 0)):
        with pytest.raises(ValueError, match=r"outside of the image .* 64 x 32 pixels; x is from"):
            explain.attention(model, image(32, 64), [point])
    with pytest.raises(ValueError, match="Known has no attention that could be shown"):
        explain.attention(Known(), image(32, 32), [(0, 0)])
    with pytest.raises(ValueError, match="Known does not tell its blocks"):
        explain.block_maps(Known(), image(32, 32))


# Receptive fields.


class Known(BaseBackbone):
    """Convolutions with positive weights: stage 1 sees 5 x 5 pixels, stage 2 9 x 9."""

    stage_strides = (1, 2)

    def __init__(self):
        super().__init__(None)
        ones = paddle.ParamAttr(initializer=nn.initializer.Constant(0.1))
        self.first = nn.Sequential(
            *[nn.Conv2D(3, 3, 3, padding=1, weight_attr=ones) for _ in range(2)]
        )
        self.second = nn.Sequential(
            nn.Conv2D(3, 3, 3, stride=2, padding=1, weight_attr=ones),
            nn.Conv2D(3, 3, 1, weight_attr=ones),
        )

    def forward_features(self, x):
        first = self.first(x)
        return [first, self.second(first)]


def test_a_known_receptive_field_is_found():
    backbone = Known()
    pictures = [paddle.ones([1, 3, 21, 21]), 2 * paddle.ones([1, 3, 21, 21])]
    fields = explain.receptive_fields(backbone, pictures)
    rows, columns = np.mgrid[:21, :21]
    for field, centre, reach in zip(fields, (10, 10), (2, 3), strict=True):
        inside = np.maximum(abs(rows - centre), abs(columns - centre)) <= reach
        assert (field[inside] > 0).all() and not field[~inside].any()
    # two 3 x 3 convolutions of ones: the weights of 1 2 3 2 1 in each direction
    weights = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
    field = fields[0][8:13, 8:13]
    np.testing.assert_allclose(field / field.sum(), weights / weights.sum(), rtol=1e-5)
    found = explain.areas(fields[0])
    assert found[0.99].side == 5 and found[0.99].centre == (10, 10)
    assert found[0.99].square == 25 / 21**2
    assert found[0.2].side == 3  # 9 of 81 in the middle, 49 within one pixel of it
    assert found[0.2].contour == 3 / 21**2  # 9 + 6 + 6 of 81 are more than a fifth, 15 are not


def test_areas_of_fields_that_are_known():
    even = explain.areas(np.ones((40, 40)), (0.25, 0.5, 1.0))
    assert {share: area.contour for share, area in even.items()} == {0.25: 0.25, 0.5: 0.5, 1.0: 1.0}
    assert even[0.25].side == 21 and even[0.25].centre == (20, 20) and even[1.0].square == 1.0
    point = np.zeros((9, 12))
    point[4, 6] = 2
    assert explain.areas(point)[0.99][1:4] == (1 / 108, 1 / 108, 1)
    assert explain.areas(np.zeros((4, 4)))[0.5][1:4] == (0, 0, 0)


def test_fields_need_images_of_one_size():
    with pytest.raises(ValueError, match="one image or more"):
        explain.receptive_fields(Known(), [])
    with pytest.raises(ValueError, match="32 x 32 and 32 x 48"):
        explain.receptive_fields(Known(), [image(32, 32), image(32, 48)])


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_computing_again_what_is_not_kept_changes_no_field(name):
    model, x = small(name), image(64, 64)
    fields = explain.receptive_fields(model, [x])
    kept = x.detach()
    kept.stop_gradient = False
    maps = model.forward_features(kept)
    for field, m in zip(fields, maps, strict=True):
        middle = m[:, :, m.shape[2] // 2, m.shape[3] // 2]
        (gradient,) = paddle.grad(F.relu(middle).sum(), kept, retain_graph=True)
        expected = np.maximum(gradient[0].numpy(), 0).sum(0)
        np.testing.assert_allclose(field, expected, atol=1e-4 * expected.max())
    assert fields[0][:16].max() == 0 or name.startswith("Trans")  # Next-ViT's first is convolved


# Frequencies and features.


@pytest.mark.parametrize("wave, place", [((0, 3), 3 / 8), ((4, 0), 4 / 8), ((3, 4), 5 / 8)])
def test_a_single_frequency_is_a_single_peak(wave, place):
    rows, columns = np.mgrid[:16, :16] / 16
    wave_map = 1 + 0.5 * np.cos(2 * np.pi * (wave[0] * rows + wave[1] * columns))
    found = explain.spectrum(np.stack([wave_map, 2 * wave_map]))
    peaks = found.amplitudes > 1e-9 * found.amplitudes.max()
    assert found.frequencies[peaks].tolist() == [0, place]
    assert found.relative[0] == 0 and found.relative[peaks][1] == found.relative[1:].max()


def test_spectra_of_constant_and_narrow_maps():
    found = explain.spectrum(np.ones((2, 7, 3)))
    assert (found.relative[1:] < -18).all() and np.isfinite(found.relative).all()
    assert found.frequencies[-1] == 1
    with pytest.raises(ValueError, match="a map of 1 x 1 cells has no frequencies"):
        explain.spectrum(np.ones((2, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_every_block_s_map_is_there(name):
    model, x = small(name), image(64, 96)
    maps = explain.block_maps(model, x)
    stages = model.forward_features(x)
    assert list(maps) == [
        (stage, block)
        for stage, depth in enumerate(SHALLOW[name], 1)
        for block in range(1, depth + 1)
    ]
    for (stage, _), m in maps.items():
        assert list(m.shape[1:]) == stages[stage - 1].shape[2:]
    # Next-ViT's stages end with their last block, TransNeXt's with a norm
    if name.startswith("Next"):
        assert np.array_equal(maps[4, 1], stages[3][0].numpy())


def test_principal_components_are_the_directions_of_the_variance():
    draw = np.random.default_rng(0)
    along = draw.normal(size=(3, 400)) * [[9], [3], [1]]
    basis = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    features = (basis[:, :3] @ along + 5).reshape(6, 20, 20)
    found = explain.principal_components(features)
    for i in range(3):
        colour = found.colours[..., i].ravel()
        inner = (colour > 0) & (colour < 1)
        assert abs(np.corrcoef(colour[inner], along[i][inner])[0, 1]) > 0.98
    np.testing.assert_allclose(found.explained, np.array([81, 9, 1]) / 91, atol=0.02)
    assert found.colours.min() == 0 and found.colours.max() == 1
    again = explain.principal_components(-features)  # only the sign differs, which is chosen
    np.testing.assert_allclose(again.explained, found.explained)
    flat = explain.principal_components(np.ones((2, 3, 3)))
    assert (flat.colours == 0.5).all() and not flat.explained.any()


# Evidence for classes.


def subject(model, classes=3):
    """A classifier's Subject without files."""

    def evidence(view, wanted=None):
        logits = model(view.x)[0]
        return [Evidence(str(c), c, logits[c]) for c in wanted or range(classes)]

    return SimpleNamespace(model=model, backbone=model, names="abc", evidence=evidence)


def view_of(x):
    return View(x, np.zeros((*x.shape[2:], 3), np.uint8), tuple(x.shape[2:]))


def head_weights(model):
    """[C, classes]: a logit is the mean over the last map's places of these times its values, plus
    a constant.
    """
    if hasattr(model, "head"):
        return model.head.weight.numpy()
    norm = model.norm
    gain = norm.weight.numpy() / np.sqrt(norm._variance.numpy() + norm._epsilon)
    return gain[:, None] * model.proj_head[0].weight.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_the_map_of_a_linear_head_has_its_closed_form(name):
    model, x = small(name), image(96, 128)
    last = model.forward_features(x)[-1][0].numpy()
    expected = np.tensordot(head_weights(model).T, last, 1) / last[0].size
    for method in ("grad", "hires"):
        found = explain.class_maps(subject(model), view_of(x), method=method, stage=4)
        for c, one in enumerate(found):
            assert one.stage == 4 and one.evidence.class_id == c
            # of a linear head both are the class activation map
            known = np.maximum(expected[c], 0)
            np.testing.assert_allclose(one.values, known, atol=1e-4 * np.abs(expected).max())
    (one,) = explain.class_maps(subject(model), view_of(x), [2], "grad", stage=4)
    assert one.evidence.class_id == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SHALLOW)
def test_maps_of_earlier_stages_are_gradients_through_the_later_ones(name):
    model, x = small(name), image(64, 64)
    one = explain.class_maps(subject(model), view_of(x), [1], stage=2)[0]
    with watched_maps(model) as maps:
        logits = model(x)
    (gradient,) = paddle.grad(logits[0, 1], maps[1])
    expected = explain.grad_cam(maps[1][0].numpy(), gradient[0].numpy())
    np.testing.assert_allclose(one.values, expected, atol=1e-4 * expected.max())
    assert model.forward_features.__self__ is model, "the model is as it was"
    # 16, 8, 4 and 2 cells a side: the last of 7 or more
    assert explain.class_maps(subject(model), view_of(x), [1])[0].stage == 2


def test_cams_of_maps_that_are_known():
    features = np.array([[[1.0, 2], [3, 4]], [[1, 0], [0, -9]]])
    gradient = np.array([[[1.0, 1], [1, 1]], [[0, 4], [0, 0]]])
    assert explain.grad_cam(features, gradient).tolist() == [[2, 2], [3, 0]]  # weights 1 and 1
    assert explain.hires_cam(features, gradient).tolist() == [[1, 2], [3, 4]]
    # one direction, whose sign is the one that more tokens share
    place = np.array([[3.0, 1], [0.5, -1]])
    found = explain.eigen_cam(np.stack([-0.6 * place, -0.8 * place]))
    np.testing.assert_allclose(found, np.maximum(place, 0), atol=1e-6)


def test_stages_and_methods_that_are_none_are_refused():
    model, x = small("TransNeXt_micro"), image(32, 32)
    with pytest.raises(ValueError, match="stage: must be from 1 to 4, got 5"):
        explain.class_maps(subject(model), view_of(x), stage=5, method="eigen")
    with pytest.raises(ValueError, match="expected one of grad, hires, eigen, got 'score'"):
        explain.class_maps(subject(model), view_of(x), method="score")
