"""What a user calls a model, as a configuration that predicts with it: a run's folder, a YAML, a
name of the zoo, a file of weights, the name of a network.
"""

import copy
import json
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union

from .. import zoo
from ..config.reading import overridden
from ..config.recipes import folder, located
from ..config.sections import ArchSection, Config, GlobalSection, InferSection
from ..export.opened import is_export
from ..hub import pretrained_source
from ..models import MODELS
from ..models.registry import is_backbone
from ..reproduce import PUBLISHED_DATASETS, default_dataset
from ..reproduce.dense import architecture, transforms_of
from ..schema import ConfigError, coerce, shown
from ..tasks import check, load_config
from ..tasks.runs import load_run, run_with, with_infer
from ..weights import read_file
from ..weights.load import resolve
from ..weights.rules import head_classes
from .other_data import YAML

__all__ = ["Asked", "config_of", "fetched", "override_texts", "with_device"]


@dataclass(frozen=True)
class Asked:
    """A model as the user calls it. source: a path or a name. weights: a file, or a name of the
    zoo, for a source that has none. arguments: of a network that is named, see `create_model`.
    overrides: as of `-o`.
    """

    source: str
    weights: Optional[str] = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()


def config_of(asked: Asked) -> Config:
    """The checked Config of a model with its weights, names and preprocessing. ConfigError, with
    what is expected, for a source that is none; FileNotFoundError for weights that are not here.
    """
    run = run_with(asked.source)
    if run is not None:
        return load_run(run, asked.weights, asked.overrides)
    if asked.source.endswith(YAML):
        return _of_yaml(asked)
    if is_export(Path(asked.source)):
        raise ConfigError(
            f"{asked.source}: is an export, which can predict and be evaluated; for this give its "
            f"run"
        )
    if os.path.isdir(asked.source):
        raise ConfigError(
            f"{asked.source}: neither a run (config.yaml and best_model.pdparams) nor an export "
            f"(export.json)"
        )
    if zoo.is_name(asked.source):
        path = resolve(asked.weights or asked.source)
        return check(overridden(_of_record(zoo.get(asked.source), path), asked.overrides))
    if os.path.isfile(resolve(asked.source)):
        return _of_file(asked)
    if asked.source in MODELS:
        return check(overridden(_of_network(asked), asked.overrides))
    raise ConfigError(
        f"{shown(asked.source)}: no such folder, file, weights of the zoo or network. Expected a "
        f"run's or an export's folder, a YAML, a file of weights, a name of `nextvit models` or of "
        f"ppcls_nextvit.list_weights()"
    )


def _of_yaml(asked: Asked) -> Config:
    path, overrides = located(asked.source)
    overrides += asked.overrides
    if asked.weights:
        overrides.append(f"Global.pretrained_model={asked.weights}")
    return with_infer(load_config(path, overrides), Path(path).parent)


def _of_file(asked: Asked) -> Config:
    """Of a file of weights that lies in its run's folder, or whose name is a record's."""
    path = Path(resolve(asked.source))
    if (path.parent / "config.yaml").is_file():
        return load_run(path.parent, str(path), asked.overrides)
    record = zoo.record_of_file(path.name)
    if record is None:
        raise ConfigError(
            f"{path}: which network is this? Say load(NETWORK, weights={str(path)!r}), e.g. "
            f"load('NextViT_small', ...), or give the folder of its run"
        )
    return check(overridden(_of_record(record, str(path)), asked.overrides))


def _of_record(record: zoo.Weights, path: str) -> Config:
    """The network of a zoo record, used as its published figures were."""
    if record.preprocess is not None:  # a classifier's
        return _classifier(record.name, record.model, path, record.arguments, record.preprocess)
    dataset: Any = PUBLISHED_DATASETS[default_dataset(record.name)]
    labels, classes = dataset.class_names
    found = head_classes(read_file(path))
    names = {"class_id_map_file": str(folder() / labels)} if found == classes else {}
    return Config(
        record.name,
        GlobalSection(epochs=1, pretrained_model=path),
        architecture(record, dataset, found or classes),
        Infer=InferSection(transforms=transforms_of(record, dataset), PostProcess=names),
    )


def _of_network(asked: Asked) -> Config:
    if not is_backbone(asked.source):
        raise ConfigError(
            f"{asked.source}: give the folder of a run, a YAML and weights=FILE, or a name of the "
            f"zoo such as nextvit_small.mask_rcnn_1x.official: a network of its kind has settings "
            f"that its name does not say"
        )
    if not asked.weights:
        raise ConfigError(
            f"{asked.source}: no weights, and an untrained model predicts noise; give "
            f"pretrained=True to fetch the published ones, or weights=FILE; in a command --model "
            f"FILE, or -c NAME.yaml -o Arch.pretrained=True"
        )
    path = resolve(asked.weights)
    record = zoo.WEIGHTS.get(asked.weights) or zoo.record_of_file(Path(path).name)
    preprocess = record.preprocess if record else None
    arguments = {**(record.arguments if record else {}), **asked.arguments}
    return _classifier(asked.source, asked.source, path, arguments, preprocess)


def _classifier(
    where: str,
    network: str,
    path: str,
    arguments: Any,
    preprocess: Optional[zoo.Preprocessing],
) -> Config:
    """A classifier with the head of its file."""
    classes = head_classes(read_file(path))
    if not classes:
        raise ConfigError(f"{path}: has no head of a classifier, so it names no classes")
    if preprocess is None:
        pixels = re.search(r"_(\d{3})$", network)
        preprocess = zoo.Preprocessing(int(pixels[1]) if pixels else 224, 0.875)
    size = (3, preprocess.crop, preprocess.crop)
    return Config(
        where,
        GlobalSection(epochs=1, pretrained_model=path, image_shape=size),
        ArchSection(network, classes, arguments=copy.deepcopy(dict(arguments))),
        Infer=InferSection(
            transforms=preprocess.transform_ops(),
        ),
    )


def fetched(source: str, pretrained: Union[bool, str]) -> str:
    """What load_weights takes for the `pretrained` weights of `source`, the name of a network, or,
    where `pretrained` is True, a name of the zoo. ConfigError for another source.
    """
    if zoo.is_name(source):
        return pretrained_source(source, zoo.get(source).variant)
    if source not in MODELS:
        raise ConfigError(
            f"{shown(source)}: pretrained is for the name of a network or of the zoo; this has its "
            f"own weights, or takes weights=FILE"
        )
    return pretrained_source(pretrained, source)


def with_device(config: Config, device: str) -> Config:
    """`config`, running on `device`: auto, cpu, gpu, ... ConfigError for another."""
    annotation = {each.name: each.type for each in fields(GlobalSection)}["device"]
    return replace(
        config, Global=replace(config.Global, device=coerce(device, annotation, "device"))
    )


def override_texts(options: Mapping[str, Any]) -> Sequence[str]:
    """{'Global.epochs': 3} as the texts of `-o`."""
    return [f"{key}={_text(value)}" for key, value in options.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
