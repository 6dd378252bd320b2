"""Train from a YAML: `python tools/train.py -c configs/NextViT_small_224.yaml`.

In several processes: `python -m paddle.distributed.launch --nproc_per_node=2 tools/train.py -c
...`. A YAML in PaddleDetection's or PaddleSeg's dialect (configs/paddledetection,
configs/paddleseg) goes to that suite's own trainer.
"""

from ppcls_nextvit.cli import train
from ppcls_nextvit.cli.common import main_of

main = main_of(train, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
