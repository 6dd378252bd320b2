"""One-to-one matching of queries to objects by the lowest total cost, as DETR's heads use it
(Carion et al. 2020, arXiv:2005.12872). Reference: HungarianAssigner of mmdetection 3.
"""

from typing import Any, List, Mapping, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .boxes import centres_of, corners_of, generalised_iou

__all__ = ["assign", "detection_costs", "image_names", "shared_average"]

CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
ALPHA, LOG_EPS = 0.25, 1e-12  # of the focal cost, whose gamma is 2


def assign(costs: np.ndarray, image: str) -> Tuple[np.ndarray, np.ndarray]:
    """(queries, objects): int64 indices of the pairs with the lowest total cost, queries ascending.
    Every object gets a query of its own while there are enough.

    costs: [Q, K]. FloatingPointError, which calls the image `image`, for a cost that is not finite;
    ImportError names the extra.
    """
    if not costs.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not np.isfinite(costs).all():
        raise FloatingPointError(
            f"{image}: the costs of matching queries to its objects are not finite, so an output "
            f"of the network or a box is not. Lower the learning rate or clip the gradients, and "
            f"check the image's annotation"
        )
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            "matching queries to objects needs scipy: install ppcls_nextvit[det] or "
            "ppcls_nextvit[seg]"
        ) from error
    queries, objects = linear_sum_assignment(costs)
    return queries.astype(np.int64), objects.astype(np.int64)


def image_names(batch: Mapping[str, Any], count: int) -> List[str]:
    """What messages call the `count` images of a batch: its `names` if it has them, else their
    places in it, with their `index` if it has one.
    """
    if "names" in batch:
        return list(batch["names"])
    names = [f"image {i} of the batch" for i in range(count)]
    if "index" in batch:
        indices = batch["index"].tolist()
        names = [f"{name} (number {index})" for name, index in zip(names, indices)]
    return names


def shared_average(number: float) -> float:
    """The average of a number over the processes, at least 1."""
    world = paddle.distributed.get_world_size()
    if world > 1:
        total = paddle.to_tensor([float(number)])
        paddle.distributed.all_reduce(total)
        number = float(total) / world
    return max(float(number), 1.0)


def detection_costs(
    logits: Tensor, boxes: Tensor, objects: Tensor, labels: Tensor, size: Tensor
) -> np.ndarray:
    """[Q, K]: what matching each query to each object costs, by class (focal), distance of the
    boxes and generalised IoU.

    logits: [Q, classes]; boxes: [Q, 4], (cx, cy, w, h) as shares of the image; objects: [K, 4],
    (x1, y1, x2, y2) in pixels; labels: int64 [K]; size: [4], the image's (w, h, w, h).
    """
    distance = (boxes.unsqueeze(1) - centres_of(objects / size).unsqueeze(0)).abs().sum(-1)
    overlap = generalised_iou((corners_of(boxes) * size).unsqueeze(1), objects.unsqueeze(0))
    costs = CLASS_WEIGHT * _focal_cost(logits, labels) + BOX_WEIGHT * distance
    return (costs - GIOU_WEIGHT * overlap).numpy()


def _focal_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """[Q, K]: the focal loss of a query as of its object's class, less that as of none."""
    p = F.sigmoid(logits)
    of_none = -(1 - p + LOG_EPS).log() * (1 - ALPHA) * p.square()
    of_class = -(p + LOG_EPS).log() * ALPHA * (1 - p).square()
    return (of_class - of_none).index_select(labels, axis=1)
