"""docs/troubleshooting.md quotes messages that the programs have and settings that exist;
docs/deployment.md lists every target.
"""

import ast
import re

import pytest

from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.tasks import load_config
from support.paths import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
ENTRIES = [
    " ".join(entry.split())
    for entry in re.findall(r"^- (\*\*.*?)(?=\n- |\n\n|\Z)", PAGE, re.M | re.S)
]
# in brackets: whose message it is
OURS = [
    message
    for entry in ENTRIES
    if not re.match(r"(\*\*`[^`]+`\*\*(, )?)+ \(", entry)
    for message in re.findall(r"\*\*`([^`]+)`\*\*", entry)
]


FILLED_IN = "\0"


def text_of(node):
    """A string of the source, with FILLED_IN in the place of each value."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        FILLED_IN
        if isinstance(part, ast.FormattedValue)
        else re.sub("%[sd]", FILLED_IN, part.value)
        for part in parts
    )


def strings(tree):
    """All strings of a module but its docstrings."""
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node
        for node in ast.walk(tree)
        if id(node) not in inner
        and (
            isinstance(node, ast.JoinedStr)
            or isinstance(node, ast.Constant)
            and isinstance(node.value, str)
        )
    ]


SOURCES = [
    path
    for folder in ("ppcls_nextvit", "tools", "deploy")
    for path in ROOT.glob(f"{folder}/**/*.py")
    if "node_modules" not in path.parts
]
TEXTS = {
    text
    for path in SOURCES
    for text in map(text_of, strings(ast.parse(path.read_text(encoding="utf-8"))))
}
ALIKE = 10  # characters in a row that a message and its string have in common


def own_characters(message, text):
    """How many characters of `message` are those of `text`, if it is a part of what `text` becomes
    when values are filled in, else 0.
    """
    places = dict.fromkeys(range(len(text)), 0)
    for character in message:
        following = {}
        for place, own in places.items():
            if place < len(text) and text[place] in (character, FILLED_IN):
                own += text[place] == character
                for after in (place, place + 1) if text[place] == FILLED_IN else (place + 1,):
                    following[after] = max(own, following.get(after, 0))
        places = following
    return max(places.values(), default=0)


def occurs(message):
    """Whether the programs have a string of which `message` is a part, the values filled in; at
    most 0.6 of it may be values.
    """
    shared = [message[i : i + ALIKE] for i in range(len(message) - ALIKE + 1)]
    return any(
        own_characters(message, text) >= 0.4 * len(message)
        for text in TEXTS
        if any(part in text for part in shared)
    )


@pytest.mark.parametrize("message", OURS)
def test_a_quoted_message_is_in_the_source(message):
    assert occurs(message)


def test_another_message_is_not_in_the_source():
    assert len(OURS) > 25 and len(ENTRIES) > len(OURS)
    assert not occurs(
        "train_list.txt:1: label 1000 is out of reach; expected 0 to 999 (the model has 1000 "
        "classes)"
    )
    assert not occurs("exporting to ONNX needs paddle2onnx, onnx and torch")


@pytest.mark.parametrize("override", re.findall(r'-o "?((?<=")[^"]+|[^\s`"]+)', PAGE))
def test_a_setting_of_the_page_exists(override):
    load_config(ROOT / "configs/quickstart/fashion_mnist.yaml", [override])


@pytest.mark.parametrize("name", TARGETS)
def test_the_page_of_targets_has_each_with_its_precisions(name):
    target, row = (
        TARGETS[name],
        next(row for row in DEPLOYMENT.splitlines() if row.startswith(f"| `{name}` | ")),
    )
    assert f"`--to {name}`" in DEPLOYMENT
    listed, int8 = row.split(" | ")[1:]
    exported = [
        precision for precision in target.precisions if precision != "int8" or not target.calibrates
    ]
    assert re.findall(r"\w+", listed) == exported
    if "int8" not in target.precisions:
        assert int8 == "none |"
    else:
        assert (
            f"`tools/quantize.py --to {name}`" in int8
            if target.calibrates
            else "weights alone" in int8
        )
