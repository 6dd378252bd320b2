"""Our exports in PaddleX 3.7: `register()`, then `create_model("NextViT_small", model_dir=FOLDER)`,
its pipelines and its serving take folders that `nextvit export` wrote.

PaddleX's engines (on the device and with the threads that it is asked for) run the program; the
images are read, transformed and answered by what the export says, so that every number is that of
`nextvit infer`. Results, pictures and JSON are PaddleX's own objects.
"""

import functools
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..data.images import ImageError
from ..export.opened import Opened, open_export
from ..export.verify import Batch, ExportError
from ..models import MODELS, list_models
from ..schema import ConfigError, shown
from ..tasks import TASKS
from ..tasks.classification.results import ClassificationResult, LabelsResult
from ..tasks.detection.results import DetectionResult
from ..tasks.inputs import InputImage
from ..tasks.results import Result
from ..tasks.segmentation.results import SegmentationResult
from . import import_suite

__all__ = ["register"]

INSTALL = "pip install 'paddlex[cv]==3.7.2'"
ENGINES = {"paddle": "paddle_static", "onnx": "onnxruntime"}  # our targets: their engines
SCORE_DECIMALS = 5  # PaddleX rounds the scores of its classifiers so
# what PaddleX's detectors and segmentors can be asked for and an export has decided already
DECIDED = (
    "img_size",
    "target_size",
    "layout_nms",
    "layout_unclip_ratio",
    "layout_merge_bboxes_mode",
)


def register() -> List[str]:
    """Put all our models where PaddleX's create_model and pipelines look for a name; returns the
    names. Again is harmless. ImportError without PaddleX.
    """
    import_suite("PaddleX", ("paddlex",), INSTALL)
    from paddlex.inference.models.bindings import register_predictor_binding_map

    names = list_models()
    register_predictor_binding_map(_predictor(), {engine: names for engine in ENGINES.values()})
    return names


def answer(result: Result, topk: Optional[int] = None) -> Dict[str, Any]:
    """A result of ours under the keys of PaddleX's, for one image. topk: of a classifier, instead
    of the export's. ImageError for a result that is none.
    """
    if isinstance(result, ClassificationResult):
        best = result.top(topk or 0)
        return {
            "class_ids": np.array([one.class_id for one in best], np.int32),
            "scores": np.around(np.array([one.score for one in best]), SCORE_DECIMALS),
            "label_names": [one.label_name for one in best],
        }
    if isinstance(result, DetectionResult):
        return _objects(result)
    if isinstance(result, SegmentationResult):
        return {"pred": result.labels[None]}
    raise ImageError(str(result.error))


def _objects(result: DetectionResult) -> Dict[str, Any]:
    """Boxes cut to the image, those without area left out, and of each mask the part within its
    box's whole pixels.
    """
    height, width = result.size
    masks = result.masks
    boxes: List[Dict[str, Any]] = []
    parts: List[np.ndarray] = []
    for index, one in enumerate(result.top(len(result))):
        x1, y1, x2, y2 = np.clip(one.box, 0, [width, height, width, height]).tolist()
        if x2 <= x1 or y2 <= y1:
            continue
        boxes.append(
            {
                "cls_id": one.class_id,
                "label": one.label_name,
                "score": one.score,
                "coordinate": [x1, y1, x2, y2],
            }
        )
        if masks is not None:
            left, top, right, bottom = (round(side) for side in (x1, y1, x2, y2))
            parts.append(masks[index][top:bottom, left:right])
    return {"boxes": boxes} if masks is None else {"boxes": boxes, "masks": parts}


def opened_by(runner: Any, folder: Path) -> Opened:
    """The export in the folder, run by a runner of PaddleX, which takes arrays by their inputs'
    names in order and gives the outputs in the program's order. ExportError for one that needs
    settings which PaddleX does not make.
    """

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        outputs = runner([batch[name] for name in sorted(batch)])
        return dict(zip(opened.signature.outputs, outputs, strict=True))

    opened = open_export(folder, run)
    made = opened.description["Export"]
    if made["target"] not in ENGINES or made["target"] == "paddle" and made["precision"] != "fp32":
        raise ExportError(
            f"{folder}: exported to {shown(made['target'])} in {shown(made['precision'])}; PaddleX "
            f"runs exports to paddle in fp32 and to onnx"
        )
    return opened


def input_image(instance: Any, path: Optional[str]) -> InputImage:
    """An image as PaddleX gives it: the path of a file, or a page or an array, uint8 [H, W, 3] in
    the order BGR.
    """
    if isinstance(instance, str):
        return InputImage(instance, Path(instance))
    array = np.asarray(instance)
    name = path or "an image in memory"
    return InputImage(name, content=array[:, :, ::-1] if array.ndim == 3 else array)


@functools.cache
def _predictor() -> type:
    """The class that PaddleX builds for every name of ours."""
    from paddlex.inference.common.batch_sampler import ImageBatchSampler
    from paddlex.inference.models.image_classification.result import TopkResult
    from paddlex.inference.models.image_multilabel_classification.result import MLClassResult
    from paddlex.inference.models.instance_segmentation.result import InstanceSegResult
    from paddlex.inference.models.object_detection.result import DetResult
    from paddlex.inference.models.predictors import RunnerPredictor
    from paddlex.inference.models.semantic_segmentation.result import SegResult

    results: Dict[Tuple[type, bool], type] = {
        (ClassificationResult, False): TopkResult,
        (LabelsResult, False): MLClassResult,
        (DetectionResult, False): DetResult,
        (DetectionResult, True): InstanceSegResult,
        (SegmentationResult, False): SegResult,
    }

    class HostedPredictor(RunnerPredictor):
        """An export of ours as a predictor of PaddleX's. topk: of a classifier; threshold: the
        score from which a detector's objects count.
        """

        def __init__(
            self,
            *,
            runner: Any,
            model_dir: Path,
            topk: Optional[int] = None,
            threshold: Optional[float] = None,
            **arguments: Any,
        ) -> None:
            _check_decided(arguments)
            opened = opened_by(runner, Path(model_dir))
            task = MODELS.get(opened.model_name).task
            self.ours = TASKS[task].exported_predictor(opened)
            self.topk, self.threshold = topk, _checked_threshold(threshold)
            super().__init__(runner=runner, model_dir=model_dir, **arguments)

        def _build_batch_sampler(self) -> Any:
            return ImageBatchSampler()

        def _get_result_class(self) -> Any:
            return self._wrapped  # which kind a result is, the result itself says

        def _wrapped(self, item: Dict[str, Any]) -> Any:
            kind = item.pop("kind")
            if kind is DetResult:  # draws from BGR, the others from RGB
                item["input_img"] = item["input_img"][..., ::-1]
            return kind(item)

        def process(
            self,
            batch_data: Any,
            topk: Optional[int] = None,
            threshold: Optional[float] = None,
            **arguments: Any,
        ) -> Dict[str, List[Any]]:
            """The answers of one batch, as lists under PaddleX's keys."""
            _check_decided(arguments)
            least = self.threshold if threshold is None else _checked_threshold(threshold)
            images = [
                input_image(instance, path)
                for instance, path in zip(batch_data.instances, batch_data.input_paths)
            ]
            answers = []
            for image, result in zip(images, self.ours.predict(images)):
                if isinstance(result, DetectionResult) and least is not None:
                    result = result.scoring(least)
                found = answer(result, topk or self.topk)
                kind = results[type(result), "masks" in found]
                answers.append({"kind": kind, "input_img": image.pixels(), **found})
            return {
                "input_path": batch_data.input_paths,
                "page_index": batch_data.page_indexes,
                **{key: [one[key] for one in answers] for key in answers[0]},
            }

    return HostedPredictor


def _check_decided(arguments: Dict[str, Any]) -> None:
    """ConfigError for what PaddleX asks of its own models and an export has decided."""
    for key in DECIDED:
        if arguments.pop(key, None) not in (None, "None", False):
            raise ConfigError(f"{key}: the export decides it; leave it out, or export anew")


def _checked_threshold(threshold: Optional[float]) -> Optional[float]:
    numbers: Sequence[type] = (int, float)
    if threshold is None:
        return None
    if type(threshold) not in numbers or not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: expected a number from 0 to 1, got {shown(threshold)}")
    return float(threshold)
