"""The front door: a typed configuration, verified against the registries before any work starts."""

import importlib
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Sequence, Union

from ..config import Config, read_config
from ..config.sections import ArchSection
from ..data import check_loader
from ..data.transforms.pipeline import channels_of
from ..engine.optim import OPTIMIZERS
from ..engine.parameter_groups import read_groups
from ..engine.schedule import build_schedule
from ..hub import place_of
from ..models import MODELS, check_backbone
from ..schema import (
    ConfigError,
    check_mapping,
    coerce,
    named_entries,
    require_keys,
    yaml_parameters,
)
from .registry import task_of

__all__ = ["check", "import_parts", "load_config"]


def load_config(
    path: Union[str, Path], overrides: Sequence[str] = (), imports: Sequence[str] = ()
) -> Config:
    """Read, override and verify a configuration file in PaddleClas's dialect.

    overrides: `a.b.c=value` strings, applied in order. imports: modules of the user's to import
    first, beside those of Global.imports. Raises ConfigError naming file, key, value and the
    nearest name for anything that cannot be meant; nothing is ignored. Neither data nor disk are
    touched.
    """
    config = read_config(path, overrides)
    try:
        import_parts((*imports, *config.Global.imports))
        return check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def import_parts(modules: Sequence[str]) -> None:
    """Import the user's modules by name, from the working directory too: they register their parts.

    ConfigError for one that is not there; what goes wrong inside one is left as it is.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # an installed program has its own folder there
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] and error.name != name:
                raise
            raise ConfigError(
                f"Global.imports: no module {name!r} in {os.getcwd()} or among the installed ones"
            ) from None


def check(config: Config, exported: bool = False) -> Config:
    """`config` with the model's arguments typed, after everything that a registry builds was
    verified: names, keys and types. Raises ConfigError. exported: of an export, whose arguments are
    not told and of which no model is built.
    """
    if not exported:
        config = replace(config, Arch=_checked_arch(config.Arch))
    if config.Arch.pretrained:
        backbone = config.Arch.arguments.get("backbone") or {}
        network = backbone.get("name", config.Arch.name)
        place_of(config.Arch.pretrained, network, config.Arch.use_ssld)
    if config.Optimizer is not None:
        optimizer = dict(coerce(config.Optimizer, dict, "Optimizer"))
        build_schedule(optimizer.pop("lr", {}), config.Global.epochs, steps_per_epoch=100)
        read_groups(optimizer.get("groups"))
        OPTIMIZERS.check(optimizer.pop("name", None), optimizer, "Optimizer")
    for mode, content in check_mapping(config.DataLoader, "DataLoader", ("Train", "Eval")).items():
        check_loader(content, mode)
    _check_channels(config)
    task_of(config).check(config)
    _check_class_num(config)
    return config


def _check_class_num(config: Config) -> None:
    """ConfigError for a single class that is learnt by cross entropy, which is 0 whatever the
    model says.
    """
    names = [name for name, _, _ in named_entries(config.Loss.get("Train"), "Loss.Train")]
    kinds = ("CELoss", "CrossEntropy", "FocalLoss")
    blind = [name for name in names if any(kind in name for kind in kinds)]
    if config.Arch.class_num == 1 and blind:
        raise ConfigError(
            f"Arch.class_num: {blind[0]} of a single class is always 0, so that nothing is learnt; "
            f"what is not of the class (background, others) is a class, too"
        )


def _check_channels(config: Config) -> None:
    """ConfigError where the model takes other channels than the pictures are given."""
    arguments = config.Arch.arguments
    model = arguments.get("in_channels", (arguments.get("backbone") or {}).get("in_channels", 3))
    given = {"Global.image_shape": config.Global.image_shape[0]}
    for mode, content in config.DataLoader.items():
        ops = content["dataset"].get("transform_ops")
        given[f"DataLoader.{mode}.dataset.transform_ops"] = channels_of(ops)
    if config.Infer is not None:
        given["Infer.transforms"] = channels_of(config.Infer.transforms)
    for place, channels in given.items():
        if channels != model:
            raise ConfigError(
                f"{place}: {channels} channels, but the model takes {model} (Arch.in_channels). "
                f"Pictures have three, or one, of grey, where NormalizeImage has one value each of "
                f"mean and std"
            )


def _checked_arch(arch):
    if arch.name in ("DistillationModel", "RecModel"):
        raise ConfigError(
            f"Arch.name: {arch.name} is not supported; to distil, use Loss.Train "
            f"DistillationLoss with a teacher"
        )
    own = {field.name for field in fields(ArchSection)} - {"arguments"}
    # class_num in this dialect
    keywords = set(yaml_parameters(MODELS.get(arch.name, "Arch.name"))) - {"num_classes"}
    require_keys(arch.arguments, sorted(own | keywords), "Arch")
    arguments = MODELS.check(arch.name, arch.arguments, "Arch")
    if "backbone" in keywords:
        check_backbone(arguments["backbone"])
    return replace(arch, arguments=arguments)
