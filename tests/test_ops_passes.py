"""The compiled AdamW, the residual branch, and heads swapped with tokens: their definitions,
Paddle's own, where a run and the networks take them, and what they refuse.
"""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit import create_model, ops
from ppcls_nextvit.engine.optim import build_optimizer, optimizer_state
from ppcls_nextvit.models import layers
from ppcls_nextvit.models.layers import DropPath
from support.compiled_ops import differences, openmp_threads, require_ops, result_and_gradients
from support.goldens import max_difference

# shorter than a vector, of odd length, and longer than a thread's part
SHAPES = [[3], [7, 11], [2, 5, 3, 4097]]
SECTION = {"name": "AdamW", "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "weight_decay": 0.3}


@pytest.fixture(autouse=True)
def built():
    require_ops()


# ---------------------------------------------------------------- AdamW


def state_of(shape, seed=0):
    """Arguments of a step that is not the first."""
    rng = np.random.default_rng(seed)
    names = ("parameter", "gradient", "first", "second")
    given = {name: paddle.to_tensor(rng.standard_normal(shape).astype("float32")) for name in names}
    given["second"] = given["second"].abs()
    numbers = {"rate": 0.1, "beta1_power": 0.8**3, "beta2_power": 0.95**3}
    return {**given, **{name: paddle.to_tensor([value]) for name, value in numbers.items()}}


SETTINGS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "decay": 0.3}


def by_definition(given):
    """Parameter and averages after the step, in float64."""
    p, g, m, v = (
        given[name].numpy().astype("float64")
        for name in ("parameter", "gradient", "first", "second")
    )
    m = 0.8 * m + 0.2 * g
    v = 0.95 * v + 0.05 * g**2
    estimates = m / (1 - 0.8**3), v / (1 - 0.95**3)
    p = p * (1 - 0.1 * 0.3) - 0.1 * estimates[0] / (np.sqrt(estimates[1]) + 1e-3)
    return p, m, v


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", ""])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_is_that_of_its_definition(shape, isa, monkeypatch):
    monkeypatch.setenv("PPCLS_NEXTVIT_ISA", isa)
    given = state_of(shape)
    expected = by_definition(given)
    assert ops.adamw_(**given, **SETTINGS) is None
    found = [given[name].numpy() for name in ("parameter", "first", "second")]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs).max() < 3e-6 * np.abs(theirs).max()
    powers = [float(given[name]) for name in ("beta1_power", "beta2_power")]
    assert powers == pytest.approx([0.8**4, 0.95**4], rel=1e-6)


def test_any_number_of_threads_gives_the_same_bits():
    found = []
    for threads in (1, 2, 3):
        given = state_of(SHAPES[-1])
        with openmp_threads(threads):
            ops.adamw_(**given, **SETTINGS)
        found.append(given["parameter"].numpy())
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


class Two(nn.Layer):
    """Parameters that decay and one that does not, and one that learns at half the rate."""

    def __init__(self):
        super().__init__()
        for name, shape in zip(("a", "b", "norm"), SHAPES, strict=True):
            setattr(self, name, self.create_parameter(shape))
        self.b.optimize_attr["learning_rate"] = 0.5

    def forward(self):
        parameters = [self.a, self.b, self.norm]
        return paddle.add_n([(p * paddle.cos(p + 1)).sum() for p in parameters])


def trained(steps=4):
    """The parameters and the optimiser's state after some steps."""
    paddle.seed(3)
    model = Two()
    section = {**SECTION, "no_weight_decay_name": "norm"}
    optimizer = build_optimizer(section, model)
    for step in range(steps):
        optimizer.set_lr(0.01 * (step + 1))
        model().backward()
        optimizer.step()
        optimizer.clear_grad()
    weights = {name: x.numpy() for name, x in model.state_dict().items()}
    return {**weights, **optimizer_state(optimizer, model)}


def test_a_run_takes_it_and_goes_as_with_paddle_s(monkeypatch):
    steps = []
    compiled = ops.adamw_
    monkeypatch.setattr(
        ops,
        "adamw_",
        lambda *given, **more: (steps.append(more["decay"]), compiled(*given, **more)),
    )
    found = trained()
    assert sorted(steps) == [0] * 4 + [0.3] * 8
    monkeypatch.setattr(ops, "takes_pass", lambda *given: False)
    expected = trained()
    assert len(steps) == 12 and found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= 2e-6 * np.abs(value).max(), name


def test_what_is_not_float32_is_paddle_s(monkeypatch):
    monkeypatch.setattr(ops, "adamw_", None)
    model = Two().to(dtype="float64")
    optimizer = build_optimizer(SECTION, model)
    model().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "name, value, kind, message",
    [
        ("gradient", paddle.zeros([4]), ValueError, r"gradient must have shape \[3\]; got \[4\]"),
        ("second", paddle.zeros([3, 1]), ValueError, r"second must have shape \[3\]; got \[3, 1\]"),
        ("rate", paddle.zeros([2]), ValueError, r"rate must have one element; got shape \[2\]"),
        (
            "first",
            paddle.zeros([3], "float64"),
            TypeError,
            "first must be float32, as parameter is",
        ),
        ("parameter", paddle.zeros([3], "float64"), TypeError, "parameter must be float32; got"),
    ],
)
def test_wrong_arguments_of_a_step_are_named(name, value, kind, message):
    given = {**state_of([3]), name: value}
    before = given["parameter"].numpy().copy()
    with pytest.raises(kind, match=message):
        ops.adamw_(**given, **SETTINGS)
    assert (given["parameter"].numpy() == before).all()


def test_all_of_float64_are_refused():
    given = {name: x.astype("float64") for name, x in state_of([3]).items()}
    with pytest.raises(TypeError, match="parameter must be float32; got float64"):
        ops.adamw_(**given, **SETTINGS)


def test_what_is_written_has_no_gaps():
    given = state_of([6, 2])
    given["first"] = given["first"].t().contiguous().t()
    with pytest.raises(ValueError, match="first is written in place and must have no gaps"):
        ops.adamw_(**given, **SETTINGS)


def test_a_gradient_with_gaps_is_read_as_it_is():
    given = state_of([6, 2])
    expected = by_definition(given)
    given["gradient"] = given["gradient"].t().contiguous().t()
    assert not given["gradient"].is_contiguous()
    ops.adamw_(**given, **SETTINGS)
    assert np.abs(given["parameter"].numpy() - expected[0]).max() < 1e-6


# ---------------------------------------------------------------- the residual branch

SCALE = np.array([0.0, 1.25, 2.0], np.float32)


def plain(x, branch):
    scale = paddle.to_tensor(SCALE.astype(str(x.numpy().dtype)))
    return x + branch * scale.reshape([-1] + [1] * (x.ndim - 1))


def compiled(x, branch):
    return ops.residual(x, branch, paddle.to_tensor(SCALE))


@pytest.mark.parametrize("shape", [[3], [3, 0], [3, 5], [3, 7, 4099], [3, 2, 3, 5]], ids=str)
def test_a_branch_equals_paddle_s_two_in_float64(shape):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype("float32") for _ in range(2)]
    found = result_and_gradients(compiled, arrays, {})
    expected = result_and_gradients(plain, arrays, {}, "float64")
    assert [list(x.shape) for x in found] == [shape] * 3
    if 0 not in shape:
        assert max(differences(found, expected)) < 1e-6


def test_views_and_gradients_that_are_views():
    x, branch = (paddle.randn([4, 3, 2]) for _ in range(2))
    for tensor in (x, branch):
        tensor.stop_gradient = False
    out = compiled(x.transpose([1, 0, 2]), branch.transpose([1, 0, 2])).transpose([1, 0, 2])
    expected = plain(x.transpose([1, 0, 2]), branch.transpose([1, 0, 2])).transpose([1, 0, 2])
    assert max_difference(out, expected) < 1e-6
    weight = paddle.randn(out.shape)
    pairs = zip(
        paddle.grad(out, [x, branch], weight),
        paddle.grad(expected, [x, branch], weight),
        strict=True,
    )
    assert all(max_difference(a, b) < 1e-6 for a, b in pairs)


def test_gradients_that_are_added_leave_others_alone():
    """What follows uses x and the result twice, and keeps the gradients between."""
    kept = []
    for form in (compiled, plain):
        x = paddle.arange(6, dtype="float32").reshape([3, 2])
        x.stop_gradient = False
        one = form(x, x * 2)
        two = form(one, one * one)
        for tensor in (one, two):
            tensor.retain_grads()
        (two * one + x).sum().backward()
        kept.append([x.grad, one.grad, two.grad])
    assert all(max_difference(a, b) == 0 for a, b in zip(*kept, strict=True))


@pytest.mark.parametrize(
    "name, depths", [("NextViT_small", (1, 1, 5, 1)), ("TransNeXt_micro", (1, 1, 1, 1))]
)
def test_the_networks_take_it_where_they_drop_and_go_as_without(name, depths, monkeypatch):
    paddle.seed(0)
    model = create_model(name, num_classes=3, depths=depths, drop_path_rate=0.5)
    model.train()
    x = paddle.randn([3, 3, 64, 64])
    taken, dropped = [], []
    residual = ops.residual
    monkeypatch.setattr(ops, "residual", lambda *of: (taken.append(1), residual(*of))[1])
    for layer in model.sublayers():
        if isinstance(layer, DropPath) and layer.rate:
            layer.register_forward_post_hook(lambda *of: dropped.append(1))

    def out_and_gradients():
        paddle.seed(1)  # the same samples are dropped
        out = model(x)
        gradients = paddle.grad(out.square().sum(), model.parameters(), allow_unused=True)
        return [out, *(gradient for gradient in gradients if gradient is not None)]

    found = out_and_gradients()
    assert len(taken) >= 6 and not dropped
    monkeypatch.setattr(layers.DropPath, "added", lambda self, x, branch: x + self(branch))
    expected = out_and_gradients()
    assert len(taken) == len(dropped)
    errors = [max_difference(*pair) for pair in zip(found, expected, strict=True)]
    assert errors[0] < 1e-5 * float(expected[0].abs().max())
    largest = max(float(gradient.abs().max()) for gradient in expected[1:])
    assert max(errors[1:]) < 1e-3 * largest


def test_a_branch_is_left_to_paddle_where_types_differ_or_nothing_drops(monkeypatch):
    monkeypatch.setattr(ops, "residual", None)
    x = paddle.ones([2, 3])
    drop = DropPath(0.5)
    assert drop.added(x, paddle.ones([2, 3], "float64")).dtype == paddle.float64
    drop.eval()
    assert (drop.added(x, x) == 2).all()
    assert (DropPath(0.0).added(x, x) == 2).all()


@pytest.mark.parametrize(
    "x, branch, scale, kind, message",
    [
        (
            [2, 3],
            [2, 4],
            [2],
            ValueError,
            r"branch must have x's shape.*; got \[2, 4\] and \[2, 3\]",
        ),
        ([], [], [1], ValueError, "branch must have x's shape, of an axis or more"),
        ([2, 3], [2, 3], [3], ValueError, r"scale must have shape \[2\]; got \[3\]"),
        ([2, 3], [2, 3], [2, 1], ValueError, r"scale must have shape \[2\]; got \[2, 1\]"),
    ],
)
def test_wrong_shapes_of_a_branch_are_named(x, branch, scale, kind, message):
    with pytest.raises(kind, match=message):
        ops.residual(paddle.zeros(x), paddle.zeros(branch), paddle.zeros(scale))


# ---------------------------------------------------------------- heads and tokens


def transposed(x):
    return x.transpose([0, 2, 1, 3])


@pytest.mark.parametrize(
    "shape", [[2, 3, 5, 4], [1, 70, 6, 32], [2, 0, 3, 4], [0, 2, 3, 4]], ids=str
)
def test_swapped_axes_are_those_of_a_transpose(shape):
    array = np.random.default_rng(0).standard_normal(shape).astype("float32")
    found, expected = (result_and_gradients(form, [array], {}) for form in (ops.swap, transposed))
    assert found[0].is_contiguous() and found[0].shape == expected[0].shape
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(found, expected, strict=True))


def test_axes_of_a_view_are_swapped():
    x = paddle.randn([2, 3, 4, 5])
    x.stop_gradient = False
    view = x.transpose([3, 1, 0, 2])
    assert max_difference(ops.swap(view), transposed(view)) == 0
    weight = paddle.randn([5, 2, 3, 4])
    grads = [
        paddle.grad(form(x.transpose([3, 1, 0, 2])), x, weight)[0]
        for form in (ops.swap, transposed)
    ]
    assert max_difference(*grads) == 0


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_layers_swap_alike_with_and_without_it(batch, monkeypatch):
    x = paddle.randn([batch, 3, 4, 5])
    taken = []
    swap = ops.swap
    monkeypatch.setattr(ops, "swap", lambda x: (taken.append(1), swap(x))[1])
    found = layers.swapped(x)
    monkeypatch.setattr(ops, "takes_pass", lambda *given: False)
    assert max_difference(found, layers.swapped(x)) == 0 if batch else found.shape == [0, 4, 3, 5]
    assert len(taken) == 1


def test_three_axes_are_refused():
    with pytest.raises(ValueError, match=r"x must have 4 axes; got shape \[2, 3, 4\]"):
        ops.swap(paddle.zeros([2, 3, 4]))
    with pytest.raises(TypeError, match="x must be float32; got float64"):
        ops.swap(paddle.zeros([2, 3, 4, 5], "float64"))


def test_without_the_operators_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr("ppcls_nextvit.ops.loading._failure", lambda: "not built")
    for call in (
        lambda: ops.residual(paddle.zeros([1]), paddle.zeros([1]), paddle.zeros([1])),
        lambda: ops.adamw_(**state_of([3]), **SETTINGS),
        lambda: ops.swap(paddle.zeros([1, 1, 1, 1])),
    ):
        with pytest.raises(RuntimeError, match="run nextvit build-ops"):
            call()
