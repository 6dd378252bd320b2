"""What a shard holds: the samples of a tar file in WebDataset's layout."""

import json
import tarfile
import zlib
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ...files import IMAGE_BYTES, parsing
from ...schema import ConfigError, shown, shown_text
from ..images import EXTENSIONS
from ..lists import MOST_CLASSES

__all__ = ["Found", "images_of"]

UNLABELLED = -1
LABELS = ("cls", "json")
LABEL_BYTES = 1 << 16  # of the .cls or .json beside an image
HEADER_BYTES = 1 << 14  # of what tar says of a file before it: long names, attributes
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
BLOCK_BYTES = 1 << 20  # of what is read at once behind the end


class Found(NamedTuple):
    """An image in a shard: its name, the bytes before it and its own, its CRC-32, and its label."""

    name: str
    offset: int
    size: int
    checksum: int
    label: int


class _Header(tarfile.TarInfo):
    """A block of tar's. ValueError for one before a file that is too long, which `tarfile` would
    read whole, and on older Pythons in a time of the square of its length.
    """

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Header":
        """See the base class."""
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in HEADERS and found.size > HEADER_BYTES):
            raise ValueError(f"a header of {found.size} bytes; expected 0 to {HEADER_BYTES}")
        return found


class _Sample(NamedTuple):
    """Neighbouring files of one key, as WebDataset has them."""

    key: str
    images: List[Found]
    labels: List[int]


def images_of(path: str, labelled: bool) -> Iterator[Found]:
    """The images of a shard, in its order."""
    what = shown_text(path)
    for sample in _samples(path, LABELS if labelled else ()):
        where = f"{what}: sample {shown_text(sample.key)}"
        if not labelled:
            yield from sample.images
            continue
        if len(sample.images) != 1:
            raise ConfigError(f"{where}: {len(sample.images)} images; expected one")
        if len(sample.labels) != 1:
            raise ConfigError(
                f"{where}: {len(sample.labels)} labels; expected one, a file .cls with a number or "
                f'.json with {{"label": number}} (for images without, --unlabelled)'
            )
        yield sample.images[0]._replace(label=sample.labels[0])


def _samples(path: str, labels: Sequence[str]) -> Iterator[_Sample]:
    """The samples of a shard. labels: the endings of files with one. ConfigError for a file that is
    there twice.
    """
    seen = set()
    sample: Optional[_Sample] = None
    for member, data in _members(path, labels):
        if member.name in seen:
            raise ConfigError(f"{shown_text(path)}: {shown_text(member.name)} is in it twice")
        seen.add(member.name)
        key, ending = split_key(member.name)
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = _Sample(key, [], [])
        if is_image(member.name):
            checksum = zlib.crc32(data)
            place = member.offset_data, member.size
            sample.images.append(Found(member.name, *place, checksum, UNLABELLED))
        elif ending in labels:
            with parsing(f"{shown_text(path)}: {shown_text(member.name)}"):
                sample.labels.extend(_label(data, ending))
    if sample is not None:
        yield sample


def split_key(name: str) -> Tuple[str, str]:
    """(key, ending) of a file, as WebDataset splits names: at the first dot behind the folders."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _members(path: str, labels: Sequence[str]) -> Iterator[Tuple[tarfile.TarInfo, bytes]]:
    """The regular files of a tar file, but hidden ones, and their bytes; of what is neither an
    image nor a label, none. ConfigError for one that is damaged or cut off, and for an image whose
    bytes do not lie in one piece.
    """
    what = shown_text(path)
    with parsing(f"{what}: not a whole tar file"):
        archive = tarfile.open(path, "r:", tarinfo=_Header)
    end = 0
    with archive:
        while True:
            with parsing(f"{what}: not a whole tar file"):
                member = archive.next()
                archive.members = []  # type: ignore[attr-defined] # it would keep them all
                if member is None:
                    break
                if archive.offset <= end or member.size < 0:  # as pax headers may say
                    raise ValueError(f"{shown_text(member.name)} ends before it begins")
                end = archive.offset
            if member.name.rpartition("/")[2].startswith("."):
                continue
            _refuse_pieces(member, what)
            if member.isreg():
                yield member, _content(archive, member, labels, what)
        _refuse_rest(archive, what)


def _refuse_pieces(member: tarfile.TarInfo, what: str) -> None:
    """ConfigError for an image that is a link, and for a file whose zeros are left out."""
    where = f"{what}: {shown_text(member.name)}"
    if is_image(member.name) and (member.islnk() or member.issym()):
        raise ConfigError(
            f"{where}: a link to {shown_text(member.linkname)}, not a file; write the shard with "
            f"files in place of links (tar --dereference --hard-dereference)"
        )
    if member.issparse():
        raise ConfigError(f"{where}: a sparse file; write the shard without tar's --sparse")


def _content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, labels: Sequence[str], what: str
) -> bytes:
    """The bytes of an image or a label, none of another file."""
    where = f"{what}: {shown_text(member.name)}"
    image = is_image(member.name)
    if not image and split_key(member.name)[1] not in labels:
        return b""
    limit = IMAGE_BYTES if image else LABEL_BYTES
    if member.size > limit:
        raise ConfigError(
            f"{where}: too large: {member.size} bytes are more than the limit of {limit} bytes"
        )
    with parsing(f"{what}: not a whole tar file"):
        file = archive.extractfile(member)
        assert file is not None  # of a regular file there is one
        data = file.read()
    if len(data) < member.size:
        raise ConfigError(f"{what}: not a whole tar file: {shown_text(member.name)} is cut off")
    return data


def _refuse_rest(archive: tarfile.TarFile, what: str) -> None:
    """ConfigError for a tar file that does not end in zeros where its last file ends: `tarfile`
    takes a damaged or missing header for the end, and another tar file behind it for nothing.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise ConfigError(f"{what}: not a whole tar file: it does not end at byte {archive.offset}")
    while block:
        if block.count(0) != len(block):
            raise ConfigError(
                f"{what}: more behind its end at byte {archive.offset}, as if two tar files had "
                f"been put together; write them as two shards"
            )
        block = archive.fileobj.read(BLOCK_BYTES)


def is_image(name: str) -> bool:
    """Whether a shard's file is taken for an image: by its ending."""
    return name.lower().endswith(EXTENSIONS)


def _label(data: bytes, ending: str) -> Iterable[int]:
    """The label that a file holds; none where a .json has no such key. ValueError for what is none,
    and for one that no model has.
    """
    value: Any
    if ending == "cls":
        value = int(data) if data.strip().isdigit() else data
    else:
        content = json.loads(data)
        if not isinstance(content, dict) or "label" not in content:
            return
        value = content["label"]
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise ValueError(f"the label must be a whole number from 0 on, got {shown(value)}")
    yield value
