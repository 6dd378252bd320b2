"""deploy/python/predict.py, which runs ONNX Runtime, OpenVINO and Paddle Inference, under the name
that it had for the first two: the options and the output are the same.
"""

import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "python"

if __name__ == "__main__":
    if not (FOLDER / "predict.py").is_file():
        raise SystemExit(
            f"error: {FOLDER}: the program is not there; copy deploy/python/*.py in place of this "
            f"file"
        )
    sys.path[0] = str(FOLDER)
    runpy.run_path(str(FOLDER / "predict.py"), run_name="__main__")
