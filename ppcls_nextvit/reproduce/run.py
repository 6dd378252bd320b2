"""Our figures beside the published ones: evaluate weights on a dataset and report."""

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional

from .. import zoo
from ..engine.curves import pyplot
from ..engine.distributed import Processes
from ..schema import ConfigError, nearest
from . import classification, dense
from .datasets import PUBLISHED_DATASETS, ClassificationDataset, DenseDataset
from .pages import classification_page, dense_page
from .pictures import draw_classification, draw_dense
from .request import Request

__all__ = ["default_dataset", "find_record", "reproduce"]


class Evaluation(NamedTuple):
    """How a kind of dataset is evaluated: evaluate(dataset, Request) -> report; page(report) ->
    Markdown; draw(report, path).
    """

    evaluate: Callable[[Any, Request], Dict[str, Any]]
    page: Callable[[Dict[str, Any]], str]
    draw: Callable[[Dict[str, Any], Path], None]


EVALUATIONS: Dict[type, Evaluation] = {
    ClassificationDataset: Evaluation(
        classification.evaluate, classification_page, draw_classification
    ),
    DenseDataset: Evaluation(dense.evaluate, dense_page, draw_dense),
}


def find_record(weights: os.PathLike | str, record: Optional[str] = None) -> Optional[zoo.Weights]:
    """The zoo's Weights that `weights`, a name of the zoo or a file, stands for: by `record`, by
    name, by the file's name, or None.
    """
    weights = os.fspath(weights)
    if record is not None:
        return zoo.get(record)
    if zoo.is_name(weights) and not os.path.exists(weights):
        return zoo.get(weights)
    file = os.path.basename(weights)
    return next((found for found in zoo.WEIGHTS.values() if found.file == file), None)


def default_dataset(weights: os.PathLike | str, record: Optional[str] = None) -> str:
    """The key of the dataset that `weights` (see find_record) are evaluated on if nobody says
    which: the first of their task, and ImageNet for weights without a record.
    """
    found = find_record(weights, record)
    task = found.task if found else "classification"
    for kind, dataset in PUBLISHED_DATASETS.items():
        if dataset.task == task:
            return kind
    raise ConfigError(f"{os.fspath(weights)}: no published dataset is known for {task}")


def reproduce(
    weights: os.PathLike | str,
    data: os.PathLike | str,
    out: os.PathLike | str,
    kind: str = "imagenet",
    model: Optional[str] = None,
    record: Optional[str] = None,
    preprocessing: Optional[zoo.Preprocessing] = None,
    tolerance: float = 0.1,
    limit: Optional[int] = None,
    batch_size: Optional[int] = None,
    num_workers: int = 0,
    processes: Optional[Processes] = None,
    **layout: str,
) -> Dict[str, Any]:
    """Evaluate `weights` on the dataset `kind` below the folder `data`; returns the report, a dict,
    also written into the folder `out`: report.json, report.md, report.png.

    weights: a name of the zoo, or any file that load_weights takes. model: create_model's name for
        a file (default: the record's, else NextViT_small); the class count is the file's. record,
        see find_record: whose preprocessing and figures apply.
    kind: a key of PUBLISHED_DATASETS; for those of detection and segmentation the weights must be
        of a record.
    preprocessing: a zoo.Preprocessing for weights without a record (default 224 of 256).
    tolerance: percentage points. limit: at most so many images, evenly spread. layout: labels,
        synsets, real (see open_dataset).
    batch_size: default 64, for detection and segmentation 1. processes: see start_processes; only
        datasets of detection and segmentation are divided among several.
    The report's `status` is MATCH, MISMATCH or NO_COMPARISON. `out`/predictions.jsonl lets an
    interrupted evaluation continue. Raises ConfigError for arguments that contradict each other or
    the record, LoadError, ImageError, FileNotFoundError for what is read, ImportError that names
    the extra of matplotlib.
    """
    # a missing matplotlib is noticed before the evaluation, not after it
    pyplot()
    if kind not in PUBLISHED_DATASETS:
        raise ConfigError(f"unknown set {kind!r}.{nearest(kind, PUBLISHED_DATASETS)}")
    dataset = PUBLISHED_DATASETS[kind]
    request = Request(
        os.fspath(weights),
        os.fspath(data),
        Path(out),
        kind,
        find_record(weights, record),
        model,
        preprocessing,
        tolerance,
        limit,
        batch_size,
        num_workers,
        processes or Processes(),
        layout,
    )
    evaluation = EVALUATIONS[type(dataset)]
    report = evaluation.evaluate(dataset, request)
    if request.processes.is_main:
        text = json.dumps(report, indent=1) + "\n"
        (request.out / "report.json").write_text(text, encoding="utf-8")
        (request.out / "report.md").write_text(evaluation.page(report), encoding="utf-8")
        evaluation.draw(report, request.out / "report.png")
    return report
