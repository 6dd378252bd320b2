"""The classification task: what the loop needs to know about images and labels. See tasks/base.py
for the contract.
"""

import contextlib
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Union

import numpy as np
import paddle

from ...config import Config
from ...data.images import decode_image
from ...data.transforms.pipeline import Preprocess
from ...engine.distributed import Processes
from ...engine.logger import logger
from ...models import create_model
from ...schema import ConfigError, check_entries, check_mapping, coerce
from ...weights import load_weights
from ..base import Step, Task
from ..common import build_loaders, build_model, class_names, write_class_names
from .benchmark import measure
from .export import export
from .exported import exported_predictor
from .losses import LOSSES, build_loss
from .metrics import METRICS, build_metric
from .pictures import draw_confusion, draw_predictions
from .predict import predict, predictor
from .quantize import quantize

__all__ = ["ClassificationTask"]

IMAGES_IN_REPORT = 40


class ClassificationTask(Task):
    """Images in, class logits out."""

    predict_outputs = ("json", "sheet")
    predict, export = staticmethod(predict), staticmethod(export)
    predictor, exported_predictor = staticmethod(predictor), staticmethod(exported_predictor)
    quantize, measure = staticmethod(quantize), staticmethod(measure)

    def __init__(self, config: Config, processes: Processes, training: bool = True):
        self.config, self.processes = config, processes
        self.model = build_model(config, training)
        self.train_loader: Any
        self.eval_loader: Any
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        self.criterion: Any = None
        if training:
            self.criterion = build_loss(config.section("Loss.Train"), "Loss.Train")
        self.eval_criterion = build_loss(config.Loss.get("Eval") or [{"CELoss": {}}], "Loss.Eval")
        self.metric = build_metric(
            config.Metric.get("Eval") or [{"TopkAcc": {"topk": [1, 5]}}], "Metric.Eval"
        )
        self.train_metric = build_metric(
            config.Metric.get("Train") or [{"TopkAcc": {"topk": [1]}}], "Metric.Train"
        )
        # the first figure decides, as in PaddleClas
        self.best_metric, self.shown = self.metric.names[0], tuple(self.train_metric.names)
        self.teacher = self._build_teacher() if training else None
        # or a context factory, to evaluate in low precision
        self.eval_autocast: Any = contextlib.nullcontext

    @staticmethod
    def check(config: Config) -> None:
        """Verify the sections that are this task's own, without touching data or disk: Loss, Metric
        and Infer. Raises ConfigError.
        """
        check_entries(config.Loss, "Loss", LOSSES)
        check_entries(config.Metric, "Metric", METRICS)
        if config.Infer is None:
            return
        Preprocess(config.Infer.transforms, "Infer.transforms")
        post = check_mapping(
            config.Infer.PostProcess, "Infer.PostProcess", ("name", "topk", "class_id_map_file")
        )
        if post.get("name", "Topk") != "Topk":
            raise ConfigError(
                f"Infer.PostProcess.name: only 'Topk' is supported, got {post['name']!r}"
            )
        if coerce(post.get("topk", 5), int, "Infer.PostProcess.topk") < 1:
            raise ConfigError(f"Infer.PostProcess.topk: must be 1 or more, got {post['topk']}")
        coerce(post.get("class_id_map_file"), Optional[str], "Infer.PostProcess.class_id_map_file")

    def _build_teacher(self):
        arch = self.criterion.teacher
        if arch is None:
            return None
        arguments = dict(arch)
        name, weights = arguments.pop("name", None), arguments.pop("pretrained", None)
        if not name or not weights:
            raise ConfigError(
                "Loss.Train DistillationLoss.teacher: needs `name` (a model) and `pretrained` "
                "(its weights' file); a teacher "
                "on initial weights teaches noise"
            )
        arguments.setdefault("num_classes", arguments.pop("class_num", self.config.Arch.class_num))
        teacher = create_model(name, **arguments)
        logger.info("teacher %s from %s: %s", name, weights, load_weights(teacher, weights))
        teacher.eval()
        for parameter in teacher.parameters():
            parameter.stop_gradient = True
        return teacher

    def describe(self, directory: Union[str, Path]) -> None:
        """The names of the classes, as class_names.txt."""
        write_class_names(self.config, self.train_loader.dataset, directory)

    def losses(self, batch: Dict[str, paddle.Tensor]) -> Step:
        """The Step of one training batch; a mixed image counts as its larger share's label."""
        logits = self.model(batch["image"])
        if self.teacher is not None:
            with paddle.no_grad():
                batch = {**batch, "teacher_logits": self.teacher(batch["image"])}
        total, parts = self.criterion(logits, batch)
        label = batch["label"]
        if "lam" in batch:
            label = paddle.where(batch["lam"] >= 0.5, label, batch["label_b"])
        self.train_metric.reset()
        self.train_metric.update(logits.detach(), label)
        return Step(total, parts, len(label), {"train": self.train_metric.counts()})

    def train_figures(self, counts: Mapping[str, np.ndarray]) -> Dict[str, float]:
        """{'top1': share, ...} of the summed counts of `losses`."""
        return self.train_metric.result(counts["train"])

    def evaluate(self, with_predictions: bool = False) -> Dict[str, Any]:
        """{top1, ..., loss} over the whole evaluation dataset, every image exactly once over all
        processes.

        with_predictions: also `labels` and `predictions`, int64 [N], in this process's order (for
        the confusion matrix of one process).
        """
        self.model.eval()
        self.metric.reset()
        totals, seen = np.zeros(2), []
        with paddle.no_grad(), self.eval_autocast():
            for batch in self.eval_loader.epoch(0):
                logits, label = self.model(batch["image"]).astype("float32"), batch["label"]
                loss, _ = self.eval_criterion(logits, batch)
                self.metric.update(logits, label)
                totals += np.array([float(loss) * label.shape[0], label.shape[0]])
                if with_predictions:
                    seen.append(np.stack([label.numpy(), logits.argmax(axis=-1).numpy()]))
        totals = self.processes.sum(totals)
        result = self.metric.result(self.processes.sum(self.metric.counts()))
        result.update(loss=float(totals[0] / totals[1]), images=int(totals[1]))
        if with_predictions:
            result["labels"], result["predictions"] = np.concatenate(seen, axis=1)
        return result

    def report(self, directory: Union[str, Path]) -> None:
        """Confusion matrix and a sheet of predictions on evaluation images, drawn into
        `directory`.
        """
        result = self.evaluate(with_predictions=True)
        names = class_names(self.config, self.eval_loader.dataset)
        draw_confusion(
            Path(directory) / "confusion_matrix.png", result["labels"], result["predictions"], names
        )
        stride = max(1, len(result["labels"]) // IMAGES_IN_REPORT)
        chosen = list(range(0, len(result["labels"]), stride))[:IMAGES_IN_REPORT]
        dataset, order = self.eval_loader.dataset, self.eval_loader.sampler.order(0)[0]
        pictures = [
            decode_image(dataset.read(order[index]), name=dataset.name(order[index]))
            for index in chosen
        ]
        truths, guesses = (
            [names[i] for i in result[key][chosen]] for key in ("labels", "predictions")
        )
        draw_predictions(Path(directory) / "predictions.png", pictures, truths, guesses)
