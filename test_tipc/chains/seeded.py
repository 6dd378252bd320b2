"""Seeded random weights: `python -m test_tipc.chains.seeded MODEL CLASSES FILE.pdparams`, with
tests/ on PYTHONPATH.

The weights of tests/golden/seeded.py, which are the same everywhere, so that predictions can be
stored.
"""

import sys

import paddle
from helpers import seeded_model

# logits of a random network hardly depend on the image; this makes the best class differ from image
# to image
HEAD_GAIN = 5.0


def main(argv=None) -> int:
    name, classes, path = sys.argv[1:] if argv is None else argv
    # the weights do not depend on the image size
    model = seeded_model("_".join(name.split("_")[:2]), int(classes))
    head = model.proj_head[0]
    head.weight.set_value(head.weight * HEAD_GAIN)
    paddle.save(model.state_dict(), path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
