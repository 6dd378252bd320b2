"""Images in, objects or labels out: detectors and segmentors, by any engine."""

import argparse
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

import numpy as np
from agreement import check_outputs
from classify import Timed, allow_any_name, write_json
from decoding import shown_text
from description import description_path
from drawing import draw_labels, draw_objects, label_picture
from engines import Engine
from fields import names_of, task_of
from joint import JointPreprocess, Prepared
from labels import class_areas, told_classes
from listing import list_images
from objects import MASK_THRESHOLD, Objects, objects_of, told_objects
from PIL import Image
from preprocess import ImageError, decode
from winners import best_class

LONGEST_NAME = 200  # bytes, of the 255 that systems allow
SHOWN = 5  # objects or classes in a line
# options that are not for all tasks
TASKS_OF = {
    "topk": ("classification",),
    "batch_size": ("classification",),
    "score_threshold": ("detection",),
    "mask_threshold": ("detection",),
    "out": ("detection", "segmentation"),
    "memory": ("detection", "segmentation"),
}


def share(text: str) -> float:
    """A type of argparse: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return value


def positive(text: str) -> float:
    """A type of argparse: a number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that detectors and segmentors have beside `classify.common_arguments`."""
    dense = parser.add_argument_group("detectors and segmentors")
    dense.add_argument("--out", metavar="DIR", help="draw what was found into this folder")
    dense.add_argument(
        "--score-threshold",
        type=share,
        help="of a detector: objects from this score on; default: that of the export",
    )
    dense.add_argument(
        "--mask-threshold",
        type=share,
        help="of a detector: pixels from this probability on are an object's (0.5)",
    )
    dense.add_argument(
        "--memory",
        type=positive,
        metavar="GB",
        help="images that take more are refused before the work; default: what is free",
    )


def check_options(args: argparse.Namespace, task: str) -> None:
    """ValueError for an option that the export's task has no use for."""
    for name, tasks in TASKS_OF.items():
        if getattr(args, name) is not None and task not in tasks:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: for {' and '.join(tasks)}; this export is for {task}")


class Result:
    """What is known of one image: `told`, its JSON; `line`, for a terminal; `pictures()`, by the
    ends of their names.
    """

    def __init__(
        self, told: dict, line: str, pictures: Callable[[], Mapping[str, Image.Image]]
    ) -> None:
        self.told = told
        self.line = line
        self.pictures = pictures


class Detector:
    """An exported detector: `detector(name, pixels)`, uint8 [H, W, 3] -> Result. ImageError,
    beginning with `name`, for an image that it cannot take.

    threshold: the score from which objects count, None: the export's. mask_threshold: from which
    probability a pixel is an object's. memory: see JointPreprocess.
    """

    def __init__(
        self,
        engine: Engine,
        description: dict,
        threshold: Optional[float] = None,
        mask_threshold: float = MASK_THRESHOLD,
        memory: Optional[int] = None,
        source: str = "export.json",
    ):
        self.engine, self.description = engine, description
        self.names = names_of(description)
        given = description["PostProcess"]["score_threshold"]
        self.threshold = given if threshold is None else threshold
        self.mask_threshold = mask_threshold
        self.has_masks = "masks" in description["Export"]["outputs"]
        sides = description["Export"]["inputs"]["image"][2:]
        self.prepare = JointPreprocess(
            description["PreProcess"]["transform_ops"],
            sides,
            fills=True,
            min_size=least_side(description),
            memory=memory,
            source=source,
        )

    def inputs(self, prepared: Prepared) -> dict[str, np.ndarray]:
        """What the program takes."""
        return {
            "image": prepared.image,
            "im_shape": np.array([prepared.shape], np.float32),
            "scale_factor": np.array([prepared.scale], np.float32),
        }

    def answer(
        self, name: str, pixels: np.ndarray, prepared: Prepared, outputs: Sequence[np.ndarray]
    ) -> Result:
        """The Result of what the program gave of an image."""
        height, width = pixels.shape[:2]
        found = objects_of(outputs, height, width, self.threshold, self.mask_threshold)
        told = {"file_name": name, "height": height, "width": width}
        told["objects"] = told_objects(found, self.names)

        def pictures() -> Mapping[str, Image.Image]:
            return {"_objects.png": draw_objects(pixels, found, self.names)}

        return Result(told, self._line(found), pictures)

    def _line(self, found: Objects) -> str:
        best = ", ".join(
            f"{shown_text(self.names[label])} {score:.4f}"
            for label, score in zip(found.labels[:SHOWN], found.scores[:SHOWN])
        )
        return f"{len(found.boxes)} objects" + (f": {best}" if best else "")


class Segmentor:
    """An exported segmentor, see Detector."""

    def __init__(
        self,
        engine: Engine,
        description: dict,
        memory: Optional[int] = None,
        source: str = "export.json",
    ):
        self.engine, self.description = engine, description
        self.names = names_of(description)
        ((self.input, shape),) = description["Export"]["inputs"].items()
        self.batch = shape[0] or 1
        self.place = description["Export"]["outputs"].index("logits")
        self.prepare = JointPreprocess(
            description["PreProcess"]["transform_ops"],
            shape[2:],
            fills=False,
            min_size=least_side(description),
            classes=len(self.names),
            memory=memory,
            source=source,
        )

    def inputs(self, prepared: Prepared) -> dict[str, np.ndarray]:
        """What the program takes."""
        return {self.input: np.repeat(prepared.image, self.batch, axis=0)}

    def answer(
        self, name: str, pixels: np.ndarray, prepared: Prepared, outputs: Sequence[np.ndarray]
    ) -> Result:
        """The Result of what the program gave of an image."""
        height, width = pixels.shape[:2]
        scores = outputs[self.place][0]
        labels = best_class(scores, prepared.image.shape[2:], prepared.shape, (height, width))
        told = {"file_name": name, "height": height, "width": width}
        told["classes"] = told_classes(labels, self.names)

        def pictures() -> Mapping[str, Image.Image]:
            return {
                "_overlay.png": draw_labels(pixels, labels, self.names),
                "_labels.png": label_picture(labels, len(self.names)),
            }

        areas = class_areas(labels, self.names)[:SHOWN]
        best = (f"{shown_text(area['label_name'])} {100 * area['share']:.1f} %" for area in areas)
        return Result(told, ", ".join(best), pictures)


def least_side(description: dict) -> int:
    """The smallest side that the model takes."""
    return description.get("Model", {}).get("input", {}).get("min_size", 1)


class Clock:
    """Seconds of each part of every image: decoding with preprocessing, model, postprocessing."""

    PARTS = ("preprocessing", "model", "postprocessing")

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {part: [] for part in self.PARTS}

    def add(self, *marks: float) -> None:
        """marks: the times before the first part and after each."""
        for part, before, after in zip(self.PARTS, marks, marks[1:]):
            self.seconds[part].append(after - before)

    def summary(self) -> str:
        """One line: the medians in milliseconds, and what postprocessing takes of the whole."""
        medians = {part: 1000 * float(np.median(times)) for part, times in self.seconds.items()}
        listed = " ".join(f"{part}={ms:.2f}" for part, ms in medians.items())
        share = 100 * medians["postprocessing"] / max(sum(medians.values()), 1e-9)
        count = len(self.seconds["model"])
        return f"image_ms: images={count} {listed} postprocessing_share={share:.1f}%"


def answers(
    model: Detector | Segmentor, paths: Sequence[Path], clock: Clock, timed: Optional[Timed] = None
) -> Iterator[Result | dict]:
    """For each path, in order, its Result, or {file_name, error}. timed: runs the model on every
    image again.
    """
    for path in paths:
        start = time.perf_counter()
        try:
            pixels = np.asarray(decode(path))
            prepared = model.prepare(pixels)
            ready = time.perf_counter()
            outputs = model.engine.run(model.inputs(prepared))
            done = time.perf_counter()
            check_outputs(model.description, outputs)
            result = model.answer(str(path), pixels, prepared, outputs)
        except ImageError as error:
            yield {"file_name": str(path), "error": str(error)}
        except ValueError as error:
            yield {"file_name": str(path), "error": shown_text(f"{path}: {error}", 4000)}
        else:
            clock.add(start, ready, done, time.perf_counter())
            if timed:
                timed(model.inputs(prepared))
            yield result


def predict_dense(args: argparse.Namespace, description: dict, engine: Engine) -> int:
    """Print, write and draw what `args` ask for; returns the exit status: 1 if an image was bad."""
    allow_any_name()
    source = description_path(args.model).name
    memory = None if args.memory is None else int(1e9 * args.memory)
    model: Detector | Segmentor
    if task_of(description) == "detection":
        limit = MASK_THRESHOLD if args.mask_threshold is None else args.mask_threshold
        model = Detector(engine, description, args.score_threshold, limit, memory, source)
        if args.mask_threshold is not None and not model.has_masks:
            raise ValueError("--mask-threshold: this detector gives boxes alone")
    else:
        model = Segmentor(engine, description, memory, source)
    paths = list_images(args.images)
    stems = [Path(args.out) / stem for stem in output_stems(paths)] if args.out else None
    timed = None
    if args.repeat:
        timed = Timed(engine.run, args.warmup, args.repeat, count=lambda inputs: 1)
    clock, told = Clock(), []
    for i, result in enumerate(answers(model, paths, clock, timed)):
        if isinstance(result, dict):
            print("error:", result["error"], file=sys.stderr)
            told.append(result)
            continue
        print(f"{shown_text(result.told['file_name'])}: {result.line}", flush=True)
        told.append(result.told)
        if stems:
            save(result, stems[i])
    if timed and timed.seconds:
        print(timed.summary(args.threads))
        print(clock.summary())
    if stems:
        print(f"drawn in {args.out}")
    if args.json:
        write_json(args.json, told)
    return int(any("error" in entry for entry in told))


def save(result: Result, stem: Path) -> None:
    """Write the pictures of `result` as PNG files whose names begin with `stem`."""
    for ending, picture in result.pictures().items():
        path = stem.with_name(f"{stem.name}{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "png")


def output_stems(paths: Sequence[Path]) -> list[str]:
    """For each path the beginning of the names of its pictures: its folders below the one that
    holds all, and its name, with the ending only where another differs by nothing else.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.commonpath([path.parent for path in whole])
    below = [path.relative_to(root) for path in whole]
    times = Counter(path.with_suffix("") for path in dict.fromkeys(below))
    names = [path if times[path.with_suffix("")] > 1 else path.with_suffix("") for path in below]
    return [str(path.with_name(_bounded(path.name))) for path in names]


def _bounded(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    kept = data[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{kept}-{zlib.crc32(data):08x}"
