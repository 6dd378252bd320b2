"""YAML files: read, refused where they cannot be meant, and written."""

import os
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Sequence, Union

import yaml

from ..files import CONFIG_BYTES, read_text
from ..schema import ConfigError, coerce, require_keys, shown
from .overrides import apply_override
from .sections import AMPSection, ArchSection, Config, EMASection, GlobalSection, InferSection
from .yaml_text import compose_yaml, parse_yaml, unshared

__all__ = ["config_text", "dialect_of", "dump_config", "overridden", "read_config", "read_yaml"]

DIALECTS = {
    "architecture": "PaddleDetection",
    "_BASE_": "PaddleDetection",
    "train_dataset": "PaddleSeg",
    "_base_": "PaddleSeg",
}
# keys of PaddleClas which this trainer knows and does not offer: any value but the listed ones is
# refused by name
REFUSED = {
    "use_dali": (False, None),
    "train_mode": (None,),
    "eval_mode": (None, "classification"),
    "export_for_fd": (False, None),
    "uniform_output_enabled": (False, None),
    "profiler_options": (None,),
    "use_static": (False, None),
}


def read_yaml(path: Union[str, Path]) -> dict:
    """The mapping in a YAML file; ConfigError with the line for bad syntax, a duplicate key, a
    missing or unreadable file.
    """
    content = parse_yaml(config_text(path), str(path))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected sections (Global:, Arch:, ...), got {type(content).__name__}"
        )
    return content


def config_text(path: Union[str, Path]) -> str:
    """The text of a YAML file; ConfigError for a missing or unreadable one."""
    try:
        return read_text(path, limit=CONFIG_BYTES)
    except FileNotFoundError as error:
        if not os.path.lexists(path):
            raise ConfigError(f"{path}: no such configuration file") from None
        raise ConfigError(str(error)) from error


def dialect_of(path: Union[str, Path]) -> str:
    """Whose YAML the file is, by its keys: 'PaddleDetection', 'PaddleSeg' or, as ours and for all
    else, 'PaddleClas'.
    """
    try:
        # PaddleDetection's have tags of their own
        root = compose_yaml(config_text(path), str(path))
    except ConfigError:
        # load_config says what is wrong
        root = None
    return _dialect(
        [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    )


def _dialect(content):
    return next((suite for key, suite in DIALECTS.items() if key in content), "PaddleClas")


def read_config(path: Union[str, Path], overrides: Sequence[str] = ()) -> Config:
    """Read, override and type a configuration file in PaddleClas's dialect.

    overrides: `a.b.c=value` strings, applied in order. Raises ConfigError naming file, key, value
    and the nearest name. What the registries' entries may hold is not verified here: see
    `tasks.load_config`.
    """
    content = unshared(read_yaml(path))
    if _dialect(content) != "PaddleClas":
        raise ConfigError(
            f"{path}: this is {_dialect(content)}'s dialect; this command reads PaddleClas's, "
            f"which has Arch"
        )
    for override in overrides:
        apply_override(content, override)
    try:
        return _typed(str(path), content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _typed(path, content):
    require_keys(content, [f.name for f in fields(Config) if f.name != "path"], "(file)")
    for name in ("Global", "Arch"):
        if not isinstance(content.get(name), dict):
            raise ConfigError(f"{name}: this section is missing or empty")
    run = dict(content["Global"])
    for key, accepted in REFUSED.items():
        if run.pop(key, None) not in accepted:
            raise ConfigError(
                f"Global.{key}: {shown(content['Global'][key])} is PaddleClas's and not supported "
                f"here; leave the key out"
            )
    return Config(
        path=path,
        Global=_section(GlobalSection, run, "Global"),
        Arch=_arch(content["Arch"], run.get("class_num")),
        AMP=_optional(AMPSection, content, "AMP"),
        EMA=_optional(EMASection, content, "EMA"),
        Infer=_optional(InferSection, content, "Infer"),
        **{
            name: content[name]
            for name in ("Loss", "Optimizer", "DataLoader", "Metric")
            if content.get(name) is not None
        },
    )


def _section(cls, content, where):
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys and values, got {shown(content)}")
    schema = {f.name: f for f in fields(cls)}
    require_keys(content, schema, where)
    for f in schema.values():
        if f.name not in content and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where}.{f.name}: missing")
    return cls(
        **{key: coerce(value, schema[key].type, f"{where}.{key}") for key, value in content.items()}
    )


def _optional(cls, content, where):
    return None if content.get(where) is None else _section(cls, content[where], where)


def _arch(content, class_num):
    """The ArchSection of a mapping; keys that are not its own are the model's `arguments`."""
    if "name" not in content:
        raise ConfigError("Arch.name: missing; it names the model, e.g. NextViT_small")
    given = dict(content)
    if "num_classes" in given:
        raise ConfigError("Arch.num_classes: in this dialect the key is class_num")
    if class_num is not None and given.setdefault("class_num", class_num) != class_num:
        raise ConfigError(
            f"Global.class_num is {shown(class_num)}, Arch.class_num {shown(given['class_num'])}: "
            f"leave one of them out"
        )
    own = {f.name for f in fields(ArchSection)} - {"arguments"}
    arguments = {key: value for key, value in given.items() if key not in own}
    settings = {key: value for key, value in given.items() if key in own}
    return _section(ArchSection, {**settings, "arguments": arguments}, "Arch")


def overridden(config: Config, overrides: Sequence[str]) -> Config:
    """`config` after `a.b.c=value` strings, as read_config applies them. ConfigError."""
    if not overrides:
        return config
    content = parse_yaml(dump_config(config), config.path)
    for override in overrides:
        apply_override(content, override)
    return _typed(config.path, content)


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML text that read_config reads back to the same
    Config."""
    content = {
        key: value for key, value in asdict(config).items() if value is not None and key != "path"
    }
    content["Arch"].update(content["Arch"].pop("arguments"))
    content["Global"]["image_shape"] = list(content["Global"]["image_shape"])
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True)


def _plain(node):
    """Tuples as lists: safe YAML knows no tuples."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, (list, tuple)) else node
