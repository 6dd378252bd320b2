"""A tiny torch.save: real `.pth` files, zip and legacy, without torch. Trees of dicts, lists,
scalars and `Tensor`s.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
    "bf16": "BFloat16Storage",
}


class Global:
    """A name that the pickle refers to; callable only because pickle insists."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("never called")


class Instance:
    """An object of class `module.name` with a `__dict__`, as pickle writes argparse.Namespace."""

    def __init__(self, module, name, **state):
        self.kind, self.state = Global(module, name), state


class Storage:
    """Raw elements that several tensors may view. kind: a key of STORAGES, or any name of a torch
    class.
    """

    def __init__(self, array, kind=None):
        self.data, self.count = array.tobytes(), array.size
        self.kind = STORAGES.get(kind or array.dtype.str[1:], kind)


class Tensor:
    """A view of a storage, or of its own for an array. rebuild: the function of torch._utils which
    the pickle names.
    """

    def __init__(
        self, source, offset=0, shape=None, strides=None, kind=None, rebuild="_rebuild_tensor_v2"
    ):
        self.storage = (
            source if isinstance(source, Storage) else Storage(np.ascontiguousarray(source), kind)
        )
        self.shape = tuple(np.shape(source) if shape is None else shape)
        if strides is None:
            strides = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        self.offset, self.strides, self.rebuild = offset, tuple(strides), rebuild

    def __reduce__(self):
        return Global("torch._utils", self.rebuild), (
            self.storage,
            self.offset,
            self.shape,
            self.strides,
            False,
            OrderedDict(),
        )


class _Pickler(pickle._Pickler):
    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Instance):
            self.save(obj.kind)
            self.write(b")\x81")
            self.save(obj.state)
            self.write(b"b")
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = self.storages.setdefault(id(obj), (str(len(self.storages)), obj))[0]
        return "storage", Global("torch", obj.kind), key, "cpu", obj.count


class _Legacy(_Pickler):
    def persistent_id(self, obj):
        key = super().persistent_id(obj)
        # the sixth part: no view of another storage
        return key and (*key, None)


def tensors(state):
    """{key: array} -> {key: Tensor}."""
    return OrderedDict((key, Tensor(value)) for key, value in state.items())


def write_zip(path, tree, root="archive"):
    """torch.save since 1.6."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        storages = {}
        with archive.open(f"{root}/data.pkl", "w") as file:
            _Pickler(file, storages).dump(tree)
        archive.writestr(f"{root}/byteorder", "little")
        for key, storage in storages.values():
            archive.writestr(f"{root}/data/{key}", storage.data)
        archive.writestr(f"{root}/version", "3\n")
    return path


def write_legacy(path, tree):
    """torch.save before 1.6: pickles of magic, version, system, content, keys; then each storage's
    length and bytes.
    """
    with open(path, "wb") as file:
        for header in (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}},
        ):
            pickle.dump(header, file, protocol=2)
        storages = {}
        _Legacy(file, storages).dump(tree)
        pickle.dump([key for key, _ in storages.values()], file, protocol=2)
        for _, storage in storages.values():
            file.write(struct.pack("<q", storage.count) + storage.data)
    return path
