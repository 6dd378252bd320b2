"""Our figures beside the published ones for classifiers: ImageNet and its variants."""

import os
import time
from typing import Any, Dict, List, Tuple

import paddle

from ..engine.logger import logger
from ..models import create_model
from ..schema import ConfigError
from ..weights import load_weights, read_file
from ..weights.digest import sha256_of
from ..weights.load import resolve
from ..weights.rules import head_classes
from ..zoo import Preprocessing
from .datasets import PUBLISHED_DATASETS, ClassificationDataset, DenseDataset
from .layouts import open_dataset
from .predictions import predict_images
from .request import Request, log_progress, verdict
from .scores import per_class, score

__all__ = ["evaluate", "transforms_for"]

DEFAULT_MODEL = "NextViT_small"  # of a file without a record
DEFAULT_PREPROCESSING = Preprocessing(224, 0.875)
BATCH_SIZE = 64


def transforms_for(kind: str, preprocessing: Preprocessing) -> List[Dict[str, Any]]:
    """The evaluation transforms of a dataset. ImageNet-C comes cropped to 224 x 224: it is resized
    only for another crop, and never cropped.
    """
    if kind == "c":
        preprocessing = Preprocessing(preprocessing.crop, 1.0, preprocessing.interpolation)
    return preprocessing.transform_ops()


def evaluate(dataset: ClassificationDataset, request: Request) -> Dict[str, Any]:
    """The report of a classifier's weights, compared with what was published: a dict."""
    _check(dataset, request)
    record = request.record
    preprocessing = request.preprocessing or DEFAULT_PREPROCESSING
    if record and record.preprocess:
        preprocessing = record.preprocess
    path = resolve(request.weights)
    name, model, loaded = _model(request, path)
    images = open_dataset(request.kind, request.data, model.num_classes, **request.layout)
    images = images if request.limit is None else images.thinned(request.limit)
    logger.info("%s: %s; %d images of %s", path, loaded, len(images), dataset.title)

    request.out.mkdir(parents=True, exist_ok=True)
    transform_ops = transforms_for(request.kind, preprocessing)
    digest, start = sha256_of(path), time.monotonic()
    predictions = predict_images(
        model,
        images,
        transform_ops,
        request.out / "predictions.jsonl",
        {"model": name, "weights_sha256": digest},
        request.batch_size or BATCH_SIZE,
        request.num_workers,
        log_progress(len(images), start),
    )
    figures = score(images, predictions)
    measured = figures[dataset.metric.rpartition("/")[2]]
    published = record.published.get(dataset.metric) if record else None
    status, reason = verdict(measured, published, request.tolerance, images.complete)
    return {
        "weights": request.weights,
        "weights_sha256": digest,
        "record": record.name if record else None,
        "model": name,
        "set": dataset.title,
        "data": request.data,
        "images": len(images),
        "images_published": dataset.images,
        "notes": list(images.notes),
        "resize_short": transform_ops[1]["ResizeImage"].get("resize_short"),
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "metric": dataset.metric,
        "measured": measured,
        "published": published,
        "tolerance": request.tolerance,
        "status": status,
        "verdict": reason,
        "figures": figures,
        "per_class": per_class(predictions, images.labels),
        "seconds": round(time.monotonic() - start, 1),
        "device": paddle.get_device(),
        "paddle": paddle.__version__,
    }


def _check(dataset: ClassificationDataset, request: Request) -> None:
    """ConfigError for arguments that contradict each other or the record."""
    if request.processes.many:
        divided = [
            name for name, known in PUBLISHED_DATASETS.items() if isinstance(known, DenseDataset)
        ]
        raise ConfigError(
            f"set {request.kind}: evaluated by one process; only {', '.join(divided)} are divided "
            f"among several"
        )
    record = request.record
    if record is not None and record.task != dataset.task:
        raise ConfigError(
            f"{record.name}: weights for {record.task}, but {dataset.title} is for {dataset.task}"
        )
    if record is not None and request.preprocessing is not None:
        raise ConfigError(
            f"{request.weights}: evaluated as published for {record.name}; leave the preprocessing "
            f"out, or rename the file"
        )


def _model(request: Request, path: os.PathLike | str) -> Tuple[str, Any, Any]:
    """(its name, the model in eval mode with the weights of the file `path`, what was loaded)."""
    record = request.record
    name: str = request.model or DEFAULT_MODEL
    arguments: Dict[str, Any] = {}
    if record and not request.model:
        name, arguments = record.model, dict(record.arguments)
    classes = head_classes(read_file(path))
    if not classes:
        raise ConfigError(f"{path}: weights without a head cannot classify")
    model = create_model(name, num_classes=classes, **arguments)
    loaded = load_weights(model, path)
    model.eval()
    return name, model, loaded
