"""The compiled convolution: equal to Paddle's in float64, forward and gradients; where layers take
it, what it refuses, and products in bfloat16.
"""

import logging
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model, ops
from ppcls_nextvit.engine import precision
from ppcls_nextvit.engine.logger import logger
from ppcls_nextvit.models.layers import Conv2D, PointwiseConv2D, activated
from support.compiled_ops import (
    check_frozen,
    differences,
    openmp_threads,
    require_onednn,
    result_and_gradients,
    run_onednn_check,
)
from support.goldens import max_difference
from support.paths import ROOT
from support.programs import program_at

rounded = program_at("benchmarks/rounded.py")
TOY = {"depths": (1, 1, 5, 1), "num_classes": 5, "drop_path_rate": 0.0}
# x, channels out, kernel, stride, padding, dilation, groups, whether there is a bias
SHAPES = {
    "stem": ([2, 3, 9, 7], 8, (3, 3), (2, 2), (1, 1), (1, 1), 1, False),
    "grouped": ([2, 64, 5, 6], 64, (3, 3), (1, 1), (1, 1), (1, 1), 2, False),
    "depthwise": ([2, 24, 7, 5], 24, (3, 3), (1, 1), (1, 1), (1, 1), 24, True),
    "pointwise": ([3, 20, 5, 3], 36, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
    "strided pointwise": ([1, 4, 5, 4], 6, (1, 1), (2, 2), (0, 0), (1, 1), 1, True),
    "overlapping patches": ([1, 3, 13, 18], 16, (7, 7), (4, 4), (3, 3), (1, 1), 1, True),
    "dilated": ([1, 4, 9, 8], 6, (3, 3), (1, 1), (2, 2), (2, 2), 2, True),
    "uneven": ([1, 4, 7, 8], 5, (3, 1), (2, 1), (1, 0), (1, 2), 1, False),
    "one pixel": ([1, 1, 1, 1], 1, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
}


@pytest.fixture(autouse=True)
def built():
    require_onednn()


def drawn(name, seed=0):
    """Arrays x, weight and, where there is one, bias, and the settings."""
    x_shape, out, kernel, stride, padding, dilation, groups, bias = SHAPES[name]
    rng = np.random.default_rng(seed)
    shapes = [x_shape, [out, x_shape[1] // groups, *kernel], *[[out]] * bias]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return arrays, settings


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", SHAPES)
def test_it_equals_paddle_s_in_float64(name):
    arrays, settings = drawn(name)
    found = result_and_gradients(ops.conv2d, arrays, settings)
    expected = result_and_gradients(F.conv2d, arrays, settings, "float64")
    assert [list(x.shape) for x in found] == [list(x.shape) for x in expected]
    assert max(differences(found, expected)) < 2e-6


def rectified(x, weight, bias, **settings):
    return F.relu(F.conv2d(x, weight, bias, **settings))


def with_relu(x, weight, bias, **settings):
    return ops.conv2d(x, weight, bias, relu=True, **settings)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape[-1]])
def test_with_a_relu_it_equals_paddle_s_two_in_float64(name):
    arrays, settings = drawn(name)
    found = result_and_gradients(with_relu, arrays, settings)
    expected = result_and_gradients(rectified, arrays, settings, "float64")
    assert max(differences(found, expected)) < 2e-6
    if expected[0].size > 100:
        assert 0.2 < float((found[0] == 0).astype("float32").mean()) < 0.8


def test_nothing_passes_a_relu_that_is_zero():
    x, weight, bias = (
        paddle.ones([1, 1, 2, 2]),
        paddle.ones([2, 1, 1, 1]),
        paddle.to_tensor([-1.0, -2.0]),
    )
    for tensor in (x, weight, bias):
        tensor.stop_gradient = False
    out = ops.conv2d(x, weight, bias, relu=True)
    assert not out.any()
    out.sum().backward()
    assert not x.grad.any() and not weight.grad.any() and not bias.grad.any()


@pytest.mark.parametrize("name", SHAPES)
def test_products_in_bfloat16_are_those_of_rounded_values(name):
    arrays, settings = drawn(name)
    if not ops.cpu_multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    with ops.multiplying(bfloat16=True):
        found = result_and_gradients(ops.conv2d, arrays, settings)
    plain = result_and_gradients(ops.conv2d, arrays, settings)
    assert max(differences(found, plain)) < 2e-2
    if name == "depthwise":
        assert max(differences(found, plain)) == 0
        return
    rounded = [
        *(paddle.to_tensor(a).astype("bfloat16").astype("float64") for a in arrays[:2]),
        *(paddle.to_tensor(a).astype("float64") for a in arrays[2:]),
    ]
    assert differences(found[:1], [F.conv2d(*rounded, **settings)])[0] < 2e-6


def of_rounded_factors(arrays, settings):
    """Result and gradients in float64, where a factor is a value that bfloat16 has."""

    def factor(array):
        return paddle.to_tensor(array).astype("bfloat16").astype("float64")

    x, weight = map(factor, arrays[:2])
    x.stop_gradient = weight.stop_gradient = False
    out = F.conv2d(x, weight, **settings)
    grad = np.cos(np.arange(out.size, dtype=np.float32)).reshape(out.shape)
    found = [out, *paddle.grad(out, [x, weight], factor(grad))]
    if len(arrays) == 3:
        found[0] = out + paddle.to_tensor(arrays[2].astype("float64")).reshape([1, -1, 1, 1])
        found.append(paddle.to_tensor(grad.astype("float64").sum((0, 2, 3))))
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_the_benchmark_rounds_what_the_operator_would(name):
    arrays, settings = drawn(name)
    with rounded.rounding():
        found = result_and_gradients(ops.conv2d, arrays, settings)
    plain = result_and_gradients(ops.conv2d, arrays, settings)
    if name == "depthwise":
        assert max(differences(found, plain)) == 0
        return
    assert max(differences(found, of_rounded_factors(arrays, settings))) < 2e-6
    assert 1e-4 < max(differences(found, plain)) < 2e-2
    if ops.cpu_multiplies_bfloat16():
        with ops.multiplying(bfloat16=True):
            native = result_and_gradients(ops.conv2d, arrays, settings)
        assert max(differences(found, native)) < 2e-6


def test_the_mode_ends_with_its_block_and_gradients_keep_that_of_their_convolution(monkeypatch):
    arrays, settings = drawn("pointwise")
    if not ops.cpu_multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    tensors = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
    with pytest.raises(ZeroDivisionError), ops.multiplying(bfloat16=True):
        out = ops.conv2d(*tensors, **settings)
        raise ZeroDivisionError
    out.sum().backward()
    with ops.multiplying(bfloat16=True):
        again = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
        ops.conv2d(*again, **settings).sum().backward()
    grads = [[tensor.grad for tensor in one] for one in (tensors, again)]
    assert differences(*grads) == [0] * 3
    plain = ops.conv2d(*tensors, **settings)
    assert max(differences([plain], [F.conv2d(*tensors, **settings)])) < 1e-6


def test_inputs_and_incoming_gradients_need_not_be_contiguous():
    arrays, settings = drawn("grouped")
    expected = result_and_gradients(F.conv2d, arrays, settings)

    def of_views(x, weight, **settings):
        x = x.transpose([2, 3, 0, 1]).contiguous().transpose([2, 3, 0, 1])
        weight = weight.transpose([1, 0, 3, 2]).contiguous().transpose([1, 0, 3, 2])
        assert not x.is_contiguous() and not weight.is_contiguous()
        out = ops.conv2d(x, weight, **settings)
        return out.transpose([0, 2, 3, 1]).contiguous().transpose([0, 3, 1, 2])

    assert max(differences(result_and_gradients(of_views, arrays, settings), expected)) < 2e-6


def test_an_empty_batch_has_gradients_of_zero():
    x = paddle.zeros([0, 4, 5, 5])
    weight, bias = paddle.ones([6, 4, 3, 3]), paddle.ones([6])
    for tensor in (x, weight, bias):
        tensor.stop_gradient = False
    out = ops.conv2d(x, weight, bias)
    assert list(out.shape) == [0, 6, 3, 3]
    out.sum().backward()
    assert list(x.grad.shape) == [0, 4, 5, 5]
    assert not weight.grad.any() and not bias.grad.any()


@pytest.mark.parametrize("still", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own(still):
    check_frozen(ops.conv2d, *drawn("pointwise"), still)
    check_frozen(with_relu, *drawn("pointwise"), still)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_number_of_threads_gives_the_same_bits(threads):
    arrays, settings = drawn("grouped")
    expected = result_and_gradients(F.conv2d, arrays, settings, "float64")
    with openmp_threads(threads):
        first, second = (result_and_gradients(ops.conv2d, arrays, settings) for _ in range(2))
    assert differences(first, second) == [0] * 3
    assert max(differences(first, expected)) < 2e-6


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"x": ("float64", [2, 4, 5, 5])}, TypeError, "x must be float32; got float64"),
        (
            {"weight": ("float64", [6, 2, 3, 3])},
            TypeError,
            "weight must be float32, as x is; got f",
        ),
        ({"x": ("float32", [4, 5, 5])}, ValueError, r"x must have 4 axes; got shape \[4, 5, 5\]"),
        (
            {"weight": ("float32", [6, 4, 3, 3])},
            ValueError,
            r"weight must have shape \[., 2, ., .\]",
        ),
        ({"weight": ("float32", [0, 2, 3, 3])}, ValueError, r"weight must have shape"),
        ({"bias": ("float32", [5])}, ValueError, r"bias must have shape \[6\]; got \[5\]"),
        ({"groups": 3}, ValueError, "groups must divide the 4 and 6 channels; got 3"),
        ({"groups": 0}, ValueError, "groups must divide the 4 and 6 channels; got 0"),
        ({"stride": (0, 1)}, ValueError, r"stride must be two numbers of 1 or more; got \(0, 1\)"),
        ({"padding": (1, 1, 1, 1)}, ValueError, "padding must be two numbers of 0 or more"),
        ({"dilation": (3, 1)}, ValueError, "x, padded, must not be smaller than the kernel, 7"),
    ],
)
def test_wrong_arguments_are_named(change, kind, message):
    given = {
        "x": ("float32", [2, 4, 5, 5]),
        "weight": ("float32", [6, 2, 3, 3]),
        "bias": ("float32", [6]),
        "groups": 2,
        **change,
    }
    arguments = {
        key: paddle.zeros(value[1], value[0]) if isinstance(value[0], str) else value
        for key, value in given.items()
        if isinstance(value, tuple)
    }
    arguments["groups"] = given["groups"]
    with pytest.raises(kind, match=message):
        ops.conv2d(**arguments)


def test_a_relu_needs_a_bias():
    with pytest.raises(ValueError, match="relu needs a bias"):
        ops.conv2d(paddle.ones([1, 1, 2, 2]), paddle.ones([1, 1, 1, 1]), relu=True)


# ---------------------------------------------------------------- choosing


@pytest.mark.slow
def test_layers_take_it_where_they_can(monkeypatch):
    calls = []
    whole = ops.conv2d
    monkeypatch.setattr(ops, "conv2d", lambda *a, **k: calls.append(1) or whole(*a, **k))
    model = create_model("NextViT_small", **TOY)
    x = paddle.randn([1, 3, 32, 32])
    model(x)
    layers = [x for x in model.sublayers() if isinstance(x, (Conv2D, PointwiseConv2D))]
    assert len(calls) == len(layers) > 20
    calls.clear()
    layer = Conv2D(3, 4, 3, padding=1)
    recorded = paddle.jit.to_static(
        layer, input_spec=[paddle.static.InputSpec([1, 3, 32, 32])], full_graph=True
    )
    recorded(x)
    Conv2D(3, 4, 3, padding=1).to(dtype="float64")(x.astype("float64"))
    assert not calls


def test_a_relu_is_written_with_its_convolution_unless_somebody_looks_at_that(monkeypatch):
    calls = []
    whole = ops.conv2d
    monkeypatch.setattr(
        ops, "conv2d", lambda *a, **k: calls.append(k.get("relu", False)) or whole(*a, **k)
    )
    layer, x = PointwiseConv2D(3, 4), paddle.randn([2, 3, 5, 4])
    expected = F.relu(layer(x))
    assert max_difference(activated(layer, x), expected) < 1e-6
    seen = []
    hook = layer.register_forward_post_hook(lambda layer, given, out: seen.append(out))
    assert max_difference(activated(layer, x), expected) < 1e-6 and float(seen[0].min()) < 0
    hook.remove()
    without = PointwiseConv2D(3, 4, bias_attr=False)
    assert max_difference(activated(without, x), F.relu(without(x))) == 0
    assert calls == [False, True, False, False, False]


@pytest.mark.parametrize(
    "padding, mode", [("SAME", "zeros"), (1, "reflect"), ([1, 0, 2, 1], "zeros")]
)
def test_a_padding_that_it_does_not_know_is_left_to_paddle(padding, mode):
    layer = Conv2D(3, 4, 3, padding=padding, padding_mode=mode)
    x = paddle.randn([1, 3, 6, 5])
    assert max_difference(layer(x), paddle.nn.Conv2D.forward(layer, x)) < 1e-6


@pytest.mark.slow
def test_a_model_trains_as_with_paddle_s_convolutions(monkeypatch):
    """One step's gradients."""
    paddle.seed(0)
    model = create_model("NextViT_small", **TOY)
    model.eval()  # BatchNorm of few values is no measure
    x = paddle.randn([2, 3, 64, 64])
    found = {}
    for form in (True, False):
        if not form:
            monkeypatch.setattr(ops, "takes_onednn", lambda x: False)
        loss = (model(x) ** 2).sum()
        loss.backward()
        found[form] = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
        model.clear_gradients()
    scale = max(np.abs(a).max() for a in found[False])
    pairs = zip(*found.values(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) < 1e-5 * scale


@pytest.mark.chain
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE"])
def test_other_processors_compute_the_same(isa):
    """As oneDNN would on them."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_ops_convolution import *\n"
        "for name in SHAPES: test_it_equals_paddle_s_in_float64(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.chain
def test_under_sanitizers(tmp_path):
    """Against the definition; plans are kept, used again and given up."""
    assert run_onednn_check("convolution_check", tmp_path) == "convolutions: 0 failures\n"


# ---------------------------------------------------------------- Global.cpu_math


def said(caplog, *arguments):
    caplog.clear()
    with caplog.at_level(logging.INFO), precision.cpu_math(*arguments):
        mode = ops.multiplies_bfloat16()
    assert not ops.multiplies_bfloat16()
    return mode, " ".join(dict.fromkeys(record.getMessage() for record in caplog.records))


def test_bf16_is_said_and_so_is_why_it_does_nothing(caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)  # a run before this one kept its log to itself
    monkeypatch.setattr(ops, "cpu_multiplies_bfloat16", lambda: True)
    assert said(caplog, "fp32", "cpu", False) == (False, "")
    mode, text = said(caplog, "bf16", "cpu", False)
    assert mode and text.startswith("convolutions multiply in bfloat16")
    nothing = "Global.cpu_math bf16 does nothing here: "
    assert said(caplog, "bf16", "gpu", False) == (False, nothing + "the device is gpu, not a CPU")
    mode, text = said(caplog, "bf16", "cpu", True)
    assert not mode and "Global.to_static" in text
    monkeypatch.setattr(ops, "cpu_multiplies_bfloat16", lambda: False)
    mode, text = said(caplog, "bf16", "cpu", False)
    assert not mode and text.endswith("this processor has neither AVX512-BF16 nor AMX")
    monkeypatch.setattr(ops, "has_onednn", lambda: False)
    mode, text = said(caplog, "bf16", "cpu", False)
    assert not mode and "no compiled convolutions; ops: " in text
