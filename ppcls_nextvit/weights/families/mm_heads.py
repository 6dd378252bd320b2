"""The keys of Mask R-CNN, DINO, Semantic FPN, UPerNet and Mask2Former: those of mmdet and mmseg
are ours.
"""

import re
from typing import Any, Dict, Mapping, Tuple

from paddle import nn

from ...models.detectors.dino import DINO
from ...models.detectors.mask_rcnn import MaskRCNN
from ...models.segmentors.encoder_decoder import EncoderDecoder, SemanticFPN, UPerNet
from ...models.segmentors.mask2former import Mask2Former
from .base import Format, Heads, State, register_heads

CLASS_LAYERS = ("decode_head.conv_seg.", "auxiliary_head.conv_seg.")
CLASS_BIAS = r"decode_head\.conv_seg\.bias"


def _is_mmdet(state: State, _: nn.Layer) -> bool:
    return True  # asked last: what is no segmentor


def _is_mmseg(state: State, _: nn.Layer) -> bool:
    return any(key.startswith(("decode_head.", "auxiliary_head.")) for key in state)


def _dino_arguments(state: State) -> Dict[str, Any]:
    """The sizes that the keys and shapes of a DINO tell."""
    sizes = {"level_embed": ("num_levels", "channels"), "query_embedding.weight": ("num_queries",)}
    sizes["encoder.layers.0.ffn.layers.0.0.bias"] = ("hidden",)
    return _sizes(state, sizes, {"encoder_layers": "encoder", "decoder_layers": "decoder"})


def _mask2former_arguments(state: State) -> Dict[str, Any]:
    """The sizes that the keys and shapes of a Mask2Former tell."""
    parts = {
        "encoder": "decode_head.pixel_decoder.encoder",
        "decoder": "decode_head.transformer_decoder",
    }
    sizes: Dict[str, Tuple[str, ...]] = {
        "decode_head.query_embed.weight": ("num_queries", "channels")
    }
    for name, part in parts.items():
        sizes[f"{part}.layers.0.ffn.layers.0.0.bias"] = (f"{name}_hidden",)
    return _sizes(state, sizes, {f"{name}_layers": part for name, part in parts.items()})


def _sizes(
    state: State, shapes: Mapping[str, Tuple[str, ...]], stacks: Mapping[str, str]
) -> Dict[str, Any]:
    """{argument: number}. shapes: {key: what its axes are called}. stacks: {argument: the prefix of
    a list `layers`}. What the file lacks is left out.
    """
    found: Dict[str, Any] = {}
    for key, names in shapes.items():
        found |= dict(zip(names, getattr(state.get(key), "shape", ())))
    for name, part in stacks.items():
        number = re.compile(rf"{re.escape(part)}\.layers\.(\d+)\.")
        layers = {match[1] for match in map(number.match, state) if match}
        found |= {name: len(layers)} if layers else {}
    return {name: int(size) for name, size in found.items()}


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
register_heads(Heads(None, "a detector without proposals", MMDET, ("bbox_head.",)))
register_heads(
    Heads(
        DINO,
        "DINO",
        MMDET,
        ("dn_query_generator.",),
        ("bbox_head.cls_branches.", "dn_query_generator.label_embedding."),
        r"bbox_head\.cls_branches\.\d+\.bias",
        arguments=_dino_arguments,
    )
)
for _model, _title, _mark, _unfused in (
    (EncoderDecoder, "a segmentor", "decode_head.", ""),
    (SemanticFPN, "Semantic FPN", "decode_head.scale_heads.", "scale_heads.0.0.bn._mean"),
    (UPerNet, "UPerNet", "decode_head.psp_modules.", "bottleneck.bn._mean"),
):
    register_heads(
        Heads(
            _model,
            _title,
            MMSEG,
            (_mark,),
            CLASS_LAYERS,
            CLASS_BIAS,
            unfused_key=_unfused and f"decode_head.{_unfused}",
        )
    )
register_heads(
    Heads(
        Mask2Former,
        "Mask2Former",
        MMSEG,
        ("decode_head.transformer_decoder.",),
        ("decode_head.cls_embed.",),
        r"decode_head\.cls_embed\.bias",
        background=1,
        arguments=_mask2former_arguments,
    )
)
