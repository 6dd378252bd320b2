"""The bytes of a pickle and the stacks of the machine that reads it: every declared size is checked
against the bytes that are there.
"""

import struct
from collections.abc import Callable
from typing import Any, Dict, List

from .errors import PickleError

__all__ = ["PickleStack"]

VIEW_BYTES = 256  # byte strings from here on stay views of the file
MAX_INTEGER_BYTES = 1024
MAX_LINE_BYTES = 512


class PickleStack:
    """`buffer` (a memoryview) from `position` on, the stack with its marks, and the memo of what is
    referred to again. Methods raise PickleError, or the error of the Python operation that a
    damaged file leads to.
    """

    def __init__(self, buffer: memoryview, position: int = 0) -> None:
        self.buffer = buffer
        self.position = position
        self.clear()

    def clear(self) -> None:
        """Empty stack and memo, as at the start of a pickle."""
        self.stack: List[Any] = []
        self.marks: List[List[Any]] = []  # the stacks below the present one
        self.memo: Dict[int, Any] = {}

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, as a view."""
        end = self.position + count
        if end > len(self.buffer):
            raise PickleError(f"ends {end - len(self.buffer)} bytes too early")
        view = self.buffer[self.position : end]
        self.position = end
        return view

    def number(self, form: str) -> Any:
        """The next number; form: struct's, as '<I'."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Text up to the next newline: names of modules, classes and attributes."""
        head = bytes(self.buffer[self.position : self.position + MAX_LINE_BYTES])
        end = head.find(b"\n")
        if end < 0:
            raise PickleError("a name without an end")
        self.position += end + 1
        return head[:end].decode("utf-8")

    def pop_mark(self) -> List[Any]:
        """What was pushed since the last mark, as a list; the stack before it comes back."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mark(self) -> None:
        """Begin a new stack over the present one."""
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        """Forget the topmost object, or the last mark where there is none above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_collected(self, kind: Callable[[List[Any]], Any]) -> None:
        """Push `kind` of what was pushed since the last mark."""
        # brings the outer stack back, onto which the collection goes
        items = self.pop_mark()
        self.stack.append(kind(items))

    def push_text(self, form: str) -> None:
        """Push a text whose length comes first, as `form`."""
        self.stack.append(str(self.take(self.number(form)), "utf-8", "surrogatepass"))

    def push_bytes(self, form: str) -> None:
        """Push a byte string whose length comes first, as `form`: a copy if it is short, else a
        view of the file.
        """
        view = self.take(self.number(form))
        self.stack.append(bytes(view) if len(view) < VIEW_BYTES else view)

    def push_integer(self, form: str) -> None:
        """Push an integer whose number of bytes comes first, as `form`."""
        size = self.number(form)
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise PickleError(f"an integer of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def push_tuple(self, count: int) -> None:
        """Replace the topmost `count` objects by their tuple."""
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise PickleError("a tuple without its items")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def fetch(self, form: str) -> None:
        """Push the remembered object whose number comes next, as `form`."""
        self.stack.append(self.memo[self.number(form)])
