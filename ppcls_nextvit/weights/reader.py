"""Read weight files safely: `.pdparams` and its kin, `.pth` / `.pt` (zip and legacy), `.safetensors`, `.npz`.

No torch, no code of the file, memory-mapped where the format allows it. The content decides what a file is, not its name.
"""
import io
import json
import math
import mmap
import os
import struct
import zipfile
import zlib

import numpy as np

from .unpickle import Inert, PickleError, Unpickler, numpy_dtype, strided_array

__all__ = ["WeightFileError", "read_file"]

MAX_HEADER = 100_000_000                # bytes of a safetensors header, its own limit
MAX_UNPACKED = 4 << 30                  # bytes to which a compressed .npz may unpack
TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f920 6aa85019")     # LONG1: what torch wrote in front before it took to zip
BFLOAT16 = "bfloat16"                   # numpy has no such type: read as uint16, widened to float32 without loss
SAFETENSORS_TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
                     "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1"}
TORCH_TYPES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": BFLOAT16, "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1",
               "Byte": "u1", "Bool": "b1", "ComplexFloat": "c8", "ComplexDouble": "c16"}
TORCH_DTYPES = {"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": BFLOAT16, "int64": "i8", "int32": "i4", "int16": "i2",
                "int8": "i1", "uint8": "u1", "bool": "b1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "complex64": "c8",
                "complex128": "c16"}
DAMAGE = (PickleError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RecursionError, EOFError,
          struct.error, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class WeightFileError(ValueError):
    """A file that is not read: damaged, cut off, dangerous, or of another kind. One line, naming the file and the reason."""


def read_file(path):
    """The content of a weight file as nested dicts, lists, tuples and scalars, with numpy arrays for tensors.

    Arrays are read-only and, except in compressed files, views of the mapped file: replace such a file by `os.replace`
    rather than writing into it while they live. bfloat16 (in Paddle's pickles: uint16) is widened to float32, exactly.
    Other objects, such as argparse.Namespace, are `Inert` data. Raises WeightFileError, a ValueError.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise WeightFileError(f"{path}: a directory; name a file in it")
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise WeightFileError(f"{path}: empty file")
            buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise WeightFileError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _reader(buffer)(buffer)
    except DAMAGE as error:
        reason = str(error) if isinstance(error, PickleError) else f"damaged: {type(error).__name__}: {error}"
        raise WeightFileError(f"{path}: {' '.join(reason.split())[:400]}") from error


def _reader(buffer):
    """The function that reads what the first bytes announce."""
    head = bytes(buffer[:512])
    if head[:4] == b"PK\x03\x04":
        return _read_zip
    if head[:1] == b"\x80":
        return _read_legacy_torch if head[2:14] == TORCH_MAGIC else _read_paddle
    if len(head) > 9 and head[8:9] == b"{":
        return _read_safetensors
    for start, what in ((b"version https://git-lfs", "a git-lfs pointer; fetch the file itself (git lfs pull)"),
                        (b"<", "a web page, probably of a failed download"), (b"\x1f\x8b", "gzip; unpack it first"),
                        (b"\x89HDF", "HDF5, which is not read")):
        if head.lstrip().startswith(start):
            raise PickleError(f"this is {what}")
    if head[257:262] == b"ustar":
        raise PickleError("a tar archive (torch 0.1 and older, or a packed folder), which is not read; unpack it or save it anew")
    raise PickleError("not a weight file: expected what paddle.save, torch.save, safetensors or numpy.savez write "
                      f"(first bytes: {head[:8].hex()})")


def _tensor(data, kind, shape):
    """The array of type `kind` and `shape` that fills `data` exactly."""
    dtype = numpy_dtype("u2" if kind == BFLOAT16 else kind)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PickleError(f"shape {list(shape)} of {kind} needs {math.prod(shape) * dtype.itemsize} bytes, the file declares {len(data)}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return _widen(array) if kind == BFLOAT16 else array


def _widen(bits):
    """bfloat16 bits (uint16) -> float32: the upper half of a float32 of the same value."""
    array = (bits.astype(np.uint32) << 16).view(np.float32)
    array.flags.writeable = False
    return array


def _read_paddle(buffer):
    """paddle.save: one pickle of arrays, or of tuple((name, array)) for tensors."""
    machine = Unpickler(buffer)
    tree = machine.load()
    if machine.position != len(buffer):
        raise PickleError(f"{len(buffer) - machine.position} bytes after the end of the pickle")
    if isinstance(tree, dict):
        if "UnpackBigParamInfor@@" in tree:
            raise PickleError("holds an array above 1 GiB in slices (protocol 2 or 3); save it with protocol=4")
        tree.pop("StructuredToParameterName@@", None)       # Paddle's process-wide names of the same tensors
    return _map_dicts(tree, lambda value: _widen(value) if isinstance(value, np.ndarray) and value.dtype == np.uint16 else value)


def _map_dicts(tree, function):
    """`function` on every value of the dicts of `tree`, in place; without recursion, and each dict once."""
    pending, seen = [tree], set()
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        for key, value in node.items():
            if isinstance(value, dict):
                pending.append(value)
            else:
                node[key] = function(value)
    return tree


def _read_safetensors(buffer):
    """8 bytes: the header's length; the header: JSON; then the tensors, side by side."""
    length = struct.unpack("<Q", buffer[:8])[0]
    if length > min(MAX_HEADER, len(buffer) - 8):
        raise PickleError(f"declares a header of {length} bytes, the file has {len(buffer)}")

    def unique(pairs):
        if len(dict(pairs)) != len(pairs):
            raise PickleError("its header names a tensor twice")
        return dict(pairs)

    header = json.loads(bytes(buffer[8:8 + length]).decode("utf-8"), object_pairs_hook=unique)
    data, arrays, spans = buffer[8 + length:], {}, []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        (start, end), shape, kind = entry["data_offsets"], entry["shape"], entry["dtype"]
        if kind not in SAFETENSORS_TYPES:
            raise PickleError(f"tensor {key[:80]!r} is of type {str(kind)[:20]}, which is not read")
        if not all(type(n) is int and n >= 0 for n in (start, end, *shape)) or not start <= end <= len(data):
            raise PickleError(f"tensor {key[:80]!r} lies at {start}..{end} of {len(data)} bytes")
        spans.append((start, end))
        try:
            arrays[key] = _tensor(data[start:end], SAFETENSORS_TYPES[kind], shape)
        except PickleError as error:
            raise PickleError(f"tensor {key[:80]!r}: {error}") from None
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise PickleError(f"its tensors overlap or leave a gap at byte {position} of the data")
        position = end
    if position != len(data):
        raise PickleError(f"its header describes {position} bytes of tensors, the file has {len(data)}")
    return arrays


def _read_zip(buffer):
    """torch.save since 1.6, or numpy.savez."""
    try:
        with zipfile.ZipFile(io.BufferedReader(_View(buffer))) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except zipfile.BadZipFile:
        raise PickleError("a damaged or incomplete zip archive (a download that broke off?)") from None
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) == 1:
        return _read_torch_zip(buffer, members, pickles[0][:-len("data.pkl")])
    if members and all(name.endswith(".npy") for name in members):
        return _read_npz(buffer, members)
    raise PickleError("a zip archive that neither torch.save nor numpy.savez wrote")


class _View(io.RawIOBase):
    """A memoryview as a file, for `zipfile`."""

    def __init__(self, view):
        self.view, self.position = view, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.position = max(0, offset + (0, self.position, len(self.view))[whence])
        return self.position

    def tell(self):
        return self.position

    def readinto(self, target):
        part = self.view[self.position:self.position + len(target)]
        target[:len(part)] = part
        self.position += len(part)
        return len(part)


def _member(buffer, info):
    """The bytes of a zip member, a view where it is stored; its checksum is compared."""
    start = info.header_offset
    local = buffer[start:start + 30]
    if bytes(local[:4]) != b"PK\x03\x04":
        raise PickleError(f"member {info.filename[:80]!r} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    start += 30 + name_length + extra_length
    data = buffer[start:start + info.compress_size]
    if len(data) != info.compress_size or info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PickleError(f"member {info.filename[:80]!r} reaches beyond the file, is encrypted or compressed in a way that is not read")
    if info.compress_type == zipfile.ZIP_DEFLATED:
        if info.file_size > MAX_UNPACKED:
            raise PickleError(f"member {info.filename[:80]!r} unpacks to {info.file_size} bytes; the limit is {MAX_UNPACKED}")
        data = memoryview(zlib.decompressobj(-15).decompress(data, info.file_size + 1))
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise PickleError(f"member {info.filename[:80]!r} is damaged (its checksum differs)")
    return data


def _read_npz(buffer, members):
    if sum(info.file_size for info in members.values() if info.compress_type) > MAX_UNPACKED:
        raise PickleError(f"unpacks to more than {MAX_UNPACKED} bytes; write it with numpy.savez or as .safetensors")
    return {name[:-len(".npy")]: _npy(_member(buffer, info), name) for name, info in members.items()}


def _npy(data, name):
    """One array in numpy's own format; an array of objects (a pickle inside) is refused."""
    version = bytes(data[:8])
    if version[:6] != b"\x93NUMPY" or version[6] not in (1, 2, 3):
        raise PickleError(f"member {name[:80]!r} is not an array")
    form = "<H" if version[6] == 1 else "<I"
    start = 8 + struct.calcsize(form)
    length = struct.unpack(form, data[8:start])[0]
    if length > 65536:
        raise PickleError(f"member {name[:80]!r} has a header of {length} bytes")
    stream = io.BytesIO(bytes(data[8:start + length]))
    read_header = np.lib.format.read_array_header_1_0 if version[6] == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise PickleError(f"refused: member {name[:80]!r} holds Python objects, a pickle")
    array = _tensor(data[start + length:], dtype.str, shape[::-1] if fortran else shape)
    return array.T if fortran else array


class _Storage:
    """A torch storage: raw bytes (None while they are not found yet) and, in typed ones, the type of an element."""

    def __init__(self, kind, data):
        self.kind, self.data = kind, data


class _Torch:
    """torch's part of a pickle: storages by persistent id, and the functions that rebuild tensors as views of them."""

    def __init__(self, find, limit):
        self.find, self.limit, self.storages = find, limit, {}
        self.budget = 8 * limit                         # elements that are copied, to widen bfloat16

    def unpickler(self, buffer, position=0):
        return Unpickler(buffer, position, self.globals(), self.persistent)

    def globals(self):
        sparse = "a sparse tensor, which is not read; call .to_dense() before saving"
        quantised = "a quantised tensor, which is not read; call .dequantize() before saving"
        utils = {"_rebuild_tensor": self.rebuild, "_rebuild_tensor_v2": self.rebuild, "_rebuild_tensor_v3": self.rebuild_typed,
                 "_rebuild_parameter": lambda tensor, *_: tensor, "_rebuild_parameter_with_state": lambda tensor, *_: tensor,
                 "_rebuild_sparse_tensor": sparse, "_rebuild_sparse_csr_tensor": sparse, "_rebuild_qtensor": quantised,
                 "_rebuild_meta_tensor_no_storage": "a tensor of the 'meta' device, which has no data",
                 "_rebuild_nested_tensor": "a nested tensor, which is not read",
                 "_rebuild_wrapper_subclass": "a tensor subclass, which is not read"}
        kinds = {("torch", f"{name}Storage"): _Storage(kind, None) for name, kind in TORCH_TYPES.items()}
        table = {("torch._utils", name): make for name, make in utils.items()}
        table.update({key: None for key in kinds})
        table.update({("torch", name): None for name in TORCH_DTYPES})
        table.update({("torch", f"{name}Storage"): quantised for name in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")})
        table.update({("torch.storage", "UntypedStorage"): None, ("torch", "UntypedStorage"): None,
                      ("torch", "Size"): lambda n=(): tuple(n), ("torch", "device"): lambda *args: Inert("torch.device", args), ("torch", "Tensor"): None,
                      ("torch.nn.parameter", "Parameter"): None,
                      ("torch._tensor", "_rebuild_from_type_v2"): self.rebuild_subclass})
        return table

    def persistent(self, key):
        """('storage', type, key, device, number of elements[, view]) -> _Storage."""
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[2], str):
            raise PickleError("a persistent id that is not torch's")
        name = getattr(key[1], "name", "")
        kind = TORCH_TYPES.get(name.removeprefix("torch.").removesuffix("Storage"))
        if kind is None and not name.endswith(".UntypedStorage"):
            raise PickleError(f"a storage of type {name[:60]!r}")
        count, view = key[4], key[5] if len(key) > 5 else None
        if type(count) is not int or count < 0 or view is not None:
            raise PickleError("a storage that is a view of another, or of a negative size")
        size = count * (1 if kind is None else _itemsize(kind))
        if key[2] not in self.storages:
            self.storages[key[2]] = size, self.find(key[2], size)
        known, data = self.storages[key[2]]
        if known != size:
            raise PickleError(f"storage {key[2][:40]!r} has two sizes, {known} and {size} bytes")
        return _Storage(kind, data)

    def rebuild(self, storage, offset, shape, strides, *_):
        return self.view(storage, storage.kind, offset, shape, strides)

    def rebuild_typed(self, storage, offset, shape, strides, requires_grad, hooks, dtype, *_):
        return self.view(storage, TORCH_DTYPES.get(dtype.name.removeprefix("torch.")), offset, shape, strides)

    def rebuild_subclass(self, function, kind, args, state):
        if kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise PickleError(f"a tensor of class {kind.name[:80]!r}, which is not read")
        return function.make(*args)

    def view(self, storage, kind, offset, shape, strides):
        if kind is None:
            raise PickleError("a tensor of a type that is not read")
        if storage.data is None:
            return None
        array = strided_array(storage.data, numpy_dtype("u2" if kind == BFLOAT16 else kind), offset, shape, strides, self.limit)
        if kind == BFLOAT16:
            self.budget -= array.size
            if self.budget < 0:
                raise PickleError("refused: its tensors share storages so often that they hold more data than the file")
            array = _widen(array)
        return array


def _itemsize(kind):
    return 2 if kind == BFLOAT16 else numpy_dtype(kind).itemsize


def _read_torch_zip(buffer, members, root):
    """data.pkl, whose tensors refer to the members data/0, data/1, ..."""
    if root + "constants.pkl" in members:
        raise PickleError("a TorchScript program (torch.jit.save); save the model's state_dict() instead")
    if root + "byteorder" in members and bytes(_member(buffer, members[root + "byteorder"])) != b"little":
        raise PickleError("written on a big-endian machine, which is not read")

    def find(key, size):
        name = f"{root}data/{key}"
        if name not in members:
            raise PickleError(f"its member {name[:80]!r} is missing")
        data = _member(buffer, members[name])
        if len(data) != size:
            raise PickleError(f"member {name[:80]!r} has {len(data)} bytes, the pickle declares {size}")
        return data

    pickled = _member(buffer, members[root + "data.pkl"])
    machine = _Torch(find, len(buffer)).unpickler(pickled)
    tree = machine.load()
    if machine.position != len(pickled):
        raise PickleError(f"{len(pickled) - machine.position} bytes after the end of the pickle")
    return tree


def _read_legacy_torch(buffer):
    """torch.save before 1.6: pickles of magic, version, system, content, storage keys; then the storages."""
    machine = Unpickler(buffer)
    _, version, system = machine.load(), machine.load(), machine.load()
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("a legacy torch file of an unknown version, or of a big-endian machine")
    start = machine.position
    first = _Torch(lambda key, size: None, len(buffer))     # tells which storages there are; their data come after it
    machine = first.unpickler(buffer, start)
    machine.load()
    end = machine.position
    machine = Unpickler(buffer, end)
    keys = machine.load()
    if not isinstance(keys, list) or len(set(keys)) != len(keys) or set(keys) != set(first.storages):
        raise PickleError("its list of storages differs from its content")
    data = {}
    for key in keys:
        size, _ = first.storages[key]
        count = machine.number("<q")
        if count < 0 or count > size or (size % count if count else size):
            raise PickleError(f"storage {str(key)[:40]!r} declares {count} elements, the pickle {size} bytes")
        data[key] = machine.take(size)
    if machine.position != len(buffer):
        raise PickleError(f"{len(buffer) - machine.position} bytes after its last storage")
    return _Torch(lambda key, size: data[key], len(buffer)).unpickler(buffer, start).load()
