"""Classify images, find objects, or label pixels, with an exported Core ML package, on a Mac:
python predict.py --model DIRECTORY --images FILE_OR_DIRECTORY

Copy this file, the folder ../python as python beside it, and the directory. Needs macOS 13 or
later, coremltools, numpy and Pillow.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "python"), str(HERE.parent / "python")]
try:
    import numpy as np
    from classify import common_arguments, predict
    from decoding import one_line
    from dense import add_arguments, check_options, predict_dense
    from description import parse_description
    from engines import Engine
    from fields import TASKS, task_of
    from PIL import Image
    from two_stage import TwoStage
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. predict.py needs the folder deploy/python beside it, numpy and Pillow"
    ) from None

PACKAGE = "inference.mlpackage"
CLASSIFICATION, DETECTION, SEGMENTATION = TASKS
# of a detector in parts: what looks at the regions that numpy chooses
OF_REGIONS = ("inference.boxes.mlpackage", "inference.masks.mlpackage")
INPUTS = ("image", "im_shape", "scale_factor")  # of a detector
UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE"}


def distinct(names: list[str]) -> list[str]:
    """`names`, where those that occur twice have their index added: so they are in the package,
    whose scores go by name.
    """
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name} ({index})" if name in repeated else name for index, name in enumerate(names)]


def read_package(folder: str | Path) -> dict:
    """The description in `folder`, after the packages' files were hashed: one whose preprocessing
    makes what the package takes, 8-bit pixels but for a detector, one picture at a time.
    FileNotFoundError or ValueError, one line.
    """
    description = parse_description(folder, tasks=TASKS)
    task = task_of(description)
    more = OF_REGIONS if in_parts(description) else ()
    check_packages(Path(folder), description["Files"], (PACKAGE, *more))
    if task == DETECTION:
        return description
    if task == SEGMENTATION:
        return without_normalisation(description)
    # Normalisation is in the package. PIL's pixels are red first, and Core ML turns them where the
    # model wants blue first.
    steps = []
    for step in description["PreProcess"]["transform_ops"]:
        for name, arguments in step.items():
            if name == "DecodeImage":
                steps.append({name: {**(arguments or {}), "to_rgb": True}})
            elif name not in ("NormalizeImage", "ToCHWImage"):
                steps.append({name: arguments or {}})
    model = description["Model"]
    source = {**model["input"], "shape": [None, *model["input"]["shape"][1:]]}
    return {
        **description,
        "PreProcess": {"transform_ops": steps},
        "Model": {**model, "input": source},
    }


def in_parts(description: dict) -> bool:
    """Whether the model is several packages, between which numpy chooses boxes."""
    return "two_stage" in description.get("Model", {})


def without_normalisation(description: dict) -> dict:
    """A segmentor's description, whose preprocessing ends in 8-bit pixels. Nor is there padding:
    it is 0 after normalisation, which no 8-bit pixel is, so that images have the package's size.
    """
    steps = [
        {name: arguments}
        for step in description["PreProcess"]["transform_ops"]
        for name, arguments in step.items()
        if name not in ("Normalize", "Pad")
    ]
    return {**description, "PreProcess": {"transform_ops": steps}}


def check_packages(folder: Path, files: dict, packages: Sequence[str]) -> None:
    """Compare the hashes of the `files` of `packages`, {path in `folder`: entry}. ValueError, one
    line.
    """
    for name, entry in files.items():
        path = folder / name
        if name.partition("/")[0] not in packages or ".." in Path(name).parts:
            raise ValueError(f"{folder}: {name} is no file of a Core ML export (--to coreml)")
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{folder}: {name} is missing, damaged or of another export; export or copy again"
            )


def load_package(path: Path, units: str) -> Any:
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


def coreml_engine(
    folder: str | Path, description: dict, units: str
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from float32 [B, 3, H, W], 0 ... 255, to the model's output, [B, classes]."""
    package = load_package(Path(folder) / PACKAGE, units)
    name = description["Model"]["input"]["name"]
    classes = distinct(description["PostProcess"]["Topk"]["label_list"])

    def scores(pixels):
        picture = Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8))
        output = package.predict({name: picture})
        if not description["Model"]["softmax"]:
            return np.reshape(next(iter(output.values())), -1)
        found = next(value for value in output.values() if isinstance(value, dict))
        return np.array([found[label] for label in classes], np.float32)

    return lambda batch: np.stack([scores(pixels) for pixels in batch])


def segmentor_engine(folder: str | Path, description: dict, units: str) -> Engine:
    """The package of a segmentor: from float32 [1, 3, H, W], 0 ... 255, to what `Export.outputs`
    names.
    """
    package = load_package(Path(folder) / PACKAGE, units)
    exported = description["Export"]
    (name,) = exported["inputs"]

    def run(arrays: Any) -> list[np.ndarray]:
        pixels = arrays[name][0].transpose(1, 2, 0).astype(np.uint8)
        found = package.predict({name: Image.fromarray(pixels)})
        return outputs_of(found, exported["outputs"])

    return Engine([name], run)


def outputs_of(found: dict, names: Sequence[str]) -> list[np.ndarray]:
    """Those of `names` that a package gave. ValueError where it gave others."""
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"Export.outputs: the package gives no {missing[0]!r}; export again")
    return [np.asarray(found[name]) for name in names]


def detector_engine(folder: str | Path, description: dict, units: str) -> Engine:
    """The package of a detector, or its packages, joined: from the arrays that `Export.inputs`
    names to what `Export.outputs` does.
    """
    exported = description["Export"]
    names = (PACKAGE, *OF_REGIONS) if in_parts(description) else (PACKAGE,)
    programs = [load_package(Path(folder) / name, units).predict for name in names]

    def whole(arrays: Any) -> list[np.ndarray]:
        found = programs[0]({name: arrays[name] for name in INPUTS})
        return outputs_of(found, exported["outputs"])

    if not in_parts(description):
        return Engine(INPUTS, whole)
    two_stage = TwoStage(description["Model"]["two_stage"], *programs)
    return Engine(INPUTS, lambda arrays: list(two_stage(*(arrays[name] for name in INPUTS))))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument(
        "--units",
        choices=list(UNITS),
        default="all",
        help="where it may run (all); ane: the Neural Engine",
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        description = read_package(args.model)
        task = task_of(description)
        check_options(args, task)
        if task != CLASSIFICATION:
            engine_of = detector_engine if task == DETECTION else segmentor_engine
            return predict_dense(args, description, engine_of(args.model, description, args.units))
        return predict(args, description, coreml_engine(args.model, description, args.units))
    except (OSError, ValueError, RuntimeError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
