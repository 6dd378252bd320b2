"""What DINO makes of tokens: classes and boxes, of the encoder's tokens and the decoder's queries.

Reference: DINOHead of mmdetection 3; parameter names equal its. Boxes of tokens and queries are
(cx, cy, w, h) as shares of the image before padding.
"""

import math
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..api import Detections
from ..layers import Linear
from .boxes import corners_of, inverse_sigmoid
from .deformable import Shapes, cell_centres
from .dino_losses import Predictions
from .transformer import linear_default

__all__ = ["DinoHead", "Memory", "Selection", "height_width", "select", "token_boxes", "xyxy"]

HEAD_EPS = 1e-5
PROPOSAL_SIDE = 0.05  # of a token's box on the finest level, as a share of the image
BORDER = 0.01  # a token whose box has its centre or side nearer to 0 or 1 is none
RARE = -math.log((1 - 0.01) / 0.01)  # the first logit of every class: a probability of 0.01


class Memory(NamedTuple):
    """What the encoder makes of a batch."""

    tokens: Tensor  # [B, S, C]
    shapes: Shapes  # of the levels (height, width)
    valid: Tensor  # bool [B, S]: not of padding
    counts: Tensor  # [B, levels, 2]: valid columns and rows


class Selection(NamedTuple):
    """The tokens from which the decoder starts, best first."""

    indices: Tensor  # int64 [B, Q]
    logits: Tensor  # [B, Q, classes]
    boxes: Tensor  # [B, Q, 4], as logits


class DinoHead(nn.Layer):
    """Of each layer of the decoder, and last of the encoder, what tells classes
    (`cls_branches.0`, ...) and what moves boxes (`reg_branches.0`, ...).
    """

    def __init__(self, channels: int, num_classes: int, number: int, max_detections: int) -> None:
        super().__init__()
        self.num_classes, self.max_detections = num_classes, max_detections
        self.cls_branches = nn.LayerList([Linear(channels, num_classes) for _ in range(number)])
        self.reg_branches = nn.LayerList([_box_branch(channels) for _ in range(number)])
        for branch in self.cls_branches:
            linear_default(branch.weight, channels)
            nn.initializer.Constant(RARE)(branch.bias)

    def forward(self, outputs: Sequence[Tensor], references: Sequence[Tensor]) -> List[Predictions]:
        """Of every layer of the decoder its Predictions; the arguments are what DinoDecoder
        gives.
        """
        return [
            Predictions(
                classes(output), F.sigmoid(moves(output) + inverse_sigmoid(reference, HEAD_EPS))
            )
            for output, reference, classes, moves in zip(
                outputs, references, self.cls_branches, self.reg_branches
            )
        ]

    def of_tokens(self, tokens: Tensor, boxes: Tensor) -> Tuple[Tensor, Tensor]:
        """(logits [B, S, classes], boxes [B, S, 4] as logits): the encoder's own predictions from
        its tokens [B, S, C] and their boxes as logits.
        """
        return self.cls_branches[-1](tokens), self.reg_branches[-1](tokens) + boxes

    def found(self, last: Predictions, sizes: Tensor, scale: Optional[Tensor]) -> List[Detections]:
        """The Detections of each image: the best pairs of query and class.

        sizes: [B, 4], the images' (w, h, w, h); a recorded program knows B by it. scale: [B, 2],
        the (y, x) factors of their resize; None: 1.
        """
        scores, indices = paddle.topk(
            F.sigmoid(last.logits).flatten(1), self.max_detections, axis=1
        )
        boxes = corners_of(_gathered(last.boxes, indices // self.num_classes))
        batch, sizes = sizes.shape[0], sizes.unsqueeze(1)
        boxes = paddle.minimum(paddle.clip(boxes * sizes, min=0), sizes)
        if scale is not None:
            boxes = boxes / xyxy(scale).unsqueeze(1)
        labels = indices % self.num_classes
        return [
            Detections(boxes[i].astype("float32"), scores[i].astype("float32"), labels[i], None)
            for i in range(batch)
        ]


def _box_branch(channels: int) -> nn.Sequential:
    """Three Linears with ReLU between them; the last starts at 0."""
    hidden = [Linear(channels, channels) for _ in range(2)]
    for layer in hidden:
        linear_default(layer.weight, channels)
        linear_default(layer.bias, channels)
    zero = nn.initializer.Constant(0.0)
    last = Linear(channels, 4, weight_attr=zero, bias_attr=zero)
    return nn.Sequential(hidden[0], nn.ReLU(), hidden[1], nn.ReLU(), last)


def token_boxes(memory: Memory) -> Tuple[Tensor, Tensor]:
    """([B, S, 4]: each token's box as logits, infinite where there is none; bool [B, S]: where
    there is one, which is not at the border nor in padding).
    """
    levels = []
    for level, size in enumerate(memory.shapes):
        centres = cell_centres(size, memory.counts[:, level])
        side = paddle.full_like(centres, PROPOSAL_SIDE * 2**level)
        levels.append(paddle.concat([centres, side], axis=-1))
    boxes = paddle.concat(levels, axis=1)
    inside = paddle.logical_and(boxes.min(-1) > BORDER, boxes.max(-1) < 1 - BORDER)
    inside = paddle.logical_and(inside, memory.valid)
    logits = paddle.log(boxes / (1 - boxes))
    infinite = paddle.full_like(logits, math.inf)
    return paddle.where(inside.unsqueeze(-1), logits, infinite), inside


def select(logits: Tensor, boxes: Tensor, number: int) -> Selection:
    """The `number` tokens that are surest of some class. logits: [B, S, classes]; boxes: [B, S,
    4].
    """
    _, indices = paddle.topk(logits.max(-1), number, axis=1)
    return Selection(indices, _gathered(logits, indices), _gathered(boxes, indices))


def _gathered(values: Tensor, indices: Tensor) -> Tensor:
    """[B, N, D], [B, K] -> [B, K, D]."""
    columns = indices.unsqueeze(-1).tile([1, 1, values.shape[-1]])
    return paddle.take_along_axis(values, columns, 1)


def height_width(x: Tensor) -> Tuple[Any, Any]:
    """Of [B, C, H, W]: integers, or scalar tensors where a recorded program does not know them."""
    known = x.shape[2:]
    shape = None if min(known) >= 0 else paddle.shape(x)
    return known[0] if shape is None else shape[2], known[1] if shape is None else shape[3]


def xyxy(pairs: Tensor) -> Tensor:
    """[B, 2], (y, x) -> [B, 4], (x, y, x, y), as floating-point numbers."""
    flipped = paddle.concat([pairs[:, 1:2], pairs[:, :1]], axis=1)
    return flipped.tile([1, 2]).astype(paddle.get_default_dtype())
