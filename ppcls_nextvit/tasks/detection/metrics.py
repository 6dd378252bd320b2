"""COCO's mean average precision of boxes and masks, by pycocotools."""

import contextlib
import io
import json
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import paddle

from ...data.datasets.coco import COCODataset
from ...data.datasets.coco_json import coco_index
from ...data.rle import mask_tools
from ...engine.distributed import Processes

__all__ = ["coco_map", "gathered", "result_records"]

Curve = Tuple[np.ndarray, np.ndarray]  # recall and precision

# pycocotools' order
FIGURES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def result_records(
    dataset: COCODataset,
    index: int,
    boxes: Any,
    scores: Any,
    labels: Any,
    masks: Optional[Sequence[Dict[str, Any]]] = None,
) -> List[Dict[str, Any]]:
    """What was found in image `index` of a COCODataset, as COCO's result records: a list of dicts
    that json can write.

    boxes: [n, 4], (left, top, right, bottom) in pixels of the original image; scores: [n]; labels:
    [n], class indices; masks: n run lengths {size, counts: str}, or None.
    """
    columns = (np.asarray(part).tolist() for part in (boxes, scores, labels))
    records = [
        {
            "image_id": dataset.image_ids[index],
            "category_id": dataset.category_ids[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for (left, top, right, bottom), score, label in zip(*columns)
    ]
    for record, mask in zip(records, masks or ()):
        record["segmentation"] = mask
    return records


def gathered(records: List[Dict[str, Any]], processes: Processes) -> List[Dict[str, Any]]:
    """The records of all processes, in the order of their ranks, in every process."""
    if not processes.many:
        return records
    text = np.frombuffer(json.dumps(records).encode(), np.uint8)
    sizes = processes.sum(np.eye(processes.world_size)[processes.rank] * len(text)).astype(int)
    # int32: not every backend gathers bytes
    padded = np.zeros(sizes.max(), np.int32)
    padded[: len(text)] = text
    parts: List[paddle.Tensor] = []
    paddle.distributed.all_gather(parts, paddle.to_tensor(padded))
    return [
        record
        for part, size in zip(parts, sizes)
        for record in json.loads(part.numpy()[:size].astype(np.uint8).tobytes())
    ]


def coco_map(
    dataset: COCODataset,
    records: Sequence[Dict[str, Any]],
    curves: Optional[Dict[str, Curve]] = None,
) -> Dict[str, Any]:
    """{box_map, box_map_50, box_map_75, box_map_small, ..._medium, ..._large, class_box_map} of
    COCO's result records as shares, and {mask_map, ...} if they and the dataset have masks.

    dataset: a COCODataset, all of whose images count, found in or not. class_box_map,
    class_mask_map: {class name: share}. A size or a class without objects has None. ValueError if
    there is no object at all. curves: gets {class name: (recall, precision)} of the boxes at an IoU
    of 0.5, of the classes that have objects.
    """
    truth = dataset.ground_truth()
    if all(annotation["iscrowd"] for annotation in truth.dataset["annotations"]):
        raise ValueError(
            f"{dataset.annotation_path}: no object to find, so there is no average precision"
        )
    areas = [record["bbox"][2] * record["bbox"][3] for record in records]
    result = _figures(truth, records, areas, "box", "bbox", dataset.class_names, curves)
    if dataset.outlined and all("segmentation" in record for record in records):
        tools = mask_tools()
        areas = [float(tools.area(record["segmentation"])) for record in records]
        result.update(_figures(truth, records, areas, "mask", "segm", dataset.class_names))
    return result


def _figures(
    truth: Any,
    records: Sequence[Dict[str, Any]],
    areas: Sequence[float],
    name: str,
    kind: str,
    class_names: Sequence[str],
    curves: Optional[Dict[str, Curve]] = None,
) -> Dict[str, Any]:
    """The figures NAME_map, ..., class_NAME_map. truth: a pycocotools COCO. kind: pycocotools' name
    for what is compared. areas: of the records, by which the sizes are told apart.
    """
    from pycocotools.cocoeval import COCOeval

    found = [
        {**record, "id": i, "area": area, "iscrowd": 0}
        for i, (record, area) in enumerate(zip(records, areas), 1)
    ]
    # pycocotools prints its progress and its table
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, coco_index({**truth.dataset, "annotations": found}), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {f"{name}_{key}": share(value) for key, value in zip(FIGURES, evaluation.stats)}
    # [IoU thresholds, recalls, classes], all sizes, most detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    of_class = {label: share(precision[:, :, i].mean()) for i, label in enumerate(class_names)}
    if curves is not None:
        recall = np.asarray(evaluation.params.recThrs)
        for i, label in enumerate(class_names):
            if precision[0, 0, i] >= 0:
                curves[label] = recall, precision[0, :, i]
    return {**figures, f"class_{name}_map": of_class}


def share(value: float) -> Optional[float]:
    """pycocotools' figure, which is -1 where nothing was to be found, then None."""
    return None if value < 0 else float(value)
