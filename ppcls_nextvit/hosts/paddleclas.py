"""Our classifiers in PaddleClas, wheel or checkout: `register()`, then `Arch: {name: NextViT_small,
class_num: 10}` in its own YAML.
"""

import logging
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import paddle
from paddle import Tensor, nn

from .. import zoo
from ..models import MODELS, list_models
from ..models.registry import build_variant
from ..schema import ConfigError, nearest, require_keys, shown, yaml_parameters
from ..weights import load_weights
from . import import_suite

__all__ = ["register"]

logger = logging.getLogger("ppcls_nextvit")
INSTALL = "pip install --no-deps paddleclas==2.6.0"
# their word: ours
ARGUMENTS = {"class_num": "num_classes", "path_dropout": "drop_path_rate"}
PIXELS = "224"  # of weights whose name does not say
Stages = Union[bool, int, Sequence[int], None]


def register(names: Optional[Sequence[str]] = None, shadow: bool = False) -> List[str]:
    """Put our classifiers where PaddleClas's build_model and RecModel look for an Arch's name;
    returns the list of names put there.

    names: some of list_models("classification"); None takes all that PaddleClas has not itself. It
    has NextViT_{small,base,large}_{224,384}: those are replaced only with shadow=True, and naming
    one without it is a ValueError.
    What a YAML may write beside class_num: pretrained (a file that load_weights takes, or True: the
    zoo's file on this disk), use_ssld, return_stages, path_dropout, and our own keys (see
    create_model). Raises ImportError without PaddleClas, ConfigError for an unknown name.
    """
    arch = import_suite("PaddleClas", ("ppcls.arch", "paddleclas.ppcls.arch"), INSTALL)
    own = list_models("classification")
    for name in names or ():
        if name not in own:
            raise ConfigError(f"unknown model {shown(name)}.{nearest(name, own)}")
    taken = [name for name in own if _is_theirs(arch, name)]
    clash = [name for name in names or () if name in taken]
    if clash and not shadow:
        raise ValueError(
            f"PaddleClas has a {clash[0]} of its own; pass shadow=True to replace it, or use "
            f"{clash[0].rpartition('_')[0]}"
        )
    chosen = list(names or (name for name in own if shadow or name not in taken))
    for name in chosen:
        setattr(arch, name, Architecture(name))
    return chosen


def _is_theirs(arch: ModuleType, name: str) -> bool:
    return hasattr(arch, name) and not isinstance(getattr(arch, name), Architecture)


@dataclass(frozen=True)
class Architecture:
    """What PaddleClas calls to build the classifier `name`, with the keys of its `Arch`."""

    name: str

    def __call__(
        self,
        pretrained: Union[bool, str] = False,
        use_ssld: bool = False,
        return_stages: Stages = None,
        **arguments: Any,
    ) -> nn.Layer:
        own = [key for key in yaml_parameters(MODELS.get(self.name))]
        require_keys(
            arguments,
            [*ARGUMENTS, *(key for key in own if key not in ARGUMENTS.values())],
            "Arch",
        )
        given = {ARGUMENTS.get(key, key): value for key, value in arguments.items()}
        network = build_variant(self.name, given, "Arch", Hosted)
        network.returned_stages = _stages(return_stages, len(network.stage_strides))
        if pretrained:
            source = _zoo_name(self.name, use_ssld) if pretrained is True else pretrained
            report = load_weights(network, source, head="fresh_on_mismatch")
            logger.info("weights from %s: %s", source, report)
        return network


def _zoo_name(name: str, use_ssld: bool) -> str:
    """The zoo's name of the weights that PaddleClas would download, or, of a network that it does
    not have, of those that its authors published at these pixels, by default the smallest.
    FileNotFoundError, when loaded, tells where to get them.
    """
    written = re.fullmatch(r"(.+?)(?:_(\d+))?", name)
    assert written, "a name is not empty"
    model, pixels = written[1], written[2] or PIXELS
    file = f"{model}_{pixels}_{'ssld_' if use_ssld else ''}pretrained.pdparams"
    for record in zoo.WEIGHTS.values():
        if record.file == file:
            return record.name
    for record in () if use_ssld else zoo.WEIGHTS.values():
        fits = record.preprocess is not None and written[2] in (None, str(record.preprocess.crop))
        if fits and record.model == model:
            return record.name
    raise ConfigError(
        f"pretrained: True: no weights are published for {name}; give the path of a file"
    )


def _stages(return_stages: Stages, count: int) -> Tuple[int, ...]:
    """PaddleClas's return_stages (True, a number or a list, from 0) as a tuple."""
    if return_stages is None or return_stages is False:
        return ()
    chosen: Sequence[Any]
    if return_stages is True:
        chosen = range(count)
    elif isinstance(return_stages, int):
        chosen = [return_stages]
    else:
        chosen = return_stages
    if not all(isinstance(stage, int) and 0 <= stage < count for stage in chosen):
        raise ConfigError(
            f"return_stages: expected True, or numbers from 0 to {count - 1}, got "
            f"{shown(return_stages)}"
        )
    return tuple(chosen)


class Hosted(nn.Layer):
    """The hooks that PaddleClas calls, mixed into a family of ours; the keys stay."""

    is_repped = False  # read by PaddleClas's export beside re_parameterize
    returned_stages: Tuple[int, ...] = ()

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, x: Tensor) -> Union[Tensor, Dict[str, Tensor]]:
        """As the family; with return_stages a dict, as of PaddleClas's own models: 'logits' [B,
        class_num], each stage by its last block.
        """
        if not self.returned_stages:
            return super().forward(x)
        maps = self.forward_features(x)
        # the stem comes before the stages
        names = [_layer_name(prefixes[-1]) for _, prefixes in self.stages()[1:]]
        chosen = {names[stage]: maps[stage] for stage in self.returned_stages}
        return {"logits": self.forward_head(maps), **chosen}

    def stop_after(self, stop_layer_name: str) -> bool:
        """RecModel's BackboneStopLayer: leave out what follows the pool, so that the features [B,
        channels] come out.
        """
        if stop_layer_name not in ("avgpool", "flatten"):
            raise ConfigError(
                f"BackboneStopLayer: {_family(self)} stops after 'avgpool' (features [B, "
                f"{self.stage_channels[-1]}]), got {shown(stop_layer_name)}"
            )
        for prefix in self.head_prefixes:
            owner, _, name = prefix.rstrip(".").rpartition(".")
            setattr(_sublayer(self, owner), name, nn.Identity())
        self.num_classes = 0
        return True

    def re_parameterize(self) -> None:
        """Fold the BatchNorms in place, as PaddleClas's export asks of a layer that is not
        is_repped.
        """
        for name, layer in self.fuse().named_children():
            setattr(self, name, layer)
        self.is_repped = True


def _family(network: nn.Layer) -> str:
    """The name of the class that Hosted was mixed into."""
    return type(network).__bases__[-1].__name__


def _layer_name(prefix: str) -> str:
    """'features[7]' of 'features.7.': as PaddleClas writes the name of a layer."""
    return re.sub(r"\.(\d+)", r"[\1]", prefix.rstrip("."))


def _sublayer(network: nn.Layer, path: str) -> nn.Layer:
    """The layer at the dotted `path`; the network itself at ''."""
    for name in filter(None, path.split(".")):
        network = getattr(network, name)
    return network
