"""The keys of Mask R-CNN, Semantic FPN and UPerNet: those of mmdet and mmseg are ours."""

from paddle import nn

from ...models.detectors.mask_rcnn import MaskRCNN
from ...models.segmentors.encoder_decoder import EncoderDecoder, SemanticFPN, UPerNet
from .base import Format, Heads, State, register_heads

CLASS_LAYERS = ("decode_head.conv_seg.", "auxiliary_head.conv_seg.")
CLASS_BIAS = r"decode_head\.conv_seg\.bias"


def _is_mmdet(state: State, _: nn.Layer) -> bool:
    return True  # asked last: what is no segmentor


def _is_mmseg(state: State, _: nn.Layer) -> bool:
    return any(key.startswith(("decode_head.", "auxiliary_head.")) for key in state)


MMDET = Format("mmdet", "mmdet detector", _is_mmdet, written_as="mmdet")
MMSEG = Format("mmseg", "mmseg segmentor", _is_mmseg, written_as="mmseg")

# the kinds that are recognised by more come later
register_heads(Heads(None, "a detector", MMDET, ("rpn_head.",)))
register_heads(Heads(None, "a detector with RoI heads", MMDET, ("roi_head.",)))
register_heads(
    Heads(
        MaskRCNN,
        "Mask R-CNN",
        MMDET,
        ("roi_head.mask_head.",),
        (
            "roi_head.bbox_head.fc_cls.",
            "roi_head.bbox_head.fc_reg.",
            "roi_head.mask_head.conv_logits.",
        ),
        r"bbox_head\.fc_cls\.bias",
        background=1,
    )
)
for _model, _title, _mark in (
    (EncoderDecoder, "a segmentor", "decode_head."),
    (SemanticFPN, "Semantic FPN", "decode_head.scale_heads."),
    (UPerNet, "UPerNet", "decode_head.psp_modules."),
):
    register_heads(Heads(_model, _title, MMSEG, (_mark,), CLASS_LAYERS, CLASS_BIAS))
