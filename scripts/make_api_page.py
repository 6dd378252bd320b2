"""docs/api.md, generated from the docstrings and signatures of the package: writes it; `--check`
exits with 1 where it differs.

Public is what a module's `__all__` names and what a registry holds, since a YAML can name that; of
a class, its methods without underscore.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Sequence

from generated import write_generated

import ppcls_nextvit
from ppcls_nextvit.cli.common import program
from ppcls_nextvit.schema import Registry

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEADER = """\
# API

Written by `scripts/make_api_page.py` from the docstrings; change them there. How to add to the registries: [extending](extending.md).

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


def signature(name, value, method=False):
    """`name(a, b=1, *, key: Type = 2)`, as it is called. Of a property, a dataclass (see `fields`)
    and an exception the name alone.
    """
    if (
        isinstance(value, property)
        or dataclasses.is_dataclass(value)
        or inspect.isclass(value)
        and issubclass(value, BaseException)
    ):
        return name
    parameters = list(inspect.signature(getattr(value, "__func__", value)).parameters.values())
    if method and not isinstance(value, staticmethod):
        parameters = parameters[1:]
    parameters = [
        parameter.replace(default=_Shown(parameter.default))
        if inspect.isfunction(parameter.default)
        else parameter
        for parameter in parameters
    ]
    return name + re.sub(
        r"ppcls_nextvit\.(\w+\.)*|pathlib\.", "", str(inspect.Signature(parameters))
    )


def fields(cls):
    """A line for each field of a dataclass, as its source has it, comment included."""
    source = (
        inspect.getsource(cls).replace(cls.__doc__, "").replace("field(default_factory=dict)", "{}")
    )
    source = source.replace("field(default_factory=list)", "[]")
    found = re.findall(r"^    (\w+: .*?)(?: *  # (.*))?$", source, re.MULTILINE)
    known = {field.name for field in dataclasses.fields(cls)}
    lines = [
        f"- `{line}`{': ' + _escaped(comment) if comment else ''}\n"
        for line, comment in found
        if line.partition(":")[0] in known
    ]
    return "\n" + "".join(lines) if lines else ""


@dataclasses.dataclass
class _Shown:
    """A function as a default: its name, not its address."""

    value: Any  # with a __name__

    def __repr__(self):
        return self.value.__name__


def markdown(doc, indent=""):
    """A docstring as Markdown: its lines kept, `name: ...` and what is indented on lines of their
    own, the rest as it is.
    """
    lines: list[str] = []
    for line in doc.splitlines():
        after_text = lines and lines[-1] and not lines[-1].startswith("    ")
        if not after_text and (line.startswith("    ") or re.search(r"\S {3}", line)):
            # columns, as of a layout of files: Markdown shows them as they are
            lines.append("    " + line.removeprefix("    "))
            continue
        text = _escaped(line.strip())
        if (
            after_text
            and not lines[-1].endswith(",")
            and re.match(r"[^\s:]+(, [^\s:]+)*: |\w+\([^)]*\)(:| ->) ", text)
        ):
            lines[-1] += "\\"  # a hard line break
        lines.append(text)
    return "\n".join(indent + line if i and line else line for i, line in enumerate(lines))


def _escaped(text):
    """A line without what Markdown would read as markup, but for `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts[::2]]
    text = "".join(parts)
    return "\\" + text if re.match(r"[-+#>|=]|\d+\.", text) else text


def entry(level, names, value):
    """Heading, signature, docstring, fields and methods of one public function or class."""
    name = names[0]
    text = f"\n{level} {', '.join(names)}\n\n"
    if not dataclasses.is_dataclass(value):
        text += f"`{'class ' * inspect.isclass(value)}{signature(name, value)}`\n\n"
    text += markdown(docstring(value)) + "\n"
    if inspect.isclass(value):
        text += fields(value) if dataclasses.is_dataclass(value) else ""
        shown = [
            f"- `.{signature(name, vars(value)[name], method=True)}`: "
            f"{markdown(docstring(name, value), '  ')}\n"
            for name in methods(value)
        ]
        text += "\n" * bool(shown) + "".join(shown)
    return text


def entries(registry):
    """[(names, factory)] of a registry, names that mean the same together."""
    same: dict[tuple[str, str], tuple[list[str], Any]] = {}
    for name in registry:
        factory = registry.get(name)
        same.setdefault((signature("", factory), docstring(factory)), ([], factory))[0].append(name)
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


def page() -> str:
    """The text of docs/api.md."""
    found, registered = public(), set()
    text = (
        HEADER
        + "\n"
        + "".join(
            f"- [{module.__name__}](#{module.__name__.replace('.', '')})\n" for module in found
        )
    )
    registries = {
        id(value): value
        for names in found.values()
        for value in names.values()
        if isinstance(value, Registry)
    }
    for registry in registries.values():
        registered |= {id(registry.get(name)) for name in registry}
    for module, names in found.items():
        text += f"\n## `{module.__name__}`\n\n{markdown(docstring(module))}\n"
        data = {
            name: value
            for name, value in names.items()
            if not is_code(value) and not isinstance(value, Registry)
        }
        if data:
            text += "\n" + "\\\n".join(constant(name, value) for name, value in data.items()) + "\n"
        for name, value in names.items():
            if isinstance(value, Registry):
                text += f"\n### `{name}`: what can be named as a {value.kind}\n"
                text += "".join(entry("####", *pair) for pair in entries(value))
            elif is_code(value) and id(value) not in registered:
                text += entry("###", [name], value)
    return text


@program
def main(argv: Optional[Sequence[str]] = None) -> int:
    return write_generated(
        "scripts/make_api_page.py", __doc__.partition("\n")[0], lambda: {PAGE: page()}, argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
