"""Train from a YAML: `python tools/train.py -c configs/NextViT_small_224.yaml`.

In several processes: `python -m paddle.distributed.launch --nproc_per_node=2 tools/train.py -c
...`. A YAML in PaddleDetection's or PaddleSeg's dialect (configs/paddledetection,
configs/paddleseg) goes to that suite's own trainer.
"""

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.config import dialect_of
from ppcls_nextvit.tasks import load_config


@program
def main(argv=None) -> int:
    args = config_parser(__doc__).parse_args(argv)
    dialect = dialect_of(args.config)
    if dialect == "PaddleDetection":
        from ppcls_nextvit.hosts.paddledet import train

        return train(args.config, args.override)
    if dialect == "PaddleSeg":
        from ppcls_nextvit.hosts.paddleseg import train

        return train(args.config, args.override)
    from ppcls_nextvit.engine.train import train

    return train(load_config(args.config, args.override))


if __name__ == "__main__":
    raise SystemExit(main())
