"""The compiled product of matrices: equal to Paddle's in float64, forward and gradients; where
layers take it, what it refuses, and products in bfloat16.
"""

import itertools

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model, ops
from ppcls_nextvit.models.layers import Linear
from support.compiled_ops import (
    check_frozen,
    differences,
    openmp_threads,
    require_onednn,
    result_and_gradients,
    run_onednn_check,
)
from support.goldens import max_difference

R, I, C = 5, 7, 9  # of each product: rows, what is summed, columns
# leading axes of x and y
LEADING = [
    ((), ()),
    ((3,), (3,)),
    ((3,), ()),
    ((), (3,)),
    ((2, 3), (2, 3)),
    ((2, 3), ()),
    ((), (2, 3)),
]
TRANSPOSED = list(itertools.product((False, True), repeat=2))


@pytest.fixture(autouse=True)
def built():
    require_onednn()


def drawn(leading, transposed, bias, seed=0):
    """Arrays x, y and, where there is one, bias, and the settings."""
    rng = np.random.default_rng(seed)
    shapes = [(R, I)[:: -1 if transposed[0] else 1], (I, C)[:: -1 if transposed[1] else 1]]
    shapes = [(*before, *shape) for before, shape in zip(leading, shapes, strict=True)]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in [*shapes, *[(C,)] * bias]]
    return arrays, {"transpose_x": transposed[0], "transpose_y": transposed[1]}


def by_paddle(x, y, bias=None, **settings):
    out = paddle.matmul(x, y, **settings)
    return out if bias is None else out + bias


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", TRANSPOSED)
@pytest.mark.parametrize("leading", LEADING)
def test_it_equals_paddle_s_in_float64(leading, transposed, bias):
    arrays, settings = drawn(leading, transposed, bias)
    found = result_and_gradients(ops.matmul, arrays, settings)
    expected = result_and_gradients(by_paddle, arrays, settings, "float64")
    assert [list(x.shape) for x in found] == [list(x.shape) for x in expected]
    assert max(differences(found, expected)) < 5e-6


def test_large_ones_too():
    """Several blocks of oneDNN's, and of the columns that are summed for a bias."""
    rng = np.random.default_rng(0)
    shapes = [(2, 70, 300), (300, 530), (530,)]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    found = result_and_gradients(ops.matmul, arrays, {})
    expected = result_and_gradients(by_paddle, arrays, {}, "float64")
    assert max(differences(found, expected)) < 5e-6


@pytest.mark.parametrize("leading", LEADING)
def test_products_with_a_shared_matrix_are_in_bfloat16_where_asked(leading):
    if not ops.cpu_multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    arrays, settings = drawn(leading, (False, True), True)
    with ops.multiplying(bfloat16=True):
        found = result_and_gradients(ops.matmul, arrays, settings)
    plain = result_and_gradients(ops.matmul, arrays, settings)
    if () not in leading:
        assert max(differences(found, plain)) == 0
        return
    assert 0 < max(differences(found, plain)) < 2e-2
    rounded = [paddle.to_tensor(a).astype("bfloat16").astype("float64") for a in arrays[:2]]
    bias = paddle.to_tensor(arrays[2].astype("float64"))
    assert differences(found[:1], [by_paddle(*rounded, bias, **settings)])[0] < 2e-6


def test_inputs_and_incoming_gradients_need_not_be_contiguous():
    arrays, settings = drawn(((2, 3), ()), (False, False), True)
    expected = result_and_gradients(by_paddle, arrays, settings)

    def of_views(x, y, bias, **settings):
        x = x.transpose([3, 0, 1, 2]).contiguous().transpose([1, 2, 3, 0])
        y = y.t().contiguous().t()
        assert not x.is_contiguous() and not y.is_contiguous()
        out = ops.matmul(x, y, bias, **settings)
        return out.transpose([2, 3, 0, 1]).contiguous().transpose([2, 3, 0, 1])

    assert max(differences(result_and_gradients(of_views, arrays, settings), expected)) < 5e-6


def test_no_row_has_gradients_of_zero():
    x, y, bias = paddle.zeros([0, 4]), paddle.ones([4, 6]), paddle.ones([6])
    for tensor in (x, y, bias):
        tensor.stop_gradient = False
    out = ops.matmul(x, y, bias)
    assert list(out.shape) == [0, 6]
    out.sum().backward()
    assert list(x.grad.shape) == [0, 4]
    assert not y.grad.any() and not bias.grad.any()


@pytest.mark.parametrize("still", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own(still):
    check_frozen(ops.matmul, *drawn(((2,), ()), (False, False), True), still)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_number_of_threads_gives_the_same_bits(threads):
    arrays, settings = drawn(((), (3,)), (True, True), True)
    expected = result_and_gradients(by_paddle, arrays, settings, "float64")
    with openmp_threads(threads):
        first, second = (result_and_gradients(ops.matmul, arrays, settings) for _ in range(2))
    assert differences(first, second) == [0] * 4
    assert max(differences(first, expected)) < 5e-6


@pytest.mark.chain
def test_under_sanitizers(tmp_path):
    """Against the definition, every layout of the operands."""
    assert run_onednn_check("product_check", tmp_path) == "products: 0 failures\n"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"x": ("float64", [5, 7])}, TypeError, "x must be float32; got float64"),
        ({"y": ("float64", [7, 9])}, TypeError, "y must be float32, as x is; got float64"),
        ({"x": ("float32", [7])}, ValueError, r"x must have 2 axes or more; got \[7\]"),
        ({"y": ("float32", [7])}, ValueError, r"y must have 2 axes or more; got \[7\]"),
        (
            {"y": ("float32", [6, 9])},
            ValueError,
            r"must be of one length; got \[5, 7\] and \[6, 9\]",
        ),
        ({"x": ("float32", [5, 0]), "y": ("float32", [0, 9])}, ValueError, "must be of one length"),
        (
            {"x": ("float32", [2, 5, 7]), "y": ("float32", [3, 7, 9])},
            ValueError,
            r"the same leading axes; got \[2, 5, 7\] and \[3, 7, 9\]",
        ),
        ({"bias": ("float32", [8])}, ValueError, r"bias must have shape \[9\]; got \[8\]"),
    ],
)
def test_wrong_arguments_are_named(change, kind, message):
    given = {"x": ("float32", [5, 7]), "y": ("float32", [7, 9]), "bias": ("float32", [9]), **change}
    with pytest.raises(kind, match=message):
        ops.matmul(**{name: paddle.zeros(shape, dtype) for name, (dtype, shape) in given.items()})


# ---------------------------------------------------------------- choosing


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 5, 3, 4), (0, 4)])
def test_a_linear_layer_is_paddle_s(shape):
    layer = Linear(4, 6)
    x = paddle.randn(shape)
    assert layer(x).shape == [*shape[:-1], 6]
    if x.size:
        assert max_difference(layer(x), F.linear(x, layer.weight, layer.bias)) < 1e-6


def test_layers_take_it_where_they_can(monkeypatch):
    calls = []
    whole = ops.matmul
    monkeypatch.setattr(ops, "matmul", lambda *a, **k: calls.append(1) or whole(*a, **k))
    x = paddle.randn([2, 4])
    Linear(4, 6)(x)
    Linear(4, 6, bias_attr=False)(x)
    assert len(calls) == 2
    calls.clear()
    Linear(4, 6)(x[0])
    Linear(4, 6).to(dtype="float64")(x.astype("float64"))
    recorded = paddle.jit.to_static(
        Linear(4, 6), input_spec=[paddle.static.InputSpec([2, 4])], full_graph=True
    )
    recorded(x)
    assert not calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NextViT_small", "TransNeXt_micro"])
def test_a_model_trains_as_with_paddle_s_products(name, monkeypatch):
    """One step's gradients."""
    paddle.seed(0)
    depths = (1, 1, 5, 1) if name == "NextViT_small" else (1, 1, 1, 1)
    model = create_model(name, depths=depths, num_classes=5, drop_path_rate=0.0)
    model.eval()  # BatchNorm of few values is no measure
    x = paddle.randn([2, 3, 64, 64])
    found = {}
    for form in (ops.matmul, by_paddle):
        monkeypatch.setattr(ops, "matmul", form)
        (model(x) ** 2).sum().backward()
        found[form] = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
        model.clear_gradients()
    scale = max(np.abs(a).max() for a in found[by_paddle])
    pairs = zip(*found.values(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) < 1e-5 * scale
