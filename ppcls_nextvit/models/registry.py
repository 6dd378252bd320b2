"""The registry of models, filled with the Next-ViT variants; detectors and segmentors join it in
__init__.py.
"""

from dataclasses import replace
from typing import Optional, Tuple

from paddle import nn

from ..schema import ConfigError, Registry
from .backbones.nextvit import VARIANTS, NextViT

__all__ = ["MODELS", "HoldsBackbone", "build_backbone", "check_backbone"]

MODELS = Registry("model")


def _register(name, variant, pool="sequence"):
    def factory(
        *,
        num_classes: Optional[int] = 1000,
        in_channels: int = 3,
        drop_path_rate: Optional[float] = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        depths: Optional[Tuple[int, int, int, int]] = None,
        stem_channels: Optional[Tuple[int, int, int]] = None,
        recompute: bool = False,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        extra_norms: bool = False,
    ):
        """A NextViT of this variant, freshly initialised. The keys are create_model's and
        NextViT's; None keeps the variant's own value.
        """
        given = {"depths": depths, "stem_channels": stem_channels, "drop_path_rate": drop_path_rate}
        config = replace(
            VARIANTS[variant],
            pool=pool,
            **{key: value for key, value in given.items() if value is not None},
        )
        return NextViT(
            config,
            num_classes,
            in_channels,
            drop_rate,
            attn_drop_rate,
            recompute,
            frozen_stages,
            norm_eval,
            extra_norms,
        )

    factory.task = "classification"
    MODELS.register(factory, name=name)


for _variant in VARIANTS:
    _register(_variant, _variant)
    # PaddleClas's names; the network is the same at every size
    for _size in (224, 384):
        _register(f"{_variant}_{_size}", _variant)
    _register(f"{_variant}_window_pool", _variant, pool="window")


class HoldsBackbone(nn.Layer):
    """What detectors and segmentors share: `backbone`, whose train() holds still what it is told
    to.
    """

    def train(self, mode=True):
        """Training mode, but for what the backbone holds still. Returns self."""
        if not mode:
            return self.eval()
        super().train()
        self.backbone.train()
        return self


def check_backbone(backbone, where="Arch.backbone"):
    """(name, checked arguments) of a detector's or segmentor's `backbone` mapping, {name:
    NextViT_small, drop_path_rate: 0.1, ...}.

    ConfigError, naming the key below `where`, for anything else, for a model that is no classifier,
    and for `num_classes`.
    """
    if not isinstance(backbone, dict) or "name" not in backbone:
        raise ConfigError(
            f"{where}: expected a mapping such as {{name: NextViT_small, drop_path_rate: 0.1}}, "
            f"got {backbone!r}"
        )
    arguments = {key: value for key, value in backbone.items() if key != "name"}
    if (
        getattr(MODELS.get(backbone["name"], f"{where}.name"), "task", None) != "classification"
        or "num_classes" in arguments
    ):
        raise ConfigError(
            f"{where}: a backbone is one of the classifiers, without num_classes; got {backbone!r}"
        )
    return backbone["name"], MODELS.check(backbone["name"], arguments, where)


def build_backbone(backbone, where="Arch.backbone"):
    """The Next-ViT that the mapping `backbone` describes, as a backbone: its forward returns four
    maps. ConfigError as check_backbone.
    """
    name, arguments = check_backbone(backbone, where)
    return MODELS.build(name, {**arguments, "num_classes": None}, where)
