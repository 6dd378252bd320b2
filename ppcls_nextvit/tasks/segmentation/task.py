"""The segmentation task: what the loop needs to know about images and label maps. See tasks/base.py
for the contract.
"""

import contextlib
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import paddle

from ...config import Config
from ...data.images import ImageError
from ...data.transforms.joint import IGNORE, fixed_pipeline
from ...engine.distributed import Processes
from ...models import variant_of
from ...models.segmentors.inference import Inference, segment
from ...schema import ConfigError, check_entries, check_mapping, coerce
from ..base import QuantizeRequest, ResumableTask, Step
from ..class_weights import check_class_weights
from ..common import build_loaders, build_model, class_names, named, write_class_names
from ..joint import IMAGES_IN_REPORT, IMAGES_JUDGED, check_size, refuse_multilabel, shares, step_of
from . import region_losses  # noqa: F401 - registers its losses
from .benchmark import measure
from .export import export
from .exported import exported_predictor, exported_segmentor
from .losses import LOSSES, build_loss, check_classes
from .metrics import METRICS, build_metric
from .pictures import comparison_sheet, wrong_pixels
from .predict import predict, predictor
from .quantize import quantize
from .subject import SegmentorSubject, agreement, resized
from .views import Views

__all__ = ["SegmentationTask"]


class SegmentationTask(ResumableTask):
    """Images in, a class for every pixel out."""

    predict_outputs = ("json", "out")
    predict, export = staticmethod(predict), staticmethod(export)
    predictor, exported_predictor = staticmethod(predictor), staticmethod(exported_predictor)
    exported_model = staticmethod(exported_segmentor)
    measure = staticmethod(measure)
    subject = SegmentorSubject
    resized, agreement = staticmethod(resized), staticmethod(agreement)

    def __init__(
        self, config: Config, processes: Processes, training: bool = True, model: Any = None
    ):
        self.config, self.processes = config, processes
        num_classes = config.Arch.class_num
        # before the work: a file of names that does not fit is an error
        self.class_names = class_names(config)
        self.model = build_model(config, training) if model is None else model
        self.train_loader: Any
        self.eval_loader: Any  # one that is not needed is None
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        metric = config.Metric.get("Eval") or [{"MeanIoU": {}}]
        self.metric = build_metric(metric, num_classes, "Metric.Eval")
        metric = config.Metric.get("Train") or [{"PixelAccuracy": {}}]
        self.train_metric = build_metric(metric, num_classes, "Metric.Train")
        self.best_metric = self.metric.names[0]
        self.shown = self.model.shown
        if not self.model.brings_losses:
            self.shown = tuple(self.train_metric.names)
            if training:
                loss = build_loss(config.section("Loss.Train"), "Loss.Train")
                self.model.criterion = Criterion(loss, self.train_metric)
        self.views = self._views()
        # or a context factory, to evaluate in low precision
        self.eval_autocast: Any = contextlib.nullcontext

    def _views(self) -> Optional[Views]:
        """What makes the views of an image; None where a batch holds the only one."""
        inference = self.model.inference
        if self.eval_loader is None or inference.ratios == (1.0,):
            return None
        place = "DataLoader.Eval.dataset.transform_ops"
        return Views(self.config.section(place), inference, place, self.model.min_size)

    @classmethod
    def quantize(cls, config: Config, request: QuantizeRequest) -> int:
        """The export of `request`, compared with float32; returns the exit status."""
        return quantize(config, request, cls)

    @staticmethod
    def check(config: Config) -> None:
        """Verify the sections that are this task's own, without touching data or disk. Raises
        ConfigError.
        """
        refuse_multilabel(config)
        if config.Arch.class_num > IGNORE:
            raise ConfigError(
                f"Arch.class_num: label PNGs of 8 bits tell {IGNORE} classes apart ({IGNORE} is no "
                f"class); got {config.Arch.class_num}"
            )
        _check_losses(config)
        check_entries(config.Metric, "Metric", METRICS)
        Inference.from_yaml(config.Arch.arguments.get("inference"), _min_size(config))
        if config.Infer is not None:
            fixed_pipeline(config.Infer.transforms, "Infer.transforms")
            post = check_mapping(
                config.Infer.PostProcess, "Infer.PostProcess", ("class_id_map_file",)
            )
            coerce(
                post.get("class_id_map_file"), Optional[str], "Infer.PostProcess.class_id_map_file"
            )

    def describe(self, directory: Union[str, Path]) -> None:
        """The names of the classes, as class_names.txt."""
        write_class_names(self.config, self.train_loader.dataset, directory)

    def losses(self, batch: Dict[str, paddle.Tensor]) -> Step:
        """The Step of one training batch."""
        parts, counts = self.model.losses(named(batch, self.train_loader.dataset))
        return step_of(parts, counts, len(batch["image"]))

    def train_figures(self, counts: Mapping[str, np.ndarray]) -> Dict[str, float]:
        """{'aAcc': share, ...} of the summed counts of `losses`."""
        if self.model.brings_losses:
            return shares(counts)
        return self.train_metric.result(counts["metric"])

    def evaluate(self) -> Dict[str, Any]:
        """{mIoU, mAcc, aAcc, class_iou, class_acc, images} over the whole evaluation dataset, every
        image exactly once over all processes.

        The labels are compared at the images' original sizes. class_iou, class_acc: {class name:
        share, or None}. Of another metric than MeanIoU, its own.
        """
        return self.summary(counts for _, counts in self.results())

    def results(self, first_step: int = 0) -> Iterator[Tuple[int, List[int]]]:
        """(index in the dataset, its counts of the metric as a list) of the evaluation images of
        this process, from batch `first_step` on.
        """
        dataset = self.eval_loader.dataset
        for index, prediction in self.predictions(first_step):
            label = dataset.label(index)
            if label.shape != prediction.shape:
                raise ImageError(
                    f"{dataset.name(index)}: {prediction.shape[1]} x {prediction.shape[0]} "
                    f"pixels, but its labels are {label.shape[1]} x {label.shape[0]}"
                    f"{dataset.why_another_size(index)}"
                )
            self.metric.reset()
            self.metric.update(prediction, label)
            yield index, self.metric.counts().tolist()

    def summary(self, results: Iterable[List[int]]) -> Dict[str, Any]:
        """What evaluate() returns, of the `results` of all images of this process."""
        self.metric.reset()
        counts = self.processes.sum(sum(map(np.array, results), self.metric.counts()))
        result = {
            key: dict(zip(self.class_names, value)) if isinstance(value, list) else value
            for key, value in self.metric.result(counts).items()
        }
        return {**result, "images": int(counts[0])}

    def predictions(self, first_step: int = 0) -> Iterator[Tuple[int, np.ndarray]]:
        """(index in the dataset, labels int64 [H, W] at the original size) of the evaluation images
        of this process.
        """
        self.model.eval()
        for batch in self.eval_loader.epoch(0, first_step):
            indices = batch["index"].tolist()
            # left before each yield: both are the whole process's
            with paddle.no_grad(), self.eval_autocast():
                labels = self._labels(batch, indices, batch["original"].tolist())
            yield from ((i, label.numpy()) for i, label in zip(indices, labels))

    def _labels(
        self, batch: Mapping[str, Any], indices: Sequence[int], originals: Sequence[Any]
    ) -> List[paddle.Tensor]:
        """Labels int64 [H, W] of the images of a batch, at their original sizes."""
        dataset, model = self.eval_loader.dataset, self.model
        if self.views is None:
            check_size(batch["image"].shape[2:], model.min_size, dataset.name(indices[0]))
            whole = [(batch["image"], batch["shape"].tolist())]
            return segment(model, whole, originals, model.inference)
        labels = []
        for i, original in zip(indices, originals):
            views = self.views(dataset.image(i), dataset.name(i))
            labels += segment(model, views, [original], model.inference)
        return labels

    def report(self, directory: Union[str, Path]) -> None:
        """Evaluation images beside their truth and prediction, as predictions.png in `directory`,
        and those of the first IMAGES_JUDGED with the most wrong pixels, as worst.png.
        """
        dataset, folder = self.eval_loader.dataset, Path(directory)
        first: List[Tuple[int, np.ndarray]] = []
        worst: List[Tuple[float, int, np.ndarray]] = []
        for index, prediction in islice(self.predictions(), IMAGES_JUDGED):
            if len(first) < IMAGES_IN_REPORT:
                first.append((index, prediction))
            share = float(wrong_pixels(dataset.label(index), prediction).mean())
            worst = sorted([*worst, (-share, index, prediction)], key=lambda row: row[:2])
            worst = worst[:IMAGES_IN_REPORT]
        rows = [(dataset.image(index), dataset.label(index), found) for index, found in first]
        comparison_sheet(rows, self.class_names).save(folder / "predictions.png")
        rows = [
            (dataset.image(index), dataset.label(index), found)
            for share, index, found in worst
            if share < 0
        ]
        if rows:
            comparison_sheet(rows, self.class_names, wrong=True).save(folder / "worst.png")


class Criterion:
    """What a model that brings no losses learns by: of its logit maps and the label, the loss's
    parts, and the counts of a metric on the decode head's.
    """

    def __init__(self, loss: Any, metric: Any):
        self.loss, self.metric = loss, metric

    def __call__(
        self, maps: Sequence[paddle.Tensor], label: paddle.Tensor
    ) -> Tuple[Dict[str, paddle.Tensor], Dict[str, np.ndarray]]:
        """maps: float32 [B, C, H, W], the decode head's first. label: [B, H, W]."""
        parts = self.loss(maps, label)
        self.metric.reset()
        self.metric.update(maps[0].argmax(axis=1).numpy(), label.numpy())
        return parts, {"metric": self.metric.counts()}


def _check_losses(config: Config) -> None:
    """ConfigError for a section Loss that cannot be meant, or that a model with its own has no use
    for.
    """
    if not getattr(variant_of(config.Arch.name).family, "brings_losses", False):
        check_entries(config.Loss, "Loss", LOSSES)
        for mode, entries in config.Loss.items():
            check_class_weights(entries, f"Loss.{mode}", config.Arch.class_num)
            if entries:
                _check_fit(build_loss(entries, f"Loss.{mode}"), config.Arch.class_num, mode)
    elif config.Loss:
        raise ConfigError(f"Loss: {config.Arch.name} brings its own losses; leave the section out")


def _check_fit(loss: Any, class_num: int, mode: str) -> None:
    try:
        check_classes(loss, class_num)
    except ValueError as error:
        raise ConfigError(f"Loss.{mode}: {error}") from None


def _min_size(config: Config) -> int:
    """The smallest height and width that the model's backbone takes, as far as its class says."""
    backbone = config.Arch.arguments.get("backbone")
    return getattr(variant_of(backbone["name"]).family, "min_size", 1) if backbone else 1
