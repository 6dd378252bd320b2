"""The classification task: what the loop needs to know about images and labels. See tasks/base.py
for the contract.
"""

import contextlib
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
import paddle
from paddle.nn import functional as F

from ...config import Config
from ...data.images import decode_image
from ...data.transforms.pipeline import Preprocess
from ...engine.distributed import Processes
from ...engine.logger import logger
from ...engine.page import SPEED, Table
from ...models import create_model
from ...schema import ConfigError, check_entries, check_mapping, coerce, named_entries
from ...weights import load_weights
from ..base import Step, Task
from ..class_weights import check_class_weights
from ..common import build_loaders, build_model, class_names, write_class_names
from . import multilabel_losses, multilabel_metrics  # noqa: F401 - register their entries
from .benchmark import measure
from .class_table import class_table
from .export import export
from .exported import ExportedClassifier, exported_predictor
from .kind import MULTI_LABEL, is_multi_label
from .losses import LOSSES, build_loss
from .metrics import METRICS, build_metric, gathered
from .pictures import (
    draw_calibration,
    draw_confusion,
    draw_label_counts,
    draw_precision_recall,
    draw_predictions,
)
from .predict import predict, predictor
from .quantize import quantize
from .results import NO_LABEL
from .subject import ClassifierSubject, agreement, resized

__all__ = ["ClassificationTask"]

IMAGES_IN_REPORT = 40
MISTAKES_IN_REPORT = 16
MANY_CLASSES = 100
# of Loss.Eval, Metric.Eval and Metric.Train, for one label an image and for several
DEFAULTS: Dict[bool, Dict[str, list]] = {
    False: {
        "Loss": [{"CELoss": {}}],
        "Eval": [{"TopkAcc": {"topk": [1, 5]}}],
        "Train": [{"TopkAcc": {"topk": [1]}}],
    },
    True: {
        "Loss": [{"MultiLabelLoss": {}}],
        "Eval": [{"MultiLabelMAP": {}}, {"AccuracyScore": {}}],
        "Train": [{"AccuracyScore": {}}],
    },
}


class ClassificationTask(Task):
    """Images in, class logits out."""

    predict_outputs = ("json", "sheet")
    predict, export = staticmethod(predict), staticmethod(export)
    predictor, exported_predictor = staticmethod(predictor), staticmethod(exported_predictor)
    exported_model = ExportedClassifier
    quantize, measure = staticmethod(quantize), staticmethod(measure)
    subject = ClassifierSubject
    resized, agreement = staticmethod(resized), staticmethod(agreement)

    def __init__(
        self, config: Config, processes: Processes, training: bool = True, model: Any = None
    ):
        self.config, self.processes = config, processes
        self.model = build_model(config, training) if model is None else model
        self.train_loader: Any
        self.eval_loader: Any
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        self.criterion: Any = None
        if training:
            self.criterion = build_loss(config.section("Loss.Train"), "Loss.Train")
        # the probability from which on a label is there; None where an image has one label
        self.threshold: Optional[float] = None
        if is_multi_label(config):
            self.threshold = config.Infer.threshold if config.Infer else 0.5
        defaults = DEFAULTS[self.threshold is not None]
        self.eval_criterion = build_loss(config.Loss.get("Eval") or defaults["Loss"], "Loss.Eval")
        self.metric, self.train_metric = (
            build_metric(
                _telling(config.Metric.get(mode) or defaults[mode], config.Arch.class_num),
                f"Metric.{mode}",
            )
            for mode in ("Eval", "Train")
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
        for mode, entries in config.Loss.items():
            check_class_weights(entries, f"Loss.{mode}", config.Arch.class_num)
        for name, _, place in named_entries(config.Metric.get("Train"), "Metric.Train"):
            if hasattr(METRICS.get(name), "gather"):
                raise ConfigError(
                    f"{place}: needs all images at once, which training does not keep; give it in "
                    f"Metric.Eval alone"
                )
        multi_label = is_multi_label(config)
        _check_label_ratio(config)
        if config.Infer is not None:
            Preprocess(config.Infer.transforms, "Infer.transforms")
            _check_post_process(config.Infer.PostProcess, multi_label)

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

        with_predictions: also `labels` and `predictions`, int64 [N], or of several labels an image
        [N, classes], 0 or 1, and `probabilities`, float [N, classes], in this process's order
        (for the pictures of one process).
        """
        self.model.eval()
        self.metric.reset()
        totals, seen, probabilities = np.zeros(2), [], []
        with paddle.no_grad(), self.eval_autocast():
            for batch in self.eval_loader.epoch(0):
                logits, label = self.model(batch["image"]).astype("float32"), batch["label"]
                loss, _ = self.eval_criterion(logits, batch)
                self.metric.update(logits, label)
                totals += np.array([float(loss) * label.shape[0], label.shape[0]])
                if with_predictions:
                    seen.append(np.stack([label.numpy(), self._predicted(logits)]))
                    probabilities.append(self._probabilities(logits))
        totals = self.processes.sum(totals)
        result = self.metric.result(gathered(self.metric, self.processes))
        result.update(loss=float(totals[0] / totals[1]), images=int(totals[1]))
        if with_predictions:
            found = np.concatenate(seen, axis=1).astype(np.int64)
            result["labels"], result["predictions"] = found
            result["probabilities"] = np.concatenate(probabilities)
        return result

    def _probabilities(self, logits: paddle.Tensor) -> np.ndarray:
        """float32 [B, C], of many classes float16: of a whole dataset they are kept."""
        several = self.threshold is not None
        found = (F.sigmoid(logits) if several else F.softmax(logits, axis=-1)).numpy()
        return found.astype(np.float16) if found.shape[1] > MANY_CLASSES else found

    def _predicted(self, logits: paddle.Tensor) -> np.ndarray:
        """The best class of each image, [B]; of several labels whether each is there, [B, C]."""
        if self.threshold is None:
            return logits.argmax(axis=-1).numpy()
        return (F.sigmoid(logits) >= self.threshold).numpy()

    def report(self, directory: Union[str, Path]) -> Mapping[str, Table]:
        """What was learnt, drawn into `directory`: confusion matrix, or for several labels an image
        the counts of each; precision over recall, calibration, the most confident mistakes, and
        predictions on evaluation images. Tables of all classes and of the speed.
        """
        started = time.perf_counter()
        result = self.evaluate(with_predictions=True)
        speed = len(result["labels"]) / (time.perf_counter() - started)
        names, folder = class_names(self.config, self.eval_loader.dataset), Path(directory)
        labels, guesses = result["labels"], result["predictions"]
        probabilities = result["probabilities"].astype(np.float32)
        tables: Dict[str, Table] = {
            "Classes": class_table(labels, guesses, names),
            SPEED: [["", "images per second"], ["evaluation, with reading", round(speed, 1)]],
        }
        if self.threshold is None:
            truth = labels[:, None] == np.arange(len(names))
            draw_confusion(folder / "confusion_matrix.png", labels, guesses, names)
            best = probabilities.max(axis=1)
            draw_calibration(folder / "calibration.png", best, guesses == labels)
            self._draw_mistakes(folder / "mistakes.png", result, names)
        else:
            truth = labels.astype(bool)
            draw_label_counts(folder / "labels.png", labels, guesses, names)
        draw_precision_recall(folder / "precision_recall.png", truth, probabilities, names)
        stride = max(1, len(labels) // IMAGES_IN_REPORT)
        chosen = list(range(0, len(labels), stride))[:IMAGES_IN_REPORT]
        told = [[_told(part[i], names) for i in chosen] for part in (labels, guesses)]
        draw_predictions(folder / "predictions.png", self._pictures(chosen), *told)
        return tables

    def _draw_mistakes(
        self, path: Path, result: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> None:
        """The wrong predictions of the highest probability; nothing if all are right."""
        labels, guesses = result["labels"], result["predictions"]
        wrong = np.flatnonzero(labels != guesses)
        confidences = result["probabilities"].max(axis=1)[wrong]
        chosen = wrong[np.argsort(-confidences, kind="stable")][:MISTAKES_IN_REPORT].tolist()
        if chosen:
            truths = [names[labels[i]] for i in chosen]
            said = [f"{names[guesses[i]]} {result['probabilities'][i].max():.2f}" for i in chosen]
            draw_predictions(path, self._pictures(chosen), truths, said)

    def _pictures(self, chosen: Sequence[int]) -> List[np.ndarray]:
        """The evaluation images of these places in this process's order, uint8 [H, W, 3] each."""
        dataset, order = self.eval_loader.dataset, self.eval_loader.sampler.order(0)[0]
        return [
            decode_image(dataset.read(order[index]), name=dataset.name(order[index]))
            for index in chosen
        ]


def _telling(items: Any, class_num: int) -> Any:
    """A section of metrics without the k of TopkAcc of which every image is right, as the five
    best of three classes; one that has no other k stays.
    """
    entries = []
    for name, arguments, _ in named_entries(items, "Metric"):
        topk = (arguments or {}).get("topk", (1, 5) if name == "TopkAcc" else None)
        if name == "TopkAcc" and isinstance(topk, (list, tuple)):
            kept = [k for k in topk if k < class_num]
            arguments = {**(arguments or {}), "topk": kept or list(topk[:1])}
        entries.append({name: arguments})
    return entries


def _told(label: np.ndarray, names: Sequence[str]) -> str:
    """The name of a class by its number, or of several, [C] of 0 and 1, those that are there."""
    if label.ndim == 0:
        return names[int(label)]
    return ", ".join(names[i] for i in np.flatnonzero(label)) or NO_LABEL


def _check_label_ratio(config: Config) -> None:
    """ConfigError for a loss by the classes' shares on a dataset that does not tell them."""
    for mode, entries in config.Loss.items():
        for _, arguments, place in named_entries(entries, f"Loss.{mode}"):
            dataset = config.DataLoader.get(mode, {}).get("dataset")
            if (arguments or {}).get("weight_ratio") and dataset:
                if not dataset.get("label_ratio"):
                    raise ConfigError(
                        f"{place}.weight_ratio: needs the classes' shares; set "
                        f"DataLoader.{mode}.dataset.label_ratio: True"
                    )


def _check_post_process(post: Any, multi_label: bool) -> None:
    where = "Infer.PostProcess"
    keys = ["threshold", "delimiter"] if multi_label else ["topk"]
    expected = MULTI_LABEL if multi_label else "Topk"
    if isinstance(post, dict) and post.get("name", expected) != expected:
        raise ConfigError(
            f"{where}.name: only 'Topk' is supported, and {MULTI_LABEL!r} for several labels an "
            f"image, got {post['name']!r}"
        )
    post = check_mapping(post, where, ("name", *keys, "class_id_map_file"))
    if coerce(post.get("topk", 5), int, f"{where}.topk") < 1:
        raise ConfigError(f"{where}.topk: must be 1 or more, got {post['topk']}")
    if not 0 < coerce(post.get("threshold", 0.5), float, f"{where}.threshold") < 1:
        raise ConfigError(
            f"{where}.threshold: must be a probability between 0 and 1, got {post['threshold']}"
        )
    if post.get("delimiter", " ") not in (" ", None):
        raise ConfigError(
            f"{where}.delimiter: class_id_map_file has lines `id name` with a space; got "
            f"{post['delimiter']!r}"
        )
    coerce(post.get("class_id_map_file"), Optional[str], f"{where}.class_id_map_file")
