"""Semantic FPN and UPerNet on Next-ViT, as in the reference's segmentation recipes
(mmsegmentation's EncoderDecoder).

State-dict keys equal the reference's: backbone.*, neck.*, decode_head.*, auxiliary_head.*.
"""

from typing import Optional

from paddle import nn

from ..necks.fpn import FPN
from ..registry import HoldsBackbone, build_backbone
from .heads import FCNHead, FPNHead, UPerHead, resize_like
from .inference import Inference

__all__ = ["SemanticFPN", "UPerNet"]


class Segmentor(HoldsBackbone):
    """Backbone, neck, decode head and, for the training loss, auxiliary head. inference: see
    inference.Inference.
    """

    task = "segmentation"

    def __init__(self, num_classes, backbone, inference):
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"num_classes must be 2 or more (the background is a class); got {num_classes}"
            )
        self.num_classes, self.inference = num_classes, Inference.from_yaml(inference)
        self.backbone = build_backbone(backbone)
        self.in_channels = self.backbone.in_channels
        self.neck = nn.Identity()
        self.auxiliary_head = None

    def forward_heads(self, image):
        """image: [B, in_channels, H, W] -> logits of the decode head [B, num_classes, H / 4, W /
        4], then of the auxiliary head, if any.
        """
        maps = self.neck(self.backbone(image))
        heads = (
            [self.decode_head]
            if self.auxiliary_head is None
            else [self.decode_head, self.auxiliary_head]
        )
        return [head(maps) for head in heads]

    def decode(self, image):
        """image: [B, in_channels, H, W] -> logits of the decode head [B, num_classes, H / 4, W /
        4].
        """
        return self.decode_head(self.neck(self.backbone(image)))

    def forward(self, image):
        """In training forward_heads(image); else logits [B, num_classes, H, W] at the image's
        size.
        """
        return (
            self.forward_heads(image) if self.training else resize_like(self.decode(image), image)
        )


class SemanticFPN(Segmentor):
    """Next-ViT, FPN, FPNHead. backbone: {name: NextViT_small, extra_norms: True, drop_path_rate:
    0.2, ...}.
    """

    def __init__(
        self,
        *,
        num_classes: int = 150,
        backbone: dict,
        fpn_channels: int = 256,
        channels: int = 128,
        dropout: float = 0.1,
        inference: Optional[dict] = None,
    ):
        super().__init__(num_classes, backbone, inference)
        stages = self.backbone.stage_channels
        self.neck = FPN(stages, fpn_channels, num_outs=len(stages))
        self.decode_head = FPNHead(
            fpn_channels, channels, num_classes, self.backbone.stage_strides, dropout
        )


class UPerNet(Segmentor):
    """Next-ViT, UPerHead, and an FCNHead on the third map. backbone: {name: NextViT_small,
    extra_norms: True, drop_path_rate: 0.2, ...}.
    """

    def __init__(
        self,
        *,
        num_classes: int = 150,
        backbone: dict,
        channels: int = 512,
        auxiliary_channels: int = 256,
        dropout: float = 0.1,
        inference: Optional[dict] = None,
    ):
        super().__init__(num_classes, backbone, inference)
        stages = self.backbone.stage_channels
        self.decode_head = UPerHead(
            stages, channels, num_classes, pool_scales=(1, 2, 3, 6), dropout=dropout
        )
        self.auxiliary_head = FCNHead(
            stages[2], auxiliary_channels, num_classes, in_index=2, dropout=dropout
        )
