"""The segmentation task: what the loop needs to know about images and label maps. See
classification.py for the interface.
"""

import contextlib
from pathlib import Path
from typing import Optional

import numpy as np
import paddle

from ...config import check_entries, check_mapping
from ...data.images import ImageError
from ...data.transforms.joint import fixed_pipeline
from ...models.backbones.nextvit import MIN_INPUT_SIZE
from ...models.segmentors.heads import resize
from ...models.segmentors.inference import Inference, segment
from ...schema import coerce
from ..common import build_loaders, build_model, class_names
from .losses import LOSSES, build_loss
from .metrics import METRICS, build_metric
from .views import Views

IMAGES_IN_REPORT = 4


class SegmentationTask:
    """Images in, a class for every pixel out."""

    def __init__(self, config, processes, training=True):
        self.config, self.processes, num_classes = config, processes, config.Arch.class_num
        # before the work: a file of names that does not fit is an error
        self.class_names = class_names(config)
        self.model = build_model(config, training)
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        self.criterion = (
            build_loss(config.section("Loss.Train"), "Loss.Train") if training else None
        )
        self.metric = build_metric(
            config.Metric.get("Eval") or [{"MeanIoU": {}}], num_classes, "Metric.Eval"
        )
        self.train_metric = build_metric(
            config.Metric.get("Train") or [{"PixelAccuracy": {}}], num_classes, "Metric.Train"
        )
        self.inference, self.views = self.model.inference, None
        # a batch holds one view of each image; these make all
        if self.eval_loader is not None and self.inference.ratios != (1.0,):
            place = "DataLoader.Eval.dataset.transform_ops"
            self.views = Views(config.section(place), self.inference, place)
        # or a context factory, to evaluate in low precision
        self.eval_autocast = contextlib.nullcontext

    @staticmethod
    def check(config):
        """Verify the sections that are this task's own, without touching data or disk. Raises
        ConfigError.
        """
        check_entries(config.Loss, "Loss", LOSSES)
        check_entries(config.Metric, "Metric", METRICS)
        Inference.from_yaml(config.Arch.arguments.get("inference"))
        if config.Infer is not None:
            fixed_pipeline(config.Infer.transforms, "Infer.transforms")
            post = check_mapping(
                config.Infer.PostProcess, "Infer.PostProcess", ("class_id_map_file",)
            )
            coerce(
                post.get("class_id_map_file"), Optional[str], "Infer.PostProcess.class_id_map_file"
            )

    def losses(self, batch):
        """(total loss, {head: part}, counts of `train_metric`) of one training batch."""
        label = batch["segmentation"]
        maps = [
            resize(logits.astype("float32"), label.shape[1:])
            for logits in self.model(batch["image"])
        ]
        total, parts = self.criterion(maps, label)
        self.train_metric.reset()
        self.train_metric.update(maps[0].argmax(axis=1).numpy(), label.numpy())
        return total, parts, self.train_metric.counts()

    def evaluate(self):
        """{mIoU, mAcc, aAcc, class_iou, class_acc, images} over the whole evaluation set, every
        image exactly once over all processes.

        The labels are compared at the images' original sizes. class_iou, class_acc: {class name:
        share, or None}. Of another metric than MeanIoU, its own.
        """
        return self.summary(counts for _, counts in self.results())

    def results(self, first_step=0):
        """(index in the set, its counts of the metric as a list) of the evaluation images of this
        process, from batch `first_step` on.
        """
        dataset = self.eval_loader.dataset
        for index, prediction in self.predictions(first_step):
            label = dataset.label(index)
            if label.shape != prediction.shape:
                raise ImageError(
                    f"{dataset.name(index)}: {prediction.shape[1]} x {prediction.shape[0]} "
                    f"pixels, but its labels are "
                    f"{label.shape[1]} x {label.shape[0]}"
                )
            self.metric.reset()
            self.metric.update(prediction, label)
            yield index, self.metric.counts().tolist()

    def summary(self, results):
        """What evaluate() returns, of the `results` of all images of this process."""
        self.metric.reset()
        counts = self.processes.sum(sum(map(np.array, results), self.metric.counts()))
        result = {
            key: dict(zip(self.class_names, value)) if isinstance(value, list) else value
            for key, value in self.metric.result(counts).items()
        }
        return {**result, "images": int(counts[0])}

    def predictions(self, first_step=0):
        """(index in the set, labels int64 [H, W] at the original size) of the evaluation images of
        this process.
        """
        self.model.eval()
        dataset = self.eval_loader.dataset
        for batch in self.eval_loader.epoch(0, first_step):
            indices, originals = batch["index"].tolist(), batch["original"].tolist()
            # left before each yield: both are the whole process's
            with paddle.no_grad(), self.eval_autocast():
                if self.views is None:
                    height, width = batch["image"].shape[2:]
                    if min(height, width) < MIN_INPUT_SIZE:
                        raise ImageError(
                            f"{dataset.name(indices[0])}: {height} x {width} pixels when "
                            f"transformed; the model needs "
                            f"{MIN_INPUT_SIZE} or more"
                        )
                    labels = segment(
                        self.model,
                        [(batch["image"], batch["shape"].tolist())],
                        originals,
                        self.inference,
                    )
                else:
                    labels = [
                        segment(
                            self.model,
                            self.views(dataset.image(i), dataset.name(i)),
                            [original],
                            self.inference,
                        )[0]
                        for i, original in zip(indices, originals)
                    ]
            yield from ((i, label.numpy()) for i, label in zip(indices, labels))

    def report(self, directory):
        """Evaluation images beside their truth and prediction, drawn into
        `directory`/predictions.png.
        """
        from .pictures import comparison_sheet

        dataset, rows = self.eval_loader.dataset, []
        for index, prediction in self.predictions():
            rows.append((dataset.image(index), dataset.label(index), prediction))
            if len(rows) == IMAGES_IN_REPORT:
                break
        comparison_sheet(rows, self.class_names).save(Path(directory) / "predictions.png")
