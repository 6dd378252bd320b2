"""What the suites read is data here: their checkpoints go through the package's own reader, and
their YAML names no code.

The suites themselves read checkpoints by Python's pickle and YAML by loaders with Python's tags,
both of which run what a file says.
"""

import contextlib
import os
from typing import Any, Dict, Iterator, List, Optional, Set, Union

import numpy as np
import paddle
import yaml

from ..config.reading import config_text
from ..config.yaml_text import compose_yaml
from ..files import parsing
from ..schema import ConfigError, shown
from ..weights import WeightFileError, read_file
from ..weights.formats.budget import Budget

__all__ = ["check_suite_yaml", "load_checkpoint", "safe_checkpoints"]

Path = Union[str, "os.PathLike[str]"]

TENSORS_SHARE = 4  # bytes of tensors for each of the file's
# tags by which a YAML has something called or imported: PyYAML's own, PaddleDetection's
CODE = (
    "tag:yaml.org,2002:python/object",
    "tag:yaml.org,2002:python/name:",
    "tag:yaml.org,2002:python/module:",
    "!Callable",
)


@contextlib.contextmanager
def safe_checkpoints() -> Iterator[None]:
    """While it lasts, `paddle.load` is `load_checkpoint`: for all that a suite reads, whichever of
    its modules asks. As a decorator too.
    """
    original = paddle.load
    paddle.load = load_checkpoint
    try:
        yield
    finally:
        paddle.load = original


def load_checkpoint(path: Path, **options: Any) -> Any:
    """What paddle.load gives for a file of paddle.save, without running what it names. options: its
    own, of which return_numpy counts.

    Raises WeightFileError, one line that names the file, for what is damaged or names code.
    """
    content = read_file(path)
    if options.get("return_numpy"):
        return content
    budget = Budget(TENSORS_SHARE * os.path.getsize(path), "it holds more tensors than data")
    with parsing(os.fspath(path), WeightFileError):
        return _with_tensors(content, {}, budget)


def _with_tensors(node: Any, done: Dict[int, Any], budget: Budget) -> Any:
    """`node` with tensors for arrays, in place; what has several names is made once."""
    if id(node) in done:
        return done[id(node)]
    if isinstance(node, np.ndarray):
        budget.take(node.nbytes)
        done[id(node)] = paddle.to_tensor(node)
        return done[id(node)]
    if isinstance(node, (dict, list)):
        done[id(node)] = node
        places = list(node) if isinstance(node, dict) else range(len(node))
        for place in places:
            node[place] = _with_tensors(node[place], done, budget)
    return node


def check_suite_yaml(path: Path, base_key: str) -> None:
    """ConfigError for a YAML in a suite's dialect, or one that it builds on by its `base_key`, that
    is no YAML or names code to run.
    """
    pending: List[str] = [os.fspath(path)]
    seen: Set[str] = set()
    while pending:
        file = pending.pop()
        if os.path.realpath(file) in seen:
            continue
        seen.add(os.path.realpath(file))
        for node in _nodes(compose_yaml(config_text(file), file)):
            if node.tag.startswith(CODE):
                line = node.start_mark.line + 1
                raise ConfigError(
                    f"{file}, line {line}: refused: {shown(node.tag)} names code to run; here a "
                    f"suite's YAML holds plain values"
                )
            # anywhere: a merge key may bring it to the top
            pending += [
                os.path.join(os.path.dirname(file), base) for base in _bases(node, base_key)
            ]


def _nodes(root: Optional[yaml.Node]) -> Iterator[yaml.Node]:
    """Every node of a text once, keys too."""
    pending = [] if root is None else [root]
    seen: Set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            if isinstance(node, yaml.MappingNode):
                pending += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                pending += node.value


def _bases(node: yaml.Node, base_key: str) -> List[str]:
    """The files that the mapping `node` names by `base_key`: one, or a list."""
    if not isinstance(node, yaml.MappingNode):
        return []
    named = [value for key, value in node.value if key.value == base_key]
    texts = [part for value in named for part in _nodes(value)]
    return [os.path.expanduser(text.value) for text in texts if isinstance(text, yaml.ScalarNode)]
