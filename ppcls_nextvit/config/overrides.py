"""`-o a.b.c=value`: one value of a configuration changed from the command line.

Where a text is wanted, it is the text as it was typed: YAML would take ` #2` for a comment,
2026-11-28 for a date and 007 for 7.
"""

import types
import typing
from dataclasses import fields
from typing import Any, Dict, Union

import yaml

from ..schema import ConfigError, coerce, nearest, shown, shown_text
from .sections import AMPSection, ArchSection, Config, EMASection, GlobalSection, InferSection
from .yaml_text import compose_yaml, construct_yaml, unshared

__all__ = ["apply_override", "override_value"]

TYPED: Dict[str, type] = {
    "Global": GlobalSection,
    "Arch": ArchSection,
    "AMP": AMPSection,
    "EMA": EMASection,
    "Infer": InferSection,
}
ANY: Any = typing.Any


def apply_override(content: dict, override: str) -> None:
    """Set one `a.b.c=value` in place. List items go by index. The path must lead through what
    exists; checks of the key follow. `null` takes a key that is there away, so that its default
    counts.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    where = f"-o {shown_text(override, 300)}"
    if not equals or not all(keys):
        raise ConfigError(f"{where}: expected section.key=value, e.g. -o Global.epochs=3")
    node, sections = content, {f.name for f in fields(Config)} - {"path"}
    if keys[0] not in sections:
        raise ConfigError(
            f"{where}: no section {shown(keys[0])}.{nearest(keys[0], sorted(sections))}"
        )
    for depth, key in enumerate(keys):
        here, last = ".".join(keys[:depth]), depth == len(keys) - 1
        if isinstance(node, list):
            key = _index(key, node, here, where)
        elif not isinstance(node, dict):
            raise ConfigError(
                f"{where}: {here} is the value {shown(node)}, which has no key {shown(key)}"
            )
        elif not last and node.get(key) is None:
            if depth and key not in node:
                raise ConfigError(f"{where}: {here} has no key {shown(key)}.{nearest(key, node)}")
            node[key] = {}
        if last:
            present = node[key] if isinstance(node, list) else node.get(key)
            value = override_value(text, where, _annotation(keys, present))
            if value is None and isinstance(node, dict) and key in node:
                del node[key]
                return
            node[key] = unshared(value)
        node = node[key]


def _index(key: str, items: list, here: str, where: str) -> int:
    if not (key.isdecimal() and len(key) < 10) or int(key) >= len(items):
        raise ConfigError(
            f"{where}: {here} is a list of {len(items)}: give an index from 0 to "
            f"{len(items) - 1}, not {shown(key)}"
        )
    return int(key)


def _annotation(keys: list, present: Any) -> Any:
    """The type of the value at the path `keys`: a section's own, else a text where the `present`
    value is one that is no number.
    """
    if len(keys) == 2 and keys[0] in TYPED:
        annotations = {f.name: f.type for f in fields(TYPED[keys[0]])}
        return annotations.get(keys[1], ANY)
    if not isinstance(present, str):
        return ANY
    try:
        coerce(present, float, "")
        return ANY
    except ConfigError:
        return Union[str, list, dict, None]


def override_value(text: str, where: str, annotation: Any = ANY) -> Any:
    """What `text` means as a value of the type `annotation`; ANY: as YAML reads it, but that a
    plain text goes to its end. ConfigError, beginning with `where`, for what is no YAML.
    """
    typed = text.strip()
    if typed == "None":
        return None
    options = _options(annotation)
    wants_text = str in options
    try:
        node = compose_yaml(text, where)
        value = typed or None if node is None else construct_yaml(text, node, where)
    except ConfigError as error:
        if wants_text:
            return typed
        described = str(error).removeprefix(f"{where}: not valid YAML: ")
        raise ConfigError(f"{where}: {shown(text)} is not a YAML value: {described}") from None
    if node is None or value is None:
        return value
    if isinstance(value, str):
        quoted = node.style in ("'", '"')
        return value if quoted or not (wants_text or _is_cut(node, text)) else typed
    fits = any(type(value) is (typing.get_origin(option) or option) for option in options)
    return value if fits or not wants_text else typed


def _options(annotation: Any) -> tuple:
    """The types of a union; of another annotation itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _is_cut(node: yaml.Node, text: str) -> bool:
    """Whether YAML took the end of a plain text for a comment."""
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return plain and bool(text[node.end_mark.index :].strip())
