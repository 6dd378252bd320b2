"""The registry of models, and how a family of backbones enters it; each family, detector and
segmentor registers itself where it is defined.
"""

import inspect
from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple, Union

from paddle import nn

from ..schema import ConfigError, Registry

__all__ = [
    "MODELS",
    "HoldsBackbone",
    "Variant",
    "backbone_names",
    "build_backbone",
    "build_variant",
    "check_backbone",
    "register_variants",
    "variant_of",
]

MODELS = Registry("model")


class Variant:
    """A class of models with its configuration: what MODELS holds under a variant's name.

    Called, it is `family(*given, **arguments)`; the keys are the family's keyword-only parameters.

    further: the name is one more than `backbone_names` lists.
    """

    def __init__(self, family: type, *given: Any, further: bool = False) -> None:
        self.family = family
        self.given = given
        self.further = further
        self.task = getattr(family, "task", None)
        self.__signature__ = inspect.signature(partial(family, *given))
        self.__module__ = family.__module__
        self.__doc__ = family.__doc__

    def __call__(self, **arguments: Any) -> nn.Layer:
        return self.family(*self.given, **arguments)

    def mixed_with(self, mixin: type) -> "Variant":
        """The same variant as a class that has `mixin`'s methods before the family's: how a host
        adds what it calls, under the same keys.
        """
        mixed = type(f"{mixin.__name__}{self.family.__name__}", (mixin, self.family), {})
        return Variant(mixed, *self.given, further=self.further)


def register_variants(
    family: type, variants: Mapping[str, Any], further: Optional[Mapping[str, Any]] = None
) -> None:
    """Enter a family of backbones: `family(config, **arguments)` under each name of `variants`, a
    mapping {name: config}. further: names that `create_model` knows beside the variants', such as
    other spellings of them.
    """
    for name, config in variants.items():
        MODELS.register(Variant(family, config), name=name)
    for name, config in (further or {}).items():
        MODELS.register(Variant(family, config, further=True), name=name)


def variant_of(name: str, where: Optional[str] = None) -> Variant:
    """The entry `name` as a Variant, also where a class is registered itself. ConfigError for an
    unknown name.
    """
    entry = MODELS.get(name, where)
    return entry if isinstance(entry, Variant) else Variant(entry)


def is_backbone(name: str) -> bool:
    """Whether `name` is a backbone's, which the classifiers are. ConfigError for an unknown one."""
    return variant_of(name).task == "classification"


def backbone_names() -> List[str]:
    """One name for each backbone, in the order of registration."""
    return [name for name in MODELS if is_backbone(name) and not variant_of(name).further]


class HoldsBackbone(nn.Layer):
    """What detectors and segmentors share: `backbone`, whose train() holds still what it is told
    to, and which says what images it takes.
    """

    learns_masks = False  # of a detector, see api.Detector

    @property
    def in_channels(self) -> int:
        """Of the images."""
        return self.backbone.in_channels

    @property
    def min_size(self) -> int:
        """The smallest height and width of an image, in pixels."""
        return self.backbone.min_size

    def no_weight_decay(self) -> Set[str]:
        """Names of the parameters that the backbone never decays."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def train(self, mode: bool = True) -> "HoldsBackbone":
        """Training mode, but for what the backbone holds still. Returns self."""
        if not mode:
            return self.eval()
        super().train()
        self.backbone.train()
        return self


def check_backbone(
    backbone: Mapping[str, Any], where: str = "Arch.backbone"
) -> Tuple[str, Dict[str, Any]]:
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
    variant = variant_of(backbone["name"], f"{where}.name")
    if variant.task != "classification" or "num_classes" in arguments:
        raise ConfigError(
            f"{where}: a backbone is one of the classifiers, without num_classes; got {backbone!r}"
        )
    return backbone["name"], MODELS.check(backbone["name"], arguments, where)


def build_variant(
    name: str, arguments: Mapping[str, Any], where: str, mixin: Optional[type] = None
) -> nn.Layer:
    """The model `name` with the user's `arguments`. mixin: see Variant.mixed_with. ConfigError for
    what cannot be meant.
    """
    variant = variant_of(name, where)
    models = Registry(MODELS.kind)
    models.register(variant if mixin is None else variant.mixed_with(mixin), name=name)
    return models.build(name, arguments, where)


def build_backbone(
    backbone: Union[Mapping[str, Any], nn.Layer],
    where: str = "Arch.backbone",
    mixin: Optional[type] = None,
) -> nn.Layer:
    """The backbone that the mapping describes: its forward returns four maps; or `backbone` itself,
    if it is one already. mixin: see Variant.mixed_with. ConfigError as check_backbone.
    """
    if isinstance(backbone, nn.Layer):
        return backbone
    name, arguments = check_backbone(backbone, where)
    return build_variant(name, {**arguments, "num_classes": None}, where, mixin)
