"""Evaluate weights: `python tools/eval.py -c CONFIG -o Global.pretrained_model=WEIGHTS`."""
import json

from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.evaluate import evaluate


@program
def main(argv=None) -> int:
    args = config_parser(__doc__).parse_args(argv)
    print(json.dumps(evaluate(load_config(args.config, args.override))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
