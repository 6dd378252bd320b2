"""What a shard holds: the samples of a tar file in WebDataset's layout."""

import json
import tarfile
import zlib
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ...files import IMAGE_BYTES, parsing
from ...schema import ConfigError, shown, shown_text
from ..images import EXTENSIONS
from ..lists import MOST_CLASSES

__all__ = ["Found", "images_of"]

UNLABELLED = -1
LABEL_BYTES = 1 << 16  # of the .cls or .json beside an image


class Found(NamedTuple):
    """An image in a shard: its name, the bytes before it and its own, its CRC-32, and its label."""

    name: str
    offset: int
    size: int
    checksum: int
    label: int


class _Sample(NamedTuple):
    """Neighbouring files of one key, as WebDataset has them."""

    key: str
    images: List[Found]
    labels: List[int]


def images_of(path: str, labelled: bool) -> Iterator[Found]:
    """The images of a shard, in its order."""
    what = shown_text(path)
    for sample in _samples(path):
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


def _samples(path: str) -> Iterator[_Sample]:
    """The samples of a shard. ConfigError for a file that is there twice."""
    seen = set()
    sample: Optional[_Sample] = None
    for member, data in _members(path):
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
        elif ending in ("cls", "json"):
            with parsing(f"{shown_text(path)}: {shown_text(member.name)}"):
                sample.labels.extend(_label(data, ending))
    if sample is not None:
        yield sample


def split_key(name: str) -> Tuple[str, str]:
    """(key, ending) of a file, as WebDataset splits names: at the first dot behind the folders."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _members(path: str) -> Iterator[Tuple[tarfile.TarInfo, bytes]]:
    """The regular files of a tar file, but hidden ones, and their bytes; of others than images the
    first LABEL_BYTES. ConfigError for one that is damaged or cut off.
    """
    with parsing(f"{shown_text(path)}: not a whole tar file"):
        archive = tarfile.open(path, "r:")
    with archive:
        while True:
            with parsing(f"{shown_text(path)}: not a whole tar file"):
                member = archive.next()
                if member is None:
                    break
                hidden = member.name.rpartition("/")[2].startswith(".")
                if hidden or not member.isreg():
                    continue
                limit = IMAGE_BYTES if is_image(member.name) else LABEL_BYTES
                file = archive.extractfile(member)
                assert file is not None  # of a regular file there is one
                data = file.read(limit)
                if len(data) < min(member.size, limit):
                    raise ValueError(f"{member.name} is cut off")
            if member.size > limit and limit == IMAGE_BYTES:
                raise ConfigError(f"{shown_text(path)}: {shown_text(member.name)}: too large")
            yield member, data
        _refuse_rest(archive, path)


def _refuse_rest(archive: tarfile.TarFile, path: str) -> None:
    """ConfigError for a tar file that does not end in zeros where its last file ends: `tarfile`
    takes a damaged or missing header for the end.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ConfigError(
            f"{shown_text(path)}: not a whole tar file: it does not end at byte {archive.offset}"
        )


def is_image(name: str) -> bool:
    """Whether a shard's file is taken for an image: by its ending."""
    return name.lower().endswith(EXTENSIONS)


def _label(data: bytes, ending: str) -> Iterable[int]:
    """The label that a file holds; none where a .json has no such key. ValueError for what is none,
    and for one that no model has.
    """
    value: Any
    if ending == "cls":
        value = int(data)
    else:
        content = json.loads(data)
        if not isinstance(content, dict) or "label" not in content:
            return
        value = content["label"]
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise ValueError(f"the label must be a whole number from 0 on, got {shown(value)}")
    yield value
