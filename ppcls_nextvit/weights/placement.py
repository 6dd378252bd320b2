"""What a file is, and where in the model a key of it belongs.

Of detectors and segmentors, in files and here, the backbone's keys begin with `backbone.`; its own
are the same everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from paddle import nn

from ..schema import shown
from .checkpoint import AVERAGE_COUNTERS, unwrapped_keys
from .families.base import Family, Format, Heads, Pairing, family_for, heads_for, program_of
from .translation import LoadError

__all__ = [
    "BACKBONE",
    "COUNTER",
    "Placement",
    "Source",
    "Wanted",
    "backbone_of",
    "family_of",
    "has_heads",
    "paddle_statistic",
    "recognise",
    "torch_statistic",
]

BACKBONE = "backbone."
# BatchNorm's statistics: torch's name, Paddle's
STATISTICS = ((".running_mean", "._mean"), (".running_var", "._variance"))
COUNTER = ".num_batches_tracked"
MAX_KEY = 500  # characters

# of a model: {key: (shape, whether it is a Linear's weight)}
Wanted = Dict[str, Tuple[Tuple[int, ...], bool]]


def has_heads(model: nn.Layer) -> bool:
    """Whether `model` is a detector or a segmentor, whose keys begin with `backbone.` or a head's
    name.
    """
    return hasattr(model, "backbone")


def backbone_of(model: nn.Layer) -> nn.Layer:
    """The part of `model` that a classifier's weights fill."""
    return model.backbone if has_heads(model) else model


def family_of(model: nn.Layer) -> Family:
    """What is known of the keys of the model's backbone."""
    return family_for(type(backbone_of(model)))


@dataclass(frozen=True)
class Source:
    """What a file is. format: its own; body: the format of its backbone's keys; keys: {key of the
    file: key without wrappers}; has_heads: it is of a detector or segmentor.
    """

    format: Format
    body: Format
    keys: Mapping[str, str]
    has_heads: bool


def recognise(state: Mapping[str, Any], model: nn.Layer) -> Source:
    """What the file with this state dict is, which is to fill `model`. LoadError for one that is
    not of its backbone's family.
    """
    longest = max(state, key=len)
    if len(longest) > MAX_KEY:
        raise LoadError(f"a key of {len(longest)} characters, {shown(longest)}, is no tensor's")
    keys = unwrapped_keys(state)
    named = {key: state[source] for source, key in keys.items()}
    body = named
    file_has_heads = any(key.startswith(BACKBONE) for key in named)
    if file_has_heads:
        body = {
            key.removeprefix(BACKBONE): value
            for key, value in named.items()
            if key.startswith(BACKBONE)
        }
    family = family_of(model)
    known = family.recognise(body, backbone_of(model))
    if known is None:
        first = ", ".join(map(shown, list(named)[:4]))
        raise LoadError(
            f"not a {family.title} checkpoint ({family.sources}): its keys are {first}, ..."
        )
    program = program_of(named, model) if file_has_heads and known.torch else known
    return Source(program, known, keys, file_has_heads)


class Placement:
    """Finds the model's place for a key of the file."""

    def __init__(
        self, source: Source, model: nn.Layer, wanted: Wanted, backbone_only: bool
    ) -> None:
        self.source = source
        self.model = model
        self.family = family_of(model)
        self.heads: Optional[Heads] = heads_for(type(model)) if has_heads(model) else None
        self.prefix = BACKBONE if has_heads(model) else ""
        self.bodies = {key: self._body(key) for key in source.keys.values()}
        self.pairing = Pairing(
            backbone_of(model),
            frozenset(self.bodies.values()),
            {key.removeprefix(self.prefix) for key in wanted if key.startswith(self.prefix)},
            source.has_heads,
            backbone_only,
        )

    def __call__(self, key: str, key_of_file: str) -> Tuple[Optional[str], str]:
        """(the model's key, '') or (None, the reason why the key is dropped)."""
        if key.endswith(COUNTER) and self.source.format.torch:
            return None, "Paddle's BatchNorm keeps no step counter"
        if key in AVERAGE_COUNTERS:
            return None, "counts the steps of a moving average"
        if self.source.has_heads and not key.startswith(BACKBONE):
            return self._head(key, key_of_file)
        body, why = self.family.place(self.bodies[key], self.pairing)
        return (None if body is None else self.prefix + body), why

    def must_fill(self, key: str) -> bool:
        """Whether the file must have this key of the model under backbone_only."""
        return key.startswith(self.prefix) and self.family.must_fill(
            key.removeprefix(self.prefix), self.pairing
        )

    def _body(self, key: str) -> str:
        """A key of the file's backbone under our names, without prefix."""
        body = self.source.body
        key = body.to_ours(key.removeprefix(BACKBONE), backbone_of(self.model))
        return paddle_statistic(key) if body.torch else key

    def _head(self, key: str, key_of_file: str) -> Tuple[Optional[str], str]:
        if self.pairing.backbone_only:
            return None, "head of a detector or segmentor; not part of the backbone"
        if self.heads is None:
            raise LoadError(
                f"a detector or segmentor ({self.source.format.title}), with keys beside its "
                f"backbone ({shown(key_of_file)}); "
                "to take the backbone alone, pass backbone_only=True (--backbone-only)"
            )
        if not self.source.format.torch:
            return key, ""
        return paddle_statistic(self.heads.format.to_ours(key, self.model)), ""


def paddle_statistic(key: str) -> str:
    """torch's name of a BatchNorm's statistic -> ours; other keys as they are."""
    for theirs, ours in STATISTICS:
        if key.endswith(theirs):
            return key.removesuffix(theirs) + ours
    return key


def torch_statistic(key: str) -> str:
    """Our name of a BatchNorm's statistic -> torch's; other keys as they are."""
    for theirs, ours in STATISTICS:
        if key.endswith(ours):
            return key.removesuffix(ours) + theirs
    return key
