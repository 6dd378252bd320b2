"""Files in larger files: read by position, from processes that share the descriptor, and found by
names that are all known.
"""

import os
from typing import Any, ClassVar, List, Mapping, Sequence

from ..schema import shown_text

__all__ = ["ListedFiles", "PartsFile"]


class PartsFile:
    """A file that is read by position, so that processes forked after opening can share it."""

    def __init__(self, path: str):
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on, fewer at the end. OSError where that fails."""
        if hasattr(os, "pread"):
            return os.pread(self.descriptor, size, start)
        with open(self.path, "rb") as file:  # Windows
            file.seek(start)
            return file.read(size)


class ListedFiles:
    """The members of the file or folder `root`, all of whose names are known. missing: what
    messages say of a name that is none.
    """

    missing: ClassVar[str]
    root: str
    members: Mapping[str, Any]  # by name: what is known of where each lies

    def path(self, name: str) -> str:
        """The member `name` as messages call it."""
        return f"{self.root}/{name}"

    def named(self, names: Sequence[str]) -> List[str]:
        """`names` with slashes for backslashes, but where a member has such a name."""
        return [
            name.replace("\\", "/") if "\\" in name and name not in self.members else name
            for name in names
        ]

    def read_ahead(self, names: Sequence[str]) -> None:
        """Nothing: a disk answers at once."""

    def check(self, names: Sequence[str], each: bool = True) -> None:
        """FileNotFoundError, before any work starts, if one of `names` is no member. each: to look
        at every one costs nothing here.
        """
        missing = [name for name in names if name not in self.members]
        if missing:
            raise FileNotFoundError(
                f"{shown_text(self.path(missing[0]))}: {self.missing} ({len(missing)} of "
                f"{len(names)} are missing)"
            )
