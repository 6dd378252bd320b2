"""YAML files and `-o` overrides: read, refused where they cannot be meant, and written."""

import copy
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Sequence, Union

import yaml

from ..schema import ConfigError, coerce, nearest, require_keys
from .sections import AMPSection, ArchSection, Config, EMASection, GlobalSection, InferSection

__all__ = ["apply_override", "dialect_of", "dump_config", "read_config", "read_yaml"]

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
    "use_multilabel": (False, None),
    "export_for_fd": (False, None),
    "uniform_output_enabled": (False, None),
    "profiler_options": (None,),
    "use_static": (False, None),
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Union[str, Path]) -> dict:
    """The mapping in a YAML file; ConfigError with the line for bad syntax, a duplicate key, a
    missing or unreadable file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a YAML text file: {error}") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected sections (Global:, Arch:, ...), got {type(content).__name__}"
        )
    return content


def dialect_of(path: Union[str, Path]) -> str:
    """Whose YAML the file is, by its keys: 'PaddleDetection', 'PaddleSeg' or, as ours and for all
    else, 'PaddleClas'.
    """
    try:
        # PaddleDetection's have tags of their own
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        # load_config says what is wrong
        root = None
    return _dialect(
        [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    )


def _dialect(content):
    return next((suite for key, suite in DIALECTS.items() if key in content), "PaddleClas")


def apply_override(content: dict, override: str) -> None:
    """Set one `a.b.c=value` in place. List items go by index. The path must lead through what
    exists; checks of the key follow.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"-o {override}: expected section.key=value, e.g. -o Global.epochs=3")
    try:
        value = None if text.strip() == "None" else yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(
            f"-o {override}: {text!r} is not a YAML value: {' '.join(str(error).split())}"
        ) from None
    node, sections = content, {f.name for f in fields(Config)} - {"path"}
    if keys[0] not in sections:
        raise ConfigError(
            f"-o {override}: no section {keys[0]!r}.{nearest(keys[0], sorted(sections))}"
        )
    for depth, key in enumerate(keys):
        here, last = ".".join(keys[:depth]), depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f"-o {override}: {here} is a list of {len(node)}: give an index from 0 to "
                    f"{len(node) - 1}, not {key!r}"
                )
            key = int(key)
        elif not isinstance(node, dict):
            raise ConfigError(
                f"-o {override}: {here} is the value {node!r}, which has no key {key!r}"
            )
        elif not last and node.get(key) is None:
            if depth and key not in node:
                raise ConfigError(f"-o {override}: {here} has no key {key!r}.{nearest(key, node)}")
            node[key] = {}
        if last:
            node[key] = value
        node = node[key]


def read_config(path: Union[str, Path], overrides: Sequence[str] = ()) -> Config:
    """Read, override and type a configuration file in PaddleClas's dialect.

    overrides: `a.b.c=value` strings, applied in order. Raises ConfigError naming file, key, value
    and the nearest name. What the registries' entries may hold is not verified here: see
    `tasks.load_config`.
    """
    content = read_yaml(path)
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
                f"Global.{key}: {content['Global'][key]!r} is PaddleClas's and not supported "
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
            name: copy.deepcopy(content[name])
            for name in ("Loss", "Optimizer", "DataLoader", "Metric")
            if content.get(name) is not None
        },
    )


def _section(cls, content, where):
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys and values, got {content!r}")
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
    if class_num is not None:
        given.setdefault("class_num", class_num)
    own = {f.name for f in fields(ArchSection)} - {"arguments"}
    arguments = {key: value for key, value in given.items() if key not in own}
    settings = {key: value for key, value in given.items() if key in own}
    return _section(ArchSection, {**settings, "arguments": copy.deepcopy(arguments)}, "Arch")


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
