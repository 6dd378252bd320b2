"""YAML text to values: plain data alone, each key once, merge keys as YAML 1.1 has them, and within
the budgets of files.py whatever aliases a text has.
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Set

import yaml
from yaml.constructor import ConstructorError

from ..files import CONFIG_DEPTH, CONFIG_NODES, is_mistake
from ..schema import ConfigError, shown, shown_text

__all__ = ["compose_yaml", "construct_yaml", "parse_yaml", "unshared"]

TAGS = "tag:yaml.org,2002:"
MERGE = f"{TAGS}merge"
NUMBER_LENGTH = 400  # characters; those of base 60, `1:30`, cost more the longer they are

TOO_MANY = f"more than {CONFIG_NODES} values, with those of its aliases"
TOO_DEEP = f"more than {CONFIG_DEPTH} lists and mappings in each other"


class _Loader(yaml.SafeLoader):
    """SafeLoader that says for every value that cannot be made where it stands, and gives up where
    the budgets end.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = 0
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        self.depth += 1
        if self.nodes > CONFIG_NODES or self.depth > CONFIG_DEPTH:
            problem = TOO_MANY if self.nodes > CONFIG_NODES else TOO_DEEP
            raise ConstructorError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what merge keys bring into the mapping, before its own keys, which count; of several
        mappings the first counts. PyYAML 6.0.4 goes by the identity of texts here.
        """
        own, merged = [], []
        for key, value in node.value:
            if key.tag != MERGE:
                own.append((key, value))
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):
                if not isinstance(source, yaml.MappingNode):
                    raise _error("a merge key takes a mapping, or a list of them", value)
                self.flatten_mapping(source)
                merged += source.value
        node.value = merged + own

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in (f"{TAGS}int", f"{TAGS}float") and len(node.value) > NUMBER_LENGTH:
            raise _error(f"a number of {len(node.value)} characters", node)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # of PyYAML's constructors: `!!bool x`, the 13th month
            if is_mistake(error):
                raise
            value = shown(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            kind = node.tag.removeprefix(TAGS)
            raise _error(f"{value} cannot be read as {kind}", node) from error


# `=` alone, of which YAML 1.1 makes a default value
_Loader.add_constructor(f"{TAGS}value", _Loader.construct_yaml_str)


def _error(problem: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def parse_yaml(text: str, where: str) -> Any:
    """The value of the YAML text; None of an empty one. ConfigError, beginning with `where`, for
    what is no YAML, names a key twice or exceeds the budgets, with its line.
    """
    node = compose_yaml(text, where)
    return None if node is None else construct_yaml(text, node, where)


def compose_yaml(text: str, where: str) -> Optional[yaml.Node]:
    """The text's nodes, tags of any kind included; None of an empty text. Errors: parse_yaml's."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {_described(error)}") from None


def construct_yaml(text: str, node: yaml.Node, where: str) -> Any:
    """The value of the `node` that compose_yaml made of `text`. Errors: parse_yaml's."""
    try:
        loader = _Loader(text)
        _check(loader, node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {_described(error)}") from None


def unshared(value: Any) -> Any:
    """A copy of what parse_yaml made, in which nothing is shared: what is changed in one place
    stays in another as it was. `~/` at the beginning of a text becomes the home folder, which a
    shell does only where a word begins.
    """
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unshared(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and value[:2] == "~/" else value


def _described(error: yaml.YAMLError) -> str:
    text = " ".join(str(error).split()).replace(' in "<unicode string>", line', ", line")
    if "unknown escape character" in text:
        text += " (a backslash: write slashes, or single quotes)"
    return f"not valid YAML: {shown_text(text)}"


class _Extent(NamedTuple):
    """Of a node, with what its aliases stand for: how many keys and values, how deep."""

    size: int
    depth: int


def _check(loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Every mapping has each key once, nothing holds itself, and all is within the budgets."""
    known: Dict[int, _Extent] = {}
    begun: Set[int] = set()

    def measure(node: yaml.Node) -> _Extent:
        if id(node) in known:
            return known[id(node)]
        if id(node) in begun:
            raise _error("a value that holds itself", node)
        begun.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(loader, node)
        parts = [measure(part) for part in _parts(node)]
        extent = _Extent(
            1 + sum(part.size for part in parts),
            1 + max((part.depth for part in parts), default=0),
        )
        if extent.size > CONFIG_NODES or extent.depth > CONFIG_DEPTH:
            raise _error(TOO_MANY if extent.size > CONFIG_NODES else TOO_DEEP, node)
        known[id(node)] = extent
        return extent

    measure(root)


def _parts(node: yaml.Node) -> List[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys(loader: yaml.SafeLoader, mapping: yaml.MappingNode) -> None:
    """Its own keys are single values, each there once: YAML would silently keep the last."""
    seen = set()
    for node, _ in mapping.value:
        if not isinstance(node, yaml.ScalarNode):
            raise _error("a key that is a list or a mapping", node)
        key = node.tag if node.tag == MERGE else loader.construct_object(node)
        if key in seen:
            raise _error(f"the key {shown(node.value)} is written twice", node)
        seen.add(key)
