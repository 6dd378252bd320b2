"""Optimisers against hand-written numpy steps; decay rules, clipping, and the state under
structured names.
"""

import copy

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit import create_model
from ppcls_nextvit.engine.optim import (
    build_optimizer,
    gradient_norm,
    load_optimizer_state,
    optimizer_state,
)
from ppcls_nextvit.engine.parameter_groups import split_by_decay
from ppcls_nextvit.schema import ConfigError

NEXTVIT_DECAY = {"no_weight_decay_name": ".bias norm ", "one_dim_param_no_weight_decay": True}


def toy():
    """2 -> 3 -> 1, with a norm: proj.weight [2, 3], norm.weight [3] ..."""
    paddle.seed(0)
    model = nn.Sequential(
        ("proj", nn.Linear(2, 3)), ("norm", nn.LayerNorm(3)), ("head", nn.Linear(3, 1))
    )
    for index, parameter in enumerate(model.parameters()):
        parameter.set_value(
            np.linspace(-1, 1, parameter.size, dtype="float32").reshape(parameter.shape)
            + np.float32(0.1 * index)
        )
    return model


def backward(model, seed=0):
    """Fills in gradients that depend on the seed only."""
    rng = np.random.default_rng(seed)
    loss = sum(
        (parameter * paddle.to_tensor(rng.standard_normal(parameter.shape).astype("float32"))).sum()
        for parameter in model.parameters()
        if not parameter.stop_gradient
    )
    loss.backward()


def one_step(section, model, lr=0.1, seed=0):
    """(values before, gradients, values after) by structured name."""
    optimizer = build_optimizer(section, model)
    before = {name: p.numpy().astype("float64") for name, p in model.named_parameters()}
    backward(model, seed)
    gradients = {
        name: p.grad.numpy().astype("float64")
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    optimizer.set_lr(lr)
    optimizer.step()
    optimizer.clear_grad()
    return before, gradients, {name: p.numpy() for name, p in model.named_parameters()}


def test_next_vit_small_decays_110_tensors_and_spares_179():
    model = create_model("NextViT_small", num_classes=10)
    decayed, undecayed = split_by_decay(model, **NEXTVIT_DECAY)
    assert (len(decayed), len(undecayed)) == (110, 179)
    assert {p.ndim for p in decayed.values()} == {2, 4} and {
        p.ndim for p in undecayed.values()
    } == {1}
    # for this model the two rules are one
    assert {*split_by_decay(model, one_dim_param_no_weight_decay=True)[1]} == {*undecayed}


def test_decay_words_are_substrings_of_structured_names():
    decayed, undecayed = split_by_decay(toy(), no_weight_decay_name=".bias norm ")
    assert list(decayed) == ["proj.weight", "head.weight"]
    assert list(undecayed) == ["proj.bias", "norm.weight", "norm.bias", "head.bias"]
    assert list(split_by_decay(toy(), no_weight_decay_name="head")[1]) == [
        "head.weight",
        "head.bias",
    ]
    assert split_by_decay(toy())[1] == {}


def test_adamw_step_equals_the_formula():
    before, gradient, after = one_step(
        {
            "name": "AdamW",
            "weight_decay": 0.5,
            "beta1": 0.8,
            "beta2": 0.9,
            "epsilon": "1e-4",
            **NEXTVIT_DECAY,
        },
        toy(),
    )
    for name in before:
        g = gradient[name]
        decay = 0.5 if name in ("proj.weight", "head.weight") else 0.0
        moment1, moment2 = 0.2 * g / (1 - 0.8), 0.1 * g**2 / (1 - 0.9)
        expected = before[name] * (1 - 0.1 * decay) - 0.1 * moment1 / (np.sqrt(moment2) + 1e-4)
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    "decay",
    [
        {"weight_decay": 0.5},
        {"regularizer": {"name": "L2", "coeff": "5e-1"}},
        {"regularizer": {"name": "L1", "coeff": 0.5}},
    ],
    ids=["weight_decay", "L2", "L1"],
)
def test_momentum_steps_equal_the_formula(decay, nesterov):
    model = toy()
    optimizer = build_optimizer(
        {"name": "Momentum", "momentum": 0.8, "use_nesterov": nesterov, **NEXTVIT_DECAY, **decay},
        model,
    )
    optimizer.set_lr(0.1)
    expected = {name: p.numpy().astype("float64") for name, p in model.named_parameters()}
    velocity = dict.fromkeys(expected, 0.0)
    for seed in range(3):
        backward(model, seed)
        for name, p in model.named_parameters():
            g = p.grad.numpy().astype("float64")
            if name in ("proj.weight", "head.weight"):
                g = g + 0.5 * (
                    np.sign(expected[name])
                    if decay.get("regularizer", {}).get("name") == "L1"
                    else expected[name]
                )
            velocity[name] = 0.8 * velocity[name] + g
            expected[name] = expected[name] - 0.1 * (
                g + 0.8 * velocity[name] if nesterov else velocity[name]
            )
        optimizer.step()
        optimizer.clear_grad()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_sgd_adam_and_rmsprop_steps_equal_their_formulas():
    keys = {"weight_decay": 0.5, **NEXTVIT_DECAY}
    rules = {
        "SGD": lambda g: g,
        "Adam": lambda g: g / (np.abs(g) + 1e-8),
        "RMSProp": lambda g: g / np.sqrt(0.05 * g**2 + 1e-6),
    }
    for rule, direction in rules.items():
        before, gradient, after = one_step({"name": rule, **keys}, toy())
        for name in before:
            g = gradient[name] + (
                0.5 * before[name] if name in ("proj.weight", "head.weight") else 0.0
            )
            np.testing.assert_allclose(
                after[name],
                before[name] - 0.1 * direction(g),
                rtol=1e-4,
                atol=1e-5,
                err_msg=f"{rule} {name}",
            )


@pytest.mark.parametrize("rule", ["SGD", "Momentum"])
def test_global_norm_clip_scales_all_gradients_by_one_factor(rule):
    """With decayed and undecayed parameters, which Paddle would clip apart if they were parameter
    groups.
    """
    before, gradient, after = one_step(
        {"name": rule, "clip_global_norm": 0.5, "weight_decay": 0.3, **NEXTVIT_DECAY}, toy()
    )
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    assert norm > 0.5
    for name in before:
        # added after clipping
        decay = 0.3 * before[name] if name in ("proj.weight", "head.weight") else 0.0
        np.testing.assert_allclose(
            after[name],
            before[name] - 0.1 * (gradient[name] * 0.5 / norm + decay),
            rtol=1e-5,
            atol=1e-6,
        )


def test_clip_norm_is_per_tensor_and_small_gradients_stay():
    before, gradient, after = one_step({"name": "SGD", "clip_norm": 0.5}, toy())
    for name, g in gradient.items():
        np.testing.assert_allclose(
            after[name],
            before[name] - 0.1 * g * min(1, 0.5 / np.linalg.norm(g)),
            rtol=1e-5,
            atol=1e-6,
        )
    before, gradient, after = one_step({"name": "SGD", "clip_global_norm": 1e3}, toy())
    for name, g in gradient.items():
        np.testing.assert_allclose(after[name], before[name] - 0.1 * g, rtol=1e-5, atol=1e-6)


def test_gradient_norm_is_the_norm_of_all_gradients_together():
    model = toy()
    backward(model)
    assert gradient_norm(model) == pytest.approx(
        np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in model.parameters())), rel=1e-6
    )


def test_frozen_parameters_are_left_out():
    model = toy()
    model.proj.weight.stop_gradient = True
    before, _, after = one_step({"name": "AdamW", "weight_decay": 0.5}, model)
    assert np.array_equal(after["proj.weight"], before["proj.weight"])
    assert not np.allclose(after["proj.bias"], before["proj.bias"])
    assert not [
        key
        for key in optimizer_state(build_optimizer({"name": "AdamW"}, model), model)
        if key.startswith("proj.weight")
    ]
    for parameter in model.parameters():
        parameter.stop_gradient = True
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer({"name": "AdamW"}, model)


def test_a_second_optimiser_does_not_inherit_the_decay_of_the_first():
    model = toy()
    build_optimizer({"name": "Momentum", "weight_decay": 0.5}, model)
    before, gradient, after = one_step({"name": "SGD"}, model)
    np.testing.assert_allclose(
        after["proj.weight"],
        before["proj.weight"] - 0.1 * gradient["proj.weight"],
        rtol=1e-5,
        atol=1e-6,
    )
    build_optimizer({"name": "Momentum", "weight_decay": 0.5}, model)
    before, gradient, after = one_step({"name": "AdamW", "weight_decay": 0.0}, model)
    np.testing.assert_allclose(
        after["proj.weight"],
        before["proj.weight"] - 0.1 * np.sign(gradient["proj.weight"]),
        rtol=1e-4,
        atol=1e-5,
    )


SECTIONS = [
    {"name": "AdamW", "weight_decay": 0.1, **NEXTVIT_DECAY, "clip_global_norm": 0.5},
    {"name": "Adam"},
    {"name": "Momentum", "weight_decay": 0.1},
    {"name": "RMSProp", "momentum": 0.9},
    {"name": "SGD"},
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["name"])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_state_round_trip_is_bit_exact(section, steps_before):
    def train(model, optimizer, seeds):
        for seed in seeds:
            backward(model, seed)
            optimizer.set_lr(0.01 * (seed + 1))
            optimizer.step()
            optimizer.clear_grad()

    whole = toy()
    optimizer = build_optimizer(section, whole)
    train(whole, optimizer, range(steps_before))
    weights, state = (
        copy.deepcopy([p.numpy() for p in whole.parameters()]),
        optimizer_state(optimizer, whole),
    )
    train(whole, optimizer, range(steps_before, 6))

    # Paddle's counters have moved on: nothing has the same name as before
    resumed = toy()
    assert {p.name for p in resumed.parameters()}.isdisjoint(p.name for p in whole.parameters())
    for parameter, value in zip(resumed.parameters(), weights, strict=True):
        parameter.set_value(value)
    second = build_optimizer(section, resumed)
    load_optimizer_state(second, resumed, state)
    train(resumed, second, range(steps_before, 6))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    after, again = optimizer_state(optimizer, whole), optimizer_state(second, resumed)
    assert after.keys() == again.keys() and all(
        np.array_equal(after[key], again[key]) for key in after
    )


def test_state_keys_are_structured_names():
    model = toy()
    state = optimizer_state(build_optimizer({"name": "AdamW"}, model), model)
    accumulators = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")
    assert set(state) == {
        f"{name}.{accumulator}"
        for name, _ in model.named_parameters()
        for accumulator in accumulators
    }
    assert state["head.weight.moment1"].shape == (3, 1)


def test_state_holds_the_master_weights_of_float16_parameters():
    """The state of an O2 run can be put into a new model; only the step itself needs a device with
    float16 kernels.
    """
    model = toy().to(dtype="float16")
    section = {"name": "AdamW", "multi_precision": True}
    state = optimizer_state(build_optimizer(section, model), model)
    assert (
        state["head.weight.master_weight"].dtype == np.float32 == state["head.weight.moment1"].dtype
    )
    state = {key: value + np.float32(1 / 3) for key, value in state.items()}
    other = toy().to(dtype="float16")
    optimizer = build_optimizer(section, other)
    load_optimizer_state(optimizer, other, state)
    again = optimizer_state(optimizer, other)
    assert again.keys() == state.keys() and all(
        np.array_equal(again[key], state[key]) for key in state
    )


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    model = toy()
    optimizer = build_optimizer({"name": "AdamW"}, model)
    state = optimizer_state(optimizer, model)
    with pytest.raises(ValueError, match=r"6 entries missing .*velocity.* 24 unexpected"):
        load_optimizer_state(build_optimizer({"name": "Momentum"}, model), model, state)
    changed = {key: value + 1 for key, value in state.items()}
    with pytest.raises(
        ValueError, match=r"head.weight.moment1 is float32 \(1,\), expected float32 \(3, 1\)"
    ):
        load_optimizer_state(
            optimizer, model, {**changed, "head.weight.moment1": np.zeros(1, "float32")}
        )
    with pytest.raises(ValueError, match="1 entries missing"):
        load_optimizer_state(optimizer, model, {key: changed[key] for key in list(changed)[1:]})
    assert all(
        np.array_equal(value, state[key])
        for key, value in optimizer_state(optimizer, model).items()
    )


@pytest.mark.parametrize(
    "section, message",
    [
        ({"name": "AdmW"}, "Optimizer: unknown optimizer 'AdmW'. Did you mean 'Adam"),
        (
            {"name": "AdamW", "weight_deca": 0.1},
            "Optimizer.weight_deca: unknown key. Did you mean 'weight_decay'",
        ),
        (
            {"name": "AdamW", "regularizer": {"name": "L2", "coeff": 0.1}},
            "Optimizer.regularizer: unknown key",
        ),
        ({"name": "AdamW", "clip_norm": 1, "clip_global_norm": 1}, "exclude each other"),
        ({"name": "AdamW", "clip_global_norm": 0}, "clip_global_norm must be above 0; got 0.0"),
        ({"name": "AdamW", "beta1": 1.5}, "beta1"),
        (
            {"name": "Momentum", "weight_decay": 0.1, "regularizer": {"name": "L2", "coeff": 0.1}},
            "exclude each other",
        ),
        (
            {"name": "Momentum", "regularizer": {"name": "L3", "coeff": 0.1}},
            "regularizer.name: got 'L3'",
        ),
        (
            {"name": "Momentum", "regularizer": {"name": "L2"}},
            "regularizer.coeff: expected float, got None",
        ),
        ([{"AdamW": {"scope": "all"}}], "expected a mapping"),
    ],
)
def test_bad_sections_are_refused_by_name(section, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(section, toy())
