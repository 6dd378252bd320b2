"""Long lists of images in files that are mapped into memory: made once, a block of lines at a time,
and shared by all processes of a machine, whatever run they belong to.

A list is known by the SHA-256 of its bytes, and the files by their own checksums, so that neither a
list that changed nor files that are damaged or another's are taken for it.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import zlib
from pathlib import Path as Folder
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ..files import BLOCKWISE_LIST_BYTES, described, open_file, read_file
from ..schema import shown_text
from .lists import Path
from .packed import PackedNames, checked_labels, entries_of, read_packed_list
from .remote.cache import locked

__all__ = ["read_shared_list"]

VERSION = 1
LEAST_BYTES = 32 << 20  # of a list; below, each process reads it in a fraction of a second
KEPT = 8  # lists; those that were not opened for longest go
COLUMNS = {"text": np.uint8, "starts": np.int64, "lengths": np.uint32, "labels": np.int32}
INDEX_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20

Entries = Tuple[PackedNames, np.ndarray]

log = logging.getLogger(__name__)


def read_shared_list(
    path: Path,
    folder: str,
    class_num: Optional[int],
    delimiter: str = " ",
    relabel: bool = False,
) -> Entries:
    """What `read_packed_list` reads, with its arguments and errors; of a list of LEAST_BYTES or
    more mapped from files below `folder`, which are made where they are not there. Where they
    cannot be, a warning says so and the list is read as others are.
    """
    entries = _shared(path, Folder(folder, "lists"), delimiter)
    labels = None if entries is None else checked_labels(entries[1], class_num, relabel)
    if entries is None or labels is None:
        return read_packed_list(path, class_num, delimiter, relabel)
    return entries[0], labels


def _shared(path: Path, folder: Folder, delimiter: str) -> Optional[Entries]:
    try:
        with open_file(path) as file:
            if not LEAST_BYTES <= os.fstat(file.fileno()).st_size <= BLOCKWISE_LIST_BYTES:
                return None
            digest = _digest(delimiter)
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError:  # which the plain reader tells of
        return None
    place = folder / digest.hexdigest()
    found = _opened(place)
    try:
        if found is None:
            with locked(str(folder)):
                found = _opened(place)  # another process was quicker
                if found is None:
                    _remove_old(folder)
                    _make(path, delimiter, place)
                    found = _opened(place)
        else:
            os.utime(place)
    except OSError as error:
        log.warning(
            "%s: the list cannot be shared through it (%s); this process holds it by itself",
            shown_text(str(folder)),
            described(error),
        )
    except (ValueError, OverflowError):  # something is wrong with the list, or it changes
        return None
    return found


def _digest(delimiter: str) -> Any:
    """The hash by which a list is known, to be fed with its bytes."""
    return hashlib.sha256(f"{VERSION} {delimiter!r}\n".encode("utf-8", "surrogateescape"))


def _opened(place: Folder) -> Optional[Entries]:
    """The entries in the files of `place`; None if they are not there, or not as they were made."""
    if not place.is_dir():
        return None
    try:
        told = json.loads(read_file(place / "index.json", INDEX_BYTES))
        if told["list"] != place.name:
            raise ValueError("it is of another list")
        count = told["images"]
        for name, kind in COLUMNS.items():
            size = told["bytes"] if name == "text" else count * np.dtype(kind).itemsize
            if _checksum(place / name, size) != told["checksums"][name]:
                raise ValueError(f"{name} is not as it was written")
        columns = {
            name: np.memmap(place / name, kind, "r").view(np.ndarray)
            for name, kind in COLUMNS.items()
        }
    except (OSError, ValueError, TypeError, LookupError) as error:
        log.warning("%s: damaged, and made anew (%s)", shown_text(str(place)), described(error))
        return None
    names = PackedNames(columns["text"], columns["starts"], columns["lengths"])
    return names, columns["labels"]


def _checksum(path: Folder, size: int) -> int:
    """The CRC-32 of a file of `size` bytes. ValueError for one of another size."""
    checksum = 0
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{path.name} has not {size} bytes")
        while block := file.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


class _Hashed:
    """An open file, of which what is read is hashed."""

    def __init__(self, file: io.FileIO, digest: Any):
        self.file = file
        self.digest = digest

    def read(self, size: int) -> bytes:
        """As the file's."""
        data = self.file.read(size) or b""
        self.digest.update(data)
        return data


def _make(path: Path, delimiter: str, place: Folder) -> None:
    """Write the files of the list `path`. ValueError or OverflowError where something is wrong with
    it, or where it is not the one of that place any more.
    """
    draft = place.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        with open_file(path) as file:
            digest = _digest(delimiter)
            told = _write(_Hashed(file, digest), delimiter, draft)
        if digest.hexdigest() != place.name:
            raise ValueError("the list changed while it was read")
        (draft / "index.json").write_text(json.dumps({"list": place.name, **told}))
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(file: _Hashed, delimiter: str, folder: Folder) -> Dict[str, Any]:
    """Write the columns of the list that is read from `file`, and say what there is."""
    images = size = 0
    checksums = dict.fromkeys(COLUMNS, 0)
    outputs = {name: open(folder / name, "wb") for name in COLUMNS}
    try:
        for block, part in entries_of(file, delimiter):
            if len(part.labels) and part.labels.max() > np.iinfo(np.int32).max:
                raise OverflowError("a label of more than 32 bits")
            columns = {**part._asdict(), "text": np.frombuffer(block, np.uint8)}
            columns["starts"] = part.starts + size
            for name, kind in COLUMNS.items():
                data = columns[name].astype(kind, copy=False)
                outputs[name].write(data)
                checksums[name] = zlib.crc32(data, checksums[name])
            images += len(part.labels)
            size += len(block)
    finally:
        for output in outputs.values():
            output.close()
    if not images:
        raise ValueError("an empty list")
    return {"images": images, "bytes": size, "checksums": checksums}


def _remove_old(folder: Folder) -> None:
    """Remove all but the lists that were opened last, and what a killed process left."""
    made = []
    for place in folder.iterdir():
        if place.suffix == ".draft":
            shutil.rmtree(place, ignore_errors=True)
        elif place.is_dir():
            made.append((place.stat().st_mtime, place))
    for _, place in sorted(made, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(place, ignore_errors=True)
