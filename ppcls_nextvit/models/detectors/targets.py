"""Which boxes learn what: assignment to objects by overlap, and random samples of positives and
negatives.

Reference: mmdetection 2 (MaxIoUAssigner with low-quality matches, RandomSampler). Crowd boxes take
no part (its `ignore_iof_thr` is -1 in the recipes). Samples are drawn by Paddle's generator, which
the training loop seeds by the step.
"""

from typing import Tuple

import paddle
from paddle import Tensor

from .boxes import pairwise_iou


def assign(
    boxes: Tensor, objects: Tensor, positive: float, negative: float, lowest: float
) -> Tensor:
    """int64 [N]: 1 + index of the object that each box stands for, 0 for background, -1 for
    neither.

    boxes: [N, 4], objects: [K, 4]. A box whose best overlap is `positive` or more stands for that
    object, below `negative` for background; and the boxes that overlap an object best stand for it,
    if that is `lowest` or more (the last such object wins).
    """
    if objects.shape[0] == 0 or boxes.shape[0] == 0:
        return paddle.zeros([boxes.shape[0]], dtype="int64")
    overlaps = pairwise_iou(objects, boxes)  # [K, N]
    best = overlaps.max(axis=0)
    assigned = paddle.where(
        best < negative, paddle.zeros_like(best), -paddle.ones_like(best)
    ).astype("int64")
    assigned = paddle.where(best >= positive, overlaps.argmax(axis=0) + 1, assigned)
    reach = overlaps.max(axis=1, keepdim=True)  # [K, 1]
    numbers = paddle.arange(1, objects.shape[0] + 1).unsqueeze(-1)
    rescued = (numbers * ((overlaps == reach) & (reach >= lowest)).astype("int64")).max(axis=0)
    return paddle.where(rescued > 0, rescued, assigned)


def sample(assigned: Tensor, count: int, positive_share: float) -> Tuple[Tensor, Tensor]:
    """(positives, negatives): indices into `assigned`, together at most `count`, of which at most
    `positive_share` are positives.
    """
    positives = _choose(assigned > 0, int(count * positive_share))
    return positives, _choose(assigned == 0, count - positives.shape[0])


def _choose(mask, count):
    indices = paddle.nonzero(mask).flatten()
    if indices.shape[0] > count:
        indices = indices[paddle.randperm(indices.shape[0])[:count]]
    return indices
