"""Seeded random weights: `python -m test_tipc.chains.seeded MODEL CLASSES FILE.pdparams`.

The weights of scripts/seeded.py, which are the same everywhere, so that predictions can be stored.
"""

import sys

import paddle

from ppcls_nextvit import create_model, load_weights
from ppcls_nextvit.weights import to_torch
from scripts import seeded

# logits of a random network hardly depend on the image; this makes the best class differ from image
# to image
HEAD_GAIN = 5.0


def seeded_model(name: str, num_classes: int) -> paddle.nn.Layer:
    """`create_model(name)` with the seeded weights of the reference's keys and shapes."""
    model = create_model(name, num_classes=num_classes)
    own = {key: value.numpy() for key, value in model.state_dict().items()}
    shapes = {key: value.shape for key, value in to_torch(own, model).items()}
    load_weights(model, seeded.state_dict(shapes))
    return model


def main(argv=None) -> int:
    name, classes, path = sys.argv[1:] if argv is None else argv
    model = seeded_model(name, int(classes))
    (head,) = (
        layer
        for key, layer in model.named_sublayers()
        if isinstance(layer, paddle.nn.Linear) and f"{key}.".startswith(model.head_prefixes)
    )
    head.weight.set_value(head.weight * HEAD_GAIN)
    paddle.save(model.state_dict(), path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
