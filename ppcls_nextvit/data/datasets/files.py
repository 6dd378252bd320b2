"""Files of a folder, of shards or of a zip file, by name; which of them are images."""

import os
import pathlib
import struct
import zipfile
import zlib
from typing import Dict, List, NamedTuple, Optional, Protocol, Sequence, Set, Union

from ...files import IMAGE_BYTES, UnreadableError, parsing, read_file
from ...schema import shown_text
from ..images import EXTENSIONS, ImageError
from ..parts import ListedFiles, PartsFile
from ..remote import RemoteFiles, RemoteOptions, is_remote
from ..shards import ShardFiles
from .registry import SECTIONS

__all__ = [
    "EXTENSIONS",
    "Files",
    "FolderFiles",
    "FoundFiles",
    "UnlabelledFiles",
    "ZipFiles",
    "files_below",
    "image_names",
    "is_image_name",
    "open_files",
    "remote_options",
    "subfolders",
]

Path = Union[str, os.PathLike[str]]

# what systems leave in folders of their own accord
LITTER = {"thumbs.db", "desktop.ini"}
# files of a list at most that are looked for before the work: half a second on a local disk
LOOKED_AT = 100_000


def is_image_name(name: str) -> bool:
    """Whether a file called `name` is taken for an image: by its ending, and not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def subfolders(root: Path) -> List[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    return sorted(
        entry.name
        for entry in os.scandir(os.fspath(root))
        # not entry.is_dir, which raises for a link to itself
        if os.path.isdir(entry.path) and not entry.name.startswith(".")
    )


class FoundFiles(NamedTuple):
    """Files of a folder as paths relative to a root: the images, and what is not taken for one, but
    for hidden files and what systems leave behind.
    """

    images: List[str]
    others: List[str]


def files_below(root: Path, below: str = ".") -> FoundFiles:
    """The files under root/below, at any depth, sorted by folder. Links to folders are followed,
    but for those above; no folder is read twice.
    """
    images: List[str] = []
    others: List[str] = []
    start = os.path.join(os.fspath(root), below)
    real = pathlib.Path(start).resolve()
    # a link to a folder above would bring in what lies beside this one
    seen = {str(folder) for folder in (real, *real.parents)}
    for folder, folders, files in os.walk(start, followlinks=True):
        place = os.path.relpath(folder, root)
        folders.sort()
        folders[:] = [name for name in folders if _is_new(os.path.join(folder, name), seen)]
        for name in sorted(files):
            if is_image_name(name):
                images.append(os.path.normpath(os.path.join(place, name)))
            elif not name.startswith(".") and name.lower() not in LITTER:
                others.append(os.path.normpath(os.path.join(place, name)))
    return FoundFiles(images, others)


def _is_new(folder: str, seen: Set[str]) -> bool:
    """Whether the folder is not among those `seen`, to which it is added."""
    real = os.path.realpath(folder)
    new = real not in seen
    seen.add(real)
    return new


def image_names(root: Path, below: str = ".") -> List[str]:
    """The images under root/below, see `files_below`."""
    return files_below(root, below).images


class Files(Protocol):
    """What a dataset reads from: files by their names."""

    def path(self, name: str) -> str:
        """Where the file `name` lies, as messages call it."""

    def named(self, names: Sequence[str]) -> List[str]:
        """`names` as the files have them: with slashes, where a list has Windows's backslashes."""

    def check(self, names: Sequence[str], each: bool = True) -> None:
        """FileNotFoundError, before any work starts, where these names cannot be meant, or, with
        `each`, one of them is missing.
        """

    def read(self, name: str) -> bytes:
        """The file's bytes. ImageError if they cannot be read."""

    def read_ahead(self, names: Sequence[str]) -> None:
        """Begin to read what is asked for next, where that helps."""


class FolderFiles:
    """Files below the folder `root`."""

    def __init__(self, root: str):
        self.root = root

    def read_ahead(self, names: Sequence[str]) -> None:
        """Nothing: a disk answers at once."""

    def path(self, name: str) -> str:
        """Where the file `name` lies."""
        return os.path.join(self.root, name)

    def named(self, names: Sequence[str]) -> List[str]:
        """`names` with slashes for backslashes, but where a file has such a name."""
        return [
            name.replace("\\", "/")
            if "\\" in name and not os.path.exists(self.path(name))
            else name
            for name in names
        ]

    def check(self, names: Sequence[str], each: bool = True) -> None:
        """FileNotFoundError where the first file is missing: the root is wrong then. With `each`
        where any is, of up to LOOKED_AT: on a network's disk each takes its time. Of longer lists
        others are noticed when they are read.
        """
        if not os.path.exists(self.path(names[0])):
            raise FileNotFoundError(
                f"{shown_text(self.path(names[0]))}: no such file, and it is the first of the "
                f"list; is image_root (or dataset_root) right?"
            )
        if each and len(names) <= LOOKED_AT:
            missing = [name for name in names if not os.path.exists(self.path(name))]
            if missing:
                raise FileNotFoundError(
                    f"{shown_text(self.path(missing[0]))}: no such file ({len(missing)} of "
                    f"{len(names)} are missing)"
                )

    def read(self, name: str) -> bytes:
        """The file's bytes. ImageError if there is no such regular file of at most IMAGE_BYTES."""
        try:
            return read_file(self.path(name), IMAGE_BYTES)
        except UnreadableError as error:
            raise ImageError(f"{self.path(name)}: {error}") from error.__cause__


class Member(NamedTuple):
    """Where the bytes of a zip file's member lie, and what they must be."""

    offset: int
    size: int  # as stored
    method: int
    crc: int
    unpacked: int  # bytes
    locked: bool  # by a password


class ZipFiles(ListedFiles):
    """Members of the zip file `root`, read by position, so that processes forked after opening can
    share the descriptor.
    """

    missing = "no such file in the zip"
    members: Dict[str, Member]

    def __init__(self, root: str):
        self.root = root
        self.members = {}
        with parsing(f"{root}: not a whole zip file"):
            with zipfile.ZipFile(root) as archive:
                for info in archive.infolist():
                    self.members[info.filename] = Member(
                        info.header_offset,
                        info.compress_size,
                        info.compress_type,
                        info.CRC,
                        info.file_size,
                        bool(info.flag_bits & 1),
                    )
        # some programs of Windows write their own slashes
        for name in [name for name in self.members if "\\" in name]:
            self.members.setdefault(name.replace("\\", "/"), self.members[name])
        self.file = PartsFile(root)

    def read(self, name: str) -> bytes:
        """The member's bytes, their CRC verified. ImageError where the zip file is damaged, and for
        more than IMAGE_BYTES, packed or not.
        """
        member = self.members[name]
        if max(member.size, member.unpacked) > IMAGE_BYTES:
            raise ImageError(
                f"{self.path(name)}: {max(member.size, member.unpacked)} bytes are more than the "
                f"limit of {IMAGE_BYTES} bytes"
            )
        if member.locked or member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ImageError(
                f"{self.path(name)}: locked by a password, or packed by another method than store "
                f"and deflate"
            )
        with parsing(f"{self.path(name)}: the zip file is damaged here", ImageError):
            data = self._unpacked(member)
        if len(data) != member.unpacked or zlib.crc32(data) != member.crc:
            raise ImageError(f"{self.path(name)}: the zip file is damaged here")
        return data

    def _unpacked(self, member: Member) -> bytes:
        """The bytes of a member, at most one more than it must have."""
        # the name's length may differ from the directory's
        header = self.file.read(member.offset, 30)
        if header[:4] != b"PK\3\4":
            return b""
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.offset + 30 + name_length + extra_length
        data = self.file.read(start, member.size)
        if member.method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.unpacked + 1)
        return data


SECTIONS.register(RemoteOptions)


def remote_options(remote: Optional[dict]) -> RemoteOptions:
    """What the key `remote` of a dataset says. ConfigError."""
    options: RemoteOptions = SECTIONS.build("RemoteOptions", remote, "remote")
    return options


def open_files(image_root: str, remote: Optional[dict] = None) -> Files:
    """The files of a folder, of a folder of shards with an index, or of a zip file; or of a folder
    or of shards at an address, read as `remote` says. FileNotFoundError if there is none of them.
    """
    options = remote_options(remote)
    if is_remote(image_root):
        shards = ShardFiles.are_in(image_root, options)
        return ShardFiles(image_root, options) if shards else RemoteFiles(image_root, options)
    if ShardFiles.are_in(image_root):
        return ShardFiles(image_root)
    if os.path.isdir(image_root):
        return FolderFiles(image_root)
    if os.path.isfile(image_root):
        return ZipFiles(image_root)
    raise FileNotFoundError(f"image_root: {shown_text(image_root)}: no such folder or zip file")


class UnlabelledFiles:
    """All images below the folder `root`, in the order of their names, as a source of shards."""

    labels = None
    class_names = None

    def __init__(self, root: str):
        self.files = FolderFiles(root)
        self.names = image_names(root)
        if not self.names:
            raise FileNotFoundError(f"image_root: {shown_text(root)}: no images in this folder")

    def read(self, index: int) -> bytes:
        """The bytes of an image. ImageError if they cannot be read."""
        return self.files.read(self.names[index])
