"""A large JSON file by its sections: the lists of its outermost object, some entries at a time, so
that never more than a few megabytes of it are Python's objects.
"""

import codecs
import io
import json
import re
from typing import Any, Callable, Iterator, List, Optional, Set, Tuple

quick_loads: Optional[Callable[[bytes], Any]]
try:
    from orjson import loads as quick_loads
except ImportError:  # then the standard library alone reads, in twice the time
    quick_loads = None

__all__ = ["sections_of"]

BLOCK_BYTES = 4 << 20
FALSE_ENDS = 8  # that are tried where a block might end between two entries
FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.)*")')

SPACE = re.compile(r"[ \t\n\r]*")

scan = json.JSONDecoder().raw_decode


def sections_of(file: io.RawIOBase) -> Iterator[Tuple[str, List[Any]]]:
    """(key, entries) of the lists in the JSON object that the open `file` holds. A long list comes
    in several parts, one after the other, an empty one as []; values that are no lists are left
    out.

    ValueError for whatever is not JSON in UTF-8, and for a key that is there twice; RecursionError
    for what is nested too deep.
    """
    text = _Window(file)
    keys: Set[str] = set()
    text.expect(b"{")
    while True:
        key = text.value()
        if not isinstance(key, str) or key in keys:
            raise ValueError(f"the key {key!r} is none, or there twice")
        keys.add(key)
        text.expect(b":")
        if text.peek() == b"[":
            text.expect(b"[")
            for entries in _entries(text):
                yield key, entries
        else:
            text.value()
        if text.expect(b",}") == b"}":
            break
    if text.peek():
        raise ValueError("something follows the end")


def _entries(text: "_Window") -> Iterator[List[Any]]:
    """The entries of a list whose bracket was just read."""
    if text.peek() == b"]":
        text.expect(b"]")
        yield []
        return
    while True:
        entries = text.block()
        if entries is not None:
            yield entries
            continue
        entries, end = text.some_values()
        yield entries
        if end == "]":
            return


class _Window:
    """The part of a file that is being read: `data` from `at` on."""

    def __init__(self, file: io.RawIOBase):
        self.file = file
        self.data = b""
        self.at = 0
        self.ended = False
        self.more()
        self.data = self.data.removeprefix(codecs.BOM_UTF8)

    def more(self) -> None:
        """Read on: as much as there is already, so that trying anew does not add up."""
        self.data = self.data[self.at :]
        self.at = 0
        wanted = max(BLOCK_BYTES, len(self.data))
        parts = [self.data]
        while wanted > 0 and not self.ended:
            part = self.file.read(wanted) or b""
            self.ended = not part
            wanted -= len(part)
            parts.append(part)
        self.data = b"".join(parts)

    def peek(self) -> bytes:
        """The next byte that is no white space; nothing at the end."""
        while True:
            while (byte := self.data[self.at : self.at + 1]) and byte in b" \t\n\r":
                self.at += 1
            if byte or self.ended:
                return byte
            self.more()

    def expect(self, bytes_: bytes) -> bytes:
        """The next byte, which must be one of these."""
        byte = self.peek()
        if not byte or byte not in bytes_:
            raise ValueError(f"expected one of {bytes_!r}, got {byte!r}")
        self.at += 1
        return byte

    def value(self) -> Any:
        """The next value, which something must follow."""
        self.peek()
        while True:
            text = self._text()
            try:
                value, end = scan(text)
                if end < len(text):
                    self._skip(text[:end])
                    return value
            except ValueError:
                if self.ended:
                    raise
            if self.ended:
                raise ValueError("the file ends too early")
            self.more()

    def block(self) -> Optional[List[Any]]:
        """Entries of a list of objects, a few megabytes of them, and the comma behind; None where
        this quick way finds none.
        """
        if quick_loads is None:
            return None
        if len(self.data) - self.at < BLOCK_BYTES:
            self.more()
        first = FIRST_KEY.match(self.data, self.at)
        if first is None:
            return None
        # entries begin alike, and what parses as a list of whole ones ends between two of them
        between = re.compile(rb"\}\s*,\s*\{\s*" + re.escape(first[1]))
        begins = max(self.at, len(self.data) - BLOCK_BYTES // 16)
        places = [match.start() + 1 for match in between.finditer(self.data, begins)]
        for place in places[: -FALSE_ENDS - 1 : -1]:
            try:
                entries = quick_loads(b"[%b]" % self.data[self.at : place])
            except ValueError:
                continue
            self.at = place
            self.expect(b",")
            return entries
        return None

    def some_values(self) -> Tuple[List[Any], str]:
        """The values of a list as far as the window has them, at least one, and what follows the
        last: a comma or the bracket.
        """
        while True:
            text = self._text()
            values: List[Any] = []
            mark, done, at = ",", 0, 0
            try:
                while mark == ",":
                    value, at = scan(text, _behind_space(text, at))
                    at = _behind_space(text, at)
                    follows = text[at : at + 1]
                    if not follows:
                        break
                    if follows not in ",]":
                        raise _Wrong(f"expected a comma or a bracket, got {follows!r}")
                    at += 1
                    values.append(value)
                    mark, done = follows, at
            except _Wrong:
                raise
            except ValueError:
                if self.ended:
                    raise
            if values:
                self._skip(text[:done])
                return values, mark
            if self.ended:
                raise ValueError("the file ends too early")
            self.more()

    def _text(self) -> str:
        decoder = codecs.getincrementaldecoder("utf-8")()
        return decoder.decode(self.data[self.at :], final=self.ended)

    def _skip(self, text: str) -> None:
        self.at += len(text) if text.isascii() else len(text.encode())


def _behind_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


class _Wrong(ValueError):
    """What more of the file would not mend."""
