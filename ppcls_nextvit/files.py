"""Reading a user's files: regular ones alone, no more of one than a budget, and whatever is wrong
with its content as one line that names it.

The budgets of all readers stand here. They bound what a damaged or a hostile file can cost; no
sensible file comes near them.
"""

import contextlib
import os
import stat
import traceback
from pathlib import Path
from typing import Iterator, Type, Union

from .schema import ConfigError, shown_text

__all__ = [
    "IMAGE_BYTES",
    "JSON_BYTES",
    "LIST_BYTES",
    "MASK_BYTES",
    "MAX_PIXELS",
    "UnreadableError",
    "parsing",
    "read_file",
]

IMAGE_BYTES = 1 << 30  # of an image file, and of an image in a zip file once it is unpacked
LIST_BYTES = 4 << 30  # of a text file: lists of images, class names
JSON_BYTES = 16 << 30  # of a COCO json; Objects365's has 6 GB
MASK_BYTES = 8 << 30  # of the masks of one image, a byte for each pixel
# 256 MiB of RGB, where Pillow begins to warn: a larger image is a decompression bomb or a mistake
MAX_PIXELS = 89_478_485

PACKAGE = str(Path(__file__).parent)


class UnreadableError(OSError):
    """Why a file cannot be read, in words, without its name."""


def read_file(path: Union[str, os.PathLike], limit: int) -> bytes:
    """The bytes of the regular file `path`. UnreadableError if there is none, if it cannot be read,
    or if it has more than `limit` bytes.

    Opening a pipe would wait for someone who writes, and a device may never end.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableError("not a regular file")
            if found.st_size > limit:
                raise UnreadableError(
                    f"{found.st_size} bytes are more than the limit of {limit} bytes"
                )
            return file.readall()
    except UnreadableError:
        raise
    except FileNotFoundError:
        raise UnreadableError("no such file") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # of a name that no file can have
        raise UnreadableError(f"cannot be read: {error}") from error


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
    except (kind, ImportError):
        raise
    except Exception as error:  # the libraries' decoders raise anything
        if isinstance(error, (NameError, AssertionError)) and _raised_here(error):
            raise
        raise kind(f"{what}: {described(error)}") from error


def _raised_here(error: Exception) -> bool:
    """Whether a line of this package raised it."""
    return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)


def described(error: Exception) -> str:
    """What `error` says, on one line; its type if it says nothing or only names a key."""
    text = shown_text(" ".join(str(error).split()))
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}"
