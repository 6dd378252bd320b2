"""The models, by name."""
from dataclasses import replace
from typing import Optional, Tuple

from ..schema import Registry
from .fuse import fuse_bn
from .nextvit import VARIANTS, NextViT

__all__ = ["MODELS", "NextViT", "create_model", "fuse_bn", "list_models"]

MODELS = Registry("model")


def _register(name, variant, pool="sequence"):
    def factory(*, num_classes: Optional[int] = 1000, in_channels: int = 3, drop_path_rate: Optional[float] = None, drop_rate: float = 0.0,
                attn_drop_rate: float = 0.0, depths: Optional[Tuple[int, int, int, int]] = None,
                stem_channels: Optional[Tuple[int, int, int]] = None, recompute: bool = False, frozen_stages: int = 0,
                norm_eval: bool = False, extra_norms: bool = False):
        given = {"depths": depths, "stem_channels": stem_channels, "drop_path_rate": drop_path_rate}
        config = replace(VARIANTS[variant], pool=pool, **{key: value for key, value in given.items() if value is not None})
        return NextViT(config, num_classes, in_channels, drop_rate, attn_drop_rate, recompute, frozen_stages, norm_eval, extra_norms)

    MODELS.register(factory, name=name)


for _variant in VARIANTS:
    _register(_variant, _variant)
    for _size in (224, 384):                # PaddleClas's names; the network is the same at every size
        _register(f"{_variant}_{_size}", _variant)
    _register(f"{_variant}_window_pool", _variant, pool="window")


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
