"""The API's pages for the site, {path: text}: what is public, and where mkdocstrings finds it.

Public is what a module's `__all__` names and what a registry holds, since a YAML can name that; of
a class, its methods without underscore.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import markdown

import ppcls_nextvit
from ppcls_nextvit.schema import Registry

__all__ = ["pages"]

HEADER = """\
# API

Made from the docstrings. How to add to the registries: [extending](../extending.md).

Public is what is here: the names that a module declares, and the entries of its registries, whose keys are what a YAML may hold. Arguments
after `*` are given by name. Shapes are in brackets; B images, C channels, H rows, W columns, N boxes, tokens or values. An error that is
raised on purpose is a ValueError (`ConfigError`, `LoadError`, `ExportError`, ... are), an OSError, an ImportError that names the
missing extra, or a FloatingPointError.

"""


def modules() -> list[ModuleType]:
    """The package and all its modules, as a reader meets them: outer before inner."""
    names = [
        info.name
        for info in pkgutil.walk_packages(ppcls_nextvit.__path__, "ppcls_nextvit.")
        if not info.name.endswith("__main__")
    ]
    return [
        importlib.import_module(name)
        for name in sorted(["ppcls_nextvit", *names], key=lambda name: (name.count("."), name))
    ]


def public() -> dict[ModuleType, dict[str, Any]]:
    """{module: {name: object}}: every public object once, where it is met first, and the
    dataclasses that are fields of public ones.
    """
    found, seen = {}, set()
    for module in modules():
        own = {
            name: getattr(module, name)
            for name in getattr(module, "__all__", ())
            if not name.startswith("__")
        }
        sections = [
            field.type
            for value in own.values()
            if dataclasses.is_dataclass(value)
            for field in dataclasses.fields(value)
        ]
        own.update(
            {
                kind.__name__: kind
                for hint in sections
                for kind in (hint, *typing.get_args(hint))
                if isinstance(kind, type) and dataclasses.is_dataclass(kind)
            }
        )
        found[module] = {name: value for name, value in own.items() if id(value) not in seen}
        seen |= {id(value) for value in own.values() if not isinstance(value, (int, str))}
    return {module: names for module, names in found.items() if names}


def docstring(value, owner=None):
    """The docstring written for `value` or, given an `owner`, for its method of that name, maybe by
    a base class here; '' if none is.
    """
    if owner is not None:
        bases = [
            base
            for base in owner.__mro__
            if base.__module__.startswith("ppcls_nextvit") and value in vars(base)
        ]
        return next(
            (
                doc
                for base in bases
                if (doc := inspect.cleandoc(function_of(vars(base)[value]).__doc__ or ""))
            ),
            "",
        )
    doc = inspect.cleandoc(value.__doc__ or "")
    # what dataclasses make of none
    return "" if inspect.isclass(value) and doc.startswith(f"{value.__name__}(") else doc


def methods(cls):
    """The names of the public methods and properties that `cls` itself defines; `__call__` is one
    where it has something to say.
    """
    data = (
        {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else ()
    )
    return [
        name
        for name, value in vars(cls).items()
        if function_of(value)
        and name not in data
        and (not name.startswith("_") or name == "__call__" and docstring(name, cls))
    ]


def is_code(value) -> bool:
    """Whether `value` is a class or a function, not data or the name of a type."""
    return callable(value) and typing.get_origin(value) is None


def function_of(value):
    """The function of a method, static or class method or property of a class; None for anything
    else.
    """
    value = getattr(value, "fget", None) or getattr(value, "__func__", value)
    return value if inspect.isfunction(value) else None


def entries(registry):
    """[(names, factory)] of a registry, names that mean the same together."""
    same: dict[tuple[str, str], tuple[list[str], Any]] = {}
    for name in registry:
        factory = registry.get(name)
        same.setdefault((str(inspect.signature(factory)), docstring(factory)), ([], factory))[
            0
        ].append(name)
    return list(same.values())


def constant(name, value):
    """A line for a public constant: its value if that is short, else what it holds by name, else
    its kind.
    """
    shown = repr(value)
    if isinstance(value, Path):  # of this machine
        return f"`{name}`: a Path"
    if len(shown) <= 60 and " at 0x" not in shown:
        return f"`{name}`: `{shown}`"
    kind = "mapping" if isinstance(value, Mapping) else type(value).__name__
    listed = (
        isinstance(value, (Mapping, tuple))
        and len(value) <= 40
        and all(isinstance(key, str) for key in value)
    )
    return f"`{name}`: a {kind}" + (
        f" of {', '.join(f'`{key}`' for key in value)}" if listed else ""
    )


def member(value: Any) -> str:
    """The line that mkdocstrings replaces by the documentation of a function or class."""
    lines = f"::: {value.__module__}.{value.__qualname__}\n"
    if inspect.isclass(value):
        shown = "".join(f"\n        - {name}" for name in methods(value))
        lines += f"    options:\n      members:{shown or ' false'}\n"
    return lines


def entry(names: list[str], factory: Any) -> str:
    """What a registry holds under `names`: a function, a class, or an object that builds one."""
    text = f"\n### {', '.join(f'`{name}`' for name in names)}\n\n"
    if inspect.isfunction(factory) or inspect.isclass(factory):
        return text + member(factory).replace(
            "    options:\n", "    options:\n      heading_level: 4\n"
        )
    return text + markdown(docstring(factory)) + "\n"


def page(module: ModuleType, names: dict[str, Any], registered: set[int]) -> str:
    """The page of one module: its docstring, constants, registries, functions and classes."""
    text = f"# `{module.__name__}`\n\n{markdown(docstring(module))}\n"
    data = {
        name: value
        for name, value in names.items()
        if not is_code(value) and not isinstance(value, Registry)
    }
    if data:
        text += "\n" + "  \n".join(constant(name, value) for name, value in data.items()) + "\n"
    for name, value in names.items():
        if isinstance(value, Registry):
            text += f"\n## `{name}`: what can be named as a {value.kind}\n"
            text += "".join(entry(*pair) for pair in entries(value))
        elif is_code(value) and id(value) not in registered:
            text += "\n" + member(value)
    return text


def pages() -> dict[str, str]:
    """{name of a file: its text}: one for each module that has something public, and README.md,
    which lists them.
    """
    found = public()
    registered = {
        id(value.get(name))
        for names in found.values()
        for value in names.values()
        if isinstance(value, Registry)
        for name in value
    }
    listed = "".join(
        f"- [`{module.__name__}`]({module.__name__}.md): {docstring(module).splitlines()[0]}\n"
        for module in found
    )
    return {"README.md": HEADER + listed} | {
        f"{module.__name__}.md": page(module, names, registered) for module, names in found.items()
    }
