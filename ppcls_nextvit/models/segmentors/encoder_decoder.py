"""Semantic FPN and UPerNet on any backbone, as in the reference's segmentation recipes
(mmsegmentation's EncoderDecoder).

State-dict keys equal the reference's: backbone.*, neck.*, decode_head.*, auxiliary_head.*.
"""

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from paddle import Tensor, nn

from ..necks.fpn import FPN
from ..registry import MODELS, HoldsBackbone, build_backbone
from ..resizing import resize, resize_like
from .heads import FCNHead, FPNHead, UPerHead
from .inference import Inference, view_logits

__all__ = ["EncoderDecoder", "SemanticFPN", "UPerNet"]


class EncoderDecoder(HoldsBackbone):
    """Backbone, neck, decode head and, for the training loss, auxiliary head.

    A subclass sets `decode_head`, and `neck` and `auxiliary_head` if it has them. inference: see
    inference.Inference. criterion: the loss, set before training: a callable from (logit maps at
    the label's size, the decode head's first; label) to (parts, counts).
    """

    task = "segmentation"
    brings_losses = False
    shown: Tuple[str, ...] = ()  # that is the criterion's
    toy: Dict[str, Any] = {}  # the arguments of a small one, for tests

    def __init__(self, num_classes: int, backbone: dict, inference: Optional[dict]):
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"num_classes must be 2 or more (the background is a class); got {num_classes}"
            )
        self.num_classes = num_classes
        self.backbone = build_backbone(backbone)
        self.inference = Inference.from_yaml(inference, self.min_size)
        self.neck = nn.Identity()
        self.auxiliary_head: Optional[nn.Layer] = None
        self.criterion: Optional[Callable] = None

    def forward_heads(self, image: Tensor) -> List[Tensor]:
        """image: [B, in_channels, H, W] -> logits of the decode head [B, num_classes, H / 4, W /
        4], then of the auxiliary head, if any.
        """
        maps = self.neck(self.backbone(image))
        logits = [self.decode_head(maps)]
        if self.auxiliary_head is not None:
            logits.append(self.auxiliary_head(maps))
        return logits

    def decode(self, image: Tensor) -> Tensor:
        """image: [B, in_channels, H, W] -> logits of the decode head [B, num_classes, H / 4, W /
        4].
        """
        return self.decode_head(self.neck(self.backbone(image)))

    def forward(self, image: Tensor) -> Union[Tensor, List[Tensor]]:
        """In training forward_heads(image); else logits [B, num_classes, H, W] at the image's
        size.
        """
        if self.training:
            return self.forward_heads(image)
        return resize_like(self.decode(image), image)

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """What `criterion` gives of a training batch: (parts, counts).

        batch: image [B, in_channels, H, W], segmentation [B, H, W].
        """
        label = batch["segmentation"]
        maps = [
            resize(logits.astype("float32"), label.shape[1:]) for logits in self(batch["image"])
        ]
        assert self.criterion is not None, "a task sets it before training"
        return self.criterion(maps, label)

    def predict(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits, float32 [B, num_classes, H, W], of an evaluation batch's `image`, whole or
        averaged over windows, as `inference.mode` says.
        """
        return view_logits(self, batch["image"], self.inference)


@MODELS.register
class SemanticFPN(EncoderDecoder):
    """Backbone, FPN, FPNHead. backbone: {name: NextViT_small, extra_norms: True, drop_path_rate:
    0.2, ...}.
    """

    toy = {"fpn_channels": 16, "channels": 16}

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


@MODELS.register
class UPerNet(EncoderDecoder):
    """Backbone, UPerHead, and an FCNHead on the third map. backbone: {name: NextViT_small,
    extra_norms: True, drop_path_rate: 0.2, ...}.
    """

    toy = {"channels": 16, "auxiliary_channels": 16}
    # targets that it does not go to
    refused = dict.fromkeys(
        ("lite", "lite-x86"),
        "Paddle (3.3.1) cannot write its averages over bins (logical_and) as a .pdmodel, which "
        "Paddle Lite reads",
    )

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
