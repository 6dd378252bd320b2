"""What torch.save writes, read without torch: the zip format (since 1.6) and the sequence of
pickles before it.
"""

import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ...schema import shown
from .archive import member, unpacked_size
from .arrays import BFLOAT16, itemsize, strided_array, widen
from .budget import widening
from .errors import FormatError, PickleError
from .pickled import GlobalName, Inert, new_tuple
from .unpickler import Globals, Unpickler

__all__ = ["TORCH_MAGIC", "read_legacy_torch", "read_torch_zip"]

# LONG1: the number in front of the old format
TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f920 6aa85019")
TORCH_TYPES = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": BFLOAT16,
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "b1",
    "ComplexFloat": "c8",
    "ComplexDouble": "c16",
}
TORCH_DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": BFLOAT16,
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "b1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "complex64": "c8",
    "complex128": "c16",
}
REBUILD = "torch._utils._rebuild_"
SPARSE = "a sparse tensor, which is not read; call .to_dense() before saving"
QUANTISED = "a quantised tensor, which is not read; call .dequantize() before saving"
FLOAT8 = "an 8-bit float tensor, which is not read; call .float() before saving"
REFUSED = {  # by name, with the reason
    ("torch._utils", "_rebuild_sparse_tensor"): SPARSE,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): SPARSE,
    ("torch._utils", "_rebuild_qtensor"): QUANTISED,
    (
        "torch._utils",
        "_rebuild_meta_tensor_no_storage",
    ): "a tensor of the 'meta' device, which has no data",
    ("torch._utils", "_rebuild_nested_tensor"): "a nested tensor, which is not read",
    ("torch._utils", "_rebuild_wrapper_subclass"): "a tensor subclass, which is not read",
    **{
        ("torch", f"{name}Storage"): QUANTISED
        for name in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")
    },
    **{
        ("torch", f"float8_{name}"): FLOAT8
        for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
    },
}


Find = Callable[[str, int], Optional[memoryview]]


class _Storage:
    """A torch storage: raw bytes (None while they are not found yet) and, in typed ones, the type
    of an element.
    """

    def __init__(self, kind: Optional[str], data: Optional[memoryview]) -> None:
        self.kind = kind
        self.data = data


class _Torch:
    """torch's part of a pickle: storages by persistent id, and the functions that rebuild tensors
    as views of them.

    find: (storage key, bytes) -> its data, None while they are not found yet. size: the bytes that
    the file holds, unpacked; no tensor has more elements.
    """

    def __init__(self, find: Find, size: int) -> None:
        self.find = find
        self.size = size
        self.storages: Dict[str, Tuple[int, Optional[memoryview]]] = {}
        self.widening = widening(size)

    def unpickler(self, buffer: memoryview, position: int = 0) -> Unpickler:
        return Unpickler(buffer, position, self.constructors(), self.persistent)

    def constructors(self) -> Globals:
        names_only = [
            ("torch", "Tensor"),
            ("torch.nn.parameter", "Parameter"),
            ("torch", "UntypedStorage"),
            ("torch.storage", "UntypedStorage"),
            *(("torch", f"{name}Storage") for name in TORCH_TYPES),
            *(("torch", name) for name in TORCH_DTYPES),
        ]
        return {
            **REFUSED,
            **dict.fromkeys(names_only),
            ("torch._utils", "_rebuild_tensor"): self.rebuild,
            ("torch._utils", "_rebuild_tensor_v2"): self.rebuild,
            ("torch._utils", "_rebuild_tensor_v3"): self.rebuild_typed,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
            ("torch._tensor", "_rebuild_from_type_v2"): self.rebuild_subclass,
            ("torch", "device"): lambda *args: Inert("torch.device", args),
            ("torch", "Size"): new_tuple,
        }

    def persistent(self, key: Any) -> _Storage:
        """('storage', type, key, device, number of elements[, view]) -> _Storage."""
        if (
            not isinstance(key, tuple)
            or len(key) < 5
            or key[0] != "storage"
            or not isinstance(key[2], str)
        ):
            raise PickleError("a persistent id that is not torch's")
        name = getattr(key[1], "name", "")
        kind = TORCH_TYPES.get(name.removeprefix("torch.").removesuffix("Storage"))
        if kind is None and not name.endswith(".UntypedStorage"):
            raise PickleError(f"a storage of type {shown(name)}")
        count = key[4]
        view = key[5] if len(key) > 5 else None
        if type(count) is not int or count < 0 or view is not None:
            raise PickleError("a storage that is a view of another, or of a negative size")
        size = count * (1 if kind is None else itemsize(kind))
        if key[2] not in self.storages:
            self.storages[key[2]] = size, self.find(key[2], size)
        known, data = self.storages[key[2]]
        if known != size:
            raise PickleError(
                f"storage {shown(key[2])} has two sizes, {shown(known)} and {shown(size)} bytes"
            )
        return _Storage(kind, data)

    def rebuild(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        return self.view(storage, storage.kind, offset, shape, strides)

    def rebuild_typed(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        *_: Any,
    ) -> Any:
        kind = TORCH_DTYPES.get(dtype.name.removeprefix("torch."))
        return self.view(storage, kind, offset, shape, strides)

    def rebuild_subclass(self, function: Any, kind: Any, args: Any, state: Any) -> Any:
        if kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise PickleError(f"a tensor of class {shown(kind.name)}, which is not read")
        named = isinstance(function, GlobalName) and function.name.startswith(REBUILD)
        if not named or function.make is None:
            raise PickleError("a tensor that is made by something else than torch")
        return function.make(*args)

    def view(
        self, storage: Any, kind: Optional[str], offset: Any, shape: Any, strides: Any
    ) -> Optional[np.ndarray]:
        """The tensor in `storage`; None while its bytes are not found yet."""
        if kind is None:
            raise PickleError("a tensor of a type that is not read")
        if storage.data is None:
            return None
        array = strided_array(storage.data, kind, offset, shape, strides, self.size)
        if kind == BFLOAT16:
            self.widening.take(4 * array.size)
            array = widen(array)
        return array


def read_torch_zip(buffer: memoryview, members: Mapping[str, zipfile.ZipInfo], root: str) -> Any:
    """data.pkl, whose tensors refer to the members data/0, data/1, ... FormatError for a program,
    or what is damaged.
    """
    if root + "constants.pkl" in members:
        raise FormatError(
            "a TorchScript program (torch.jit.save); save the model's state_dict() instead"
        )
    if (
        root + "byteorder" in members
        and bytes(member(buffer, members[root + "byteorder"])) != b"little"
    ):
        raise FormatError("written on a big-endian machine, which is not read")

    def find(key: str, size: int) -> memoryview:
        name = f"{root}data/{key}"
        if name not in members:
            raise FormatError(f"its member {shown(name)} is missing")
        data = member(buffer, members[name])
        if len(data) != size:
            raise FormatError(
                f"member {shown(name)} has {len(data)} bytes, the pickle declares {shown(size)}"
            )
        return data

    pickled = member(buffer, members[root + "data.pkl"])
    machine = _Torch(find, unpacked_size(members)).unpickler(pickled)
    tree = machine.load()
    if machine.position != len(pickled):
        raise PickleError(f"{len(pickled) - machine.position} bytes after the end of the pickle")
    return tree


def read_legacy_torch(buffer: memoryview) -> Any:
    """torch.save before 1.6: pickles of magic, version, system, content, storage keys; then the
    storages. FormatError if not.
    """
    machine = Unpickler(buffer)
    machine.load()  # the magic number
    version = machine.load()
    system = machine.load()
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError("a legacy torch file of an unknown version, or of a big-endian machine")
    start = machine.position
    # tells which storages there are; their data come after it
    first = _Torch(lambda key, size: None, len(buffer))
    machine = first.unpickler(buffer, start)
    machine.load()
    end = machine.position
    machine = Unpickler(buffer, end)
    keys = machine.load()
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)  # hashing a deep tuple ends the process
        or len(set(keys)) != len(keys)
        or set(keys) != set(first.storages)
    ):
        raise FormatError("its list of storages differs from its content")
    data = {}
    for key in keys:
        size, _ = first.storages[key]
        count = machine.number("<q")
        if count < 0 or count > size or (size % count if count else size):
            raise FormatError(
                f"storage {shown(key)} declares {count} elements, the pickle {shown(size)} bytes"
            )
        data[key] = machine.take(size)
    if machine.position != len(buffer):
        raise FormatError(f"{len(buffer) - machine.position} bytes after its last storage")
    return _Torch(lambda key, size: data[key], len(buffer)).unpickler(buffer, start).load()
