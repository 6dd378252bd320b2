"""Models filled with the seeded weights that the goldens were made with, and how near two outputs
are.
"""

import json
import re

import numpy as np
from paddle import nn

from ppcls_nextvit import create_model
from scripts import seeded

from .paths import GOLDEN

TORCH_LEAVES = {"running_mean": "_mean", "running_var": "_variance", "num_batches_tracked": None}


def torch_state_dict(variant, num_classes=1000, seed=0):
    """The seeded weights of `NextViT_{small,base,large}` under the reference's PyTorch keys and
    layouts, as numpy arrays.
    """
    manifest = json.loads((GOLDEN / f"{variant.lower()}_manifest.json").read_text())
    manifest.update({"proj_head.0.weight": [num_classes, 1024], "proj_head.0.bias": [num_classes]})
    return seeded.state_dict(manifest, seed)


def ruled_state_dict(manifest, golden):
    """The seeded weights of `manifest` ({key: shape}), changed as `golden` states in weights.rules,
    a JSON: some keys have another seed, then some are scaled, then some shifted.
    """
    rules = json.loads(str(golden["weights.rules"]))
    state = seeded.state_dict(manifest, int(golden["seed"]))
    for key, seed in rules.get("reseed", {}).items():
        state[key] = seeded.tensor(key, manifest[key], seed)
    for change, operation in (("scale", np.multiply), ("add", np.add)):
        for pattern, number in rules.get(change, []):
            for key in filter(re.compile(pattern).search, state):
                state[key] = operation(state[key], np.float32(number)).astype(state[key].dtype)
    return state


def paddle_state_dict(model, torch_state):
    """`torch_state` under Paddle's leaf names; the weights of `model`'s Linear layers, and only
    those, are transposed.
    """
    linear = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)
    }
    state = {}
    for key, value in torch_state.items():
        prefix, dot, leaf = key.rpartition(".")
        leaf = TORCH_LEAVES.get(leaf, leaf)
        if leaf is not None:
            state[f"{prefix}{dot}{leaf}"] = value.T if key in linear else value
    return state


def seeded_model(variant, num_classes=1000, **arguments):
    """`create_model(variant, ...)` in eval mode with the seeded weights (random BatchNorm
    statistics included).
    """
    model = create_model(variant, num_classes=num_classes, **arguments)
    assert_loads(model, paddle_state_dict(model, torch_state_dict(variant, num_classes)))
    model.eval()
    return model


def assert_loads(model, state):
    """`state` has exactly the model's keys; Paddle itself only returns its complaints."""
    missing, unexpected = model.set_state_dict(state)
    assert not missing and not unexpected, f"missing {missing}, unexpected {unexpected}"


def max_difference(a, b):
    """The largest absolute difference of two tensors or arrays of equal shape."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
