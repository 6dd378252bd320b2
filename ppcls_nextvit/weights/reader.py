"""Read weight files safely: `.pdparams` and its kin, `.pth` / `.pt` (zip and legacy),
`.safetensors`, `.npz`.

No torch, no code of the file, memory-mapped where the format allows it. The content decides what a
file is, not its name.
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

from .archive import MAX_UNPACKED, member, zip_members
from .torch_files import TORCH_MAGIC, read_legacy_torch, read_torch_zip
from .unpickle import BFLOAT16, PickleError, Unpickler, numpy_dtype, widen

__all__ = ["WeightFileError", "read_file"]

MAX_HEADER = 100_000_000  # bytes of a safetensors header, its own limit
SAFETENSORS_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": BFLOAT16,
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "b1",
}
DAMAGE = (
    PickleError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)


class WeightFileError(ValueError):
    """A file that is not read: damaged, cut off, dangerous, or of another kind. One line, naming
    the file and the reason.
    """


def read_file(path):
    """The content of a weight file as nested dicts, lists, tuples and scalars, with numpy arrays
    for tensors.

    Arrays are read-only and, except in compressed files, views of the mapped file: replace such a
    file by `os.replace` rather than writing into it while they live. bfloat16 (in Paddle's pickles:
    uint16) is widened to float32, exactly. Other objects, such as argparse.Namespace, are `Inert`
    data. Raises WeightFileError, a ValueError.
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
        reason = (
            str(error)
            if isinstance(error, PickleError)
            else f"damaged: {type(error).__name__}: {error}"
        )
        raise WeightFileError(f"{path}: {' '.join(reason.split())[:400]}") from error


def _reader(buffer):
    """The function that reads what the first bytes announce."""
    head = bytes(buffer[:512])
    if head[:4] == b"PK\x03\x04":
        return _read_zip
    if head[:1] == b"\x80":
        return read_legacy_torch if head[2:14] == TORCH_MAGIC else _read_paddle
    if len(head) > 9 and head[8:9] == b"{":
        return _read_safetensors
    for start, what in (
        (b"version https://git-lfs", "a git-lfs pointer; fetch the file itself (git lfs pull)"),
        (b"<", "a web page, probably of a failed download"),
        (b"\x1f\x8b", "gzip; unpack it first"),
        (b"\x89HDF", "HDF5, which is not read"),
    ):
        if head.lstrip().startswith(start):
            raise PickleError(f"this is {what}")
    if head[257:262] == b"ustar":
        raise PickleError(
            "a tar archive (torch 0.1 and older, or a packed folder), which is not read; unpack "
            "it or save it anew"
        )
    raise PickleError(
        "not a weight file: expected what paddle.save, torch.save, safetensors or numpy.savez "
        "write "
        f"(first bytes: {head[:8].hex()})"
    )


def _tensor(data, kind, shape):
    """The array of type `kind` and `shape` that fills `data` exactly."""
    dtype = numpy_dtype("u2" if kind == BFLOAT16 else kind)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PickleError(
            f"shape {list(shape)} of {kind} needs {math.prod(shape) * dtype.itemsize} bytes, the "
            f"file declares {len(data)}"
        )
    array = np.frombuffer(data, dtype).reshape(shape)
    return widen(array) if kind == BFLOAT16 else array


def _read_paddle(buffer):
    """paddle.save: one pickle of arrays, or of tuple((name, array)) for tensors."""
    machine = Unpickler(buffer)
    tree = machine.load()
    if machine.position != len(buffer):
        raise PickleError(f"{len(buffer) - machine.position} bytes after the end of the pickle")
    if isinstance(tree, dict):
        if "UnpackBigParamInfor@@" in tree:
            raise PickleError(
                "holds an array above 1 GiB in slices (protocol 2 or 3); save it with protocol=4"
            )
        # Paddle's process-wide names of the same tensors
        tree.pop("StructuredToParameterName@@", None)
    return _map_dicts(
        tree,
        lambda value: (
            widen(value) if isinstance(value, np.ndarray) and value.dtype == np.uint16 else value
        ),
    )


def _map_dicts(tree, function):
    """`function` on every value of the dicts of `tree`, in place; without recursion, and each dict
    once.
    """
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

    header = json.loads(bytes(buffer[8 : 8 + length]).decode("utf-8"), object_pairs_hook=unique)
    data, arrays, spans = buffer[8 + length :], {}, []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        (start, end), shape, kind = entry["data_offsets"], entry["shape"], entry["dtype"]
        if kind not in SAFETENSORS_TYPES:
            raise PickleError(f"tensor {key[:80]!r} is of type {str(kind)[:20]}, which is not read")
        if not all(
            type(n) is int and n >= 0 for n in (start, end, *shape)
        ) or not start <= end <= len(data):
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
        raise PickleError(
            f"its header describes {position} bytes of tensors, the file has {len(data)}"
        )
    return arrays


def _read_zip(buffer):
    """torch.save since 1.6, or numpy.savez."""
    members = zip_members(buffer)
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) == 1:
        return read_torch_zip(buffer, members, pickles[0][: -len("data.pkl")])
    if members and all(name.endswith(".npy") for name in members):
        return _read_npz(buffer, members)
    raise PickleError("a zip archive that neither torch.save nor numpy.savez wrote")


def _read_npz(buffer, members):
    if sum(info.file_size for info in members.values() if info.compress_type) > MAX_UNPACKED:
        raise PickleError(
            f"unpacks to more than {MAX_UNPACKED} bytes; write it with numpy.savez or as "
            f".safetensors"
        )
    return {
        name[: -len(".npy")]: _npy(member(buffer, info), name) for name, info in members.items()
    }


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
    stream = io.BytesIO(bytes(data[8 : start + length]))
    read_header = (
        np.lib.format.read_array_header_1_0
        if version[6] == 1
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise PickleError(f"refused: member {name[:80]!r} holds Python objects, a pickle")
    array = _tensor(data[start + length :], dtype.str, shape[::-1] if fortran else shape)
    return array.T if fortran else array
