"""Convert Next-ViT weights: `python -m weight_conversion SRC DST --model NextViT_small [--to
paddle|torch|timm]`, or a detector's or segmentor's: `... --model MaskRCNN --backbone NextViT_small
[--to paddle|mmdet]`.
"""

from ppcls_nextvit.cli import convert
from ppcls_nextvit.cli.common import main_of

main = main_of(convert, __doc__, prog="python -m weight_conversion")

if __name__ == "__main__":
    raise SystemExit(main())
