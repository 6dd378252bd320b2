"""Shards from files: tar files of WebDataset's layout, the same bytes from the same images."""

import io
import os
import tarfile
from typing import List, Optional, Protocol, Sequence, Union

import numpy as np

from ...schema import ConfigError, shown_text
from .index import Indexed, write_index
from .samples import images_of

__all__ = ["Source", "make_shards"]

LARGEST = 1 << 40  # bytes of a shard


class Source(Protocol):
    """What is put into shards: images by number, with labels or none."""

    names: Sequence[str]
    labels: Union[Sequence[int], np.ndarray, None]
    class_names: Optional[List[str]]

    def read(self, index: int) -> bytes:
        """The bytes of an image. ImageError if they cannot be read."""


def make_shards(
    source: Source, order: Union[Sequence[int], np.ndarray], root: str, shard_bytes: int = 256 << 20
) -> int:
    """Write the images of `source` in `order` as shards of about `shard_bytes` into the folder
    `root`, which is empty or not there, and their index; how many shards.

    Each shard is read once more for the index. ConfigError for a folder with something in it, and
    for two images of one key; ImageError for an image that cannot be read.
    """
    if not 1 <= shard_bytes <= LARGEST:
        raise ConfigError(f"a shard must have 1 to {LARGEST} bytes, got {shard_bytes}")
    if os.path.isdir(root) and os.listdir(root):
        raise ConfigError(f"{shown_text(root)}: not empty; choose another folder for the shards")
    if source.labels is not None:
        _refuse_equal_keys(source.names)
    os.makedirs(root, exist_ok=True)
    shards: List[Indexed] = []
    place = 0
    while place < len(order):
        name = f"{len(shards):06d}.tar"
        path = os.path.join(root, name)
        with tarfile.open(f"{path}.part", "w", format=tarfile.PAX_FORMAT) as archive:
            while place < len(order) and archive.offset < shard_bytes:
                _add_sample(archive, source, int(order[place]))
                place += 1
        os.replace(f"{path}.part", path)
        shards.append(Indexed.of(name, list(images_of(path, source.labels is not None))))
    write_index(root, shards, source.class_names)
    return len(shards)


def _add_sample(archive: tarfile.TarFile, source: Source, index: int) -> None:
    name = source.names[index].replace(os.sep, "/")
    if source.labels is None:
        _add(archive, name, source.read(index))
        return
    key = _key(name)
    _add(archive, f"{key}{os.path.splitext(name)[1]}", source.read(index))
    _add(archive, f"{key}.cls", b"%d" % source.labels[index])


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and no owner: equal images make equal shards
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _key(name: str) -> str:
    """The key of a labelled image: its name without the ending. What is behind the first dot of a
    file's name is its ending to WebDataset, so that the others become `_`.
    """
    folder, slash, file = os.path.splitext(name)[0].rpartition("/")
    return f"{folder}{slash}{file.replace('.', '_')}"


def _refuse_equal_keys(names: Sequence[str]) -> None:
    """ConfigError, naming them, for two images of one key."""
    hashes = np.fromiter((hash(_key(name)) for name in names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    for place in np.flatnonzero(np.diff(hashes[order]) == 0):
        one, other = names[order[place]], names[order[place + 1]]
        if _key(one) == _key(other):
            raise ConfigError(
                f"{shown_text(one)} and {shown_text(other)} would both be {shown_text(_key(one))} "
                "in the shards; rename one"
            )
