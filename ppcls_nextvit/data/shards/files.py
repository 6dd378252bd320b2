"""The images of a folder of shards, by name or by number."""

import functools
import os
import zlib
from typing import Dict, Sequence

from ...schema import shown_text
from ..images import ImageError
from ..parts import ListedFiles, PartsFile
from .index import INDEX, ShardIndex

__all__ = ["ShardFiles"]

OPEN_FILES = 256  # that a process keeps open; systems allow 1024


class ShardFiles(ListedFiles):
    """The images of the shards in `root`, as a dataset reads files."""

    missing = "not in the shards"

    def __init__(self, root: str):
        self.root = root
        self.index = ShardIndex(root)
        self.opened = functools.lru_cache(OPEN_FILES)(PartsFile)

    @staticmethod
    def are_in(root: str) -> bool:
        """Whether the folder `root` has an index of shards."""
        return os.path.isfile(os.path.join(root, INDEX, "index.json"))

    @functools.cached_property
    def members(self) -> Dict[str, int]:  # type: ignore[override]
        """Where in the index each name stands: for whoever knows names alone."""
        return {name: number for number, name in enumerate(self.index.names)}

    def check(self, names: Sequence[str], each: bool = True) -> None:
        """As ListedFiles; the index's own names need no looking up."""
        if names is not self.index.names:
            super().check(names, each)

    def read(self, name: str) -> bytes:
        """The bytes of the image `name`, as `read_number` gives them."""
        return self.read_number(self.members[name])

    def read_number(self, number: int) -> bytes:
        """The bytes of an image by its place in the index. ImageError if they are not those that
        were indexed.
        """
        shard, offset, size = (int(column[number]) for column in self.index.places)
        path = os.path.join(self.root, self.index.shards[shard])
        what = f"{shown_text(path)}: {shown_text(self.index.names[number])}"
        try:
            data = self.opened(path).read(offset, size)
        except OSError as error:
            raise ImageError(f"{what}: cannot be read: {error.strerror}") from error
        if zlib.crc32(data) != self.index.checksums[number]:
            raise ImageError(f"{what}: not the bytes that were indexed; the shard is damaged")
        return data
