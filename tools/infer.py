"""Predict: `python tools/infer.py -c CONFIG -o Global.pretrained_model=WEIGHTS -o
Infer.infer_imgs=FILE_OR_DIRECTORY`.

Classification prints the best names (--sheet draws them). Detection and segmentation draw into
--out what they found.
"""

from ppcls_nextvit.cli import infer
from ppcls_nextvit.cli.common import main_of

main = main_of(infer, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
