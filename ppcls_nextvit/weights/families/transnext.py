"""The keys of TransNeXt: the reference's are ours. What depends on the size of the images is not
read: the model makes it for each size.

There is no BatchNorm whose statistics would tell torch's files from Paddle's; the orientation of a
Linear does, whose two inputs are a distance's height and width.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional, Tuple

from paddle import nn

from ...models.backbones.transnext import VARIANTS, TransNeXt
from .base import PADDLE, REFERENCE, Family, Format, Keys, Pairing, State, register_family

# of the reference, classifier and dense variant; some of its versions save them
TABLES = re.compile(
    r"(^|\.)(relative_coords_table\d*|relative_pos(ition)?_index\d*|seq_length_scale|"
    r"local_seq_length|padding_mask)$"
)
DISTANCES = ".attn.cpb_fc1.weight"
# parameters whose last axis is the tokens of the window
OF_WINDOW = ("relative_pos_bias_local", "learnable_tokens", "learnable_bias")
WIDTH = "patch_embed1.norm.weight"


def _is_ours(state: State) -> bool:
    return any(key.startswith("block1.0.attn.") for key in state)


def _torch_layout(state: State) -> bool:
    """Whether the Linears' weights are [out, in]."""
    shapes = (tuple(value.shape) for key, value in state.items() if key.endswith(DISTANCES))
    return next((shape[-1] == 2 for shape in shapes if len(shape) == 2), False)


def _is_official(state: State, _: nn.Layer) -> bool:
    return _is_ours(state) and _torch_layout(state)


def _is_paddle(state: State, _: nn.Layer) -> bool:
    return _is_ours(state) and not _torch_layout(state)


def _depths(keys: Keys) -> Tuple[int, ...]:
    """Blocks of the four stages."""
    pattern = re.compile(r"(?:backbone\.)?block([1-4])\.(\d+)\.")
    blocks = {(match[1], match[2]) for match in map(pattern.match, keys) if match}
    return tuple(sum(stage == wanted for stage, _ in blocks) for wanted in "1234")


def _aggregated(keys: Keys) -> bool:
    """Whether the attention of the last stage is aggregated."""
    return any("block4.0.attn.kv." in key for key in keys)


def _described(depths: Tuple[int, ...]) -> str:
    """The variants of these depths, in words."""
    names = [name for name, config in VARIANTS.items() if config.depths == depths]
    return f"of depths {depths}" + (f" ({', '.join(names)})" if names else "")


class TransNeXtKeys(Family):
    """See the head of this file."""

    title = "TransNeXt"
    sources = "official, mmdet, mmseg or our own"
    formats = (
        replace(PADDLE, title="ppcls_nextvit", recognise=_is_paddle),
        Format(REFERENCE, "official TransNeXt (PyTorch)", _is_official, written_as="torch"),
    )
    class_biases = (r"head\.bias",)

    def place(self, key: str, pairing: Pairing) -> Tuple[Optional[str], str]:
        if TABLES.search(key):
            return None, "depends on the size of the images; the model makes it for each size"
        return super().place(key, pairing)

    def other_network(self, absent: Keys, found: Keys, own: Keys) -> str:
        if _aggregated(found) != _aggregated(own):
            one, other = "the file", "the model"
            if _aggregated(own):
                one, other = other, one
            return (
                f" The attention of the last stage is aggregated in {one} (an AAAA variant), full "
                f"in {other}: use the model of the same kind."
            )
        depths, own_depths = _depths(found), _depths(own)
        if depths != own_depths:
            return f" The file is {_described(depths)}, the model {_described(own_depths)}."
        return ""

    def other_form(self, missing: Keys, unexpected: Keys, mismatched: Keys) -> str:
        if any(key.endswith(WIDTH) for key in mismatched):
            return " File and model are variants of different widths (micro, tiny or small, base)."
        if mismatched and all(key.endswith(OF_WINDOW) for key in mismatched):
            return (
                " File and model differ in the window of their attention: build the model with "
                "the file's (3 in all published weights)."
            )
        heads = self.model.head_prefixes
        if missing and not unexpected and all(key.startswith(heads) for key in missing):
            return (
                " The file is a backbone, the model a classifier: head='fresh_on_mismatch' keeps "
                "the head's initialisation."
            )
        if unexpected and not missing and all(key.startswith(heads) for key in unexpected):
            return (
                " The file is a classifier, the model has no head: head='fresh_on_mismatch' or "
                "backbone_only=True leaves the file's out."
            )
        return ""

    def other_use(self, arguments: Mapping[str, Any], backbone: nn.Layer) -> str:
        trained, own = arguments.get("pretrain_size"), backbone.config.pretrain_size
        if trained in (None, own):
            return ""
        return (
            f"these weights have pretrain_size {trained}, the model {own}: their position bias is "
            f"measured in it, whatever the size of the images. Build the model with "
            f"pretrain_size={trained} (in YAML: Arch.pretrain_size, of a detector or segmentor "
            f"Arch.backbone.pretrain_size)"
        )


register_family(TransNeXtKeys(TransNeXt))
