"""Small models with random weights whose predictions differ from image to image."""

from pathlib import Path

import paddle
import pytest
from paddle import nn

from ppcls_nextvit import create_model
from scripts import seeded

CPU = Path("/proc/cpuinfo")
needs_avx512 = pytest.mark.skipif(
    not CPU.exists() or "avx512bw" not in CPU.read_text(), reason="oneDNN's bfloat16 needs AVX512"
)
# logits of a random network hardly depend on the image; this makes top-k differ from image to image
HEAD_GAIN = 20.0


def random_model(name="NextViT_small", **arguments):
    """A shallow model in eval mode whose weights and BatchNorm statistics are all random (seeded),
    with logits of order 1 to 10.
    """
    model = create_model(name, num_classes=10, depths=(1, 1, 5, 1), **arguments)
    linear = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)
    }
    for key, value in model.state_dict().items():
        if key.endswith("sr.window"):
            continue
        source = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        array = (
            seeded.tensor(source, value.shape[::-1]).T
            if key in linear
            else seeded.tensor(source, value.shape)
        )
        value.set_value(array * HEAD_GAIN if key == "proj_head.0.weight" else array)
    model.eval()
    return model


def small_transnext(name="TransNeXt_micro", **arguments):
    """One block a stage in eval mode, all weights random (seeded)."""
    model = create_model(name, **{"depths": (1, 1, 1, 1), "num_classes": 5, **arguments})
    for key, value in model.state_dict().items():
        value.set_value(seeded.tensor(key, value.shape))
    model.eval()
    return model


def random_weights(path):
    """`random_model`'s weights as a file."""
    paddle.save(random_model().state_dict(), str(path))
    return path
