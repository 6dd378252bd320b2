"""Seeded random weights: `python -m test_tipc.chains.seeded FILE.pdparams -c CONFIG [-o ...]`.

The weights of scripts/seeded.py, which are the same everywhere, so that predictions can be stored.
"""

import argparse

import paddle

from ppcls_nextvit import create_model, list_models, load_weights
from ppcls_nextvit.cli.common import add_config
from ppcls_nextvit.config import Config
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.weights import to_torch
from scripts import seeded

# logits of a random classifier hardly depend on the image; this makes the best class differ from
# image to image
HEAD_GAIN = 5.0
# of detectors and segmentors, weights without their mean over the inputs, times this: objects that
# no rounding chooses, and several classes in an image
GAINS = {
    "rpn_head.rpn_reg.weight": 0.1,
    "roi_head.bbox_head.fc_reg.weight": 0.1,
    "decode_head.conv_seg.weight": 5.0,
}


def seeded_model(config: Config) -> paddle.nn.Layer:
    """The model that `config` names, with the seeded weights of the reference's keys and shapes."""
    arch = config.Arch
    model = create_model(arch.name, num_classes=arch.class_num, **arch.arguments)
    own = {key: value.numpy() for key, value in model.state_dict().items()}
    shapes = {key: value.shape for key, value in to_torch(own, model).items()}
    load_weights(model, seeded.state_dict(shapes))
    return model


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", metavar="FILE.pdparams")
    add_config(parser, model=False)
    args = parser.parse_args(argv)
    config = load_config(args.config, args.override)
    model = seeded_model(config)
    if config.Arch.name in list_models("classification"):
        (head,) = (
            layer
            for key, layer in model.named_sublayers()
            if isinstance(layer, paddle.nn.Linear) and f"{key}.".startswith(model.head_prefixes)
        )
        head.weight.set_value(head.weight * HEAD_GAIN)
    for key, value in model.state_dict().items():
        if key in GAINS:
            mean = value.mean(axis=0 if value.ndim == 2 else 1, keepdim=True)
            value.set_value((value - mean) * GAINS[key])
    paddle.save(model.state_dict(), args.path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
