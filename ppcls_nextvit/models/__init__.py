"""The models, by name."""
from .fuse import fuse_bn
from .nextvit import NextViT
from .registry import MODELS, build_backbone, check_backbone

__all__ = ["MODELS", "NextViT", "build_backbone", "check_backbone", "create_model", "fuse_bn", "list_models"]


def list_models():
    """The names that `create_model` knows."""
    return sorted(MODELS)


def create_model(name, **arguments):
    """A model with freshly initialised weights.

    name: `NextViT_{small,base,large}`, with `_224` or `_384` as in PaddleClas (the same network), or with `_window_pool` (true
    2-D average pooling in E-MHSA: a variant to train anew, which no published weight fits).
    arguments: num_classes (0: no head; None: a backbone that returns its four maps), in_channels, drop_path_rate, drop_rate,
    attn_drop_rate, depths (four numbers, the third a multiple of 5), stem_channels (three numbers), recompute, frozen_stages,
    norm_eval, extra_norms (see NextViT). Raises ConfigError (a ValueError) for a name, key or value that
    cannot be meant.
    """
    return MODELS.build(name, arguments, f"create_model({name!r})")
