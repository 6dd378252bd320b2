"""Images on a server by their names, and copies of the lists that say which there are."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence
from urllib.parse import quote

from ...files import IMAGE_BYTES, LIST_BYTES
from ...schema import ConfigError, shown_text
from ..images import ImageError
from .options import RemoteOptions, is_remote
from .store import RemoteError, RemoteStore

__all__ = ["RemoteFiles", "RemoteIndex", "address_of", "local_copy"]

BLOCK_BYTES = 32 << 20  # of a list that is copied
# what file systems call a file's version, of which a copy is as good as the file
VERSIONS = ("etag", "mtime", "lastmodified", "last_modified", "updated", "md5", "content-md5")
KEPT_VERSIONS = 2  # of a file: another run may be about to open the one before


def address_of(root: str, name: str) -> str:
    """The address of the file `name` below `root`."""
    if root.startswith(("http://", "https://")):
        name = quote(name, safe="/~!$&'()*+,;=:@")
    return f"{root.rstrip('/')}/{name}"


class RemoteFiles:
    """Files below the address `root`, as a dataset reads them."""

    def __init__(self, root: str, options: RemoteOptions):
        self.root = root
        self.store = RemoteStore(root, options)

    def path(self, name: str) -> str:
        """The address of the file `name`."""
        return address_of(self.root, name)

    def named(self, names: Sequence[str]) -> List[str]:
        """`names` with slashes for backslashes."""
        return [name.replace("\\", "/") for name in names]

    def check(self, names: Sequence[str], each: bool = True) -> None:
        """FileNotFoundError where the first file cannot be read: the root is wrong then, or nobody
        answers. Others are noticed when they are read.
        """
        try:
            self.store.read(self.path(names[0]))
        except RemoteError as error:
            raise FileNotFoundError(
                f"{shown_text(self.path(names[0]))}: {error}, and it is the first of the list; is "
                f"image_root (or dataset_root) right?"
            ) from error

    def read(self, name: str) -> bytes:
        """The file's bytes. ImageError if they cannot be read."""
        path = self.path(name)
        try:
            data = self.store.read(path)
        except RemoteError as error:
            raise ImageError(f"{path}: {error}") from error
        if len(data) > IMAGE_BYTES:
            raise ImageError(
                f"{path}: {len(data)} bytes are more than the limit of {IMAGE_BYTES} bytes"
            )
        return data

    def read_ahead(self, names: Sequence[str]) -> None:
        """Begin to read these files, which are asked for next; give up those begun before."""
        self.store.forget()
        for name in names:
            self.store.read_ahead(self.path(name), None, None, None)


class RemoteIndex:
    """Copies of files that are needed whole, in the folder of the cache: lists, indexes. They are
    made anew when the file changed, and are not among what the cache's limit counts.
    """

    def __init__(self, root: str, options: RemoteOptions):
        self.root = root
        self.store = RemoteStore(root, options)
        self.folder = Path(options.folder, "copies")

    def has(self, name: str) -> bool:
        """Whether there is a file `name`, as far as one may know: S3 answers 403 for what is not
        there to whoever may not list. FileNotFoundError, which says why, if nobody answers.
        """
        try:
            self.store.info(address_of(self.root, name))
        except RemoteError as error:
            cause = error.__cause__
            forbidden = isinstance(cause, PermissionError) or getattr(cause, "status", 0) == 403
            if forbidden or isinstance(cause, FileNotFoundError):
                return False
            path = address_of(self.root, name)
            raise FileNotFoundError(f"{shown_text(path)}: {error}") from error
        return True

    def copy(self, names: Sequence[str], limit: int = LIST_BYTES) -> Path:
        """The folder of copies of the files `names` below the address, which are of one version.
        FileNotFoundError, which says why, for one that cannot be read or has more than `limit`
        bytes.
        """
        told = [self._info(name, limit) for name in names]
        place = self.folder / _digest(f"{self.root} {list(names)}")
        version = _digest(repr([_version(one) for one in told]))
        if all(map(_version, told)) and (place / version).is_dir():
            os.utime(place / version)
            return place / version
        draft = place / f"draft.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for name, one in zip(names, told):
                self._copy(name, int(one["size"]), draft / os.path.basename(name))
            if not all(map(_version, told)):
                version = _digest(repr([_sha256_of(path) for path in sorted(draft.iterdir())]))
            final = place / version
            try:
                draft.rename(final)
            except OSError:
                if not final.is_dir():  # else another process was quicker
                    raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.strerror is None:
                raise
            raise FileNotFoundError(
                f"{shown_text(self.root)}: cannot be copied into {shown_text(str(place))}: "
                f"{error.strerror}"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _remove_old(place)
        return final

    def _info(self, name: str, limit: int) -> Dict[str, Any]:
        path = address_of(self.root, name)
        try:
            told = self.store.info(path)
            if not isinstance(told.get("size"), int) or told["size"] < 0:
                raise RemoteError("the server does not say how large it is")
            if told["size"] > limit:
                raise RemoteError(f"{told['size']} bytes are more than the limit of {limit} bytes")
        except RemoteError as error:
            raise FileNotFoundError(f"{shown_text(path)}: {error}") from error
        return told

    def _copy(self, name: str, size: int, target: Path) -> None:
        path = address_of(self.root, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            for start in range(0, size, BLOCK_BYTES):
                try:
                    part = self.store.fetch(path, start, min(BLOCK_BYTES, size - start))
                except RemoteError as error:
                    raise FileNotFoundError(f"{shown_text(path)}: {error}") from error
                file.write(part)


def _version(told: Dict[str, Any]) -> List[str]:
    """What tells one version of a file from another; empty where the server says nothing."""
    found = [f"{key} {value}" for key, value in told.items() if key.lower() in VERSIONS]
    return sorted(found) + [str(told["size"])] if found else []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove_old(place: Path) -> None:
    """Remove the copies of earlier versions, but the last."""
    found = sorted((path for path in place.iterdir() if path.is_dir()), key=_age)
    for path in found[KEPT_VERSIONS:]:
        if not path.name.startswith("draft"):
            shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0


@contextlib.contextmanager
def local_copy(
    path: str, options: Optional[RemoteOptions], limit: int = LIST_BYTES
) -> Iterator[str]:
    """`path`, or where a copy of it lies if it is an address, which what is raised within the block
    then names in place of the copy.
    """
    if not is_remote(path):
        yield path
        return
    root, _, name = path.rpartition("/")
    copy = str(RemoteIndex(root, options or RemoteOptions()).copy([name], limit) / name)
    try:
        yield copy
    except (ConfigError, FileNotFoundError) as error:
        kind = ConfigError if isinstance(error, ConfigError) else FileNotFoundError
        raise kind(str(error).replace(copy, path)) from error
