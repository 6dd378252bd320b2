"""Compiled deformable attention: equal to the grid_sample form on every instruction set, gradients
included; how it is chosen, and what it refuses.
"""

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, ops
from ppcls_nextvit.models.detectors import deformable
from ppcls_nextvit.models.detectors.deformable import (
    DeformableEncoder,
    choose_form,
    multi_scale_deformable_attention,
)
from ppcls_nextvit.models.registry import MODELS
from support.compiled_ops import require_ops
from support.goldens import max_difference

SETS = ("baseline", "avx2", "avx512")  # instruction sets; what a processor lacks is the next lower
SHAPES = [(5, 7), (3, 4), (1, 2)]
TOKENS = sum(h * w for h, w in SHAPES)
BACKBONE = {"name": "TransNeXt_micro", "depths": (1, 1, 1, 1), "drop_path_rate": 0.0}


@pytest.fixture
def built():
    require_ops()


def inputs(dim=32, heads=2, points=3, batch=2, queries=6, dtype="float32"):
    """value, locations (some beyond the edges), weights."""
    draw = np.random.default_rng(dim)
    samples = (batch, queries, heads, len(SHAPES), points)
    arrays = (
        draw.standard_normal((batch, TOKENS, heads, dim)),
        draw.uniform(-0.3, 1.3, (*samples, 2)),
        draw.uniform(0, 1, samples),
    )
    return [paddle.to_tensor(x.astype(dtype), stop_gradient=False) for x in arrays]


def compiled(value, locations, weights):
    return ops.deformable_attention(value, SHAPES, locations, weights)


def sampled(value, locations, weights):
    return multi_scale_deformable_attention(value, SHAPES, locations, weights)


def result_and_gradients(function, given):
    out = function(*given)
    weights = paddle.cos(paddle.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    return [out, *paddle.grad(out, given, [weights])]


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("dim", [1, 8, 32, 45])
@pytest.mark.parametrize("isa", SETS)
def test_it_equals_the_grid_sample_form(isa, dim, dtype, bound, built, monkeypatch):
    """No location is within rounding of a cell's centre, where slopes differ from side to side."""
    monkeypatch.setenv("PPCLS_NEXTVIT_ISA", isa)
    given = inputs(dim, dtype=dtype)
    found, expected = (result_and_gradients(form, given) for form in (compiled, sampled))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert max_difference(one, other) < bound * max(1.0, float(other.abs().max()))


def test_two_runs_have_the_same_bits(built):
    given = inputs(queries=70)
    first, second = (result_and_gradients(compiled, given) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_inputs_and_incoming_gradients_need_not_be_contiguous(built):
    def strided(x):
        axes = [1, 0, *range(2, x.ndim)]
        turned = x.detach().transpose(axes).contiguous().transpose(axes)
        turned.stop_gradient = False
        assert not turned.is_contiguous()
        return turned

    given = inputs()
    out = compiled(*given)
    weights = paddle.cos(paddle.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    expected = paddle.grad(out, given, [weights])
    turned = [strided(x) for x in given]
    again = compiled(*turned)
    assert (again == out).all()
    found = paddle.grad(again, turned, [strided(weights)])
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_what_is_not_asked_for_has_no_gradient(built):
    value, locations, weights = inputs()
    locations.stop_gradient = weights.stop_gradient = True
    compiled(value, locations, weights).sum().backward()
    assert value.grad is not None and locations.grad is None


def test_locations_far_away_and_none(built):
    given = inputs(dim=4, queries=4)
    locations = given[1].numpy()
    for query, odd in enumerate((1e30, -1e30, float("inf"), float("nan"))):
        locations[:, query] = odd
    given[1] = paddle.to_tensor(locations, stop_gradient=False)
    out, *grads = result_and_gradients(compiled, given)
    assert (out[:, :3] == 0).all() and out[:, 3].isnan().all()
    assert (grads[0] == 0).all()
    assert (grads[1][:, :3] == 0).all() and grads[1][:, 3].isnan().all()


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"queries": 0}, {"points": 0}])
def test_nothing_is_an_input_too(sizes, built):
    given = inputs(**sizes)
    out, *grads = result_and_gradients(compiled, given)
    assert out.shape == [given[0].shape[0], given[1].shape[1], 64]
    assert [grad.shape for grad in grads] == [x.shape for x in given]
    assert (grads[0] == 0).all()


@pytest.mark.parametrize(
    "place, change, kind, message",
    [
        (0, paddle.zeros([2, 3, 2, 4]), ValueError, "value must have shape [2, 49, 2, 4]; got"),
        (0, paddle.zeros([2, 49, 8]), ValueError, "value must have 4 axes; got shape [2, 49, 8]"),
        (1, paddle.zeros([2, 6, 2, 3]), ValueError, "locations must have 6 axes; got"),
        (
            1,
            paddle.zeros([2, 6, 2, 2, 3, 2]),
            ValueError,
            "locations must have shape [2, 6, 2, 3, 3, 2]; got",
        ),
        (2, paddle.zeros([2, 6, 2, 3, 4]), ValueError, "weights must have shape [2, 6, 2, 3, 3];"),
        (0, paddle.zeros([2, 49, 2, 4], "float16"), TypeError, "value must be float32 or float64;"),
        (
            2,
            paddle.zeros([2, 6, 2, 3, 3], "float64"),
            TypeError,
            "weights must be float32, as value is; got float64",
        ),
    ],
)
def test_wrong_arguments_are_named(place, change, kind, message, built):
    given = inputs(dim=4)
    given[place] = change
    with pytest.raises(kind) as error:
        compiled(*given)
    assert message in str(error.value)


def test_a_map_without_cells_is_refused(built):
    value, locations, weights = inputs(dim=4)
    with pytest.raises(ValueError, match="shapes must be .height, width., each at least 1; got"):
        ops.deformable_attention(value, [*SHAPES[:2], (0, 2)], locations, weights)


# ---------------------------------------------------------------- choosing


def test_layers_take_the_operator_where_they_can(built, monkeypatch):
    calls = []
    whole = ops.deformable_attention
    monkeypatch.setattr(
        ops, "deformable_attention", lambda *given: calls.append(1) or whole(*given)
    )
    paddle.seed(0)
    encoder = DeformableEncoder(16, heads=2, levels=3, points=2, hidden=16, depth=2)
    for layer in encoder.layers:
        layer.self_attn.sampling_offsets.bias.set_value(paddle.randn([24]))
    tokens, references = paddle.randn([2, TOKENS, 16]), paddle.rand([2, TOKENS, 3, 2])
    found = {}
    for form in deformable.FORMS:
        calls.clear()
        choose_form(encoder, form)
        out = encoder(tokens, paddle.zeros_like(tokens), references, SHAPES)
        out.square().mean().backward()
        found[form] = (len(calls), out, [p.grad.clone() for p in encoder.parameters()])
        encoder.clear_gradients()
    assert [count for count, *_ in found.values()] == [2, 2, 0]
    assert max_difference(found["auto"][1], found["grid_sample"][1]) < 1e-5
    for one, other in zip(found["auto"][2], found["grid_sample"][2], strict=True):
        assert max_difference(one, other) < 1e-5 * max(1.0, float(other.abs().max()))
    # a program that is recorded has the operators of Paddle alone
    choose_form(encoder, "compiled")
    calls.clear()
    recorded = paddle.jit.to_static(encoder, full_graph=True)
    out = recorded(tokens, paddle.zeros_like(tokens), references, SHAPES)
    assert max_difference(out, found["grid_sample"][1]) < 1e-5 and not calls


@pytest.mark.parametrize("name", ["DINO", "Mask2Former"])
def test_models_say_the_form(name, built):
    small = MODELS.get(name).toy
    for form, expected in (("auto", True), ("compiled", True), ("grid_sample", False)):
        model = create_model(name, backbone=BACKBONE, num_classes=3, sampling_form=form, **small)
        layers = [x for x in model.sublayers() if hasattr(x, "sampling_offsets")]
        assert layers and all(x.compiled is expected for x in layers)
    with pytest.raises(ValueError, match="unknown sampling form 'compild'.*'compiled'"):
        create_model(name, backbone=BACKBONE, num_classes=3, sampling_form="compild", **small)


def test_without_the_operator_the_form_is_refused(monkeypatch):
    monkeypatch.setattr(ops, "is_loaded", lambda: False)
    layer = deformable.MultiScaleDeformableAttention(16, heads=2)
    choose_form(layer, "auto")
    assert not layer.compiled
    with pytest.raises(ValueError, match="'compiled' needs the compiled operators; run nextvit"):
        choose_form(layer, "compiled")
