"""Train from a YAML: `python tools/train.py -c configs/NextViT_small_224.yaml`, or the same through `python -m paddle.distributed.launch`."""
from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.train import train


@program
def main(argv=None) -> int:
    args = config_parser(__doc__).parse_args(argv)
    return train(load_config(args.config, args.override))


if __name__ == "__main__":
    raise SystemExit(main())
