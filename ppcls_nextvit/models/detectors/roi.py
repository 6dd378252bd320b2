"""The second stage of Mask R-CNN (He et al. 2017, arXiv:1703.06870): RoIAlign, box head, mask head.
Reference: mmdetection 2.
"""

import math
from typing import Dict, List, Sequence, Tuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F
from paddle.vision.ops import roi_align

from ..layers import Conv2D, Linear, PointwiseConv2D
from ..necks.fpn import ConvModule
from .boxes import EPS, batched_nms, decode, encode
from .targets import assign, sample

STDS = (0.1, 0.1, 0.2, 0.2)
IOU = 0.5  # from which a proposal stands for an object
POSITIVE_SHARE = 0.25
# square root of the area, in pixels, up to which (times 2) a box reads the finest map
FINEST_SCALE = 56
BOX_CELLS, MASK_CELLS = 7, 14
NARROWEST = 1e-3  # pixels; Paddle's RoIAlign of an empty box is not a number


def align(
    maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, counts: List[int], cells: int
) -> Tensor:
    """RoIAlign [N, C, cells, cells] of boxes [N, 4], each from the map that suits its size;
    sampling points as many as it has pixels.

    counts: boxes per image, a list, in whose order the boxes are. A box smaller than one cell of
    its map has in Paddle 3.3 the gradient of one enlarged to that; all else equals mmcv's.
    """
    boxes = paddle.concat(
        [boxes[:, :2], paddle.maximum(boxes[:, 2:], boxes[:, :2] + NARROWEST)], axis=-1
    )
    scale = paddle.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    level = paddle.clip(paddle.floor(paddle.log2(scale / FINEST_SCALE + EPS)), 0, len(maps) - 1)
    if len(counts) > 1:
        image = paddle.concat(
            [paddle.full([count], i, dtype="int32") for i, count in enumerate(counts)]
        )
        # [B, N]
        belongs = image.unsqueeze(0) == paddle.arange(len(counts), dtype="int32").unsqueeze(1)
    features, places = [], []
    for i, (x, stride) in enumerate(zip(maps, strides)):
        chosen = paddle.nonzero(level == i).flatten()
        if len(counts) > 1:
            number = (belongs & (level == i)).astype("int32").sum(axis=1, dtype="int32")
        else:
            number = paddle.shape(chosen).astype("int32")
        features.append(
            roi_align(x.astype("float32"), boxes[chosen], number, cells, 1 / stride, 0, True)
        )
        places.append(chosen)
    return paddle.concat(features)[paddle.argsort(paddle.concat(places))]


class BoxHead(nn.Layer):
    """Two hidden Linears, then class logits (the last is background) and one set of deltas per
    class. Reference: Shared2FCBBoxHead.
    """

    def __init__(self, in_channels: int, hidden: int, num_classes: int):
        super().__init__()
        self.shared_fcs = nn.LayerList(
            [Linear(in_channels * BOX_CELLS**2, hidden), Linear(hidden, hidden)]
        )
        self.fc_cls = Linear(hidden, num_classes + 1)
        self.fc_reg = Linear(hidden, num_classes * 4)
        for layer in self.shared_fcs:
            nn.initializer.XavierUniform()(layer.weight)
        nn.initializer.Normal(std=0.01)(self.fc_cls.weight)
        nn.initializer.Normal(std=0.001)(self.fc_reg.weight)
        for layer in (*self.shared_fcs, self.fc_cls, self.fc_reg):
            nn.initializer.Constant(0.0)(layer.bias)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """x: [N, C, 7, 7] -> float32 logits [N, classes + 1], deltas [N, classes * 4]."""
        # N may be 0, which ONNX cannot flatten
        x = x.reshape([-1, self.shared_fcs[0].weight.shape[0]])
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        return self.fc_cls(x).astype("float32"), self.fc_reg(x).astype("float32")


class MaskHead(nn.Layer):
    """Convolutions, twice the size, one logit per class and cell. Reference: FCNMaskHead."""

    def __init__(self, in_channels: int, channels: int, num_convs: int, num_classes: int):
        super().__init__()
        # by fan-out, for ReLU
        kaiming = nn.initializer.Normal(std=math.sqrt(2 / (9 * channels)))
        self.convs = nn.LayerList(
            [
                ConvModule(Conv2D(channels if i else in_channels, channels, 3, padding=1), kaiming)
                for i in range(num_convs)
            ]
        )
        self.upsample = nn.Conv2DTranspose(channels, channels, 2, stride=2)
        self.conv_logits = PointwiseConv2D(channels, num_classes)
        nn.initializer.Normal(std=math.sqrt(2 / (4 * channels)))(self.upsample.weight)
        nn.initializer.Normal(std=math.sqrt(2 / num_classes))(self.conv_logits.weight)
        for layer in (self.upsample, self.conv_logits):
            nn.initializer.Constant(0.0)(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, 14, 14] -> float32 logits [N, classes, 28, 28]."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.conv_logits(F.relu(self.upsample(x))).astype("float32")


class RoIHead(nn.Layer):
    """What proposals become: boxes with classes, and masks.

    strides: of the pyramid's maps that are read. samples: proposals per image that learn.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        mask_channels: int,
        mask_convs: int,
        num_classes: int,
        strides: Sequence[int],
        samples: int,
    ):
        super().__init__()
        self.strides, self.samples, self.num_classes = strides, samples, num_classes
        self.bbox_head = BoxHead(in_channels, hidden, num_classes)
        self.mask_head = MaskHead(in_channels, mask_channels, mask_convs, num_classes)

    def boxes(
        self, maps: Sequence[Tensor], proposals: Tensor, counts: List[int]
    ) -> Tuple[Tensor, Tensor]:
        """Class logits [N, classes + 1] and deltas [N, classes * 4] of proposals [N, 4]; counts:
        how many are of each image.
        """
        return self.bbox_head(align(maps, self.strides, proposals, counts, BOX_CELLS))

    def masks(
        self, maps: Sequence[Tensor], boxes: Tensor, counts: List[int], labels: Tensor
    ) -> Tensor:
        """Logits [N, 28, 28] of the masks of boxes [N, 4] of classes `labels` int64 [N]."""
        logits = self.mask_head(align(maps, self.strides, boxes, counts, MASK_CELLS))
        numbers = paddle.arange(paddle.shape(labels)[0], dtype="int64")
        return logits.flatten(0, 1)[numbers * self.num_classes + labels]

    def detect(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        limit: Tensor,
        scale: Tensor,
        score_threshold: float,
        nms_threshold: float,
        count: int,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """(boxes [n, 4], scores [n], labels int64 [n]) of one image, best first, n at most `count`.

        limit: float32 [4], (w, h, w, h) of the image that was seen. scale: float32 [4], its (x, y,
        x, y) factors of the original, by which the boxes are divided.
        """
        boxes = decode(proposals, deltas, STDS, limit) / scale
        # [M, 2]
        places = paddle.nonzero(F.softmax(logits, axis=-1)[:, : self.num_classes] > score_threshold)
        proposal, labels = places[:, 0], places[:, 1]
        scores = F.softmax(logits, axis=-1).flatten()[proposal * (self.num_classes + 1) + labels]
        boxes = boxes.reshape([-1, 4])[proposal * self.num_classes + labels]
        kept = batched_nms(boxes, scores, labels, nms_threshold)[:count]
        return boxes[kept], scores[kept], labels[kept]

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        masks: Sequence[Tensor],
    ) -> Tuple[Dict[str, Tensor], Tensor, int]:
        """({cls, box, mask}, right, seen): the losses, and how many of the sampled proposals the
        box head classifies right.

        proposals, objects (boxes [K, 4]), labels (int64 [K]), masks (uint8 [K, H, W]): per image.
        """
        chosen = [
            _Sample(*of_one, self.samples, self.num_classes)
            for of_one in zip(proposals, objects, labels)
        ]
        boxes = paddle.concat([s.boxes for s in chosen])
        classes = paddle.concat([s.classes for s in chosen])
        counts = [s.boxes.shape[0] for s in chosen]
        logits, deltas = self.boxes(maps, boxes, counts)
        parts = {"cls": F.cross_entropy(logits, classes)}
        right = (logits.argmax(axis=-1) == classes).sum()

        positive = paddle.nonzero(classes < self.num_classes).flatten()
        # gradients of 0, as with any other batch
        if positive.shape[0] == 0:
            mask = self.mask_head(
                align(maps, self.strides, boxes[:1], [1] + [0] * (len(counts) - 1), MASK_CELLS)
            )
            return {**parts, "box": deltas.sum() * 0, "mask": mask.sum() * 0}, right, len(boxes)
        deltas = deltas.reshape([-1, 4])[positive * self.num_classes + classes[positive]]
        targets = paddle.concat([s.deltas for s in chosen if s.positives])
        parts["box"] = (deltas - targets).abs().sum() / boxes.shape[0]
        targets = paddle.concat(
            [
                mask_targets(m, s.boxes[: s.positives], s.objects)
                for m, s in zip(masks, chosen)
                if s.positives
            ]
        )
        mask = self.masks(maps, boxes[positive], [s.positives for s in chosen], classes[positive])
        parts["mask"] = F.binary_cross_entropy_with_logits(mask, targets)
        return parts, right, len(boxes)


class _Sample:
    """The proposals of one image that learn, positives first, and what they learn.

    boxes [N, 4], classes int64 [N] (num_classes: background); of the positives: their number,
    objects int64 [P], deltas [P, 4].
    """

    def __init__(
        self, proposals: Tensor, objects: Tensor, labels: Tensor, samples: int, num_classes: int
    ):
        known = objects.shape[0]
        assigned = assign(proposals, objects, IOU, IOU, IOU)
        # the objects themselves are proposals too
        if known:
            proposals = paddle.concat([objects, proposals])
            assigned = paddle.concat([paddle.arange(1, known + 1), assigned])
        positives, negatives = sample(assigned, samples, POSITIVE_SHARE)
        self.positives = positives.shape[0]
        self.boxes = proposals[paddle.concat([positives, negatives])]
        self.classes = paddle.full([self.boxes.shape[0]], num_classes, dtype="int64")
        if self.positives:
            self.objects = assigned[positives] - 1
            self.classes = paddle.concat([labels[self.objects], self.classes[self.positives :]])
            self.deltas = encode(proposals[positives], objects[self.objects], STDS)


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor) -> Tensor:
    """float32 [P, 28, 28] of 0 and 1: the mask of object objects[i] inside boxes[i], resampled.
    masks: uint8 [K, H, W], boxes: [P, 4].
    """
    used, inverse, counts = paddle.unique(objects, return_inverse=True, return_counts=True)
    order = paddle.argsort(inverse)
    crops = roi_align(
        masks[used].astype("float32").unsqueeze(1),
        boxes[order],
        counts.astype("int32"),
        2 * MASK_CELLS,
        1.0,
        0,
        True,
    )
    return (crops.squeeze(1)[paddle.argsort(order)] >= 0.5).astype("float32")
