"""Which parameters an optimiser decays, and by how much, and whose learning rate is a share of the
run's.

Weight decay: every parameter, but those that the model itself spares (`no_weight_decay()`), those
whose structured name contains one of the space-separated words of `no_weight_decay_name`, and with
`one_dim_param_no_weight_decay` those of one dimension. (PaddleClas's Momentum heeds the latter only
beside the former.)

`groups`, a list of {match, lr_multiplier, weight_decay}, says otherwise for the parameters whose
name the regular expression `match` finds something in. Of several that match, the first that states
a value decides it, so that a rule for norms and a rule for the backbone can meet:

    groups:
      - {match: '\\.norm\\d*\\.|\\.bias$', weight_decay: 0.0}
      - {match: '^backbone\\.', lr_multiplier: 0.1}
"""

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import paddle

from ..schema import ConfigError, Registry

__all__ = [
    "ParameterGroup",
    "ParameterSetting",
    "parameter_settings",
    "read_groups",
    "split_by_decay",
    "trainable_parameters",
]

_SECTIONS = Registry("section")
EXAMPLES = 3  # parameter names that an error shows


@_SECTIONS.register
@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """match: a regular expression, searched in structured names. lr_multiplier: of the run's
    learning rate. weight_decay: in place of the optimiser's own. ValueError for one that says
    nothing, a negative number, or no regular expression.
    """

    match: str
    lr_multiplier: Optional[float] = None
    weight_decay: Optional[float] = None

    def __post_init__(self):
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(f"match {self.match!r} is no regular expression: {error}") from None
        values = {"lr_multiplier": self.lr_multiplier, "weight_decay": self.weight_decay}
        if set(values.values()) == {None}:
            raise ValueError(f"give lr_multiplier, weight_decay or both for {self.match!r}")
        for name, value in values.items():
            if value is not None and value < 0:
                raise ValueError(f"{name} must be 0 or more; got {value}")


@dataclass(frozen=True)
class ParameterSetting:
    """How one parameter trains. weight_decay: None for the optimiser's own."""

    name: str
    parameter: paddle.Tensor
    lr_multiplier: float = 1.0
    weight_decay: Optional[float] = None


def read_groups(groups: Any, where: str = "Optimizer.groups") -> List[ParameterGroup]:
    """The ParameterGroups of a YAML list, or of None. ConfigError names the key below `where`."""
    if groups is not None and not isinstance(groups, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, got {groups!r}")
    return [
        _SECTIONS.build("ParameterGroup", group, f"{where}.{i}")
        for i, group in enumerate(groups or [])
    ]


def trainable_parameters(model: paddle.nn.Layer) -> Dict[str, paddle.Tensor]:
    """{structured name: parameter} of those that train. ValueError if there is none."""
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not parameter.stop_gradient
    }
    if not parameters:
        raise ValueError("the model has no trainable parameter; every one has stop_gradient set")
    return parameters


def split_by_decay(
    model: paddle.nn.Layer,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
) -> Tuple[Dict[str, paddle.Tensor], Dict[str, paddle.Tensor]]:
    """(decayed, spared): the trainable parameters as two dicts {structured name: parameter}."""
    words = (no_weight_decay_name or "").split()
    own = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    decayed: Dict[str, paddle.Tensor] = {}
    spared: Dict[str, paddle.Tensor] = {}
    for name, parameter in trainable_parameters(model).items():
        named = name in own or any(word in name for word in words)
        flat = one_dim_param_no_weight_decay and parameter.ndim == 1
        (spared if named or flat else decayed)[name] = parameter
    return decayed, spared


def parameter_settings(
    model: paddle.nn.Layer,
    no_weight_decay_name: Optional[str] = None,
    one_dim_param_no_weight_decay: bool = False,
    groups: Optional[Sequence[Dict[str, Any]]] = None,
) -> List[ParameterSetting]:
    """A ParameterSetting for each trainable parameter: the decayed ones, then those that are not.

    ConfigError for a group that matches no trainable parameter.
    """
    decayed, spared = split_by_decay(model, no_weight_decay_name, one_dim_param_no_weight_decay)
    rules = read_groups(groups)
    _refuse_idle(rules, [*decayed, *spared])
    settings = [_setting(name, parameter, None, rules) for name, parameter in decayed.items()]
    return settings + [_setting(name, parameter, 0.0, rules) for name, parameter in spared.items()]


def _setting(name, parameter, weight_decay, rules):
    matching = [rule for rule in rules if re.search(rule.match, name)]
    multipliers = [r.lr_multiplier for r in matching if r.lr_multiplier is not None]
    decays = [r.weight_decay for r in matching if r.weight_decay is not None]
    return ParameterSetting(
        name, parameter, *(multipliers or [1.0])[:1], *(decays or [weight_decay])[:1]
    )


def _refuse_idle(rules, names):
    for i, rule in enumerate(rules):
        if not any(re.search(rule.match, name) for name in names):
            raise ConfigError(
                f"Optimizer.groups.{i}.match: {rule.match!r} matches none of the {len(names)} "
                f"parameters that train, such as {', '.join(names[:EXAMPLES])}"
            )
