"""DINO on any backbone: a query detector without suppression, with the semantics of mmdetection 3.

Zhang et al. 2022, arXiv:2203.03605. Parameter names equal mmdetection's (`backbone.*`, `neck.*`,
`encoder.*`, `decoder.*`, `bbox_head.*`, ...). Boxes of queries are (cx, cy, w, h) as shares of the
image before padding.
"""

import math
from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..api import Detections
from ..layers import Linear
from ..necks.channel_mapper import ChannelMapper
from ..registry import MODELS, build_backbone
from .deformable import (
    DeformableEncoder,
    choose_form,
    reference_points,
    valid_cells,
    valid_counts,
    valid_ratios,
)
from .denoising import Denoising
from .detector import Detector
from .dino_decoder import DinoDecoder
from .dino_head import DinoHead, Memory, Selection, height_width, select, token_boxes, xyxy
from .dino_losses import (
    Predictions,
    denoising_losses,
    matched,
    matching_losses,
    objects_of,
    right_classes,
)
from .transformer import linear_default, sine_position

__all__ = ["DINO"]

TEMPERATURE = 20.0  # of the sines of the tokens' places


@MODELS.register
class DINO(Detector):
    """Images -> boxes and classes of the objects in them.

    backbone: {name: TransNeXt_tiny, ...}, see models/registry.py. The defaults are the published
    recipe's (DaiShiResearch/TransNeXt, detection/dino).
    num_levels: maps that are attended to, the backbone's last ones and a coarser one.
    num_queries: objects that are looked for; no image may have fewer tokens, see `min_size`.
    channels: a multiple of 32 and of `heads`. hidden: of the feed-forward networks. points: to
    which a head attends on each level.
    dn_queries: near denoising queries of an image, about; label_noise, box_noise: see Denoising.
    max_detections: what counts as found, the best.
    sampling_form: 'auto', 'compiled' or 'grid_sample': how deformable attention takes its samples,
    which changes speed and memory, not results; 'auto' takes the compiled operator on a CPU where
    it is built (`nextvit build-ops`).
    """

    brings_losses = True
    shown = ("acc",)
    # the arguments of a small one, for tests
    toy = {
        "num_queries": 10,
        "channels": 64,
        "heads": 4,
        "points": 2,
        "hidden": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "dn_queries": 6,
        "max_detections": 8,
    }
    # targets that it does not go to
    refused = {
        to: "Paddle (3.3.1) cannot write its square roots as a .pdmodel, which Paddle Lite reads"
        for to in ("lite", "lite-x86")
    }
    # those of its methods that are no network, for who measures them apart
    postprocessing = ("bbox_head.found", "instances")

    def __init__(
        self,
        *,
        backbone: dict,
        num_classes: int = 80,
        num_levels: Literal[4, 5] = 4,
        num_queries: int = 900,
        channels: int = 256,
        heads: int = 8,
        points: int = 4,
        hidden: int = 2048,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dn_queries: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        max_detections: int = 300,
        sampling_form: str = "auto",
    ):
        super().__init__()
        counts = {
            "num_classes": num_classes,
            "num_queries": num_queries,
            "channels": channels,
            "heads": heads,
            "points": points,
            "hidden": hidden,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "dn_queries": dn_queries,
            "max_detections": max_detections,
        }
        _check(counts, label_noise, box_noise)
        self.num_classes, self.num_queries = num_classes, num_queries
        self.backbone = build_backbone(backbone)
        self.num_maps = _number_of_maps(num_levels, self.backbone.stage_channels)
        self.neck = ChannelMapper(
            self.backbone.stage_channels[-self.num_maps :], channels, num_levels
        )
        sizes = (channels, heads, num_levels, points, hidden)
        self.encoder = DeformableEncoder(*sizes, encoder_layers)
        self.decoder = DinoDecoder(*sizes, decoder_layers)
        found = min(max_detections, num_queries * num_classes)
        self.bbox_head = DinoHead(channels, num_classes, decoder_layers + 1, found)
        normal, xavier = nn.initializer.Normal(0.0, 1.0), nn.initializer.XavierUniform()
        self.level_embed = self.create_parameter([num_levels, channels], default_initializer=normal)
        self.query_embedding = nn.Embedding(num_queries, channels, weight_attr=xavier)
        self.memory_trans_fc = Linear(channels, channels, weight_attr=xavier)
        linear_default(self.memory_trans_fc.bias, channels)
        self.memory_trans_norm = nn.LayerNorm(channels)
        self.dn_query_generator = Denoising(
            num_classes, channels, dn_queries, label_noise, box_noise
        )
        choose_form(self, sampling_form)

    @property
    def min_size(self) -> int:
        """The smallest height and width of an image, in pixels: what the backbone takes, and what
        gives a token to each query.
        """
        strides = self.backbone.stage_strides[-self.num_maps :]
        strides = [*strides, 2 * strides[-1]]
        side = self.backbone.min_size
        while sum(math.ceil(side / stride) ** 2 for stride in strides) < self.num_queries:
            side += 1
        return side

    def forward(
        self, image: Tensor, shape: Optional[Tensor] = None, scale: Optional[Tensor] = None
    ) -> List[Detections]:
        """A list of Detections without masks, one per image; always `max_detections` of them.

        image: float32 [B, 3, H, W], normalised. shape: int [B, 2], the images' (height, width)
        before padding; None: H and W. scale: float [B, 2], the (y, x) factors by which the images
        were resized; None: 1. ValueError for images with fewer tokens than queries.
        """
        shape = _whole(image) if shape is None else shape
        memory = self.encode(image, shape)
        boxes = F.sigmoid(self.propose(memory).boxes)
        last = self.decode(memory, self.queries(image.shape[0]), boxes)[-1]
        return self.bbox_head.found(last, xyxy(shape), scale)

    def encode(self, image: Tensor, shape: Tensor) -> Memory:
        """The Memory of images [B, 3, H, W] that have `shape` [B, 2] before padding."""
        maps = self.neck(self.backbone(image)[-self.num_maps :])
        shapes = [height_width(x) for x in maps]
        tokens = paddle.concat([x.flatten(2).transpose([0, 2, 1]) for x in maps], axis=1)
        self._check_tokens(tokens, image)
        cells = [valid_cells(shape, height_width(image), size) for size in shapes]
        valid = paddle.concat([x.flatten(1) for x in cells], axis=1)
        counts = valid_counts(cells)
        references = reference_points(shapes, counts)
        tokens = self.encoder(tokens, self.positions(cells), references, shapes, valid)
        return Memory(tokens, shapes, valid, counts)

    def positions(self, cells: Sequence[Tensor]) -> Tensor:
        """[B, S, C]: where each token is, on which level. cells: of each level bool [B, h, w],
        valid or not.
        """
        features = self.level_embed.shape[1] // 2
        return paddle.concat(
            [
                sine_position(valid, features, TEMPERATURE) + self.level_embed[level]
                for level, valid in enumerate(cells)
            ],
            axis=1,
        )

    def propose(self, memory: Memory) -> Selection:
        """The tokens that the encoder itself holds for objects."""
        boxes, inside = token_boxes(memory)
        tokens = memory.tokens * inside.unsqueeze(-1).astype(memory.tokens.dtype)
        tokens = self.memory_trans_norm(self.memory_trans_fc(tokens))
        return select(*self.bbox_head.of_tokens(tokens, boxes), self.num_queries)

    def queries(self, batch: int) -> Tensor:
        """What the decoder's queries start with: [batch, num_queries, C], by rank."""
        return self.query_embedding.weight.unsqueeze(0).tile([batch, 1, 1])

    def decode(
        self, memory: Memory, queries: Tensor, boxes: Tensor, blocked: Optional[Tensor] = None
    ) -> List[Predictions]:
        """The Predictions of every layer of the decoder. queries: [B, Q, C]; boxes: [B, Q, 4], from
        which it starts; blocked: bool [Q, Q], what a query (row) must not see.
        """
        outputs, references = self.decoder(
            queries,
            boxes,
            memory.tokens,
            valid_ratios(memory.counts, memory.shapes),
            memory.shapes,
            self.bbox_head.reg_branches,
            memory.valid,
            blocked,
        )
        return self.bbox_head(outputs, references)

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """(losses whose sum is the total, {acc: (matched queries whose best class is their
        object's, matched queries)}) of a training batch.

        The losses are mmdetection's: loss_cls, loss_bbox, loss_iou of the last layer, d0.loss_cls,
        ... of the others, enc_loss_cls, ... of the encoder, dn_loss_cls, d0.dn_loss_cls, ... of
        denoising. batch: image, shape, boxes [N, 4], labels [N], counts (N per image), over all
        images in order. FloatingPointError for costs of matching that are not finite.
        """
        image, shape = batch["image"], batch["shape"]
        objects = objects_of(batch, xyxy(shape))
        memory = self.encode(image, shape)
        selected = self.propose(memory)
        noisy = self.dn_query_generator(
            objects.boxes, objects.labels, objects.sizes, self.num_queries
        )
        queries, boxes = self.queries(image.shape[0]), selected.boxes.detach()
        if noisy is None:
            # so that every process has gradients of the same parameters
            queries = queries + 0 * self.dn_query_generator.label_embedding.weight.sum()
            layers = self.decode(memory, queries, F.sigmoid(boxes))
        else:
            queries = paddle.concat([noisy.content, queries], axis=1)
            boxes = paddle.concat([noisy.reference.astype(boxes.dtype), boxes], axis=1)
            layers = self.decode(memory, queries, F.sigmoid(boxes), noisy.blocked)
        parts: Dict[str, Tensor] = {}
        for i, layer in enumerate(layers):
            place = "" if layer is layers[-1] else f"d{i}."
            noise, own = layer.split(layer.logits.shape[1] - self.num_queries)
            pairs = matched(own, objects)
            parts |= _named(place, matching_losses(own, objects, pairs))
            parts |= _named(f"{place}dn_", denoising_losses(noise, objects, noisy))
        first = Predictions(selected.logits, F.sigmoid(selected.boxes))
        parts |= _named("enc_", matching_losses(first, objects, matched(first, objects)))
        return parts, {"acc": right_classes(own, objects, pairs)}

    def _check_tokens(self, tokens: Tensor, image: Tensor) -> None:
        if 0 <= tokens.shape[1] < self.num_queries:
            height, width = image.shape[2:]
            raise ValueError(
                f"images of {height} x {width} pixels have {tokens.shape[1]} tokens, fewer than "
                f"num_queries, {self.num_queries}: enlarge them to {self.min_size} x "
                f"{self.min_size} pixels, or lower num_queries"
            )


def _whole(image: Tensor) -> Tensor:
    """[B, 2]: (H, W) of unpadded images."""
    sides = [paddle.to_tensor(x) if isinstance(x, int) else x for x in height_width(image)]
    return paddle.stack([side.reshape([]) for side in sides]).unsqueeze(0).tile([image.shape[0], 1])


def _named(prefix: str, losses: Dict[str, Tensor]) -> Dict[str, Tensor]:
    return {f"{prefix}{name}": loss for name, loss in losses.items()}


def _check(counts: Dict[str, int], label_noise: float, box_noise: float) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more; got {value}")
    if not 0 <= label_noise <= 2:
        raise ValueError(f"label_noise must be in [0, 2]; got {label_noise}")
    if box_noise < 0:
        raise ValueError(f"box_noise must be 0 or more; got {box_noise}")


def _number_of_maps(num_levels: int, channels: Sequence[int]) -> int:
    """How many of the backbone's maps num_levels takes: all but one level, which the neck makes."""
    if num_levels - 1 > len(channels):
        raise ValueError(
            f"num_levels {num_levels} takes {num_levels - 1} maps of the backbone and a coarser "
            f"one, but this backbone has {len(channels)}"
        )
    return num_levels - 1
