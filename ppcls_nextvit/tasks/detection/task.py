"""The detection task: what the loop needs to know about images, boxes and masks. See
classification.py for the interface.
"""

import contextlib
from pathlib import Path

import numpy as np
import paddle

from ...data.transforms.joint import fixed_pipeline
from ...engine.log import logger
from ...models.detectors.masks import encode_rle
from ...schema import ConfigError
from ..common import build_loaders, build_model, class_names
from .metrics import coco_map, gathered, result_records
from .pictures import comparison_sheet
from .predict import check_post_process, pasted

IMAGES_IN_REPORT = 4


class ProposalAccuracy:
    """Share of the sampled proposals whose class, or background, the box head tells; mmdetection's
    `acc`. Counts of one batch at a time.
    """

    def __init__(self):
        self._counts = np.zeros(3, dtype=np.int64)

    def set(self, counts):
        """The counts of one batch: images, proposals told right, proposals."""
        self._counts = np.array([int(count) for count in counts], dtype=np.int64)

    def counts(self):
        """int64 [3]: images, proposals told right, proposals."""
        return self._counts.copy()

    def result(self, counts):
        """{'acc': share} of a (summed) count vector."""
        return {"acc": float(counts[1]) / max(float(counts[2]), 1.0)}


class DetectionTask:
    """Images in, boxes with classes and masks out."""

    def __init__(self, config, processes, training=True):
        self.config, self.processes = config, processes
        self.model = build_model(config, training)
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        if training and config.Infer and config.Infer.class_id_map_file:
            self._compare_names(class_names(config), self.train_loader.dataset.class_names)
        self.train_metric = ProposalAccuracy()
        # or a context factory, to evaluate in low precision
        self.eval_autocast = contextlib.nullcontext

    def _compare_names(self, names, known):
        """Warn if predictions will name the classes differently from the annotations, whose order
        is that of their ids.
        """
        for label, pair in enumerate(zip(names, known)):
            if pair[0] != pair[1]:
                logger.warning(
                    "%s names class %d %r, the annotations name it %r; predictions follow the "
                    "former",
                    self.config.Infer.class_id_map_file,
                    label,
                    *pair,
                )
                return

    @staticmethod
    def check(config):
        """Verify the sections that are this task's own, without touching data or disk. Raises
        ConfigError.
        """
        for name in ("Loss", "Metric"):
            if getattr(config, name):
                raise ConfigError(
                    f"{name}: {config.Arch.name} brings its own losses and is measured by COCO's "
                    f"mAP; leave the section out"
                )
        if config.Infer is not None:
            fixed_pipeline(config.Infer.transforms, "Infer.transforms")
            check_post_process(config.Infer.PostProcess)

    def losses(self, batch):
        """(total loss, {name: part}, counts of `train_metric`) of one training batch."""
        parts, counts = self.model.losses(batch)
        self.train_metric.set(counts)
        return sum(parts.values()), parts, self.train_metric.counts()

    def evaluate(self):
        """{box_map, ..., mask_map, ..., images}: COCO's averages over the whole evaluation set,
        every image once over all processes.
        """
        return self.summary([result for _, result in self.results()])

    def results(self, first_step=0):
        """(index in the set, COCO's result records) of the evaluation images of this process, from
        batch `first_step` on.
        """
        for index, size, found in self.predictions(first_step):
            *found, masks = pasted(found, *size)
            yield (
                index,
                result_records(
                    self.eval_loader.dataset,
                    index,
                    *found,
                    [encode_rle(mask, *size) for mask in masks],
                ),
            )

    def summary(self, results):
        """What evaluate() returns, of the list of `results` of all images of this process."""
        records = gathered([record for records in results for record in records], self.processes)
        return {
            **coco_map(self.eval_loader.dataset, records),
            "images": int(self.processes.sum([len(results)])[0]),
        }

    def predictions(self, first_step=0):
        """(index in the set, (height, width), Detections) of evaluation images of this process, at
        their original sizes.
        """
        self.model.eval()
        for batch in self.eval_loader.epoch(0, first_step):
            # left before each yield: both are the whole process's
            with paddle.no_grad(), self.eval_autocast():
                found = self.model(batch["image"], batch["shape"], batch["scale"])
            yield from zip(batch["index"].tolist(), batch["original"].tolist(), found)

    def report(self, directory):
        """Evaluation images with their true and their predicted objects, drawn into
        `directory`/predictions.png.
        """
        dataset, rows = self.eval_loader.dataset, []
        for index, size, found in self.predictions():
            rows.append((dataset.image(index), dataset.truth(index, size), found))
            if len(rows) == IMAGES_IN_REPORT:
                break
        threshold = (
            {"threshold": check_post_process(self.config.Infer.PostProcess)}
            if self.config.Infer
            else {}
        )
        comparison_sheet(rows, dataset.class_names, **threshold).save(
            Path(directory) / "predictions.png"
        )
