"""DINO's losses: focal loss of the classes, L1 and generalised IoU of the boxes, for each set of
predictions. Reference: DINOHead of mmdetection 3.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from .boxes import centres_of, corners_of, generalised_iou
from .denoising import DenoisingQueries
from .matching import assign, detection_costs, image_names, shared_average

__all__ = [
    "Objects",
    "Predictions",
    "denoising_losses",
    "matched",
    "matching_losses",
    "objects_of",
    "right_classes",
]

CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT = 1.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0
EPS = float(np.finfo(np.float32).eps)  # the reference adds it to what losses are divided by
NAMES = ("loss_cls", "loss_bbox", "loss_iou")

Pairs = Sequence[Tuple[np.ndarray, np.ndarray]]  # of each image (queries, objects)


class Predictions(NamedTuple):
    """What one layer says of its queries."""

    logits: Tensor  # [B, Q, classes]
    boxes: Tensor  # [B, Q, 4], (cx, cy, w, h) as shares of the image

    def split(self, count: int) -> Tuple["Predictions", "Predictions"]:
        """Those of the first `count` queries, and those of the others."""
        first = Predictions(self.logits[:, :count], self.boxes[:, :count])
        return first, Predictions(self.logits[:, count:], self.boxes[:, count:])


class Objects(NamedTuple):
    """What is to be found in the images of a batch."""

    boxes: List[Tensor]  # of each image [n, 4], (x1, y1, x2, y2) in pixels
    labels: List[Tensor]  # of each int64 [n]
    sizes: Tensor  # [B, 4], (w, h, w, h) of the images before padding
    names: List[str]  # what messages call the images


def objects_of(batch: Mapping[str, Any], sizes: Tensor) -> Objects:
    """The Objects of a training batch: boxes [N, 4], labels [N], counts (N per image), over all
    images in order; index, if it has one, for messages. sizes: see Objects.
    """
    counts = batch["counts"].tolist()
    ends = np.cumsum(counts).tolist()
    spans = [slice(end - count, end) for end, count in zip(ends, counts)]
    boxes = batch["boxes"].astype(sizes.dtype)
    return Objects(
        [boxes[span] for span in spans],
        [batch["labels"][span] for span in spans],
        sizes,
        image_names(batch, len(counts)),
    )


def matched(found: Predictions, objects: Objects) -> Pairs:
    """The pairs of queries and objects with the lowest costs, of each image."""
    pairs = []
    with paddle.no_grad():
        for i, name in enumerate(objects.names):
            if len(objects.labels[i]):
                costs = detection_costs(
                    found.logits[i],
                    found.boxes[i],
                    objects.boxes[i],
                    objects.labels[i],
                    objects.sizes[i],
                )
            else:
                costs = np.zeros((found.logits.shape[1], 0), np.float32)
            pairs.append(assign(costs, name))
    return pairs


def matching_losses(found: Predictions, objects: Objects, pairs: Pairs) -> Dict[str, Tensor]:
    """{loss_cls, loss_bbox, loss_iou} of predictions whose `pairs` are right and all else
    background; over the number of pairs, an average over the processes.
    """
    number = sum(len(queries) for queries, _ in pairs)
    return _losses(found, objects, pairs, shared_average(number))


def denoising_losses(
    found: Predictions, objects: Objects, queries: Optional[DenoisingQueries]
) -> Dict[str, Tensor]:
    """The same of denoising queries, each near one of which is to give its object; 0 where there
    are none.
    """
    if queries is None:
        shared_average(0)  # the other processes wait for it
        return {name: paddle.zeros([]) for name in NAMES}
    pairs = [
        (places, np.tile(np.arange(len(labels)), queries.groups))
        for places, labels in zip(queries.places, objects.labels)
    ]
    number = sum(len(places) for places, _ in pairs)
    return _losses(found, objects, pairs, shared_average(number))


def right_classes(found: Predictions, objects: Objects, pairs: Pairs) -> Tuple[int, int]:
    """(matched queries whose best class is their object's, matched queries)."""
    right = seen = 0
    best = found.logits.argmax(-1).numpy()
    for i, (queries, own) in enumerate(pairs):
        right += int((best[i, queries] == objects.labels[i].numpy()[own]).sum())
        seen += len(queries)
    return right, seen


def _losses(found, objects, pairs, number):
    batch, count, classes = found.logits.shape
    rows = np.concatenate([i * count + queries for i, (queries, _) in enumerate(pairs)])
    targets = np.zeros((batch * count, classes), np.float32)
    if not len(rows):
        # no object: of these only the gradient, which is 0, is wanted
        nothing = 0 * found.boxes.sum()
        cls = _focal(found.logits.reshape([-1, classes]), paddle.to_tensor(targets), number)
        return dict(zip(NAMES, (cls, nothing, nothing)))
    chosen = [paddle.to_tensor(own) for _, own in pairs]
    held = [i for i, own in enumerate(chosen) if len(own)]
    labels = paddle.concat([objects.labels[i][chosen[i]] for i in held])
    true = paddle.concat([objects.boxes[i][chosen[i]] for i in held])
    sizes = paddle.concat([objects.sizes[i : i + 1].tile([len(chosen[i]), 1]) for i in held])
    targets[rows, labels.numpy()] = 1
    boxes = found.boxes.reshape([-1, 4])[paddle.to_tensor(rows)]
    apart = (boxes - centres_of(true / sizes)).abs().sum()
    overlap = generalised_iou(corners_of(boxes) * sizes, true)
    return {
        "loss_cls": _focal(found.logits.reshape([-1, classes]), paddle.to_tensor(targets), number),
        "loss_bbox": BOX_WEIGHT * apart / (number + EPS),
        "loss_iou": GIOU_WEIGHT * (1 - overlap).sum() / (number + EPS),
    }


def _focal(logits: Tensor, targets: Tensor, number: float) -> Tensor:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002) of [N, classes], summed, over `number`."""
    targets = targets.astype(logits.dtype)
    p = F.sigmoid(logits)
    wrong = (1 - p) * targets + p * (1 - targets)
    weight = (ALPHA * targets + (1 - ALPHA) * (1 - targets)) * wrong**GAMMA
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return CLASS_WEIGHT * (entropy * weight).sum() / (number + EPS)
