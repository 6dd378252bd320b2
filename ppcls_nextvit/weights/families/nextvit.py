"""The keys of Next-ViT: official and timm's files, PaddleClas's, and the norms behind the stages of
a segmentor's backbone.

Blocks are `features.0` to the last throughout the network; timm numbers them within each stage. The
last stage's norm is called `norm`; segmentors of the reference keep it as the fourth of
`extra_norm_list` too, or instead.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

from paddle import nn

from ...models.backbones.nextvit import VARIANTS, NextViT
from .base import (
    PADDLE,
    REFERENCE,
    Family,
    Format,
    Keys,
    Pairing,
    State,
    register_family,
    torch_statistics,
)

STAGE_NORMS = ("extra_norm_list.", "norm.")  # the list's fourth is `norm`
LAST_OF_LIST = "extra_norm_list.3."
# timm's list of features joins the first two names: stages_0, stem_0
TIMM_BLOCK = re.compile(r"stages[._](\d+)\.blocks\.(\d+)\.")
# norms that are missing or left over from which on a network looks fused
FUSED_NORMS = 8


def _is_timm(state: State, _: nn.Layer) -> bool:
    return any(TIMM_BLOCK.match(key) for key in state)


def _reference_keys(state: State, backbone: nn.Layer) -> bool:
    return any(key.startswith("features.") for key in state) and not _is_timm(state, backbone)


def _is_official(state: State, backbone: nn.Layer) -> bool:
    return _reference_keys(state, backbone) and torch_statistics(state)


def _is_paddle(state: State, backbone: nn.Layer) -> bool:
    return _reference_keys(state, backbone) and not torch_statistics(state)


def _stage_starts(backbone: nn.Layer) -> Tuple[int, ...]:
    """The number of the first block of each stage."""
    return (0, *(end + 1 for end in backbone.stage_ends[:-1]))


def _from_timm(key: str, backbone: nn.Layer) -> str:
    block = TIMM_BLOCK.match(key)
    if block:
        stage, position = int(block[1]), int(block[2])
        starts = _stage_starts(backbone)
        if stage < len(starts) and starts[stage] + position <= backbone.stage_ends[stage]:
            key = f"features.{starts[stage] + position}.{key[block.end() :]}"
    key = re.sub(r"^stem_(\d)\.", r"stem.\1.", key)
    key = re.sub(r"\.mlp\.fc([12])\.", r".mlp.conv\1.", key)
    return re.sub(r"^head\.fc\.", "proj_head.0.", key)


def _to_timm(key: str, backbone: nn.Layer) -> str:
    block = re.match(r"features\.(\d+)\.", key)
    if block:
        index = int(block[1])
        stage = next(stage for stage, end in enumerate(backbone.stage_ends) if index <= end)
        position = index - _stage_starts(backbone)[stage]
        key = f"stages.{stage}.blocks.{position}.{key[block.end() :]}"
    key = re.sub(r"\.mlp\.conv([12])\.", r".mlp.fc\1.", key)
    return re.sub(r"^proj_head\.0\.", "head.fc.", key)


def _variant(keys: Keys) -> Optional[str]:
    """The variant with as many blocks as `keys` tell of; None if there is none."""
    pattern = re.compile(r"(backbone\.)?(features\.\d+|stages[._]\d+\.blocks\.\d+)")
    blocks = {match[0] for match in map(pattern.match, keys) if match}
    by_depth = {sum(config.depths): name for name, config in VARIANTS.items()}
    return by_depth.get(len(blocks))


def _any_stage_norm(keys: Keys) -> bool:
    return any(key.startswith("extra_norm_list.") for key in keys)


class NextViTKeys(Family):
    """See the head of this file."""

    title = "Next-ViT"
    sources = "official, timm, PaddleClas, mmdet or mmseg"
    formats = (
        replace(PADDLE, recognise=_is_paddle),
        Format(REFERENCE, "official Next-ViT (PyTorch)", _is_official, written_as="torch"),
        Format("timm", "timm", _is_timm, _from_timm, _to_timm, written_as="timm"),
    )
    class_biases = (r"proj_head\.0\.bias", r"head\.fc\.bias")
    unfused_key = "stem.0.norm._mean"
    classifier_parts = ("norm.", "proj_head.")

    def place(self, key: str, pairing: Pairing) -> Tuple[Optional[str], str]:
        if not key.startswith(STAGE_NORMS):
            return super().place(key, pairing)
        if key.startswith(LAST_OF_LIST):
            if "norm.weight" in pairing.file_keys:
                return None, "the fourth of the list, unused beside `norm`"
            key = "norm." + key.removeprefix(LAST_OF_LIST)
        # a classifier's, before its head
        last_norm = key.startswith("norm.") and not _any_stage_norm(pairing.file_keys)
        if last_norm and pairing.backbone_only and _any_stage_norm(pairing.model_keys):
            return None, "norm before the classification head; the norms of the stages start anew"
        if last_norm and key not in pairing.model_keys:
            if pairing.backbone_only or pairing.file_has_heads:
                return None, "of the classification head; not part of the backbone"
        elif pairing.backbone_only and key not in pairing.model_keys:
            return None, "norm of a segmentor's stage output; this model has none"
        return key, ""

    def must_fill(self, key: str, pairing: Pairing) -> bool:
        if key.startswith(STAGE_NORMS):
            return _any_stage_norm(pairing.file_keys) and _any_stage_norm(pairing.model_keys)
        return super().must_fill(key, pairing)

    def arguments(self, keys: Keys) -> Dict[str, Any]:
        return {"extra_norms": any("extra_norm_list." in key for key in keys)}

    def complete(self, arrays: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        """The last norm of a segmentor's backbone under both of its names."""
        if not _any_stage_norm([key.removeprefix(prefix) for key in arrays]):
            return arrays
        norm = f"{prefix}norm."
        doubled = {
            prefix + LAST_OF_LIST + key.removeprefix(norm): value
            for key, value in arrays.items()
            if key.startswith(norm)
        }
        return {**arrays, **doubled}

    def other_network(self, absent: Keys, found: Keys, own: Keys) -> str:
        if any(".sr.window" in key for key in absent):
            return (
                " One of the two is the window_pool variant (its own weights, key `sr.window`), "
                "the other pools the sequence as published: use the model of the same kind."
            )
        variant, own_variant = _variant(found), _variant(own)
        if variant != own_variant:
            return (
                f" The file looks like {variant or 'a Next-ViT of other depths'}, the model is "
                f"{own_variant or 'of other depths (Arch.depths)'}."
            )
        return ""

    def other_form(self, missing: Keys, unexpected: Keys, mismatched: Keys) -> str:
        if any("extra_norm_list." in key for key in (*missing, *unexpected)):
            return (
                " One of the two has norms after its stages, the other none: build the backbone "
                "with extra_norms as the file has it."
            )
        if not mismatched and _only_norms(missing):
            return (
                " The file is a fused model (merge_bn, reparameterize or fuse_bn); load the "
                "unfused weights, or into fuse_bn(model)."
            )
        if _only_norms(unexpected):
            return " The model is fused already; load before fuse_bn."
        return ""


def _only_norms(keys: Keys) -> bool:
    return len(keys) > FUSED_NORMS and all(".norm" in f".{key}" for key in keys)


register_family(NextViTKeys(NextViT))
