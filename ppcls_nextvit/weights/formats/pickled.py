"""What a pickle may name: a table of constructors of our own, none of which runs code of the file,
imports a module or sets an attribute.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ...schema import shown
from .arrays import from_bytes, numpy_dtype
from .errors import PickleError

__all__ = [
    "GLOBALS",
    "INERT",
    "INERT_PACKAGES",
    "GlobalName",
    "Inert",
    "InertClass",
    "PickledArray",
    "PickledDType",
    "full_name",
    "keyable",
    "new_frozenset",
    "new_tuple",
]

Constructor = Callable[..., Any]

MAX_NAME = 512  # characters of a class's name with its module's
# what a key may be
SCALARS = (str, int, float, bool, bytes, type(None))


class Inert:
    """An object of the file that is kept as data: the name of its class, its arguments, its state.
    It does nothing.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: Tuple[Any, ...] = (), state: Any = None) -> None:
        self.name = name
        self.args = args
        self.state = state

    def __repr__(self) -> str:
        return f"<inert {self.name}>"


class GlobalName(Inert):
    """A name of the allow-list; `make(*args)` is our own constructor for it, None where it must
    never be called.
    """

    __slots__ = ("make",)

    def __init__(self, name: str, make: Optional[Constructor]) -> None:
        super().__init__(name)
        self.make = make


class InertClass(GlobalName):
    """The name of a class whose objects are kept as `Inert`, whatever they hold."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda *args: Inert(name, args))


def full_name(owner: Any, name: Any) -> str:
    """`owner.name`, where both are texts that a name may have. PickleError if not."""
    if not isinstance(owner, str) or not isinstance(name, str):
        raise PickleError("a global without a name")
    if len(owner) + len(name) > MAX_NAME:
        raise PickleError(f"a name of {len(owner) + len(name)} characters")
    return f"{owner}.{name}"


class PickledDType:
    """numpy.dtype while it is being built: its type string, then (by BUILD) its byte order."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text
        self.order = "="

    def build(self, state: Any) -> None:
        """Take over the byte order in `state`. PickleError for a structured type."""
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or any(part is not None for part in state[2:5])
        ):
            raise PickleError("a structured array is not a tensor")
        self.order = "=" if state[1] == "|" else state[1]


class PickledArray:
    """numpy.ndarray between its creation and the BUILD that fills it, which puts the real array in
    its place.
    """

    def __init__(self, *_: Any) -> None:
        self.memo_keys: list[int] = []

    def build(self, state: Any) -> np.ndarray:
        """The array that `state` describes. FormatError where its parts do not fit each other."""
        _, shape, dtype, fortran, data = state
        return _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, PickledDType):
        raise PickleError("an array without a type")
    return from_bytes(data, numpy_dtype(dtype.text, dtype.order), shape, order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _array(data, dtype, ()).item()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _array(data, dtype, shape, order if order in ("C", "F") else "C")


def _items(items: Any, kinds: Tuple[type, ...] = (list, tuple, dict, set, frozenset)) -> Any:
    """`items`, if a container can be made of them that is about as large. PickleError if not: of a
    text, a tuple of its letters.
    """
    if not isinstance(items, kinds) and not (isinstance(items, tuple) and not items):
        raise PickleError(f"a container made of a {type(items).__name__}")
    return items


def new_tuple(items: Any = ()) -> Any:
    """paddle.save writes a tensor as tuple((name, array)): what is wanted of it is the array."""
    items = tuple(_items(items))
    if len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray):
        return items[1]
    return items


def _encode(text: Any, encoding: Any = "utf-8", *_: Any) -> bytes:
    """codecs.encode, by which protocol 2 writes byte strings."""
    if encoding not in ("latin1", "utf-8") or not isinstance(text, str):
        raise PickleError(f"a byte string in encoding {shown(encoding)}")
    return text.encode(encoding)


def _getattr(owner: Any, attribute: Any) -> GlobalName:
    """A method of a class whose objects are inert, as mmengine's HistoryBuffer lists its own: a
    name, which nothing can be made of.
    """
    if not isinstance(owner, GlobalName) or not (
        owner.make is None or isinstance(owner, InertClass)
    ):
        raise PickleError("refused: the file would call builtins.getattr")
    return GlobalName(full_name(owner.name, attribute), None)


def keyable(key: Any) -> Any:
    """Keys are scalars or flat tuples of them: hashing a deeply nested tuple exhausts the C
    stack. PickleError for anything else.
    """
    if isinstance(key, SCALARS):
        return key
    if isinstance(key, tuple) and all(isinstance(part, SCALARS) for part in key):
        return key
    raise PickleError(f"a key of type {type(key).__name__}")


def new_frozenset(items: Any = ()) -> frozenset:
    """frozenset."""
    return frozenset(_set(items))


def _set(items: Any = ()) -> set:
    return {keyable(item) for item in _items(items, (list, set, frozenset))}


def _list(items: Any = ()) -> list:
    return list(_items(items))


def _deque(items: Any = (), maxlen: Any = None) -> list:
    return list(_items(items))


def _dict(items: Any = ()) -> dict:
    items = _items(items, (list, dict))
    pairs = items.items() if isinstance(items, dict) else items
    return {keyable(key): value for key, value in pairs}


def _defaultdict(factory: Any = None, items: Any = ()) -> dict:
    return _dict(items)


def _ordered(items: Any = ()) -> OrderedDict:
    return OrderedDict(_dict(items))


def _bytearray(data: Any = b"") -> bytes:
    if not isinstance(data, (bytes, memoryview)):
        raise PickleError(f"a byte string made of a {type(data).__name__}")
    return bytes(data)


_BUILTINS: Dict[str, Optional[Constructor]] = {
    "tuple": new_tuple,
    "list": _list,
    "dict": _dict,
    "set": _set,
    "frozenset": new_frozenset,
    "bytearray": _bytearray,
    "int": None,
    "float": None,
    "str": None,
    "bool": None,
    "object": None,
    "getattr": _getattr,
}
GLOBALS: Dict[Tuple[str, str], Optional[Constructor]] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "Counter"): _dict,
    ("collections", "deque"): _deque,
    ("collections", "defaultdict"): _defaultdict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): PickledDType,
    ("numpy", "ndarray"): None,
}
for _module in ("builtins", "__builtin__"):
    for _name, _make in _BUILTINS.items():
        GLOBALS[_module, _name] = _make
for _core in ("core", "_core"):
    GLOBALS[f"numpy.{_core}.multiarray", "_reconstruct"] = PickledArray
    GLOBALS[f"numpy.{_core}.multiarray", "scalar"] = _scalar
    GLOBALS[f"numpy.{_core}.numeric", "_frombuffer"] = _frombuffer
# Classes whose instances checkpoints carry beside their tensors. They become Inert, whatever their
# state.
INERT = {
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "datetime.datetime",
    "datetime.timedelta",
    "torch.torch_version.TorchVersion",
    "torch.device",
    "typing.Any",  # in OmegaConf's
    "yacs.config.CfgNode",
    # Lightning's hyper-parameters, by version
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
}
INERT_PACKAGES = ("mmengine.", "mmcv.", "mmdet.", "mmseg.", "mmcls.", "mmpretrain.", "omegaconf.")
