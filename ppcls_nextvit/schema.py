"""The signature is the schema: registries whose entries are built from YAML, checked against their
own signatures.

A registered class or function takes what the program gives it as positional parameters, and what
the user writes
in YAML as keyword-only parameters. The annotations and defaults of the latter are the schema:
unknown keys, missing keys and wrong types are `ConfigError`s that name the place, the value and the
nearest correct name.
"""

import difflib
import inspect
import math
import types
import typing
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

__all__ = [
    "ConfigError",
    "Registry",
    "check_entries",
    "check_mapping",
    "coerce",
    "named_entries",
    "nearest",
    "require_keys",
    "shown",
    "shown_text",
    "yaml_parameters",
]

SHOWN = 200  # characters of a value in a message
SHOWN_TEXT = 1000  # of a name, or of another program's message
DEEPEST = 20  # lists in lists that a message shows
BRACKETS: Dict[type, str] = {list: "[]", tuple: "()", dict: "{}", set: "{}"}


def shown(value: Any, limit: int = SHOWN) -> str:
    """`value` as a message shows it: its repr, of at most about `limit` characters, with nothing in
    it that a terminal obeys.

    Made from the front and only as far as it is shown, so that lists that hold each other millions
    of times over cost no more than others.
    """
    parts, length = [], 0
    for part in _pieces(value, limit, DEEPEST):
        parts.append(part)
        length += len(part)
        if length > limit + 50:  # room for what says how long a text is
            return "".join(parts)[:limit] + "..."
    return "".join(parts)


def shown_text(text: Any, limit: int = SHOWN_TEXT) -> str:
    """A name or another program's message, `text`, as a message shows it: control characters,
    line breaks and halves of characters as Python writes them, and of a long one both ends.
    """
    text = str(text)
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def _pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    """The repr of `value`, piece by piece."""
    if isinstance(value, (str, bytes)):
        unit = "characters" if isinstance(value, str) else "bytes"
        more = f"... ({len(value)} {unit})" if len(value) > limit else ""
        yield repr(value[:limit]) + more
    elif type(value) is int and value.bit_length() > 4 * limit:
        yield f"an integer of {value.bit_length()} bits"
    elif type(value) in BRACKETS:
        yield from _pieces_of_many(value, limit, depth)
    else:
        yield _own_repr(value)


def _pieces_of_many(values: Any, limit: int, depth: int) -> Iterator[str]:
    """`_pieces` of a dict, list, tuple or set."""
    if not values:
        yield repr(values)
        return
    brackets = BRACKETS[type(values)]
    if depth == 0:
        yield f"{brackets[0]}...{brackets[1]}"
        return
    yield brackets[0]
    for number, item in enumerate(values):
        yield ", " if number else ""
        yield from _pieces(item, limit, depth - 1)
        if type(values) is dict:
            yield ": "
            yield from _pieces(values[item], limit, depth - 1)
    yield f",{brackets[1]}" if type(values) is tuple and len(values) == 1 else brackets[1]


def _own_repr(value: Any) -> str:
    """The repr of an object of another type, on one line."""
    try:
        return shown_text(repr(value))
    except Exception:  # of the object's own __repr__, whatever it is
        return f"a {type(value).__name__}"


class ConfigError(ValueError):
    """A value in a YAML file or an `-o` override that cannot be meant. The message says where, what
    and what to do.
    """

    def __init__(self, message: Any = ""):
        super().__init__(shown_text(message, 4 * SHOWN_TEXT))


def nearest(name: Any, options: Iterable[Any]) -> str:
    """' Did you mean ...?' for a name with close relatives among `options`, then the list of all
    options.
    """
    options = [str(option) for option in options]
    close = difflib.get_close_matches(shown_text(name, 100), options, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Expected one of: {', '.join(options) or '(nothing)'}."


def require_keys(given: Iterable[Any], allowed: Iterable[Any], where: Any) -> None:
    """Raise ConfigError for the first key of `given` which is not in `allowed`."""
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{where}.{key}: unknown key.{nearest(key, allowed)}")


def _number(value):
    """A float of a number or a text: '1e-3' -> 0.001 and '1.0/255.0' -> 0.0039...; YAML 1.1 reads
    both as strings. ValueError for what is none, NaN among it.
    """
    parts = value.partition("/") if isinstance(value, str) else (value, "", "")
    number = float(parts[0]) / float(parts[2]) if parts[1] else float(parts[0])
    if math.isnan(number):
        raise ValueError("not a number")
    return number


def coerce(value: Any, annotation: Any, where: str) -> Any:
    """`value` as the type that `annotation` declares.

    Handles bool, int, float (also written '1e-3' or '1.0/255.0'), str, Optional, Union, Literal,
    list / tuple / dict with element types, and Any. Raises ConfigError naming `where`, the value
    that came and the type expected.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (typing.Any, inspect.Parameter.empty):
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [arg for arg in args if arg is not type(None)]
        for option in options:
            if isinstance(option, type) and type(value) is option:
                return value
        for option in options:
            try:
                return coerce(value, option, where)
            except ConfigError:
                if option is options[-1] and len(options) == 1:
                    raise
        raise ConfigError(f"{where}: expected {_describe(annotation)}, got {shown(value)}")
    if origin is typing.Literal:
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
        raise ConfigError(f"{where}: got {shown(value)}.{nearest(value, args)}")
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {shown(value)}")
        if origin is tuple and args and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise ConfigError(
                    f"{where}: expected {len(args)} values, got {len(value)}: {shown(value)}"
                )
            return tuple(
                coerce(item, arg, f"{where}.{i}") for i, (item, arg) in enumerate(zip(value, args))
            )
        element = args[0] if args else typing.Any
        return origin(coerce(item, element, f"{where}.{i}") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {shown(value)}")
        return {
            coerce(k, args[0], where): coerce(v, args[1], f"{where}.{k}") for k, v in value.items()
        }
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is int and not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    if annotation is float and not isinstance(value, bool):
        try:
            return _number(value)
        except (TypeError, ValueError, ArithmeticError):
            pass
    if (
        annotation not in (bool, int, float)
        and isinstance(annotation, type)
        and isinstance(value, annotation)
    ):
        return value
    quotes = ""
    if annotation is str and not isinstance(value, (list, tuple, dict)):
        quotes = "; write a text that looks like something else in quotes"
    raise ConfigError(f"{where}: expected {_describe(annotation)}, got {shown(value)}{quotes}")


def _describe(annotation):
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def named_entries(ops: Any, where: str) -> Iterator[Tuple[str, Optional[dict], str]]:
    """(name, arguments, place) of every entry of a list in PaddleClas's dialect, [{name: {...} or
    null}, ...]. Else ConfigError.
    """
    if ops is not None and not isinstance(ops, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, got {shown(ops)}")
    for i, entry in enumerate(ops or []):
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ConfigError(
                f"{where}.{i}: expected one entry, `- Name: {{key: value}}`, got {shown(entry)}"
            )
        ((name, arguments),) = entry.items()
        if arguments is not None and not isinstance(arguments, dict):
            raise ConfigError(
                f"{where}.{i}.{name}: expected a mapping of keys, got {shown(arguments)}"
            )
        yield name, arguments, f"{where}.{i}.{name}"


def yaml_parameters(factory: Callable[..., Any]) -> Dict[str, inspect.Parameter]:
    """The keyword-only parameters of `factory`: what a user may write in YAML, as {name:
    inspect.Parameter}.
    """
    parameters = inspect.signature(factory).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


class Registry:
    """A dict of named factories. Duplicates are refused; a miss names its neighbours."""

    def __init__(self, kind: str):
        self.kind = kind
        self._items: Dict[str, Any] = {}

    def register(self, factory: Any = None, *, name: Optional[str] = None) -> Any:
        """Decorator, bare or with `name=`: adds the factory under its own or the given name.
        ValueError for one that is taken.
        """
        if factory is None:
            return lambda f: self.register(f, name=name)
        key = name or factory.__name__
        if key in self._items:
            raise ValueError(
                f"{self.kind} {key!r} is registered already, by {self._items[key].__module__}"
            )
        self._items[key] = factory
        return factory

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def get(self, name: Any, where: Optional[str] = None) -> Any:
        """The factory called `name`. ConfigError (a ValueError) for an unknown name."""
        if not isinstance(name, str) or name not in self._items:
            prefix = f"{where}: " if where else ""
            raise ConfigError(
                f"{prefix}unknown {self.kind} {shown(name)}.{nearest(name, self._items)}"
            )
        return self._items[name]

    def check(self, name: Any, arguments: Any, where: str) -> Dict[str, Any]:
        """The typed keyword arguments of entry `name`, validated against its signature. ConfigError
        names the key.
        """
        schema = yaml_parameters(self.get(name, where))
        if not isinstance(arguments, (dict, type(None))):
            raise ConfigError(f"{where}: expected keys and values, got {shown(arguments)}")
        arguments = dict(arguments or {})
        require_keys(arguments, schema, where)
        for key, parameter in schema.items():
            if parameter.default is inspect.Parameter.empty and key not in arguments:
                raise ConfigError(
                    f"{where}.{key}: missing; {name} needs it ({_describe(parameter.annotation)})"
                )
        return {
            key: coerce(value, schema[key].annotation, f"{where}.{key}")
            for key, value in arguments.items()
        }

    def build(self, name: Any, arguments: Any, where: str, *given: Any) -> Any:
        """Entry `name`, called with the program's positional `given` and the user's checked
        `arguments`. Its errors become ConfigErrors.
        """
        checked = self.check(name, arguments, where)
        try:
            return self.get(name)(*given, **checked)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {name}: {error}") from error

    def build_only(self, items: Any, where: str, noun: str, example: str, *given: Any) -> Any:
        """The entry of a YAML list which must have just one. ConfigError says what was expected: a
        list of one `noun` such as `example`.
        """
        entries = list(named_entries(items, where))
        if len(entries) != 1:
            raise ConfigError(
                f"{where}: expected a list of one {noun} such as {example}, got {shown(items)}"
            )
        ((name, arguments, place),) = entries
        return self.build(name, arguments, place, *given)


def check_mapping(content: Any, where: str, allowed: Iterable[str]) -> Dict[str, Any]:
    """`content`, if it is a mapping with no other keys than `allowed`; else ConfigError that begins
    with `where`.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys and values, got {shown(content)}")
    require_keys(content, allowed, where)
    return content


def check_entries(content: Any, where: str, registry: "Registry") -> None:
    """Verify a section {Train: [...], Eval: [...]} whose entries `registry` builds, e.g. Loss and
    Metric. ConfigError below `where`.
    """
    for mode, entries in check_mapping(content, where, ("Train", "Eval")).items():
        for name, arguments, place in named_entries(entries, f"{where}.{mode}"):
            registry.check(name, arguments, place)
