"""Small models with every head, and what their files of weights must do alike."""

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.weights import LoadError, load_weights
from ppcls_nextvit.weights.rules import to_torch

BACKBONES = {
    "TransNeXt": {"name": "TransNeXt_micro", "depths": (1, 1, 1, 1)},
    "NextViT": {"name": "NextViT_small", "depths": (1, 1, 5, 1)},
}
NARROW = {
    "MaskRCNN": {"fpn_channels": 8, "fc_channels": 8, "mask_convs": 1},
    "SemanticFPN": {"fpn_channels": 8, "channels": 8},
    "UPerNet": {"channels": 8, "auxiliary_channels": 8},
}
both = pytest.mark.parametrize("family", BACKBONES)


def toy(name, family="TransNeXt", num_classes=3, seed=0):
    """A small model of the head `name`, by its own toy arguments if it has some."""
    paddle.seed(seed)
    sizes = NARROW.get(name) or MODELS.get(name).toy
    return create_model(name, num_classes=num_classes, backbone=BACKBONES[family], **sizes)


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def assert_same(found, expected, but=()):
    assert found.keys() == expected.keys()
    differing = {key for key, value in expected.items() if not np.array_equal(found[key], value)}
    assert differing == set(but)


def assert_classes_are_told(name, fresh, count, family="TransNeXt"):
    """Weights of five classes are refused for three, unless the `count` keys that begin with
    `fresh` may begin anew.
    """
    state = arrays(toy(name, family, num_classes=5, seed=1))
    with pytest.raises(LoadError, match="The file's head has another class count"):
        load_weights(toy(name, family), state)
    target = toy(name, family)
    before = arrays(target)
    report = load_weights(target, state, head="fresh_on_mismatch")
    keys = {key for key in before if key.startswith(fresh)}
    assert set(report.fresh) == keys and len(keys) == count
    found = arrays(target)
    assert all(np.array_equal(found[key], before[key]) for key in keys)
    assert_same({**found, **{key: state[key] for key in keys}}, state)


def assert_head_is_named(given, model, message):
    """The error for weights of `given` in a `model`, in our layout and in torch's."""
    source = toy(given)
    for state in (arrays(source), to_torch(arrays(source), source)):
        with pytest.raises(LoadError) as error:
            load_weights(toy(model), state)
        assert str(error.value).endswith(message)
