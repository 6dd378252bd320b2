"""Our figures beside the published ones for detectors and segmentors: COCO and ADE20K, evaluated by
their tasks.
"""

import copy
import itertools
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

import paddle

from ..config.sections import ArchSection, Config, GlobalSection
from ..engine.logger import logger
from ..schema import ConfigError
from ..tasks import task_of
from ..tasks.base import ResumableTask
from ..weights import read_file
from ..weights.digest import sha256_of
from ..weights.load import resolve
from ..weights.rules import head_classes
from ..zoo import Weights
from .datasets import DenseDataset
from .predictions import read_results, result_line
from .request import MATCH, MISMATCH, NO_COMPARISON, Request, log_progress, verdict

__all__ = ["architecture", "evaluate"]

BATCH_SIZE = 1  # of the published figures; the padding of more changes them a little


def architecture(record: Weights, dataset: DenseDataset, classes: int) -> ArchSection:
    """The ArchSection of a zoo record's model for `dataset`, with the arguments of its figures."""
    arguments: Dict[str, Any] = {}
    evaluations = [record.evaluations.get(metric, {}) for metric in dataset.figures]
    for further in (record.arguments, dataset.arguments, *evaluations):
        arguments = _merged(arguments, further)
    return ArchSection(record.model, classes, arguments=arguments)


def _merged(arguments: Mapping[str, Any], further: Mapping[str, Any]) -> Dict[str, Any]:
    """A new dict: `arguments` with the values of `further`, section by section."""
    merged = copy.deepcopy(dict(arguments))
    for key, value in further.items():
        section = isinstance(value, Mapping)
        merged[key] = _merged(merged.get(key, {}), value) if section else copy.deepcopy(value)
    return merged


def transforms_of(record: Weights, dataset: DenseDataset) -> List[Mapping[str, Any]]:
    """Those of evaluation: the record's own, or the dataset's."""
    return list(record.transforms or dataset.transforms)


def loader_section(
    dataset: DenseDataset, request: Request, transforms: Sequence[Mapping[str, Any]]
) -> Dict[str, Any]:
    """DataLoader.Eval with the published preprocessing, of the images below `request.data`."""
    return {
        "dataset": {
            **dataset.section(request.data),
            "mode": "val",
            "transform_ops": list(transforms),
            "sample_num": request.limit,
        },
        "sampler": {"batch_size": request.batch_size or BATCH_SIZE},
        "loader": {"num_workers": request.num_workers},
    }


def evaluate(dataset: DenseDataset, request: Request) -> Dict[str, Any]:
    """The report of a detector's or segmentor's weights, compared with what was published: a dict.

    The class count is the file's, the model the record's. predictions.jsonl in the folder `out` (of
    several processes predictions_RANK.jsonl) gets the results of each image as they come; what is
    in it already is not computed again, and ConfigError if it was made otherwise. The images are
    divided among the processes.
    ConfigError without a record, or with one of another task.
    """
    record = _record(dataset, request)
    path = resolve(request.weights)
    classes = head_classes(read_file(path))
    if not classes:
        raise ConfigError(
            f"{path}: a backbone without heads; {dataset.title} needs the whole model for "
            f"{dataset.task}"
        )
    processes = request.processes
    transforms = transforms_of(record, dataset)
    section = loader_section(dataset, request, transforms)
    config = Config(
        record.name,
        GlobalSection(epochs=1, pretrained_model=path),
        architecture(record, dataset, classes),
        DataLoader={"Eval": section},
    )
    task: Any = task_of(config)(config, processes, training=False)
    digest, start = sha256_of(path), time.monotonic()
    logger.info("%s: %d images of %s", path, task.eval_loader.num_images, dataset.title)
    settings = {
        "model": [config.Arch.name, config.Arch.arguments],
        "weights_sha256": digest,
        "transform_ops": transforms,
        "images": task.eval_loader.num_images,
        "batch_size": section["sampler"]["batch_size"],
        "process": [processes.rank, processes.world_size],
    }
    request.out.mkdir(parents=True, exist_ok=True)
    name = f"predictions_{processes.rank}.jsonl" if processes.many else "predictions.jsonl"
    result = task.summary(_results(task, request.out / name, settings, start))
    report = {
        "weights": request.weights,
        "data": request.data,
        "record": record.name,
        "weights_sha256": digest,
        "model": f"{config.Arch.name} on {record.variant}",
        "set": dataset.title,
        "images": result["images"],
        "images_published": dataset.images,
        "complete": result["images"] == dataset.images,
        "preprocessing": _in_words(transforms),
        "figures": _figures(dataset, result),
        "result": result,
        "seconds": round(time.monotonic() - start, 1),
        "device": paddle.get_device(),
        "paddle": paddle.__version__,
    }
    return {**report, **_comparison(report, record.published, request.tolerance)}


def _figures(dataset: DenseDataset, result: Mapping[str, Any]) -> Dict[str, float]:
    """{metric: %}: those of the dataset that the model has; one without masks has no mask_map."""
    return {
        metric: 100 * result[name] for metric, name in dataset.figures.items() if name in result
    }


def _record(dataset: DenseDataset, request: Request) -> Weights:
    """The record of the weights. ConfigError for a request that says what the record says."""
    if request.layout or request.model or request.preprocessing:
        raise ConfigError(
            f"set {request.kind}: model and preprocessing are the record's, and the layout is the "
            f"set's; leave them out"
        )
    record = request.record
    if record is None:
        raise ConfigError(
            f"{request.weights}: which model is this? Say --record NAME, or use tools/eval.py with "
            f"its configuration"
        )
    if record.task != dataset.task:
        raise ConfigError(
            f"{record.name}: weights for {record.task}, but {dataset.title} is for {dataset.task}"
        )
    return record


def _in_words(transforms: Any) -> str:
    """'Resize {'scale': [1333, 800]}; Normalize'"""
    entries = [entry for transform in transforms for entry in transform.items()]
    return "; ".join(f"{name} {arguments}" if arguments else name for name, arguments in entries)


def _comparison(
    report: Dict[str, Any], published: Mapping[str, float], tolerance: float
) -> Dict[str, Any]:
    """What the report says of its figures beside the published ones."""
    figures = report["figures"]
    statuses, reasons = zip(
        *(
            verdict(measured, published.get(metric), tolerance, report["complete"])
            for metric, measured in figures.items()
        )
    )
    words = [f"{metric.rpartition('/')[2]} {reason}" for metric, reason in zip(figures, reasons)]
    worst_first = (MISMATCH, NO_COMPARISON, MATCH)
    return {
        "published": {name: published[name] for name in figures if name in published},
        "tolerance": tolerance,
        "verdict": reasons[0] if len(set(reasons)) == 1 else "; ".join(words),
        "status": next(status for status in worst_first if status in statuses),
    }


def _results(task: ResumableTask, path: Path, settings: Dict[str, Any], start: float) -> List[Any]:
    """The results of all images of this process, in its order: those that are in the file `path`,
    then the others, written there.
    """
    loader: Any = task.eval_loader
    order = loader.sampler.order(0)[0]
    names = [loader.dataset.names[index] for index in order]
    found = read_results(path, settings, "result", names)
    if [name for name, _ in found] != names[: len(found)]:
        raise ConfigError(
            f"{path}: has the images in another order; remove it or choose another folder"
        )
    done = [result for _, result in found]
    progress: Callable[[int], None] = log_progress(len(names), start)
    # a batch that was begun is computed whole: its padding is the same
    step, again = divmod(len(done), loader.batch_size)
    with open(path, "a", encoding="utf-8") as file:
        for index, result in itertools.islice(task.results(step), again, None):
            done.append(result)
            file.write(result_line(loader.dataset.names[index], "result", result))
            file.flush()
            progress(len(done))
    return done
