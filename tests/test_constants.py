"""Numbers that nobody writes in a YAML: the constants of our modules and the defaults of what is
called inside, as tests/constants.json holds them.

A changed limit, epsilon, share or default fails hardly anything else: a run ends as well, a little
different. If it is meant, write the file anew (`python tests/test_constants.py`) and look at what
has changed. Which of them are the references' is for test_published_constants.py to say, what
a YAML may leave out for test_public_defaults.py.
"""

import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import ppcls_nextvit

STORED = Path(__file__).with_name("constants.json")
ROOMS = ("data", "engine", "files", "models", "ops", "schema", "tasks", "weights")
PLAIN = (bool, int, float, str, type(None))


def modules():
    """Ours in ROOMS, by name."""
    root = f"{ppcls_nextvit.__name__}."
    for found in pkgutil.walk_packages(ppcls_nextvit.__path__, root):
        room, _, rest = found.name[len(root) :].partition(".")
        if room in ROOMS:
            yield found.name[len(root) :], importlib.import_module(found.name)


def shown(value):
    """A number, or numbers and texts in containers and dataclasses, as text in one order; '' for
    all else, and where there is no number.
    """
    if isinstance(value, PLAIN):
        return "" if isinstance(value, (str, type(None))) else repr(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if not isinstance(value, (list, tuple)):
        return ""
    parts = [repr(part) if isinstance(part, PLAIN) else shown(part) for part in value]
    numbers = any(shown(part) for part in value)
    return f"[{', '.join(parts)}]" if numbers and all(parts) else ""


def defaults_of(function):
    return {
        parameter.name: shown(parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty and shown(parameter.default)
    }


def numbers_of_class(kind):
    """The fields' defaults of a dataclass, the numbers of any other, and its methods' defaults."""
    found = {}
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    for field in fields:
        if shown(field.default):
            found[field.name] = shown(field.default)
    for name, value in vars(kind).items():
        value = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if inspect.isfunction(value) and value.__module__ == kind.__module__:
            if not fields or name != "__init__":  # a dataclass's own
                found |= {f"{name}.{key}": text for key, text in defaults_of(value).items()}
        elif not name.startswith("_") and shown(value):
            found[name] = shown(value)
    return found


def assigned(module):
    """The names that a module gives values to itself: what it imports has its own module's."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def numbers_of(module):
    """{name: number} of a module, names of what is in a class or a function after a point."""
    found = {name: shown(getattr(module, name)) for name in assigned(module)}
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") == module.__name__:
            inside = {}
            if inspect.isfunction(value):
                inside = defaults_of(value)
            elif inspect.isclass(value):
                inside = numbers_of_class(value)
            found |= {f"{name}.{key}": text for key, text in inside.items()}
    return {name: text for name, text in found.items() if text}


def all_numbers():
    """{room: {name: numbers}}, so that what moves within a room stays as it is; of one name in
    several modules all.
    """
    found = {room: {} for room in ROOMS}
    for module_name, module in modules():
        room = found[module_name.partition(".")[0]]
        for name, text in numbers_of(module).items():
            room[name] = sorted([*room.get(name, []), text])
    return {
        room: {name: ", ".join(texts) for name, texts in sorted(numbers.items())}
        for room, numbers in found.items()
    }


def test_numbers_are_what_they_were():
    stored, found = json.loads(STORED.read_text(encoding="utf-8")), all_numbers()
    assert stored.keys() == found.keys()
    for room, numbers in found.items():
        assert numbers == stored[room], room


if __name__ == "__main__":
    STORED.write_text(json.dumps(all_numbers(), indent=1) + "\n", encoding="utf-8")
