"""Mask R-CNN on any backbone: feature pyramid, proposals, boxes, masks, with the semantics of
mmdetection 2.

Parameter names equal mmdetection's (`backbone.*`, `neck.*`, `rpn_head.*`, `roi_head.bbox_head.*`,
`roi_head.mask_head.*`).
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ..api import Detections
from ..necks.fpn import FPN
from ..recording import with_one_more
from ..registry import MODELS, build_backbone
from .detector import Detector
from .matching import image_names
from .roi import RoIHead
from .rpn import RPNHead
from .stages import Part, parts_of, settings_of

__all__ = ["MaskRCNN"]


@MODELS.register
class MaskRCNN(Detector):
    """Images -> boxes, classes and masks of the objects in them.

    backbone: {name: NextViT_small, ...}, see models/registry.py. The defaults are the published
    recipe's (bytedance/Next-ViT, detection/configs).
    fpn_channels, fc_channels, mask_convs: widths of the pyramid (and mask head) and of the box
    head, and the mask head's convolutions.
    anchor_scales, anchor_ratios: sides in strides, and height / width. train_proposals,
    test_proposals: boxes per level before the suppression at rpn_nms_threshold, and per image after
    it. rpn_samples, roi_samples: anchors and proposals per image that learn.
    score_threshold, nms_threshold, max_detections: what counts as found.
    """

    brings_losses = True
    learns_masks = True
    shown = ("acc",)
    # the arguments of a small one, for tests
    toy = {"fpn_channels": 16, "fc_channels": 32, "mask_convs": 1, "max_detections": 10}
    # targets that it does not go to
    refused = {
        "tensorrt": "its choice of boxes is a NonZero of ONNX, which TensorRT-RTX (1.7) lacks",
        **dict.fromkeys(
            ("lite", "lite-x86"),
            "Paddle (3.3.1) cannot write its sigmoid as a .pdmodel, which Paddle Lite reads",
        ),
    }
    # those of its methods that are no network, for who measures them apart
    postprocessing = ("rpn_head.flat", "rpn_head.proposals", "roi_head.detect", "instances")

    def __init__(
        self,
        *,
        backbone: dict,
        num_classes: int = 80,
        fpn_channels: int = 256,
        fc_channels: int = 1024,
        mask_convs: int = 4,
        anchor_scales: Tuple[float, ...] = (8.0,),
        anchor_ratios: Tuple[float, ...] = (0.5, 1.0, 2.0),
        train_proposals: Tuple[int, int] = (2000, 1000),
        test_proposals: Tuple[int, int] = (1000, 1000),
        rpn_nms_threshold: float = 0.7,
        rpn_samples: int = 256,
        roi_samples: int = 512,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ):
        super().__init__()
        _check_counts(
            num_classes=num_classes,
            fpn_channels=fpn_channels,
            fc_channels=fc_channels,
            rpn_samples=rpn_samples,
            roi_samples=roi_samples,
            max_detections=max_detections,
            train_proposals=min(train_proposals),
            test_proposals=min(test_proposals),
            mask_convs=mask_convs,
        )
        _check_positive(anchor_scales=anchor_scales, anchor_ratios=anchor_ratios)
        _check_shares(
            rpn_nms_threshold=rpn_nms_threshold,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
        )
        self.num_classes = num_classes
        self.train_proposals, self.test_proposals = train_proposals, test_proposals
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.max_detections = max_detections
        self.backbone = build_backbone(backbone)
        strides = self.backbone.stage_strides
        self.neck = FPN(self.backbone.stage_channels, fpn_channels, num_outs=len(strides) + 1)
        self.rpn_head = RPNHead(
            fpn_channels,
            (*strides, 2 * strides[-1]),
            anchor_scales,
            anchor_ratios,
            rpn_nms_threshold,
            rpn_samples,
        )
        self.roi_head = RoIHead(
            fpn_channels, fc_channels, fpn_channels, mask_convs, num_classes, strides, roi_samples
        )

    def forward(
        self, image: Tensor, shape: Optional[Tensor] = None, scale: Optional[Tensor] = None
    ) -> List[Detections]:
        """A list of Detections, one per image; their masks are float32 [n, 28, 28], probabilities
        on a grid over the box (see masks.paste).

        image: float32 [B, 3, H, W], normalised and padded to multiples of 32. shape: int [B, 2],
        the images' (height, width) before padding; None: H and W. scale: float [B, 2], the (y, x)
        factors by which the images were resized; None: 1.
        """
        maps = self.neck(self.backbone(image))
        logits, deltas, anchors = self.rpn_head.flat(*self.rpn_head(maps))
        found = []
        for i in range(image.shape[0]):
            limit = _xyxy(paddle.shape(image)[2:] if shape is None else shape[i])
            factors = paddle.ones([4]) if scale is None else _xyxy(scale[i])
            own_maps = [x[i : i + 1] for x in maps]
            own_logits, own_deltas = [x[i] for x in logits], [x[i] for x in deltas]
            found.append(self.detect(own_maps, own_logits, own_deltas, anchors, limit, factors))
        return found

    def detect(
        self,
        maps: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        limit: Tensor,
        scale: Tensor,
    ) -> Detections:
        """The Detections of one image, whose maps are [1, C, H, W]. Arguments as in
        RPNHead.proposals and RoIHead.detect.
        """
        proposals, _ = self.rpn_head.proposals(logits, deltas, anchors, limit, *self.test_proposals)
        maps, count = maps[: len(self.roi_head.strides)], [proposals.shape[0]]
        boxes, scores, labels = self.roi_head.detect(
            *self.roi_head.boxes(maps, proposals, count),
            proposals,
            limit,
            scale,
            self.score_threshold,
            self.nms_threshold,
            self.max_detections,
        )

        def masks(boxes: Tensor, labels: Tensor) -> Tensor:
            return F.sigmoid(self.roi_head.masks(maps, boxes * scale, [boxes.shape[0]], labels))

        return Detections(boxes, scores, labels, with_one_more(masks, boxes, labels))

    def parts(self, size: Tuple[int, int]) -> Tuple[Dict[str, Part], Dict[str, Any]]:
        """(programs by name, what joins them) for runtimes whose programs cannot choose boxes:
        see stages.py. size: (height, width) of the padded image.
        """
        return parts_of(self, size), settings_of(self, size)

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """({rpn_cls, rpn_box, cls, box, mask}: losses whose sum is the total, {acc: (sampled
        proposals whose class, or background, the box head tells, all that were sampled)}) of a
        training batch.

        batch: image, shape, boxes [N, 4], labels [N], counts (N per image) and masks [N, H, W],
        over all images in order. ValueError, which names the image, for a box without width or
        height.
        """
        _check_boxes(batch)
        maps = self.neck(self.backbone(batch["image"]))
        logits, deltas, anchors = self.rpn_head.flat(*self.rpn_head(maps))
        shapes = batch["shape"].numpy()
        objects, labels, masks = _by_image(batch, ("boxes", "labels", "masks"))
        rpn_cls, rpn_box = self.rpn_head.losses(logits, deltas, anchors, objects, shapes)
        with paddle.no_grad():
            proposals = [
                self._proposals_to_learn(
                    [x[i] for x in logits],
                    [x[i] for x in deltas],
                    anchors,
                    _xyxy(batch["shape"][i]),
                )
                for i in range(len(shapes))
            ]
        second, right, seen = self.roi_head.losses(
            maps[: len(self.roi_head.strides)], proposals, objects, labels, masks
        )
        return {"rpn_cls": rpn_cls, "rpn_box": rpn_box, **second}, {"acc": (int(right), seen)}

    def let_pass(self, count: int, image: Tensor, shape: Tensor, scale: Tensor) -> None:
        """Set score_threshold to what `count` boxes of one image pass. Random weights find nothing;
        a trained model's work is measured with them so. Arguments as for forward.
        """
        maps = self.neck(self.backbone(image))
        logits, deltas, anchors = self.rpn_head.flat(*self.rpn_head(maps))
        first = [x[0] for x in logits], [x[0] for x in deltas]
        proposals, _ = self.rpn_head.proposals(
            *first, anchors, _xyxy(shape[0]), *self.test_proposals
        )
        maps = maps[: len(self.roi_head.strides)]
        logits, _ = self.roi_head.boxes(maps, proposals, [len(proposals)])
        scores = F.softmax(logits, axis=-1)[:, :-1].flatten().sort(descending=True)
        self.score_threshold = float(scores[min(count, len(scores) - 1)])

    def _proposals_to_learn(self, logits, deltas, anchors, limit):
        """The proposals [n, 4] of one image in training; its frame where there is none: the second
        stage needs a box to learn from.
        """
        proposals, _ = self.rpn_head.proposals(
            logits, deltas, anchors, limit, *self.train_proposals
        )
        if proposals.shape[0]:
            return proposals
        return paddle.concat([paddle.zeros([2]), limit[:2]]).unsqueeze(0)


def _check_boxes(batch):
    """ValueError for a box from which no side's logarithm can be learnt."""
    boxes, ends = batch["boxes"].numpy(), batch["counts"].numpy().cumsum()
    bad = np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if len(bad):
        image = image_names(batch, len(ends))[np.searchsorted(ends, bad[0], side="right")]
        raise ValueError(
            f"{image}: the box {boxes[bad[0]].tolist()} of an object has no width or no height; "
            f"leave the object out"
        )


def _by_image(batch, keys):
    """For each key a list, one tensor per image, of what the batch has for all images in order."""
    counts = batch["counts"].numpy()
    ends = counts.cumsum()
    spans = [slice(int(end - count), int(end)) for end, count in zip(ends, counts)]
    return [[batch[key][span] for span in spans] for key in keys]


def _xyxy(pair):
    """(y, x) -> float32 (x, y, x, y)."""
    return paddle.concat([pair[1:2], pair[:1], pair[1:2], pair[:1]]).astype("float32")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more; got {value}")


def _check_positive(**numbers: Tuple[float, ...]) -> None:
    for name, values in numbers.items():
        if not values or min(values) <= 0:
            raise ValueError(f"{name} must be numbers above 0; got {values}")


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be in [0, 1]; got {value}")
