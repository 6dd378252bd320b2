"""Train from a YAML: `python tools/train.py -c configs/NextViT_small_224.yaml`.

In several processes: `python -m paddle.distributed.launch --nproc_per_node=2 tools/train.py -c ...`.
"""
from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.train import train


@program
def main(argv=None) -> int:
    args = config_parser(__doc__).parse_args(argv)
    return train(load_config(args.config, args.override))


if __name__ == "__main__":
    raise SystemExit(main())
