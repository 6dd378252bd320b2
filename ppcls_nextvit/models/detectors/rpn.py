"""Region Proposal Network (Ren et al. 2015, arXiv:1506.01497) on a feature pyramid. Reference:
RPNHead of mmdetection 2.
"""

from typing import List, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..layers import Conv2D, PointwiseConv2D
from .boxes import base_anchors, batched_nms, decode, encode, grid_anchors
from .targets import assign, sample

STDS = (1.0, 1.0, 1.0, 1.0)
POSITIVE_IOU, NEGATIVE_IOU, LOWEST_IOU = 0.7, 0.3, 0.3
POSITIVE_SHARE = 0.5
PAD_MULTIPLE = 32  # images are padded to it one by one, then to the largest of the batch


class RPNHead(nn.Layer):
    """Objectness and box deltas of every anchor.

    strides: of the pyramid's levels. scales: sides of the anchors, in strides. ratios: height /
    width.
    samples: anchors per image that learn.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        scales: Sequence[float],
        ratios: Sequence[float],
        nms_threshold: float,
        samples: int,
    ):
        super().__init__()
        self.strides, self.nms_threshold, self.samples = strides, nms_threshold, samples
        self.base = [base_anchors(stride, scales, ratios) for stride in strides]
        anchors = len(scales) * len(ratios)
        self.rpn_conv = Conv2D(channels, channels, 3, padding=1)
        self.rpn_cls = PointwiseConv2D(channels, anchors)
        self.rpn_reg = PointwiseConv2D(channels, anchors * 4)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.initializer.Normal(std=0.01)(conv.weight)
            nn.initializer.Constant(0.0)(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        """Per level, logits [B, A, H, W] and deltas [B, A * 4, H, W], A anchors per cell."""
        hidden = [F.relu(self.rpn_conv(x)) for x in maps]
        return [self.rpn_cls(x) for x in hidden], [self.rpn_reg(x) for x in hidden]

    def flat(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor]
    ) -> Tuple[List[Tensor], List[Tensor], List[Tensor]]:
        """Per level, in the order of the anchors: logits [B, N], deltas [B, N, 4] in float32, and
        the anchors [N, 4].
        """
        sizes = [paddle.shape(x)[2:] for x in logits]
        anchors = [
            grid_anchors(base, size[0], size[1], stride)
            for base, size, stride in zip(self.base, sizes, self.strides)
        ]
        return (*self.rows(logits, deltas), anchors)

    def rows(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor]
    ) -> Tuple[List[Tensor], List[Tensor]]:
        """The first two of `flat`, without the anchors."""
        logits, deltas = (
            [x.astype("float32").transpose([0, 2, 3, 1]) for x in maps] for maps in (logits, deltas)
        )
        return [x.flatten(1) for x in logits], [x.reshape([x.shape[0], -1, 4]) for x in deltas]

    def proposals(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        limit: Tensor,
        per_level: int,
        count: int,
    ) -> Tuple[Tensor, Tensor]:
        """Proposed boxes of one image, [n, 4] and their scores [n], best first. n may be 0.

        logits [N], deltas [N, 4], anchors [N, 4]: per level, as `flat` gives them. limit: float32
        [4], the image's (w, h, w, h). per_level: boxes kept before the suppression, count: all in
        all after it.
        """
        boxes, scores, levels = [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors)):
            score = F.sigmoid(logit)
            order = paddle.argsort(score, descending=True, stable=True)[:per_level]
            boxes.append(decode(anchor[order], delta[order], STDS, limit).squeeze(1))
            scores.append(score[order])
            levels.append(paddle.full_like(order, level))
        boxes, scores, levels = (paddle.concat(parts) for parts in (boxes, scores, levels))
        real = paddle.nonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).flatten()
        boxes, scores, levels = boxes[real], scores[real], levels[real]
        kept = batched_nms(boxes, scores, levels, self.nms_threshold)[:count]
        return boxes[kept], scores[kept]

    def losses(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        objects: Sequence[Tensor],
        shapes: np.ndarray,
    ) -> Tuple[Tensor, Tensor]:
        """(objectness, box) losses: sums over the sampled anchors of all images, over their number.

        logits, deltas, anchors: as `flat` gives them. objects: per image, boxes [K, 4]. shapes: per
        image, (height, width) before padding.
        """
        all_logits, all_deltas = paddle.concat(logits, axis=1), paddle.concat(deltas, axis=1)
        all_anchors = paddle.concat(anchors)
        total, number = all_anchors.shape[0], 0
        places, learns, positive_places, targets = [], [], [], []
        for image, (boxes, shape) in enumerate(zip(objects, shapes)):
            valid = _inside(all_anchors, shape)
            assigned = assign(all_anchors[valid], boxes, POSITIVE_IOU, NEGATIVE_IOU, LOWEST_IOU)
            positives, negatives = sample(assigned, self.samples, POSITIVE_SHARE)
            # so counted in the reference
            number += max(positives.shape[0], 1) + max(negatives.shape[0], 1)
            chosen = valid[positives]
            places += [image * total + chosen, image * total + valid[negatives]]
            learns += [paddle.ones([positives.shape[0]]), paddle.zeros([negatives.shape[0]])]
            if positives.shape[0]:
                positive_places.append(image * total + chosen)
                targets.append(encode(all_anchors[chosen], boxes[assigned[positives] - 1], STDS))
        objectness = F.binary_cross_entropy_with_logits(
            all_logits.flatten()[paddle.concat(places)], paddle.concat(learns), reduction="sum"
        )
        if not targets:
            # gradients of 0, as with any other batch
            return objectness / number, all_deltas.sum() * 0
        chosen = all_deltas.reshape([-1, 4])[paddle.concat(positive_places)]
        return objectness / number, (chosen - paddle.concat(targets)).abs().sum() / number


def _inside(anchors: Tensor, shape: np.ndarray) -> Tensor:
    """Indices of the anchors whose cell lies in the image as padded by itself, not in what the
    batch adds to it.
    """
    height, width = (-(-int(side) // PAD_MULTIPLE) * PAD_MULTIPLE for side in shape)
    centres = (anchors[:, :2] + anchors[:, 2:]) * 0.5
    # cells are whole pixels
    return paddle.nonzero((centres[:, 0] < width - 0.5) & (centres[:, 1] < height - 0.5)).flatten()
