"""safetensors: 8 bytes with the header's length; the header, JSON; then the tensors, side by
side.
"""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any, Dict, List, Tuple, Union

import numpy as np

from ...files import HEADER_BYTES
from ...schema import shown, shown_text
from .arrays import BFLOAT16, filling
from .errors import FormatError

__all__ = ["read_safetensors", "write_safetensors"]

LENGTH = "<Q"
LENGTH_BYTES = 8
TYPES = {
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


def read_safetensors(buffer: memoryview) -> Dict[str, np.ndarray]:
    """The arrays of the file, by key, as views of it. FormatError where it is damaged."""
    length = struct.unpack(LENGTH, buffer[:LENGTH_BYTES])[0]
    if length > len(buffer) - LENGTH_BYTES:
        raise FormatError(f"declares a header of {length} bytes, the file has {len(buffer)}")
    if length > HEADER_BYTES:
        raise FormatError(f"a header of {length} bytes; the limit is {HEADER_BYTES}")
    text = bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + length]).decode("utf-8")
    header = json.loads(text, object_pairs_hook=_unique)
    data = buffer[LENGTH_BYTES + length :]
    arrays: Dict[str, np.ndarray] = {}
    spans: List[Tuple[int, int]] = []
    for key, entry in header.items():
        if key != "__metadata__":
            arrays[key], span = _tensor(key, entry, data)
            spans.append(span)
    _check_spans(spans, len(data))
    return arrays


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise FormatError("its header names a tensor twice")
    return dict(pairs)


def _tensor(
    key: str, entry: Mapping[str, Any], data: memoryview
) -> Tuple[np.ndarray, Tuple[int, int]]:
    """The array that the header's `entry` describes, and where it begins and ends in `data`."""
    start, end = entry["data_offsets"]
    shape = entry["shape"]
    kind = entry["dtype"]
    if not isinstance(kind, str) or kind not in TYPES:
        name = kind if isinstance(kind, str) else type(kind).__name__
        raise FormatError(
            f"tensor {shown(key)} is of type {shown_text(name, 40)}, which is not read"
        )
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= len(data):
        raise FormatError(
            f"tensor {shown(key)} lies at {shown(start)}..{shown(end)} of {len(data)} bytes"
        )
    try:
        return filling(data[start:end], TYPES[kind], shape), (start, end)
    except FormatError as error:
        raise FormatError(f"tensor {shown(key)}: {error}") from None


def _check_spans(spans: List[Tuple[int, int]], size: int) -> None:
    """The tensors must fill the data without overlap or gap."""
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise FormatError(f"its tensors overlap or leave a gap at byte {position} of the data")
        position = end
    if position != size:
        raise FormatError(f"its header describes {position} bytes of tensors, the file has {size}")


def write_safetensors(
    arrays: Mapping[str, np.ndarray], path: Union[str, "os.PathLike[str]"]
) -> None:
    """A file of `arrays`, as PyTorch programs read it; written one by one, so that nothing is held
    twice.
    """
    names = {kind: name for name, kind in TYPES.items()}
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # wide types first, so that all are aligned
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    for key, array in ordered.items():
        header[key] = {
            "dtype": names[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    with open(path, "wb") as file:
        file.write(struct.pack(LENGTH, len(text)) + text)
        for array in ordered.values():
            file.write(np.ascontiguousarray(array).data)
