"""Mask2Former on any backbone, for semantic segmentation: each query finds a class and its mask.

Cheng et al. 2022, arXiv:2112.01527, with the semantics of mmsegmentation 1, whose parameter names
these are (`backbone.*`, `decode_head.*`).
"""

from typing import Any, Dict, Mapping, Optional, Tuple

from paddle import Tensor

from ..detectors.deformable import choose_form
from ..registry import MODELS, HoldsBackbone, build_backbone
from .inference import Inference, view_logits
from .mask_decoder import Mask2FormerHead, semantic
from .mask_losses import PointLosses, right_classes, targets_of
from .pixel_decoder import LEVELS

__all__ = ["Mask2Former"]


@MODELS.register
class Mask2Former(HoldsBackbone):
    """Images -> class scores of every pixel, sums of probabilities of queries.

    backbone: {name: TransNeXt_tiny, ...}, see models/registry.py. The defaults are the published
    recipe's (DaiShiResearch/TransNeXt, segmentation/mask2former).
    num_queries: masks that are made; an image with more classes trains without the rest.
    channels: a multiple of 32 and of `heads`. points: to which a head of the pixel decoder attends
    on each level. encoder_hidden, decoder_hidden: of the feed-forward networks.
    num_points, oversample_ratio, importance_ratio: see PointLosses. inference: see
    inference.Inference. sampling_form: 'auto', 'compiled' or 'grid_sample': how deformable
    attention takes its samples, which changes speed and memory, not results; 'auto' takes the
    compiled operator on a CPU where it is built (`nextvit build-ops`).
    """

    task = "segmentation"
    brings_losses = True
    shown = ("acc",)
    # where a mask's logit is within rounding of 0, its query may look there or not
    discontinuous = True
    # targets that it does not go to
    refused = {
        to: "Paddle (3.3.1) cannot write its square roots as a .pdmodel, which Paddle Lite reads"
        for to in ("lite", "lite-x86")
    }
    # the arguments of a small one, for tests
    toy = {
        "num_queries": 6,
        "channels": 32,
        "heads": 4,
        "points": 2,
        "encoder_hidden": 32,
        "encoder_layers": 1,
        "decoder_hidden": 32,
        "decoder_layers": 3,
        "num_points": 64,
    }

    def __init__(
        self,
        *,
        num_classes: int = 150,
        backbone: dict,
        num_queries: int = 100,
        channels: int = 256,
        heads: int = 8,
        points: int = 4,
        encoder_hidden: int = 1024,
        encoder_layers: int = 6,
        decoder_hidden: int = 2048,
        decoder_layers: int = 9,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        inference: Optional[dict] = None,
        sampling_form: str = "auto",
    ):
        super().__init__()
        sizes = {
            "num_queries": num_queries,
            "channels": channels,
            "heads": heads,
            "points": points,
            "encoder_hidden": encoder_hidden,
            "encoder_layers": encoder_layers,
            "decoder_hidden": decoder_hidden,
            "decoder_layers": decoder_layers,
        }
        _check(num_classes, sizes)
        self.num_classes = num_classes
        self.point_losses = PointLosses(num_points, oversample_ratio, importance_ratio)
        self.backbone = build_backbone(backbone)
        self.inference = Inference.from_yaml(inference, self.min_size)
        stages = self.backbone.stage_channels
        if len(stages) != LEVELS + 1:
            raise ValueError(
                f"Mask2Former takes {LEVELS + 1} maps of a backbone, but this one has {len(stages)}"
            )
        self.decode_head = Mask2FormerHead(stages, num_classes, **sizes)
        choose_form(self, sampling_form)

    def forward(self, image: Tensor) -> Tensor:
        """image: [B, in_channels, H, W] -> scores [B, num_classes, H, W], which are 0 or more."""
        return semantic(self.decode_head(self.backbone(image))[-1], image)

    def decode(self, image: Tensor) -> Tensor:
        """forward(image): masks are resized before they become probabilities."""
        return self(image)

    def predict(self, batch: Mapping[str, Any]) -> Tensor:
        """Scores, float32 [B, num_classes, H, W], of an evaluation batch's `image`, whole or
        averaged over windows, as `inference.mode` says.
        """
        return view_logits(self, batch["image"], self.inference)

    def losses(
        self, batch: Mapping[str, Any]
    ) -> Tuple[Dict[str, Tensor], Dict[str, Tuple[int, int]]]:
        """(losses whose sum is the total, {acc: (matched queries whose best class is their own,
        matched queries)}) of a training batch: image [B, in_channels, H, W], segmentation [B, H,
        W].

        The losses are mmsegmentation's: decode.loss_cls, decode.loss_mask, decode.loss_dice of the
        last layer, decode.d0.loss_cls, ... before the first and of the others. ValueError for a
        label beyond the classes, FloatingPointError for costs of matching that are not finite; both
        name the image.
        """
        targets = targets_of(batch, self.num_classes)
        layers = self.decode_head(self.backbone(batch["image"]))
        parts: Dict[str, Tensor] = {}
        for i, found in enumerate(layers):
            place = "" if found is layers[-1] else f"d{i}."
            losses, pairs = self.point_losses(found, targets)
            parts |= {f"decode.{place}{name}": loss for name, loss in losses.items()}
        return parts, {"acc": right_classes(found, targets, pairs)}


def _check(num_classes: int, sizes: Mapping[str, int]) -> None:
    if num_classes < 2:
        raise ValueError(
            f"num_classes must be 2 or more (the background is a class); got {num_classes}"
        )
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more; got {value}")
