"""Parts of files by position, from processes that share the descriptor."""

import os

__all__ = ["PartsFile"]


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
