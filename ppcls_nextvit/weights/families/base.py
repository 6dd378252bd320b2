"""What has to be known of keys: of a family of backbones a `Family`, of a detector's or segmentor's
heads a `Heads`, each with the `Format`s in which programs write them, and their registries.

rules.py asks these records and knows no family itself. A module registers its own by one call at
its end, `register_family(MyFamily(MyNetwork))`; those of this package are listed in __init__.py. A
network without a record is read and written under its own keys.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple, Type

from paddle import nn

__all__ = [
    "PADDLE",
    "PLAIN_HEADS",
    "REFERENCE",
    "Family",
    "Format",
    "Heads",
    "Pairing",
    "all_formats",
    "class_layers",
    "count_classes",
    "families",
    "family_for",
    "heads_for",
    "heads_title",
    "program_of",
    "register_family",
    "register_heads",
    "torch_statistics",
]

REFERENCE = "official"  # the format whose keys a backbone has in detectors' and segmentors' files

State = Mapping[str, Any]  # what a file holds, by key
Keys = Collection[str]
Network = Type[nn.Layer]


def _unchanged(key: str, _: nn.Layer) -> str:
    return key


def _no_arguments(_: State) -> Dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Format:
    """How one program writes keys.

    name: in reports, such as 'timm'; title: in words.
    recognise: whether a state dict is of this format, given the part of the model it is meant for.
    to_ours, to_theirs: a key with the model whose keys are ours; statistics of norms, whose names
        all torch programs share, aside.
    torch: Linear weights are [out, in], statistics are running_mean, running_var and
        num_batches_tracked; else everything is as in Paddle.
    written_as: what `convert` calls it; '' where it is only read.
    """

    name: str
    title: str
    recognise: Callable[[State, nn.Layer], bool]
    to_ours: Callable[[str, nn.Layer], str] = _unchanged
    to_theirs: Callable[[str, nn.Layer], str] = _unchanged
    torch: bool = True
    written_as: str = ""


@dataclass(frozen=True)
class Pairing:
    """A file and the backbone that it is to fill: what a family decides by. Keys are without the
    prefix that a detector's have, and under our names.
    """

    backbone: nn.Layer
    file_keys: Keys
    model_keys: Keys
    file_has_heads: bool  # of a detector or segmentor
    backbone_only: bool  # see rules.translate


def torch_statistics(state: State) -> bool:
    """Whether the norms' statistics carry torch's names."""
    return any(key.endswith(".running_mean") for key in state)


def _own_keys(state: State, backbone: nn.Layer) -> bool:
    return any(key.startswith(backbone.body_prefixes) for key in state)


def _is_paddle(state: State, backbone: nn.Layer) -> bool:
    return _own_keys(state, backbone) and not torch_statistics(state)


def _is_torch(state: State, backbone: nn.Layer) -> bool:
    return _own_keys(state, backbone) and torch_statistics(state)


PADDLE = Format(
    "paddle", "PaddleClas / ppcls_nextvit", _is_paddle, torch=False, written_as="paddle"
)


class Family:
    """The keys of a family of backbones. A subclass states what differs from its own keys.

    title, sources: the family, and the programs whose files it knows, in an error's words.
    formats: asked in this order. class_biases: regular expressions of the keys whose length is the
        number of classes, each format's.
    unfused_key: a key that only a model with all its norms has; '' if fusing leaves the keys as
        they are.
    classifier_parts: prefixes of what a classifier has behind its body.
    """

    title = ""
    sources = "PyTorch or Paddle"
    formats: Tuple[Format, ...] = (
        PADDLE,
        Format(REFERENCE, "PyTorch", _is_torch, written_as="torch"),
    )
    class_biases: Tuple[str, ...] = ()
    unfused_key = ""

    def __init__(self, model: Network) -> None:
        self.model = model
        self.title = self.title or model.__name__

    @property
    def classifier_parts(self) -> Tuple[str, ...]:
        """Prefixes of what a classifier has behind its body."""
        return tuple(self.model.head_prefixes)

    def recognise(self, state: State, backbone: nn.Layer) -> Optional[Format]:
        """The format of a file's backbone; None if it is not of this family."""
        return next((known for known in self.formats if known.recognise(state, backbone)), None)

    def format(self, name: str) -> Format:
        """The format called `name`. ValueError if there is none."""
        for known in self.formats:
            if known.name == name:
                return known
        raise ValueError(
            f"{self.title} has no format {name!r}; there are: "
            f"{', '.join(known.name for known in self.formats)}"
        )

    def place(self, key: str, pairing: Pairing) -> Tuple[Optional[str], str]:
        """(the model's key for `key`, ''), or (None, the reason why it is dropped)."""
        if key.startswith(pairing.backbone.head_prefixes) and (
            pairing.backbone_only or pairing.file_has_heads
        ):
            return None, "of the classification head; not part of the backbone"
        return key, ""

    def must_fill(self, key: str, pairing: Pairing) -> bool:
        """Whether the file must have this key of the model where only a backbone is wanted."""
        return key.startswith(pairing.backbone.body_prefixes)

    def arguments(self, keys: Keys) -> Dict[str, Any]:
        """The arguments beside its name with which a backbone has the form of a detector's or
        segmentor's file with these keys.
        """
        return {}

    def complete(self, arrays: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        """`arrays` under our keys, with what other programs expect beside them."""
        return arrays

    def other_network(self, absent: Keys, found: Keys, own: Keys) -> str:
        """' One sentence.' if file and model are different networks of the family; '' if unknown.

        absent: keys of one that the other lacks. found, own: all of the file's, and the model's.
        """
        return ""

    def other_use(self, arguments: Mapping[str, Any], backbone: nn.Layer) -> str:
        """Why weights whose record gives these arguments of their backbone are wrong in this one,
        although their keys may fit; '' if they are not.
        """
        return ""

    def other_form(self, missing: Keys, unexpected: Keys, mismatched: Keys) -> str:
        """' One sentence.' if they are one network in two forms, such as fused; '' if unknown."""
        return ""


@dataclass(frozen=True)
class Heads:
    """The keys of the heads of a detector or segmentor.

    model: its class; None for a kind of which there is no model here. title: in a hint's words.
    format: as the program writes it whose keys these also are.
    marks: prefixes that only this kind's keys have.
    class_layers: prefixes of the layers whose size follows the number of classes.
    class_bias: a regular expression of the key whose length is that number and `background`.
    unfused_key: as Family's.
    arguments: those beside classes and backbone with which a model has the form of a file's state.
    """

    model: Optional[Network]
    title: str
    format: Format
    marks: Tuple[str, ...] = ()
    class_layers: Tuple[str, ...] = ()
    class_bias: str = ""
    background: int = 0
    unfused_key: str = ""
    arguments: Callable[[State], Dict[str, Any]] = _no_arguments


# heads whose keys no other program writes
PLAIN_HEADS = Format("heads", "detector or segmentor", lambda state, model: False)

_families: dict[Network, Family] = {}
_heads: list[Heads] = []


def register_family(family: Family) -> Family:
    """Make the keys of `family` known. ValueError if its class has a record already."""
    if family.model in _families:
        raise ValueError(f"the keys of {family.model.__name__} are registered twice")
    _families[family.model] = family
    return family


def register_heads(heads: Heads) -> Heads:
    """Make the keys of `heads` known; where several kinds fit a file, the last one counts.
    ValueError if its class has a record already.
    """
    if heads.model is not None and any(known.model is heads.model for known in _heads):
        raise ValueError(f"the keys of {heads.model.__name__} are registered twice")
    _heads.append(heads)
    return heads


def families() -> Tuple[Family, ...]:
    """All that are registered, in this order."""
    return tuple(_families.values())


def all_formats() -> Tuple[Format, ...]:
    """Of all families and heads."""
    formats = [form for family in families() for form in family.formats]
    formats += [heads.format for heads in _heads]
    return tuple(formats)


def family_for(model: Network) -> Family:
    """The record of a class of backbones, its own or of a class that it derives from."""
    known = next((_families[kind] for kind in model.__mro__ if kind in _families), None)
    return known or Family(model)


def heads_for(model: Network) -> Heads:
    """The record of a class of detectors or segmentors, its own or of a class that it derives
    from.
    """
    records = {heads.model: heads for heads in _heads}
    known = next((records[kind] for kind in model.__mro__ if kind in records), None)
    return known or Heads(model, model.__name__, PLAIN_HEADS)


def program_of(keys: State, model: nn.Layer) -> Format:
    """The format of a torch file with these keys of heads."""
    for heads in reversed(_heads):
        if heads.format.recognise(keys, model):
            return heads.format
    return PLAIN_HEADS


def heads_title(keys: Keys) -> str:
    """What the heads among `keys` belong to; '' for none."""
    for heads in reversed(_heads):
        if any(key.startswith(heads.marks) for key in keys):
            return heads.title
    return ""


def class_layers(family: Family) -> Tuple[str, ...]:
    """Prefixes of the layers whose size follows the number of classes: of a classifier of this
    family, and of all known heads.
    """
    prefixes = list(family.model.head_prefixes)
    for heads in _heads:
        prefixes += heads.class_layers
    return tuple(dict.fromkeys(prefixes))


def count_classes(lengths: Mapping[str, int]) -> int:
    """The number of classes by the lengths of a file's arrays; 0 if no key tells it. A detector or
    segmentor may still carry the classification head of its pretraining: its own counts.
    """
    patterns = [(heads.class_bias, heads.background) for heads in _heads if heads.class_bias]
    patterns += [(pattern, 0) for family in families() for pattern in family.class_biases]
    for pattern, background in patterns:
        for key, length in lengths.items():
            if re.search(rf"(^|\.){pattern}$", key):
                return length - background
    return 0
