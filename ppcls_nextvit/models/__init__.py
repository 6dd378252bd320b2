"""The models, by name."""

from typing import Any, List, Optional

from paddle import nn

from . import backbones, detectors, segmentors  # noqa: F401 (each enters its models into MODELS)
from .forms import export_form, fuse_bn
from .registry import (
    MODELS,
    backbone_names,
    build_backbone,
    check_backbone,
    register_variants,
    variant_of,
)

__all__ = [
    "MODELS",
    "backbone_names",
    "build_backbone",
    "check_backbone",
    "create_model",
    "export_form",
    "fuse_bn",
    "list_models",
    "register_variants",
    "variant_of",
]


def list_models(task: Optional[str] = None) -> List[str]:
    """The names that `create_model` knows; of 'classification', 'detection' or 'segmentation' alone
    if `task` says so.
    """
    return sorted(name for name in MODELS if task in (None, MODELS.get(name).task))


def create_model(name: str, **arguments: Any) -> nn.Layer:
    """A model with freshly initialised weights.

    name: a classifier: `NextViT_{small,base,large}`, with `_224` or `_384` as in PaddleClas (the
    same network), or with `_window_pool` (true 2-D average pooling in E-MHSA: a variant to train
    anew, which no published weight fits). Or `MaskRCNN`, `DINO`, `SemanticFPN`, `UPerNet`,
    `Mask2Former`, of whose arguments `backbone` is a mapping such as {name: NextViT_small,
    drop_path_rate: 0.1}.
    arguments: what the model's class tells, of a classifier num_classes (0: no head; None: a
    backbone that returns its four maps), in_channels, drop_path_rate, ... (see NextViT). Raises
    ConfigError (a ValueError) for a name, key or value that cannot be meant.
    """
    return MODELS.build(name, arguments, f"create_model({name!r})")
