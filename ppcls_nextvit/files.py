"""Reading a user's files: regular ones alone, no more of one than a budget, and whatever is wrong
with its content as one line that names it.

The budgets of all readers stand here. They bound what a damaged or a hostile file can cost; no
sensible file comes near them.
"""

import codecs
import contextlib
import io
import os
import stat
import traceback
from pathlib import Path
from typing import Iterator, Optional, Type, Union

from .schema import ConfigError, shown_text

__all__ = [
    "BLOCKWISE_LIST_BYTES",
    "CONFIG_BYTES",
    "CONFIG_DEPTH",
    "CONFIG_NODES",
    "HEADER_BYTES",
    "IMAGE_BYTES",
    "JSON_BYTES",
    "LABEL_BYTES",
    "LIST_BYTES",
    "MASK_BYTES",
    "MAX_PIXELS",
    "PICKLE_OPERATIONS",
    "PICKLE_SHARE",
    "UNPACKED_BYTES",
    "UNPACKED_FREE",
    "UNPACKED_SHARE",
    "UnreadableError",
    "described",
    "is_mistake",
    "open_file",
    "parsing",
    "read_file",
    "read_text",
]

IMAGE_BYTES = 1 << 30  # of an image file, and of an image in a zip file once it is unpacked
LIST_BYTES = 4 << 30  # of a text file: lists of images, class names
BLOCKWISE_LIST_BYTES = 16 << 30  # of a list of images that is read a block at a time
JSON_BYTES = 16 << 30  # of a COCO json; Objects365's has 6 GB
LABEL_BYTES = 256 << 20  # of the label file of one image; labelme's hold the image, too
MASK_BYTES = 8 << 30  # of the masks of one image, a byte for each pixel
# 256 MiB of RGB, where Pillow begins to warn: a larger image is a decompression bomb or a mistake
MAX_PIXELS = 89_478_485

CONFIG_BYTES = 1 << 20  # of a YAML file
CONFIG_NODES = 20_000  # keys and values of it, what an alias stands for counted wherever it is
CONFIG_DEPTH = 60  # lists and mappings in each other

# Of a file of weights. Its tensors are views of it; what is not is bounded by these:
UNPACKED_BYTES = 4 << 30  # of the compressed members of an archive, all together
UNPACKED_SHARE = 64  # and so many times the archive's own bytes
UNPACKED_FREE = 256 << 20  # but so many of any archive
HEADER_BYTES = 25_000_000  # of safetensors; a tensor needs about a hundred
PICKLE_OPERATIONS = 5_000_000  # a checkpoint with its optimiser has about 300 000
PICKLE_SHARE = 16  # bytes for each of the file's that the pickle's own copies and containers take

PACKAGE = str(Path(__file__).parent)


class UnreadableError(OSError):
    """Why a file cannot be read, in words, without its name."""


def read_file(path: Union[str, os.PathLike], limit: int) -> bytes:
    """The bytes of the regular file `path`. UnreadableError if there is none, if it cannot be read,
    or if it has more than `limit` bytes.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UnreadableError(f"{size} bytes are more than the limit of {limit} bytes")
        return file.readall()


@contextlib.contextmanager
def open_file(path: Union[str, os.PathLike]) -> Iterator[io.FileIO]:
    """The regular file `path`, open. UnreadableError if there is none, or if it cannot be read.

    Opening a pipe would wait for someone who writes, and a device may never end.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadableError("not a regular file")
            yield file
    except UnreadableError:
        raise
    except FileNotFoundError:
        raise UnreadableError("no such file") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # of a name that no file can have
        raise UnreadableError(f"cannot be read: {error}") from error


def read_text(
    path: Union[str, os.PathLike], called: Optional[str] = None, limit: int = LIST_BYTES
) -> str:
    """The text of the file `path`, without the mark that Windows's programs put at its beginning.

    called: what messages call the file, by default its path. limit: of its bytes. FileNotFoundError
    for one that cannot be read, ConfigError for one that is not UTF-8.
    """
    called = called or os.fspath(path)
    try:
        data = read_file(path, limit)
    except UnreadableError as error:
        raise FileNotFoundError(f"{shown_text(called)}: {error}") from error.__cause__
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{called}: text in UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{called}: not a text file in UTF-8 ({error.reason} at byte {error.start})"
        ) from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def parsing(what: str, kind: Type[Exception] = ConfigError) -> Iterator[None]:
    """Turns any error of the statements in it into one of `kind`, whose message is `what` and the
    error's; one of `kind` passes as it is.

    A user's file and a mistake of ours are told apart by the place: inside stands nothing but what
    takes the file's content apart, so that the content decides what happens there; everything else
    stands outside and keeps its traceback. Three kinds of errors pass even so, since no content
    causes them: an ImportError, and a NameError or a failed `assert` in a line of this package.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:  # the libraries' decoders raise anything
        if is_mistake(error):
            raise
        raise kind(f"{what}: {described(error)}") from error


def is_mistake(error: Exception) -> bool:
    """Whether no content of a file causes `error`: see `parsing`."""
    if isinstance(error, (NameError, AssertionError)):
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        return raised_in.startswith(PACKAGE)
    return isinstance(error, ImportError)


def described(error: Exception) -> str:
    """What `error` says, on one line; its type if it says nothing or only names a key."""
    text = shown_text(" ".join(str(error).split()))
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}"
