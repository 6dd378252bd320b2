"""INT8: `python tools/quantize.py -c CONFIG -o Global.pretrained_model=WEIGHTS --to
openvino|onnx|tensorrt|paddle`.

Writes the int8 export to Global.save_inference_dir, calibrated on training images in evaluation's
preprocessing, and compares it with the float32 export on DataLoader.Eval: top-1, agreement, size,
latency; printed, and in accuracy.json beside the files.
"""

from ppcls_nextvit.cli import quantize
from ppcls_nextvit.cli.common import main_of

main = main_of(quantize, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
