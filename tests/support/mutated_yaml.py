"""Configurations as they break or are forged: texts, trees and overrides changed at random."""

import copy
import datetime

import yaml

TOKENS = (
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!int ",
    "!!bool x",
    "!!timestamp x",
    "!!binary ",
    "!!python/name:os.system ",
    "!!set {a}",
    "#",
    " # x",
    "'",
    '"',
    "|\n",
    "%",
    "@",
    "`",
    "\t",
    "\0",
    "\x1b[31m",
    "\ufeff",
    "\u2028",
    "~",
    "~/x",
    "...",
    "---",
    "=",
    "1_000",
    "0x1F",
    "1:30:00",
    ".inf",
    ".nan",
    "2026-11-28",
    "2026-13-45",
    "1e400",
    "9" * 50,
    "9" * 5000,
    "\\",
    "$HOME",
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    10**9,
    2**31,
    2**63,
    10**300,
    1.5,
    float("inf"),
    float("nan"),
    "",
    " ",
    "~/x",
    "a\nb",
    "\x1b[31mred",
    "x" * 5000,
    "../x",
    [],
    [[]],
    [None],
    [1, 2],
    {},
    {"a": 1},
    {"name": None},
    {"name": "X"},
    {1: 2},
    {None: 1},
    {"a": {"b": {"c": []}}},
    b"bytes",
    "1e-3",
    "1/0",
    "None",
    datetime.date(2026, 11, 28),
    datetime.datetime(2026, 1, 1),
    {"x"},
)
KEYS = ("x", "name", 1, None, True, "a" * 300, "\n", "class_num", "weight")


def places(node, path=()):
    """The path of every value in a tree."""
    yield path
    if isinstance(node, dict):
        parts = list(node.items())
    else:
        parts = list(enumerate(node)) if isinstance(node, list) else []
    for key, value in parts:
        yield from places(value, (*path, key))


def value_at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def place_in(tree, rng):
    """The path of any value but the modules to import."""
    return rng.choice([path for path in places(tree) if path and "imports" not in path])


def mutated_text(text, rng):
    kind = rng.choice(["token", "byte", "cut", "double", "delete", "swap", "indent", "alias"])
    lines, place = text.split("\n"), rng.randrange(len(text))
    row, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if kind == "token":
        return text[:place] + rng.choice(TOKENS) + text[place + rng.randrange(3) :]
    if kind == "byte":
        letter = chr(
            rng.choice([rng.randrange(32, 127), rng.randrange(256), rng.randrange(0x3000)])
        )
        return text[:place] + letter + text[place + 1 :]
    if kind == "cut":
        return text[:place]
    if kind == "double":
        lines.insert(row, lines[row])
    elif kind == "delete":
        del lines[row]
    elif kind == "swap":
        lines[row], lines[other] = lines[other], lines[row]
    elif kind == "indent":
        lines[row] = " " * rng.randrange(8) + lines[row].lstrip()
    else:
        row = rng.choice([at for at, line in enumerate(lines) if line.rstrip().endswith(":")])
        lines[row] += " &a"
        margin = len(lines[other]) - len(lines[other].lstrip())
        lines[other] = " " * margin + rng.choice(["<<: *a", "x: *a", "- *a", "<<: [*a, *a]"])
    return "\n".join(lines)


def mutated_tree(tree, rng):
    """As YAML text."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = place_in(tree, rng)
        node = value_at(tree, path[:-1])
        kind = rng.choice(["value", "value", "value", "delete", "key", "move"])
        if kind == "delete":
            del node[path[-1]]
        elif kind == "key" and isinstance(node, dict):
            node[rng.choice(KEYS)] = node.pop(path[-1])
        elif kind == "move":
            node[path[-1]] = copy.deepcopy(value_at(tree, rng.choice(list(places(tree)))))
        else:
            node[path[-1]] = rng.choice(VALUES)
    return yaml.dump(tree, allow_unicode=True)


def mutated_override(tree, rng):
    keys = [str(key) for key in place_in(tree, rng)]
    if rng.random() < 0.15:
        keys[rng.randrange(len(keys))] = rng.choice(
            ["x", "0", "-1", "9" * 11, "²", "a" * 400, "\n"]
        )
    if rng.random() < 0.1:
        keys.append(rng.choice(["x", "0"]))
    value = str(rng.choice(VALUES))
    if rng.random() < 0.5:
        parts = [*TOKENS, "a", "1", " ", "x: 1", ",", "\udce9"]
        value = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))
    return ".".join(keys) + rng.choice(["=", "=", "=", " = ", ""]) + value
