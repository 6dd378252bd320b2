"""Mask R-CNN in parts, for runtimes whose programs cannot choose: what is a network, image by image
and region by region, and the numbers that decide what lies between.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import paddle
from paddle import Tensor, nn

from .roi import BOX_CELLS, FINEST_SCALE, MASK_CELLS, STDS

__all__ = ["FirstStage", "Part", "parts_of", "settings_of"]

# regions that a part takes at once: every proposal, but few masks, since most images have few
MOST_ROWS, MASK_ROWS = 1000, 10


class Part(NamedTuple):
    """layer: {name: shape} of `inputs` -> `outputs`, by their names."""

    layer: nn.Layer
    inputs: Dict[str, Tuple[int, ...]]
    outputs: Tuple[str, ...]


class FirstStage(nn.Layer):
    """image [1, 3, H, W] -> objectness [1, N] (logits) and deltas [1, N, 4] of all anchors, level
    by level, then the maps that regions are read from.
    """

    def __init__(self, model: nn.Layer):
        super().__init__()
        self.backbone, self.neck, self.rpn_head = model.backbone, model.neck, model.rpn_head
        self.maps = len(model.roi_head.strides)
        self.eval()

    def forward(self, image: Tensor) -> List[Tensor]:
        """image: [1, 3, H, W] -> objectness [1, N], deltas [1, N, 4], maps [1, C, h, w]."""
        maps = self.neck(self.backbone(image))
        logits, deltas = self.rpn_head.rows(*self.rpn_head(maps))
        return [paddle.concat(logits, axis=1), paddle.concat(deltas, axis=1), *maps[: self.maps]]


def parts_of(model: nn.Layer, size: Tuple[int, int]) -> Dict[str, Part]:
    """The parts of a MaskRCNN for images of `size` (height, width): `` of the image, `boxes` and
    `masks` of pooled regions. They share its weights.
    """
    heads, channels = model.roi_head, model.neck.fpn_convs[0].conv.weight.shape[0]
    boxes, masks = rows_of(model)
    return {
        "": Part(
            FirstStage(model),
            {"image": (1, model.in_channels, *size)},
            ("objectness", "deltas", *(f"map{i}" for i in range(len(heads.strides)))),
        ),
        "boxes": Part(
            heads.bbox_head,
            {"regions": (boxes, channels, BOX_CELLS, BOX_CELLS)},
            ("logits", "deltas"),
        ),
        "masks": Part(
            heads.mask_head, {"regions": (masks, channels, MASK_CELLS, MASK_CELLS)}, ("logits",)
        ),
    }


def rows_of(model: nn.Layer) -> Tuple[int, int]:
    """How many regions the parts `boxes` and `masks` take at once."""
    return min(model.test_proposals[1], MOST_ROWS), min(model.max_detections, MASK_ROWS)


def settings_of(model: nn.Layer, size: Tuple[int, int]) -> Dict[str, Any]:
    """What lies between the parts, for images of `size`: plain numbers, in pixels and shares."""
    rpn, heads = model.rpn_head, model.roi_head
    with paddle.no_grad():
        maps = model.neck(model.backbone(paddle.zeros([1, model.in_channels, *size])))
    boxes, masks = rows_of(model)
    per_level, count = model.test_proposals
    return {
        "levels": [
            {"stride": int(stride), "grid": x.shape[2:], "anchors": base.tolist()}
            for stride, x, base in zip(rpn.strides, maps, rpn.base)
        ],
        "maps": len(heads.strides),
        "finest_scale": FINEST_SCALE,
        "proposals": {"per_level": per_level, "count": count, "nms_threshold": rpn.nms_threshold},
        "boxes": {
            "cells": BOX_CELLS,
            "rows": boxes,
            "stds": list(STDS),
            "score_threshold": model.score_threshold,
            "nms_threshold": model.nms_threshold,
            "count": model.max_detections,
        },
        "masks": {"cells": MASK_CELLS, "rows": masks},
    }
