"""Files of a folder or of a zip file, by name; which of them are images."""

import os
import struct
import zipfile
import zlib
from typing import List, Protocol, Sequence

from ..images import ImageError

__all__ = ["EXTENSIONS", "Files", "image_names", "is_image_name", "open_files", "subfolders"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def is_image_name(name: str) -> bool:
    """Whether a file called `name` is taken for an image: by its ending, and not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def subfolders(root: str) -> List[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    return sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def image_names(root: str, below: str = ".") -> List[str]:
    """The images under root/below, at any depth, as paths relative to `root`, sorted by folder."""
    found = []
    for folder, folders, files in os.walk(os.path.join(root, below)):
        folders.sort()
        place = os.path.relpath(folder, root)
        found += [
            os.path.normpath(os.path.join(place, name))
            for name in sorted(files)
            if is_image_name(name)
        ]
    return found


class Files(Protocol):
    """What a dataset reads from: files by their names."""

    def path(self, name: str) -> str:
        """Where the file `name` lies, as messages call it."""

    def check(self, names: Sequence[str]) -> None:
        """FileNotFoundError, before any work starts, where these names cannot be meant."""

    def read(self, name: str) -> bytes:
        """The file's bytes. ImageError if they cannot be read."""


class FolderFiles:
    """Files below the folder `root`."""

    def __init__(self, root: str):
        self.root = root

    def path(self, name: str) -> str:
        """Where the file `name` lies."""
        return os.path.join(self.root, name)

    def check(self, names: Sequence[str]) -> None:
        """A wrong root is noticed here, by its first file, and not in a worker; a single missing
        file is noticed when it is read.
        """
        if not os.path.isfile(self.path(names[0])):
            raise FileNotFoundError(
                f"{self.path(names[0])}: no such file, and it is the first of the list; is "
                f"image_root (or dataset_root) right?"
            )

    def read(self, name: str) -> bytes:
        """The file's bytes. ImageError if it cannot be read."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise ImageError(f"{self.path(name)}: cannot be read: {error.strerror}") from error


class ZipFiles:
    """Members of the zip file `root`, read by position, so that processes forked after opening can
    share the descriptor.
    """

    def __init__(self, root: str):
        self.root = root
        try:
            with zipfile.ZipFile(root) as archive:
                self.members = {
                    member.filename: (
                        member.header_offset,
                        member.compress_size,
                        member.compress_type,
                        member.CRC,
                    )
                    for member in archive.infolist()
                }
        except zipfile.BadZipFile as error:
            raise ValueError(f"{root}: not a whole zip file: {error}") from error
        self.descriptor = os.open(root, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def path(self, name: str) -> str:
        """The member `name` as messages call it."""
        return f"{self.root}/{name}"

    def check(self, names: Sequence[str]) -> None:
        """FileNotFoundError, before any work starts, if one of `names` is not in the zip file."""
        missing = [name for name in names if name not in self.members]
        if missing:
            raise FileNotFoundError(
                f"{self.path(missing[0])}: no such file in the zip ({len(missing)} of "
                f"{len(names)} are missing)"
            )

    def read(self, name: str) -> bytes:
        """The member's bytes, their CRC verified. ImageError where the zip file is damaged."""
        offset, size, method, crc = self.members[name]
        # the name's length may differ from the directory's
        header = os.pread(self.descriptor, 30, offset)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise ImageError(f"{self.path(name)}: the zip file is damaged here")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        data = os.pread(self.descriptor, size, offset + 30 + name_length + extra_length)
        try:
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise ImageError(f"{self.path(name)}: the zip file is damaged here: {error}") from error
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or zlib.crc32(data) != crc:
            raise ImageError(
                f"{self.path(name)}: the zip file is damaged here, or packed by another method "
                f"than store and deflate"
            )
        return data


def open_files(image_root: str) -> Files:
    """The files of a folder or of a zip file. FileNotFoundError if there is neither."""
    if os.path.isdir(image_root):
        return FolderFiles(image_root)
    if os.path.isfile(image_root):
        return ZipFiles(image_root)
    raise FileNotFoundError(f"image_root: {image_root}: no such folder or zip file")
