"""Export: `python tools/export_model.py -c CONFIG -o Global.pretrained_model=WEIGHTS [--to TARGET]
[-o Global.save_inference_dir=DIR]`.

Every export is compared with the model, on photos and, but for a detector, random images, before it
is kept.
"""

from ppcls_nextvit.cli import export
from ppcls_nextvit.cli.common import main_of

main = main_of(export, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
