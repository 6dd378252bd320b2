"""The models, by name."""

from .backbones.nextvit import NextViT
from .detectors.mask_rcnn import MaskRCNN
from .fuse import fuse_bn
from .registry import MODELS, build_backbone, check_backbone
from .segmentors.encoder_decoder import SemanticFPN, UPerNet

__all__ = [
    "MODELS",
    "NextViT",
    "build_backbone",
    "check_backbone",
    "create_model",
    "fuse_bn",
    "list_models",
]

for _model in (MaskRCNN, SemanticFPN, UPerNet):
    MODELS.register(_model)


def list_models(task=None):
    """The names that `create_model` knows; of 'classification', 'detection' or 'segmentation' alone
    if `task` says so.
    """
    return sorted(name for name in MODELS if task in (None, MODELS.get(name).task))


def create_model(name, **arguments):
    """A model with freshly initialised weights.

    name: a classifier: `NextViT_{small,base,large}`, with `_224` or `_384` as in PaddleClas (the
    same network), or with `_window_pool` (true 2-D average pooling in E-MHSA: a variant to train
    anew, which no published weight fits). Or `MaskRCNN`, `SemanticFPN`,
    `UPerNet`: their classes tell their arguments, of which `backbone` is a mapping such as {name:
    NextViT_small, drop_path_rate: 0.1}.
    arguments of a classifier: num_classes (0: no head; None: a backbone that returns its four
    maps), in_channels, drop_path_rate, drop_rate, attn_drop_rate, depths (four numbers, the third a
    multiple of 5), stem_channels (three numbers), recompute, frozen_stages, norm_eval, extra_norms
    (see NextViT). Raises ConfigError (a ValueError) for a name, key or value that cannot be meant.
    """
    return MODELS.build(name, arguments, f"create_model({name!r})")
