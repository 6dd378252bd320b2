"""The contracts of the models: what a backbone, a detector and a segmentor offer to all that builds
on them (tasks, weights, export, hosts), and the records in which a detector answers.

Any class with these members will do; backbones/base.py has most of a backbone's. Tensors are NCHW.
tests/test_model_contracts.py walks the registry and holds every model to what is written here.
"""

from dataclasses import dataclass
from typing import (
    Any,
    ClassVar,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
)

import numpy as np
from paddle import Tensor, nn

__all__ = [
    "AttentionLayer",
    "Backbone",
    "Detections",
    "Detector",
    "ImageMask",
    "Instances",
    "Segmentor",
]


class Backbone(Protocol):
    """A classifier, which with `num_classes=None` is the backbone of a detector or segmentor.

    Built with keyword arguments, of which every family takes num_classes (None: no head; forward
    gives the maps), in_channels, drop_path_rate, frozen_stages (0: nothing; k: the stem and the
    first k stages neither train nor move their statistics), norm_eval (statistics never move) and
    recompute (less memory, more time in training). `train()` keeps what these hold still.
    """

    task: ClassVar[str]  # "classification"
    stage_channels: Tuple[int, ...]  # of the maps, finest first
    stage_strides: Tuple[int, ...]
    min_size: int  # smallest height and width of an image, in pixels
    body_prefixes: Tuple[str, ...]  # of the keys that a classifier and a backbone share
    head_prefixes: Tuple[str, ...]  # of the keys whose shapes depend on the number of classes
    toy: Mapping[str, Any]  # the arguments of the smallest model of the family, for tests
    num_classes: Optional[int]
    in_channels: int

    def forward_features(self, x: Tensor) -> List[Tensor]:
        """[B, in_channels, H, W] -> maps [B, stage_channels[i], H / stage_strides[i], W /
        stage_strides[i]], rounded up. ValueError below min_size.
        """

    def forward_head(self, maps: Sequence[Tensor]) -> Tensor:
        """What forward_features gave -> logits [B, num_classes]."""

    def fuse(self) -> "Backbone":
        """A new model in eval mode: the same function with the BatchNorms folded away."""

    def export_form(self) -> "Backbone":
        """A new model in eval mode: the same function in the operators that suit every engine."""

    def no_weight_decay(self) -> Set[str]:
        """Names of parameters that are never decayed, whatever the optimiser is told."""

    def stages(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """(name, prefixes of its keys) from the stem by way of the stages to the head, which cover
        every key once: what layer-wise learning rates and frozen_stages go by.
        """

    def blocks(self) -> List[List[nn.Layer]]:
        """The blocks of each stage, in the order of the forward pass; [] if it does not tell. An
        attention in them is an AttentionLayer. What a block does depends on the `training` of its
        parts, not on its own.
        """


class AttentionLayer(Protocol):
    """An attention whose weights can be looked at, [heads, N, K] for N queries and K keys, each row
    of which sums to 1. The forward pass calls `attn_drop` with those of all queries, [B, heads, N,
    K], unless a compiled operator does without; that of an export form may have `keys_first`, [B,
    heads, K, N].
    """

    attn_drop: nn.Layer

    def rows(self, queries: Sequence[int], *inputs: Any) -> Tuple[Tensor, Optional[Tensor]]:
        """The weights [heads, n, K] of n queries, given by index in raster order, in memory for
        these rows alone; and what the layer adds after the softmax to the weights of the window,
        which are the first keys: [heads, n, window**2], None where there is no such thing. inputs:
        what forward is called with, of one image.
        """

    def map_size(self, *inputs: Any) -> Tuple[int, int]:
        """(height, width) of the map of queries, of what forward is called with."""

    def on_tokens(self, weights: Tensor, query: int, *inputs: Any) -> Tensor:
        """The weights [heads, K] of one query on the map that it stands in, [heads, height, width]:
        what a key has goes evenly to the tokens that it is the mean of, so that sums stay. query:
        its index, in raster order. inputs: what forward is called with.
        """


class Detections(NamedTuple):
    """What the graph of a detector finds in one image, best first, as tensors."""

    boxes: Tensor  # float32 [n, 4], (x1, y1, x2, y2) in pixels of the original image
    scores: Tensor  # float32 [n]
    labels: Tensor  # int64 [n]
    masks: Optional[Tensor]  # in the model's own form; None: it finds boxes alone


@dataclass(frozen=True)
class ImageMask:
    """The mask of one object in an image of `height` x `width` pixels: True within `part`, whose
    first pixel is at (`top`, `left`), background elsewhere.
    """

    part: np.ndarray  # bool [h, w]
    top: int
    left: int
    height: int
    width: int

    def full(self) -> np.ndarray:
        """The whole image's: uint8 [height, width] of 0 and 1."""
        out = np.zeros((self.height, self.width), np.uint8)
        rows, columns = self.part.shape
        out[self.top : self.top + rows, self.left : self.left + columns] = self.part
        return out


class Instances(NamedTuple):
    """What was found in one image, best first, at the image's original size, as arrays."""

    boxes: np.ndarray  # float32 [n, 4], (x1, y1, x2, y2) in pixels
    scores: np.ndarray  # float32 [n]
    labels: np.ndarray  # int64 [n]
    masks: Optional[List[ImageMask]]

    def scoring(self, threshold: float) -> "Instances":
        """Those that score `threshold` or more."""
        kept, masks = self.scores >= threshold, self.masks
        if masks is not None:
            masks = [mask for mask, keep in zip(masks, kept) if keep]
        return Instances(self.boxes[kept], self.scores[kept], self.labels[kept], masks)


class Detector(Protocol):
    """Finds objects: boxes, classes, and masks if it has any."""

    task: ClassVar[str]  # "detection"
    brings_losses: ClassVar[bool]  # True: the configuration has no Loss section
    learns_masks: ClassVar[bool]  # whether its losses need batch["masks"]; False if it is not said
    shown: ClassVar[Tuple[str, ...]]  # the names of its counts, for the bar and the curves
    backbone: Backbone
    num_classes: int
    in_channels: int
    min_size: int  # its backbone's

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """(parts, counts) of a training batch: scalars by name whose sum is the loss, and shares
        (right, seen) by name that are worth showing. batch: image, shape, boxes, labels, counts and
        masks (see data).
        """

    def forward(
        self, image: Tensor, shape: Optional[Tensor] = None, scale: Optional[Tensor] = None
    ) -> List[Detections]:
        """One Detections for each image; can be recorded by an export.

        image: [B, in_channels, H, W]. shape: [B, 2], (height, width) before padding; None: H and W.
        scale: [B, 2], the (y, x) factors by which the images were resized; None: 1.
        """

    def predict(self, batch: Mapping[str, Any]) -> List[Instances]:
        """One Instances for each image of an evaluation batch: image, shape, scale, original."""


class Segmentor(Protocol):
    """Gives every pixel a class.

    With brings_losses False the task sets `criterion` before training: a callable from (logit maps
    at the label's size, label) to (parts, counts). Else `shown` names its counts, as a Detector's.
    One with `discontinuous = True` decides by a threshold within: its exports are held to the mean
    difference.
    """

    task: ClassVar[str]  # "segmentation"
    brings_losses: ClassVar[bool]
    shown: ClassVar[Tuple[str, ...]]
    inference: Any  # an inference.Inference: whole images or windows, scales, mirrored or not
    backbone: Backbone
    num_classes: int
    in_channels: int
    min_size: int  # its backbone's

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """(parts, counts) of a training batch, as a Detector's. batch: image, segmentation."""

    def forward(self, image: Tensor) -> Tensor:
        """In evaluation: [B, in_channels, H, W] -> logits [B, num_classes, H, W]."""

    def decode(self, image: Tensor) -> Tensor:
        """As forward, at the size at which the heads answer: logits [B, num_classes, h, w]."""

    def predict(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits [B, num_classes, H, W] of an evaluation batch."""
