"""Images in, classes out: what the programs of several engines share."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from agreement import check_outputs
from decoding import shown_text
from description import SEVERAL_LABELS, description_path
from engines import Run
from listing import list_images
from preprocess import ImageError, Preprocess

BATCH_SIZE = 8


class Classifier:
    """`classifier(batch)`: float32 [B, 3, H, W] -> probabilities float32 [B, classes]. run: the
    engine, from batch to output. A model of several labels an image ends in a sigmoid. ValueError
    where the output is another than the description says.

    A model exported for one batch size alone gets batches of that size, the last filled up with
    zeros.
    """

    def __init__(self, run: Run, description: dict):
        self.run, self.description = run, description
        model = description["Model"]
        self.softmax = model.get("sigmoid") or model["softmax"]
        self.count = model["input"]["shape"][0]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        output = self.run(batch) if self.count in (None, len(batch)) else self._in_parts(batch)
        check_outputs(self.description, [output])
        if self.softmax:
            return output
        exponent = np.exp(output - output.max(axis=-1, keepdims=True))
        return exponent / exponent.sum(axis=-1, keepdims=True)

    def _in_parts(self, batch):
        padded = np.pad(batch, [(0, -len(batch) % self.count), (0, 0), (0, 0), (0, 0)])
        parts = [
            np.array(self.run(padded[start : start + self.count]))
            for start in range(0, len(padded), self.count)
        ]
        return np.concatenate(parts)[: len(batch)]


class Timed:
    """`predictor`, which also runs each batch `repeat` times more, timed; the first one `warmup`
    times before, untimed. count: how many images are in a batch.
    """

    def __init__(
        self,
        predictor: Callable,
        warmup: int,
        repeat: int,
        count: Callable[[Any], int] = len,
    ):
        self.predictor = predictor
        self.count = count
        self.warmup = warmup
        self.repeat = repeat
        self.seconds: list[float] = []
        self.batches: list[int] = []

    def __call__(self, batch: Any) -> Any:
        output = self.predictor(batch)
        for _ in range(0 if self.seconds else self.warmup):
            self.predictor(batch)
        for _ in range(self.repeat):
            since = time.perf_counter()
            self.predictor(batch)
            self.seconds.append(time.perf_counter() - since)
            self.batches.append(self.count(batch))
        return output

    def summary(self, threads: int) -> str:
        """One line: milliseconds of a run, and images per second."""
        ms = 1000 * np.sort(self.seconds)
        values = {"min": ms[0]}
        for name, quantile in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
            values[name] = ms[round(quantile * (len(ms) - 1))]
        values["max"] = ms[-1]
        values["mean"] = ms.mean()
        listed = " ".join(f"{name}={value:.2f}" for name, value in values.items())
        rate = 1000 * sum(self.batches) / ms.sum()
        return (
            f"latency_ms: runs={len(ms)} batch={max(self.batches)} threads={threads} {listed} "
            f"images_per_s={rate:.1f}"
        )


def predict_files(
    predictor: Run,
    paths: list[Path],
    preprocess: Callable[[Path], np.ndarray],
    batch_size: int,
    topk: int,
    names: list[str],
    threshold: float | None = None,
) -> Iterator[dict]:
    """For each path, in order: {file_name, class_ids, scores, label_names}, best first, or
    {file_name, error}. threshold: of several labels an image, which are then all those of this
    probability or more, in the order of the classes.

    Images that preprocessing leaves at different sizes run one size at a time.
    """
    for start in range(0, len(paths), batch_size):
        results: dict[Path, dict] = {}
        by_shape: dict[tuple, list] = {}
        for path in paths[start : start + batch_size]:
            try:
                image = preprocess(path)
                by_shape.setdefault(image.shape, []).append((path, image))
            except ImageError as error:
                results[path] = {"file_name": str(path), "error": str(error)}
        for group in by_shape.values():
            rows = predictor(np.stack([image for _, image in group]))
            for (path, _), row in zip(group, rows):
                if threshold is None:
                    order = np.argsort(-row, kind="stable")[:topk].tolist()
                else:
                    order = np.flatnonzero(row >= threshold).tolist()
                results[path] = {
                    "file_name": str(path),
                    "class_ids": order,
                    "scores": [float(row[i]) for i in order],
                    "label_names": [names[i] for i in order],
                }
        yield from (results[path] for path in paths[start : start + batch_size])


def allow_any_name() -> None:
    """A name that the terminal's encoding lacks is from here on printed escaped, and no error, as
    it is on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_result(result: dict) -> None:
    """One line: the classes on stdout, or the error on stderr."""
    if "error" in result:
        print("error:", result["error"], file=sys.stderr)
        return
    best = ", ".join(
        f"{shown_text(name)} {score:.4f}"
        for name, score in zip(result["label_names"], result["scores"])
    )
    print(f"{shown_text(result['file_name'])}: {best or 'no label'}", flush=True)


def write_json(path: str | Path, results: list[dict]) -> None:
    """The results as a JSON list, which replaces a file that is there when it is whole. What UTF-8
    has no bytes for, as in names of files, is written as JSON's escapes.
    """
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    data, path = text.encode("utf-8", "backslashreplace"), Path(path).absolute()
    if path.exists() and not path.is_file():  # a terminal or a pipe
        path.write_bytes(data)
        return
    path = path.resolve()
    draft = path.with_name(f".{os.getpid()}.json.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)


def predict(args: argparse.Namespace, description: dict, run: Run) -> int:
    """Print and write what `args` ask for; returns the exit status: 1 if an image was bad. run: the
    engine (see Classifier).
    """
    allow_any_name()
    paths = list_images(args.images)
    labels = description["PostProcess"].get(SEVERAL_LABELS)
    if labels and args.topk:
        raise ValueError("--topk: this model tells all labels of an image, from its threshold on")
    topk = labels or description["PostProcess"]["Topk"]
    model = description["Model"]
    preprocess = Preprocess(
        description["PreProcess"]["transform_ops"],
        model["input"].get("min_size", 1),
        model["input"]["shape"][2:],
        description_path(args.model).name,
    )
    classifier = Classifier(run, description)
    timed = Timed(classifier, args.warmup, args.repeat) if args.repeat else None
    results = []
    for result in predict_files(
        timed or classifier,
        paths,
        preprocess,
        args.batch_size or BATCH_SIZE,
        args.topk or topk.get("topk", 1),
        topk["label_list"],
        labels["threshold"] if labels else None,
    ):
        results.append(result)
        print_result(result)
    if timed and timed.seconds:
        print(timed.summary(args.threads))
    if args.json:
        write_json(args.json, results)
    return int(any("error" in result for result in results))


def at_least(least: int) -> Callable[[str], int]:
    """A type of argparse: a whole number of `least` or more."""

    def parse(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
        return value

    return parse


def common_arguments(about: str) -> argparse.ArgumentParser:
    """A parser with the options of every program that calls `predict`. about: the program's
    docstring, of which --help shows the first paragraph.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n\n")[0])
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="what tools/export_model.py wrote"
    )
    parser.add_argument(
        "--images",
        required=True,
        nargs="+",
        metavar="WHAT",
        help="files, folders with all below them, patterns, lists (.txt), - for standard input",
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), help=f"images a run, of a classifier ({BATCH_SIZE})"
    )
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        help="on a CPU (default: OMP_NUM_THREADS, else the cores that are there)",
    )
    parser.add_argument(
        "--topk", type=at_least(1), help="classes told; default: what the model was exported with"
    )
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    parser.add_argument(
        "--repeat",
        type=at_least(1),
        metavar="N",
        help="run each batch N times more, timed, and print the latency",
    )
    parser.add_argument(
        "--warmup",
        type=at_least(0),
        default=1,
        metavar="N",
        help="untimed runs before the first of them (1)",
    )
    return parser
