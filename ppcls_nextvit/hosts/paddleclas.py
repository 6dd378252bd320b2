"""Next-ViT in PaddleClas, wheel or checkout: `register()`, then `Arch: {name: NextViT_small,
class_num: 10}` in its own YAML.
"""

import logging

import paddle
from paddle import nn

from ..models import MODELS, create_model, fuse_bn, list_models
from ..models.backbones.nextvit import NextViT
from ..schema import ConfigError, nearest, require_keys, yaml_parameters
from ..weights import load_weights
from .. import zoo
from . import import_suite

__all__ = ["register"]

logger = logging.getLogger("ppcls_nextvit")
INSTALL = "pip install --no-deps paddleclas==2.6.0"
# their word: ours
ARGUMENTS = {"class_num": "num_classes", "path_dropout": "drop_path_rate"}


def register(names=None, shadow=False):
    """Put our classifiers where PaddleClas's build_model and RecModel look for an Arch's name;
    returns the list of names put there.

    names: some of list_models("classification"); None takes all that PaddleClas has not itself. It
    has
    NextViT_{small,base,large}_{224,384}: those are replaced only with shadow=True, and naming one
    without it is a ValueError.
    What a YAML may write beside class_num: pretrained (a file that load_weights takes, or True: the
    zoo's file on this disk), use_ssld, return_stages, path_dropout, and our own keys (see
    create_model). Raises ImportError without PaddleClas, ConfigError for an unknown name.
    """
    arch = import_suite("PaddleClas", ("ppcls.arch", "paddleclas.ppcls.arch"), INSTALL)
    own = list_models("classification")
    for name in names or ():
        if name not in own:
            raise ConfigError(f"unknown model {name!r}.{nearest(name, own)}")
    taken = [
        name
        for name in own
        if hasattr(arch, name) and not hasattr(getattr(arch, name), "of_ppcls_nextvit")
    ]
    clash = [name for name in names or () if name in taken]
    if clash and not shadow:
        raise ValueError(
            f"PaddleClas has a {clash[0]} of its own; pass shadow=True to replace it, or use "
            f"{clash[0].rpartition('_')[0]}"
        )
    chosen = list(names or (name for name in own if shadow or name not in taken))
    for name in chosen:
        setattr(arch, name, _factory(name))
    return chosen


def _factory(name):
    def factory(pretrained=False, use_ssld=False, return_stages=None, **arguments):
        require_keys(
            arguments,
            [
                *ARGUMENTS,
                *(
                    key
                    for key in yaml_parameters(MODELS.get(name))
                    if key not in ARGUMENTS.values()
                ),
            ],
            "Arch",
        )
        network = create_model(
            name, **{ARGUMENTS.get(key, key): value for key, value in arguments.items()}
        )
        # the registry builds NextViT; PaddleClas's hooks are all that is added
        network.__class__ = HostedNextViT
        network.returned_stages = _stages(return_stages)
        if pretrained:
            source = _zoo_name(name, use_ssld) if pretrained is True else pretrained
            logger.info(
                "weights from %s: %s",
                source,
                load_weights(network, source, head="fresh_on_mismatch"),
            )
        return network

    factory.of_ppcls_nextvit = True
    return factory


def _zoo_name(name, use_ssld):
    """The zoo's name of the weights that PaddleClas would download. FileNotFoundError, when loaded,
    tells where to get them.
    """
    variant, _, size = name.removesuffix("_window_pool").partition("_")[2].partition("_")
    record = f"nextvit_{variant}.{'in1k6m' if use_ssld else 'in1k'}_{size or 224}.paddleclas"
    if name.endswith("_window_pool") or record not in zoo.WEIGHTS:
        raise ConfigError(
            f"pretrained: True: no weights are published for {name}; give the path of a file"
        )
    return record


def _stages(return_stages):
    """PaddleClas's return_stages (True, a number or a list, from 0) as a tuple."""
    chosen = range(4) if return_stages is True else return_stages
    chosen = (
        ()
        if chosen is None or chosen is False
        else (chosen,)
        if isinstance(chosen, int)
        else tuple(chosen)
    )
    if not all(isinstance(stage, int) and 0 <= stage < 4 for stage in chosen):
        raise ConfigError(
            f"return_stages: expected True, or numbers from 0 to 3, got {return_stages!r}"
        )
    return chosen


class HostedNextViT(NextViT):
    """NextViT with the hooks that PaddleClas calls, under the same keys."""

    is_repped = False  # read by PaddleClas's export beside re_parameterize
    returned_stages = ()

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, x):
        """As NextViT; with return_stages a dict, as of PaddleClas's own models: 'logits' [B,
        class_num], each stage by its last block.
        """
        if not self.returned_stages:
            return super().forward(x)
        maps = self.forward_features(x)
        logits = self.proj_head(self.avgpool(self.norm(maps[-1])).flatten(1))
        return {
            "logits": logits,
            **{
                f"features[{self.stage_ends[stage]}]": maps[stage] for stage in self.returned_stages
            },
        }

    def stop_after(self, stop_layer_name):
        """RecModel's BackboneStopLayer: leave out what follows the pool, so that the features [B,
        1024] come out.
        """
        if stop_layer_name not in ("avgpool", "flatten"):
            raise ConfigError(
                f"BackboneStopLayer: NextViT stops after 'avgpool' (features [B, 1024]), got "
                f"{stop_layer_name!r}"
            )
        self.proj_head, self.num_classes = nn.Identity(), 0
        return True

    def re_parameterize(self):
        """Fold the BatchNorms in place, as PaddleClas's export asks of a layer that is not
        is_repped.
        """
        self.__dict__.update(fuse_bn(self).__dict__)
        self.is_repped = True
