"""Optimizer.groups: shares of the learning rate and decays of their own, by regular expression."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit import create_model
from ppcls_nextvit.engine.optim import build_optimizer, load_optimizer_state, optimizer_state
from ppcls_nextvit.engine.parameter_groups import parameter_settings, split_by_decay
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from support.tiny_run import write_config
from test_optim import one_step, toy

GROUPS = [
    {"match": r"^norm\.", "weight_decay": 0.0},
    {"match": r"^(proj|norm)\.", "lr_multiplier": 0.1, "weight_decay": 0.3},
    {"match": r"\.bias$", "weight_decay": 0.2, "lr_multiplier": 2.0},
]
# of the toy's parameters: what the first group that states it says
RATES = {
    "proj.weight": (0.1, 0.3),
    "proj.bias": (0.1, 0.3),
    "norm.weight": (0.1, 0.0),
    "norm.bias": (0.1, 0.0),
    "head.weight": (1.0, None),
    "head.bias": (2.0, 0.2),
}


def test_the_first_group_that_states_a_value_decides_it():
    found = {
        s.name: (s.lr_multiplier, s.weight_decay) for s in parameter_settings(toy(), groups=GROUPS)
    }
    assert found == RATES


def test_adamw_decays_and_steps_each_parameter_by_its_own_numbers():
    lr, beta1, beta2, epsilon, decay = 0.1, 0.9, 0.999, 1e-8, 0.05
    section = {"name": "AdamW", "weight_decay": decay, "groups": GROUPS}
    before, gradients, after = one_step(section, toy(), lr)
    for name, (multiplier, own) in RATES.items():
        rate, wd, g = lr * multiplier, decay if own is None else own, gradients[name]
        m, v = (1 - beta1) * g / (1 - beta1), (1 - beta2) * g**2 / (1 - beta2)
        expected = before[name] * (1 - rate * wd) - rate * m / (np.sqrt(v) + epsilon)
        np.testing.assert_allclose(after[name], expected, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["SGD", "Momentum"])
def test_others_add_the_decay_to_the_gradient(optimizer):
    section = {"name": optimizer, "weight_decay": 0.05, "groups": GROUPS}
    before, gradients, after = one_step(section, toy(), 0.1)
    for name, (multiplier, own) in RATES.items():
        wd = 0.05 if own is None else own
        expected = before[name] - 0.1 * multiplier * (gradients[name] + wd * before[name])
        np.testing.assert_allclose(after[name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_a_global_norm_stays_the_norm_of_all_groups_together():
    section = {"name": "SGD", "clip_global_norm": 0.5, "groups": GROUPS}
    before, gradients, after = one_step(section, toy(), 0.1)
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert norm > 0.5
    for name, (multiplier, own) in RATES.items():
        step = 0.1 * multiplier * (gradients[name] * 0.5 / norm + (own or 0) * before[name])
        np.testing.assert_allclose(after[name], before[name] - step, atol=1e-6, err_msg=name)


def test_another_optimiser_on_the_same_model_starts_from_scratch():
    model = toy()
    build_optimizer({"name": "SGD", "weight_decay": 0.5, "groups": GROUPS}, model)
    before, gradients, after = one_step({"name": "SGD"}, model, 0.1)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value - 0.1 * gradients[name], atol=1e-6)


def test_layer_decay_is_expressible_by_stages():
    """0.5 a stage, from the head down, by the key prefixes that a backbone states."""
    model = create_model("NextViT_small", num_classes=3, depths=(1, 1, 5, 1))
    stages = model.stages()
    groups = [
        {
            "match": "^(" + "|".join(prefix.replace(".", r"\.") for prefix in prefixes) + ")",
            "lr_multiplier": 0.5 ** (len(stages) - 1 - i),
        }
        for i, (_, prefixes) in enumerate(stages)
    ]
    rates = {s.name: s.lr_multiplier for s in parameter_settings(model, groups=groups)}
    assert rates["stem.0.conv.weight"] == 0.5 ** (len(stages) - 1)
    assert rates["proj_head.0.weight"] == 1.0
    assert set(rates.values()) == {0.5**i for i in range(len(stages))}


def test_what_a_model_spares_is_not_decayed_unless_a_group_says_so():
    class Spares(nn.Sequential):
        def no_weight_decay(self):
            return {"0.weight"}

    model = Spares(nn.Linear(2, 2))
    assert list(split_by_decay(model)[1]) == ["0.weight"]
    assert [s.weight_decay for s in parameter_settings(model)] == [None, 0.0]
    (_, spared) = parameter_settings(model, groups=[{"match": "weight", "weight_decay": 0.4}])
    assert spared.weight_decay == 0.4


def test_the_state_of_grouped_parameters_is_saved_and_restored():
    section = {"name": "AdamW", "groups": GROUPS}
    model = toy()
    optimizer = build_optimizer(section, model)
    for parameter in model.parameters():
        (parameter * parameter).sum().backward()
    optimizer.set_lr(0.1)
    optimizer.step()
    state = optimizer_state(optimizer, model)
    again = build_optimizer(section, model)
    load_optimizer_state(again, model, state)
    restored = optimizer_state(again, model)
    assert state.keys() == restored.keys()
    assert all(np.array_equal(state[key], restored[key]) for key in state)


@pytest.mark.parametrize(
    "groups, message",
    [
        (
            [{"match": "^backbone", "lr_multiplier": 0.1}],
            r"groups.0.match: '\^backbone' matches none",
        ),
        ([{"match": "proj"}], "groups.0: .*give lr_multiplier, weight_decay or both"),
        ([{"match": "(", "lr_multiplier": 1}], "groups.0: .*no regular expression"),
        ([{"match": "proj", "lr_multiplier": -1}], "groups.0: .*must be 0 or more; got -1"),
        ([{"match": "proj", "lr_mult": 1}], "groups.0.lr_mult: unknown key. Did you mean"),
        ({"match": "proj"}, "groups"),
    ],
)
def test_groups_that_cannot_be_meant(groups, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer({"name": "AdamW", "groups": groups}, toy())


def test_a_bad_group_is_refused_when_the_configuration_is_read(tmp_path):
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match="tiny.yaml: Optimizer.groups.0.match: missing"):
        load_config(path, ["Optimizer.groups=[{lr_multiplier: 0.1}]"])
    config = load_config(path, ["Optimizer.groups=[{match: proj_head, lr_multiplier: '1e-1'}]"])
    model = create_model("NextViT_small", num_classes=10, depths=(1, 1, 5, 1))
    paddle.seed(0)
    section = {key: value for key, value in config.Optimizer.items() if key != "lr"}
    build_optimizer(section, model)
    assert model.proj_head[0].weight.optimize_attr["learning_rate"] == 0.1
