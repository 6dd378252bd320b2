"""Evaluate weights: `python tools/eval.py -c CONFIG -o Global.pretrained_model=WEIGHTS`, printed as
JSON.

A YAML in PaddleDetection's dialect goes to that suite (`-o weights=WEIGHTS`), one in PaddleSeg's
too (`-o model.pretrained=WEIGHTS`).
"""

import json

from ppcls_nextvit.cli.common import config_parser, program
from ppcls_nextvit.config import dialect_of
from ppcls_nextvit.tasks import load_config


@program
def main(argv=None) -> int:
    args = config_parser(__doc__).parse_args(argv)
    dialect = dialect_of(args.config)
    if dialect == "PaddleDetection":
        from ppcls_nextvit.hosts.paddledet import evaluate

        result = evaluate(args.config, args.override)
    elif dialect == "PaddleSeg":
        from ppcls_nextvit.hosts.paddleseg import evaluate

        result = evaluate(args.config, overrides=args.override)
    else:
        from ppcls_nextvit.tasks import evaluate

        result = evaluate(load_config(args.config, args.override))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
