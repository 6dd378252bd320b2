"""The detection task: what the loop needs to know about images, boxes and masks. See tasks/base.py
for the contract.
"""

import contextlib
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Tuple, Union

import numpy as np
import paddle

from ...config import Config
from ...data.rle import encode_mask
from ...data.transforms.joint import fixed_pipeline
from ...engine.distributed import Processes
from ...models.api import Instances
from ...schema import ConfigError
from ..base import QuantizeRequest, ResumableTask, Step
from ..common import build_loaders, build_model, class_names, named, write_class_names
from ..fonts import shortened
from ..joint import IMAGES_IN_REPORT, IMAGES_JUDGED, refuse_multilabel, shares, step_of
from ..pictures import MOST_CURVES, draw_precision_curves
from .benchmark import measure
from .export import export
from .exported import exported_detector, exported_predictor
from .metrics import Curve, coco_map, gathered, result_records
from .mistakes import Mistake, mistakes, mistakes_sheet
from .pictures import comparison_sheet
from .predict import SCORE_SHOWN, check_post_process, predict, predictor
from .quantize import quantize
from .subject import DetectorSubject, agreement, resized

__all__ = ["DetectionTask"]

MISTAKES_SHOWN = 12


class DetectionTask(ResumableTask):
    """Images in, boxes with classes, and masks, out."""

    predict_outputs = ("json", "out")
    predict, export = staticmethod(predict), staticmethod(export)
    predictor, exported_predictor = staticmethod(predictor), staticmethod(exported_predictor)
    exported_model = staticmethod(exported_detector)
    measure = staticmethod(measure)
    subject = DetectorSubject
    resized, agreement = staticmethod(resized), staticmethod(agreement)
    best_metric = "box_map"

    def __init__(
        self, config: Config, processes: Processes, training: bool = True, model: Any = None
    ):
        self.config, self.processes = config, processes
        self.model = build_model(config, training) if model is None else model
        self.shown = self.model.shown
        self.train_loader: Any
        self.eval_loader: Any  # one that is not needed is None
        self.train_loader, self.eval_loader = build_loaders(config, processes, training)
        self.curves: Dict[str, Curve] = {}  # of the last evaluation, see coco_map
        if training and getattr(self.model, "learns_masks", False):
            _check_outlines(self.train_loader.dataset, config.Arch.name)
        # or a context factory, to evaluate in low precision
        self.eval_autocast: Any = contextlib.nullcontext

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
        for name in ("Loss", "Metric"):
            if getattr(config, name):
                raise ConfigError(
                    f"{name}: {config.Arch.name} brings its own losses and is measured by COCO's "
                    f"mAP; leave the section out"
                )
        if config.Infer is not None:
            fixed_pipeline(config.Infer.transforms, "Infer.transforms")
            check_post_process(config.Infer.PostProcess)

    def describe(self, directory: Union[str, Path]) -> None:
        """The names of the classes, as class_names.txt."""
        write_class_names(self.config, self.train_loader.dataset, directory)

    def losses(self, batch: Dict[str, paddle.Tensor]) -> Step:
        """The Step of one training batch."""
        parts, counts = self.model.losses(named(batch, self.train_loader.dataset))
        return step_of(parts, counts, len(batch["image"]))

    def train_figures(self, counts: Mapping[str, np.ndarray]) -> Dict[str, float]:
        """{name: share} of the summed counts of `losses`."""
        return shares(counts)

    def evaluate(self) -> Dict[str, Any]:
        """{box_map, ..., mask_map, ..., images}: COCO's averages over the whole evaluation dataset,
        every image once over all processes.
        """
        return self.summary([result for _, result in self.results()])

    def results(self, first_step: int = 0) -> Iterator[Tuple[int, List[Dict[str, Any]]]]:
        """(index in the dataset, COCO's result records) of the evaluation images of this process,
        from batch `first_step` on.
        """
        dataset = self.eval_loader.dataset
        for index, _, found in self.predictions(first_step):
            masks = None if found.masks is None else [encode_mask(mask) for mask in found.masks]
            yield index, result_records(dataset, index, *found[:3], masks)

    def summary(self, results: Iterable[List[Dict[str, Any]]]) -> Dict[str, Any]:
        """What evaluate() returns, of the `results` of all images of this process."""
        of_image = list(results)
        own = [record for records in of_image for record in records]
        self.curves.clear()
        figures = coco_map(self.eval_loader.dataset, gathered(own, self.processes), self.curves)
        return {**figures, "images": int(self.processes.sum([len(of_image)])[0])}

    def predictions(self, first_step: int = 0) -> Iterator[Tuple[int, Tuple[int, int], Instances]]:
        """(index in the dataset, (height, width), what was found) of the evaluation images of this
        process, at their original sizes.
        """
        self.model.eval()
        for batch in self.eval_loader.epoch(0, first_step):
            # left before each yield: both are the whole process's
            with paddle.no_grad(), self.eval_autocast():
                found = self.model.predict(batch)
            yield from zip(batch["index"].tolist(), batch["original"].tolist(), found)

    def report(self, directory: Union[str, Path]) -> None:
        """Evaluation images with their true and their predicted objects, the worst mistakes on the
        first IMAGES_JUDGED of them, and precision over recall in the last evaluation, drawn into
        `directory`.
        """
        dataset, infer = self.eval_loader.dataset, self.config.Infer
        threshold = check_post_process(infer.PostProcess) if infer else SCORE_SHOWN
        names = class_names(self.config, dataset)
        rows: List[Tuple[np.ndarray, Any, Instances]] = []
        judged: List[Tuple[List[Mistake], List[Mistake]]] = []
        boxes: Dict[int, np.ndarray] = {}
        for index, size, found in islice(self.predictions(), IMAGES_JUDGED):
            truth = dataset.truth(index, size)
            if len(rows) < IMAGES_IN_REPORT:
                rows.append((dataset.image(index), truth, found))
            judged.append(mistakes(index, truth, found.scoring(threshold), names))
            boxes[index] = truth["boxes"]
        sheet = comparison_sheet(rows, threshold, names=names)
        sheet.save(Path(directory) / "predictions.png")
        for file, parts in zip(("mistakes.png", "missed.png"), zip(*judged)):
            worst = [mistake for part in parts for mistake in part]
            if worst:
                sheet = mistakes_sheet(worst, MISTAKES_SHOWN, dataset.image, boxes.__getitem__)
                sheet.save(Path(directory) / file)
        if len(self.curves) <= MOST_CURVES:
            shown = {shortened(name, 40): curve for name, curve in self.curves.items()}
            path = Path(directory) / "precision_recall.png"
            draw_precision_curves(path, shown, "boxes, at an IoU of 0.50")


def _check_outlines(dataset: Any, model: str) -> None:
    """ConfigError for a dataset of boxes alone, of which `model` cannot learn masks."""
    if not getattr(dataset, "outlined", True):
        raise ConfigError(
            f"{dataset.source}: boxes without outlines (`segmentation`), which {model} learns "
            f"from; add them, or train a detector of boxes alone, such as DINO"
        )
