"""The images of a folder of shards, by name or by number."""

import functools
import os
import zlib
from typing import Dict, Optional, Sequence, Tuple

from ...schema import ConfigError, shown_text
from ..images import ImageError
from ..parts import ListedFiles, PartsFile
from ..remote import RemoteIndex, RemoteOptions, RemoteStore, address_of, is_remote
from .index import INDEX, INDEX_FILES, ShardIndex

__all__ = ["ShardFiles"]

OPEN_FILES = 256  # that a process keeps open; systems allow 1024


class ShardFiles(ListedFiles):
    """The images of the shards in `root`, a folder or an address, as a dataset reads files."""

    missing = "not in the shards"

    def __init__(self, root: str, options: Optional[RemoteOptions] = None):
        self.root = root
        self.store: Optional[RemoteStore] = None
        if is_remote(root):
            options = options or RemoteOptions()
            self.store = RemoteStore(root, options)
            self.index = ShardIndex(root, RemoteIndex(root, options).copy(INDEX_FILES))
        else:
            self.index = ShardIndex(root)
        self.opened = functools.lru_cache(OPEN_FILES)(PartsFile)

    @staticmethod
    def are_in(root: str, options: Optional[RemoteOptions] = None) -> bool:
        """Whether the folder or the address `root` has an index of shards."""
        if is_remote(root):
            return RemoteIndex(root, options or RemoteOptions()).has(f"{INDEX}/index.json")
        return os.path.isfile(os.path.join(root, INDEX, "index.json"))

    @functools.cached_property
    def members(self) -> Dict[str, int]:  # type: ignore[override]
        """Where in the index each name stands: for whoever knows names alone. ConfigError for two
        images of one name, of which a name alone tells none.
        """
        found: Dict[str, int] = {}
        for number, name in enumerate(self.index.names):
            first = found.setdefault(name, number)
            if first != number:
                one, other = (self.index.shards[self.index.places[0][n]] for n in (first, number))
                raise ConfigError(
                    f"{shown_text(self.root)}: {shown_text(name)} is in {shown_text(one)} and in "
                    f"{shown_text(other)}, and is asked for by its name; rename one"
                )
        return found

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
        path, offset, size, checksum = self._place(number)
        what = f"{shown_text(path)}: {shown_text(self.index.names[number])}"
        try:
            if self.store is not None:
                data = self.store.read(path, offset, size, checksum)
            else:
                data = self.opened(path).read(offset, size)
        except OSError as error:
            raise ImageError(f"{what}: cannot be read: {error.strerror or error}") from error
        if zlib.crc32(data) != self.index.checksums[number]:
            raise ImageError(f"{what}: not the bytes that were indexed; the shard is damaged")
        return data

    def read_ahead(self, names: Sequence[str]) -> None:
        """Begin to read these images, which are asked for next."""
        if self.store is not None:
            self.read_numbers_ahead([self.members[name] for name in names])

    def read_numbers_ahead(self, numbers: Sequence[int]) -> None:
        """As `read_ahead`, by their places in the index."""
        if self.store is not None:
            self.store.forget()
            for number in numbers:
                self.store.read_ahead(*self._place(number))

    def _place(self, number: int) -> Tuple[str, int, int, int]:
        """Where an image is: the path or address of its shard, its first byte, their number; and
        their CRC-32.
        """
        shard, offset, size = (int(column[number]) for column in self.index.places)
        name = self.index.shards[shard]
        path = os.path.join(self.root, name) if self.store is None else address_of(self.root, name)
        return path, offset, size, int(self.index.checksums[number])
