"""A detector or segmentor exported in lower precision, beside float32: what that costs, in the
task's own figures on DataLoader.Eval, and what it saves.
"""

import json
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..config import Config
from ..data.images import decode_image
from ..data.loader import build_loader
from ..data.transforms.joint import JointPipeline
from ..engine.distributed import start_processes
from ..export import TARGETS
from ..export.target import DESCRIPTION, Exported
from ..export.verify import ExportError, Program, Signature
from ..schema import ConfigError
from .base import ExportRequest, QuantizeRequest
from .common import list_images, milliseconds
from .joint import model_input

__all__ = ["REPORT", "Reduced", "calibration_images", "quantize_dense"]

REPORT = "accuracy.json"
ROUNDS = 10  # in which the two programs take turns

# the model of a task, which an exported program now answers for
Answering = Callable[[Any, Program], Any]


class Reduced:
    """A dense task's way to lower precision.

    task: its class. export(config, request, images): as the task's own export, images to calibrate
    int8 with. answering(model, program): what evaluation asks in place of the model. figures: the
    names of what evaluation gives that are compared, in percent. precisions: that it has.
    """

    def __init__(
        self,
        task: Any,
        export: Callable[[Config, ExportRequest, Sequence[np.ndarray]], Exported],
        answering: Answering,
        figures: Tuple[str, ...],
        precisions: Dict[str, Tuple[str, ...]],
    ) -> None:
        self.task, self.export, self.answering = task, export, answering
        self.figures, self.precisions = figures, precisions


def calibration_images(config: Config, request: QuantizeRequest, seed: int = 0) -> List[np.ndarray]:
    """At most `request.images` images, float32 [C, H, W], transformed as for prediction, drawn by
    `seed` from `request.calibration`, or else from DataLoader.Train.
    """
    pipeline = JointPipeline(config.section("Infer").transforms, "Infer.transforms")
    if request.calibration:
        paths = [str(path) for path in list_images(request.calibration)]
        total, read = len(paths), lambda index: decode_image(paths[index])
    else:
        section = config.section("DataLoader.Train")
        dataset: Any = build_loader(section, "Train", num_classes=config.Arch.class_num).dataset
        total, read = len(dataset), dataset.image
    if request.images < 1:
        raise ValueError(f"the number of images must be 1 or more; got {request.images}")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[: request.images]).tolist()
    # the model itself says, when it is exported, from which size on it takes images
    return [
        model_input(read(index), pipeline, f"calibration image {index}", 1).image[0]
        for index in chosen
    ]


def quantize_dense(config: Config, request: QuantizeRequest, way: Reduced) -> int:
    """Write the export that `request` asks for, with accuracy.json, and print how it compares with
    float32; returns the exit status.

    ConfigError for a target without that precision, and for --keep-float; ExportError where the
    files are far from the model.
    """
    _check(config, request, way)
    int8 = request.precision == "int8"
    images = calibration_images(config, request) if int8 else []
    report: Dict[str, Any] = {
        "target": request.to,
        "calibrated_on": len(images),
        "threads": request.threads,
    }
    programs: Dict[str, Program] = {}
    with tempfile.TemporaryDirectory() as folder:
        where = {"fp32": folder, request.precision: config.Global.save_inference_dir}
        for precision, directory in where.items():
            own = replace(config, Global=replace(config.Global, save_inference_dir=directory))
            exported = way.export(own, ExportRequest(request.to, precision), images)
            programs[precision] = _program(directory, request, precision)
            report[precision] = {"bytes": exported.size}
        asked = _evaluate(config, way, programs, report)
        _time(programs, asked, report)
    path = Path(config.Global.save_inference_dir) / REPORT
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    calibrated = f", calibrated on {len(images)} images" if int8 else ""
    print(f"{path.parent}: {request.precision} for {request.to}{calibrated}\n")
    print(_table(report, request.precision, way.figures))
    return 0


def _check(config: Config, request: QuantizeRequest, way: Reduced) -> None:
    able = [name for name, known in way.precisions.items() if request.precision in known]
    if request.to not in able:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} has {request.precision} for "
            f"{' and '.join(able) or 'no target'}; got --to {request.to}"
        )
    if request.keep_float:
        raise ConfigError(f"--keep-float is for classifiers, which {config.Arch.name} is not")


def _program(directory: str, request: QuantizeRequest, precision: str) -> Program:
    told = json.loads((Path(directory) / DESCRIPTION).read_text(encoding="utf-8"))["Export"]
    inputs = {name: tuple(shape) for name, shape in told["inputs"].items()}
    signature = Signature(inputs, tuple(told["outputs"]))
    load: Any = TARGETS[request.to].load
    program = load(Path(directory), signature, precision, request.threads)
    if program is None:
        raise ExportError(f"the engine of {request.to} does not run on this machine")
    return program


def _evaluate(
    config: Config, way: Reduced, programs: Dict[str, Program], report: Dict[str, Any]
) -> Dict[str, np.ndarray]:
    """The figures of each program into `report`; returns the inputs that the last was asked."""
    task = way.task(config, start_processes(config.Global.device), training=False)
    model, last = task.model, {}
    for precision, program in programs.items():

        def noted(batch: Any, program: Program = program) -> Dict[str, np.ndarray]:
            last.update(batch)
            return program(batch)

        task.model = way.answering(model, noted)
        found = task.evaluate()
        report["images"] = found["images"]
        report[precision].update({name: found[name] for name in way.figures if name in found})
    return last


def _time(
    programs: Dict[str, Program], asked: Dict[str, np.ndarray], report: Dict[str, Any]
) -> None:
    taken: Dict[str, List[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            program(asked)  # the other has had the caches
            taken[name].append(milliseconds(partial(program, asked)))
    for name, times in taken.items():
        report[name]["latency_ms"] = statistics.median(times)
    first, second = taken.values()
    report["latency_ratio"] = statistics.median(b / a for a, b in zip(first, second))


def _table(report: Dict[str, Any], precision: str, figures: Tuple[str, ...]) -> str:
    """The report as a Markdown table."""
    shown = [name for name in figures if report["fp32"].get(name) is not None]
    lines = [
        f"| | {' | '.join(f'{name} %' for name in shown)} | MB | ms, 1 image |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for name in ("fp32", precision):
        row = report[name]
        cells = [f"{100 * row[figure]:.2f}" for figure in shown]
        cells += [f"{row['bytes'] / 1e6:.1f}", f"{row['latency_ms']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    low, exact = report[precision], report["fp32"]
    cells = [f"{100 * (low[figure] - exact[figure]):+.2f}" for figure in shown]
    cells += [f"x {low['bytes'] / exact['bytes']:.2f}", f"x {report['latency_ratio']:.2f}"]
    lines.append(f"| {precision} to fp32 | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"on {report['images']} images"])
