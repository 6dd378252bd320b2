"""Read weight files safely: `.pdparams` and its kin, `.pth` / `.pt` (zip and legacy),
`.safetensors`, `.npz`.

No torch, no code of the file, memory-mapped where the format allows it. The content decides what a
file is, not its name.
"""

import mmap
import os
from collections.abc import Callable
from typing import Any, Union

from ..files import UnreadableError, is_mistake, open_file
from ..schema import shown_text
from .formats.archive import zip_members
from .formats.errors import FormatError
from .formats.npz import SUFFIX, read_npz
from .formats.paddle_files import read_paddle
from .formats.safetensors import read_safetensors
from .formats.torch_files import TORCH_MAGIC, read_legacy_torch, read_torch_zip

__all__ = ["WeightFileError", "read_file"]

OTHER_FILES = (
    (b"version https://git-lfs", "a git-lfs pointer; fetch the file itself (git lfs pull)"),
    (b"<", "a web page, probably of a failed download"),
    (b"\x1f\x8b", "gzip; unpack it first"),
    (b"\x89HDF", "HDF5, which is not read"),
)
REASON_LENGTH = 400  # of an error, so that it stays a line


class WeightFileError(ValueError):
    """A file that is not read: damaged, cut off, dangerous, or of another kind. One line, naming
    the file and the reason.
    """

    def __init__(self, message: str):
        super().__init__(shown_text(message))


def read_file(path: Union[str, "os.PathLike[str]"]) -> Any:
    """The content of a weight file as nested dicts, lists, tuples and scalars, with numpy arrays
    for tensors.

    Arrays are read-only and, except in compressed files, views of the mapped file: replace such a
    file by `os.replace` rather than writing into it while they live. bfloat16 (in Paddle's pickles:
    uint16) is widened to float32, exactly. Other objects, such as argparse.Namespace, are `Inert`
    data. Raises WeightFileError, a ValueError.
    """
    path = os.fspath(path)
    buffer = _mapped(path)
    try:
        return _reader(buffer)(buffer)
    except FormatError as error:
        raise WeightFileError(f"{path}: {_line(error)}") from error
    except Exception as error:  # whatever the content leads to; see files.parsing
        if is_mistake(error):
            raise
        reason = f"damaged: {type(error).__name__}: {_line(error)}"
        raise WeightFileError(f"{path}: {reason}") from error


def _line(error: Exception) -> str:
    return shown_text(" ".join(str(error).split()), REASON_LENGTH)


def _mapped(path: str) -> memoryview:
    """The file's bytes."""
    if os.path.isdir(path):
        raise WeightFileError(f"{path}: a directory; name a file in it")
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except UnreadableError as error:
        raise WeightFileError(f"{path}: {error}") from error.__cause__
    raise WeightFileError(f"{path}: empty file")


def _reader(buffer: memoryview) -> Callable[[memoryview], Any]:
    """The function that reads what the first bytes announce."""
    head = bytes(buffer[:512])
    if head[:4] == b"PK\x03\x04":
        return _read_zip
    if head[:1] == b"\x80":
        return read_legacy_torch if head[2:14] == TORCH_MAGIC else read_paddle
    if len(head) > 9 and head[8:9] == b"{":
        return read_safetensors
    for start, what in OTHER_FILES:
        if head.lstrip().startswith(start):
            raise FormatError(f"this is {what}")
    if head[257:262] == b"ustar":
        raise FormatError(
            "a tar archive (torch 0.1 and older, or a packed folder), which is not read; unpack "
            "it or save it anew"
        )
    raise FormatError(
        "not a weight file: expected what paddle.save, torch.save, safetensors or numpy.savez "
        "write "
        f"(first bytes: {head[:8].hex()})"
    )


def _read_zip(buffer: memoryview) -> Any:
    """torch.save since 1.6, or numpy.savez."""
    members = zip_members(buffer)
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) == 1:
        return read_torch_zip(buffer, members, pickles[0].removesuffix("data.pkl"))
    if members and all(name.endswith(SUFFIX) for name in members):
        return read_npz(buffer, members)
    raise FormatError("a zip archive that neither torch.save nor numpy.savez wrote")
