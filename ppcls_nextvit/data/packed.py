"""Millions of names in three arrays: their bytes and 12 more each. Reading one touches none of the
others' memory, not even a counter of references, so that forked processes go on sharing it.
"""

import codecs
import os
from typing import (
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
    overload,
)

import numpy as np

from ..files import BLOCKWISE_LIST_BYTES, LIST_BYTES, open_file
from ..schema import ConfigError, shown_text
from .lists import MOST_CLASSES, Path, read_label_list, split_line

__all__ = ["PackedNames", "read_packed_list"]

BLOCK_BYTES = 16 << 20
NEWLINE = ord("\n")
MOST_DIGITS = 8  # of a label that is read at once with those of other lines


class PackedNames(Sequence[str]):
    """Names, read only: name i is the UTF-8 of text[starts[i] : starts[i] + lengths[i]].

    text: uint8, whatever else may be in it. starts: int64 [N]. lengths: uint32 [N].
    """

    def __init__(self, text: np.ndarray, starts: np.ndarray, lengths: np.ndarray):
        self.text = text
        self.starts = starts
        self.lengths = lengths

    @classmethod
    def of(cls, names: Iterable[str]) -> "PackedNames":
        """`names`, packed. Names of files that are not UTF-8 stay what they are."""
        if isinstance(names, cls):
            return names
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        starts = np.cumsum(lengths) - lengths
        text = np.frombuffer(b"".join(parts), np.uint8)
        return cls(text, starts, lengths.astype(np.uint32))

    @classmethod
    def joined(cls, parts: Sequence["PackedNames"]) -> "PackedNames":
        """The names of all `parts`, one after the other."""
        before = np.cumsum([0, *(len(part.text) for part in parts)])
        starts = [part.starts + offset for part, offset in zip(parts, before)]
        return cls(
            np.concatenate([part.text for part in parts]),
            np.concatenate(starts),
            np.concatenate([part.lengths for part in parts]),
        )

    def taken(self, numbers: np.ndarray) -> "PackedNames":
        """The names with these numbers, of the same text."""
        return PackedNames(self.text, self.starts[numbers], self.lengths[numbers])

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return self.text.nbytes + self.starts.nbytes + self.lengths.nbytes

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "PackedNames": ...

    def __getitem__(self, index: Union[int, slice]) -> Union[str, "PackedNames"]:
        if isinstance(index, slice):
            return PackedNames(self.text, self.starts[index], self.lengths[index])
        start = int(self.starts[index])
        data = self.text[start : start + int(self.lengths[index])]
        return data.tobytes().decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def may_hold(self, character: str) -> bool:
        """Whether a name may have this ASCII character in it; False is certain."""
        wanted = ord(character)
        parts = range(0, len(self.text), BLOCK_BYTES)
        return any((self.text[at : at + BLOCK_BYTES] == wanted).any() for at in parts)


def read_packed_list(
    path: Path, class_num: Optional[int], delimiter: str = " ", relabel: bool = False
) -> Tuple[PackedNames, np.ndarray]:
    """What `read_label_list` reads, with its arguments and errors, in a small share of its time and
    memory: the names, and the labels as int32 [N].

    Lines as lists have them are taken apart a block at a time. Whatever that cannot do, and every
    complaint, is left to `read_label_list`, of lists that are not too long for it.
    """
    entries = _read_entries(path, delimiter)
    if entries is not None:
        names, labels = entries
        found = checked_labels(labels, class_num, relabel)
        if found is not None:
            return names, found
    _check_searchable(path, delimiter)
    plain_names, plain_labels = read_label_list(path, class_num, delimiter, relabel)
    return PackedNames.of(plain_names), np.asarray(plain_labels, np.int32)


def _check_searchable(path: Path, delimiter: str) -> None:
    """ConfigError for a list too long to be searched for what is wrong with it."""
    try:
        size = os.path.getsize(path)
    except OSError:  # which the search tells of
        return
    if size > LIST_BYTES:
        raise ConfigError(
            f"cls_label_path: {shown_text(os.fspath(path))}: some line is not "
            f"`path{delimiter}label` in UTF-8 with a label that the model has; a list of more than "
            f"{LIST_BYTES >> 30} GiB is not searched for it, and one of more than "
            f"{BLOCKWISE_LIST_BYTES >> 30} GiB is not read at all"
        )


def checked_labels(
    labels: np.ndarray, class_num: Optional[int], relabel: bool
) -> Optional[np.ndarray]:
    """`labels`, int [N], as `read_label_list` gives them, int32; None for those that it refuses."""
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1]
    end = MOST_CLASSES if class_num is None else class_num
    if not len(labels) or labels.min() < 0 or labels.max() >= end:
        return None
    return labels.astype(np.int32, copy=False)


def _read_entries(path: Path, delimiter: str) -> Optional[Tuple[PackedNames, np.ndarray]]:
    """The names and the labels, int64 [N], of a list; None where something is wrong with it."""
    parts: List[Block] = []
    offset = 0
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > BLOCKWISE_LIST_BYTES:
                return None
            text = np.empty(size + 1, np.uint8)  # the last line may lack its end
            for block, part in entries_of(file, delimiter):
                text[offset : offset + len(block)] = np.frombuffer(block, np.uint8)
                parts.append(part._replace(starts=part.starts + offset))
                offset += len(block)
    except (OSError, ValueError, OverflowError):
        return None
    if not parts:
        return None
    starts, lengths, labels = (np.concatenate(column) for column in zip(*parts))
    return PackedNames(text[:offset], starts, lengths.astype(np.uint32)), labels


class _Readable(Protocol):
    def read(self, size: int, /) -> Optional[bytes]:
        """At most so many bytes; none at the end."""


class Block(NamedTuple):
    """Lines taken apart, int64 [N] each: where the names begin, their bytes, the labels."""

    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def entries_of(file: _Readable, delimiter: str) -> Iterator[Tuple[bytes, Block]]:
    """The lines of an open list, a block at a time: their text, and where in it the entries are.
    ValueError or OverflowError for one that is none.
    """
    for block in _blocks(file):
        yield block, _taken_apart(block, delimiter)


def _blocks(file: _Readable) -> Iterator[bytes]:
    """Whole lines of an open file, some 16 MB at a time, each ended by a newline alone."""
    rest = b""
    first = True
    while data := file.read(BLOCK_BYTES):
        if first:
            data = data.removeprefix(codecs.BOM_UTF8)
            first = False
        whole, newline, data = (rest + data).rpartition(b"\n")
        rest = data
        if newline:
            yield _ended(whole)
        elif len(rest) > BLOCK_BYTES:
            raise ValueError("a line as long as a book")
    if rest:
        yield _ended(rest)


def _ended(lines: bytes) -> bytes:
    """`lines` with newlines for the ends of lines of other systems, and one at their end."""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return lines + b"\n"


def _taken_apart(block: bytes, delimiter: str) -> Block:
    """The lines `name<delimiter>label` of `block`. ValueError for one that is none."""
    block.decode()  # a ValueError, too
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    starts, ends = starts[starts < ends], ends[starts < ends]
    labels, digits = _numbers_before(text, starts, ends)
    lengths = ends - digits - 1 - starts
    for index in np.flatnonzero(~_are_plain(text, starts, lengths, digits, delimiter)):
        start = int(starts[index])
        line = block[start : ends[index]].decode()
        if not line.strip():
            lengths[index] = 0
            continue
        name, labels[index] = split_line(line, delimiter)
        starts[index] = block.index(name.encode(), start)
        lengths[index] = len(name.encode())
    kept = lengths > 0
    return Block(starts[kept], lengths[kept], labels[kept])


def _numbers_before(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """The numbers that end before `ends`, and how many digits they have: at most MOST_DIGITS + 1
    are looked at, and none before `starts`. int64 [N] each.
    """
    numbers, digits = np.zeros_like(ends), np.zeros_like(ends)
    for place in range(MOST_DIGITS + 1):
        at = ends - 1 - place
        found = text[np.maximum(at, 0)] - np.uint8(ord("0"))  # others than digits are above 9
        is_digit = (digits == place) & (at >= starts) & (found <= 9)
        if not is_digit.any():
            break
        numbers += np.where(is_digit, found, 0).astype(np.int64) * 10**place
        digits += is_digit
    return numbers, digits


def _are_plain(
    text: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    digits: np.ndarray,
    delimiter: str,
) -> np.ndarray:
    """Which lines are a name that begins and ends in a visible ASCII character, the delimiter, and
    a number of a few digits; bool [N].
    """
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter.isdigit():
        return np.zeros(len(starts), bool)
    plain = (lengths > 0) & (digits > 0) & (digits <= MOST_DIGITS)
    after = np.where(plain, starts + lengths, 0)
    plain &= text[after] == ord(delimiter)
    for at in (np.where(plain, starts, 0), np.where(plain, after - 1, 0)):
        plain &= (text[at] > ord(" ")) & (text[at] < 127)
    return plain
