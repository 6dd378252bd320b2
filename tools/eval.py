"""Evaluate weights: `python tools/eval.py -c CONFIG -o Global.pretrained_model=WEIGHTS`, printed as
JSON.

A YAML in PaddleDetection's dialect goes to that suite (`-o weights=WEIGHTS`), one in PaddleSeg's
too (`-o model.pretrained=WEIGHTS`).
"""

from ppcls_nextvit.cli import eval
from ppcls_nextvit.cli.common import main_of

main = main_of(eval, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
