"""Classify images with an exported Core ML package, on a Mac: python predict.py --model DIRECTORY
--images FILE_OR_DIRECTORY

Copy this file, ../onnx/predict.py (decoding, resizing, printing) and the directory. Needs macOS 13
or later, coremltools, numpy and Pillow.
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
PACKAGE = "inference.mlpackage"
UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE"}


def neighbour(name, *folders):
    """The module in the first of `folders` that has the file `name`. FileNotFoundError if none
    has.
    """
    for folder in folders:
        if (folder / name).is_file():
            spec = importlib.util.spec_from_file_location(
                f"{folder.name}_{Path(name).stem}", folder / name
            )
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f"{folders[0] / name}: no such file; copy {name} there")


common = neighbour("predict.py", HERE.parent / "onnx", HERE / "onnx")


def distinct(names):
    """`names`, where those that occur twice have their index added: so they are in the package,
    whose scores go by name.
    """
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name} ({index})" if name in repeated else name for index, name in enumerate(names)]


def read_package(folder):
    """The description in `folder`, after the package's files were hashed. FileNotFoundError or
    ValueError, one line.
    """
    folder = Path(folder)

    def parse(text):
        description = json.loads(text)
        for name, entry in description["Files"].items():
            path = folder / name
            if name.partition("/")[0] != PACKAGE or ".." in Path(name).parts:
                raise ValueError(f"{name} is no file of a Core ML export (--to coreml)")
            if (
                not path.is_file()
                or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]
            ):
                raise ValueError(
                    f"{name} is missing, damaged or of another export; export or copy again"
                )
        return {**description, "Files": {}}

    description = common.read_hashed(folder, parse)
    # Normalisation is in the package: it takes 8-bit pixels. PIL's are red first, and Core ML turns
    # them where the model wants blue first.
    recipe = [
        {name: {**arguments, "to_rgb": True} if name == "DecodeImage" else arguments or {}}
        for step in description["PreProcess"]["transform_ops"]
        for name, arguments in step.items()
        if name not in ("NormalizeImage", "ToCHWImage")
    ]
    # pictures come one by one
    shape = [None, *description["Model"]["input"]["shape"][1:]]
    return {
        **description,
        "PreProcess": {"transform_ops": recipe},
        "Model": {
            **description["Model"],
            "input": {**description["Model"]["input"], "shape": shape},
        },
    }


def load_package(path, units):
    """The package as an object with `predict({name: picture})`, run by Core ML. ValueError where
    there is none.
    """
    if sys.platform != "darwin":
        raise ValueError(f"{path}: Core ML runs on macOS alone; this is {sys.platform}")
    try:
        import coremltools
    except ImportError:
        raise ValueError("coremltools is not installed: pip install coremltools") from None
    return coremltools.models.MLModel(
        str(path), compute_units=getattr(coremltools.ComputeUnit, UNITS[units])
    )


def coreml_engine(folder, description, units):
    """A function from float32 [B, 3, H, W], 0 ... 255, to the model's output, [B, classes]."""
    package, name = (
        load_package(Path(folder) / PACKAGE, units),
        description["Model"]["input"]["name"],
    )
    classes = distinct(description["PostProcess"]["Topk"]["label_list"])

    def scores(pixels):
        output = package.predict(
            {name: Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8))}
        )
        if not description["Model"]["softmax"]:
            return np.reshape(next(iter(output.values())), -1)
        found = next(value for value in output.values() if isinstance(value, dict))
        return np.array([found[label] for label in classes], np.float32)

    return lambda batch: np.stack([scores(pixels) for pixels in batch])


def main(argv=None) -> int:
    parser = common.common_arguments()
    parser.add_argument(
        "--units",
        choices=list(UNITS),
        default="all",
        help="where it may run (all); ane: the Neural Engine",
    )
    args = parser.parse_args(argv)
    try:
        description = read_package(args.model)
        return common.predict(args, description, coreml_engine(args.model, description, args.units))
    except (OSError, ValueError, RuntimeError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
