"""A pickle reader which cannot run code: its own small machine for protocols 2 to 5, over a memory
map.

Python's `pickle` calls whatever a file names, and a restricted `find_class` still trusts the file's
sizes. Here a global is a name that is looked up in a table of constructors of our own; nothing is
imported, no attribute of any object is set, and every declared size is checked against the bytes
that are there. Long byte strings are views of the file, not copies.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Dict, List, Optional, Tuple, Union

from ...files import PICKLE_OPERATIONS, PICKLE_SHARE, is_mistake
from ...schema import shown, shown_text
from .budget import Budget
from .errors import FormatError, PickleError
from .pickled import (
    GLOBALS,
    INERT,
    INERT_PACKAGES,
    GlobalName,
    Inert,
    InertClass,
    PickledArray,
    PickledDType,
    full_name,
    keyable,
    new_frozenset,
)
from .stack import PickleStack

__all__ = ["Unpickler"]

NEWEST_PROTOCOL = 5
# bytes: what a pickle may copy whatever its size, what a call takes, and a new container
FREE = 1 << 20
CALL = 128
CONTAINERS: Dict[type, int] = {list: 56, dict: 64, set: 216}
# bytes of a constructor's copy for each item of its argument; dicts and sets may be made of lists
COPIED: Dict[type, int] = {
    **dict.fromkeys((str, bytes, memoryview), 1),
    tuple: 8,
    **dict.fromkeys((list, dict, OrderedDict, set, frozenset), 200),
}

# for a name: our own constructor, None for a name that is data only, or why the name is refused
Globals = Mapping[Tuple[str, str], Union[Callable[..., Any], str, None]]


class Unpickler(PickleStack):
    """Reads pickles one after another from `buffer` (a memoryview), beginning at `position`.

    extra_globals: {(module, name): constructor} beyond GLOBALS; a constructor is our own function,
    None a name that is data only, a string the reason for which the name is refused.
    persistent_load: called with the id of a persistent object (torch's storages). Every method
    raises FormatError for what is refused or damaged.
    """

    def __init__(
        self,
        buffer: memoryview,
        position: int = 0,
        extra_globals: Optional[Globals] = None,
        persistent_load: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        super().__init__(buffer, position)
        self.known: Globals = {**GLOBALS, **(extra_globals or {})}
        self.persistent_load = persistent_load
        self.budget = Budget(0, "")

    def load(self) -> Any:
        """The next pickle's object. Raises PickleError."""
        self.clear()
        self.budget = Budget(
            PICKLE_SHARE * len(self.buffer) + FREE, "it copies more data than the file holds"
        )
        start = self.position
        try:
            return self._run()
        except FormatError as error:
            raise PickleError(
                f"{error} (pickle at byte {start}, near byte {self.position})"
            ) from None
        except Exception as error:  # of a Python operation to which a damaged file leads
            if is_mistake(error):
                raise
            raise PickleError(
                f"damaged pickle: {type(error).__name__} near byte {self.position}"
            ) from error

    def _run(self) -> Any:
        """What the operations from the present position on make."""
        for _ in range(PICKLE_OPERATIONS):
            code = self.take(1)[0]
            if code == STOP:
                value = self.stack.pop()
                if self.stack or self.marks:
                    raise PickleError("objects left over at its end")
                return value
            handler = OPCODES.get(code)
            if handler is None:
                raise PickleError(
                    f"opcode 0x{code:02x}, which no pickle of protocol 2 to 5 with plain data has"
                )
            handler(self)
        raise PickleError(f"a pickle of more than {PICKLE_OPERATIONS} operations is no checkpoint")

    # ------------------------------------------------------------ names and what is made of them

    def find(self, module: Any, name: Any) -> None:
        """Push the global `module.name` of the allow-list; refuse any other by name."""
        full = full_name(module, name)
        if (module, name) in self.known:
            make = self.known[module, name]
            if isinstance(make, str):
                raise PickleError(f"refused: {shown_text(full)}: {make}")
            self.stack.append(GlobalName(full, make))
        elif full in INERT or full.startswith(INERT_PACKAGES):
            self.stack.append(InertClass(full))
        else:
            raise PickleError(
                f"refused: the file names {shown(full)}, code to run, not data. "
                "If it holds a whole model or optimiser, save the state_dict() of it instead"
            )

    def find_on_stack(self) -> None:
        """Opcode STACK_GLOBAL: the name on top, the module below it."""
        name = self.stack.pop()
        module = self.stack.pop()
        self.find(module, name)

    def call(self, target: Any, args: Any) -> None:
        """Push what the constructor of our own that `target` stands for makes of `args`; refuse
        anything else.
        """
        if not isinstance(target, GlobalName) or target.make is None or not isinstance(args, tuple):
            name = target.name if isinstance(target, Inert) else type(target).__name__
            raise PickleError(f"refused: the file would call {shown_text(name)}")
        cost = CALL
        for arg in args:
            if type(arg) in COPIED:
                cost += COPIED[type(arg)] * len(arg)
        self.budget.take(cost)
        self.stack.append(target.make(*args))

    def push_new(self, kind: type) -> None:
        """Push an empty list, dict or set."""
        self.budget.take(CONTAINERS[kind])
        self.stack.append(kind())

    def reduce(self) -> None:
        """Opcode REDUCE: call what lies below the arguments."""
        args = self.stack.pop()
        target = self.stack.pop()
        self.call(target, args)

    def new_with_keywords(self) -> None:
        """Opcode NEWOBJ_EX, without keyword arguments."""
        if self.stack.pop():
            raise PickleError("an object with keyword arguments")
        self.reduce()

    def build(self) -> None:
        """Opcode BUILD: the state of an array, of a type or of an inert object; refused for
        anything else.
        """
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PickledArray):
            array = target.build(state)
            self.stack[-1] = array
            for key in target.memo_keys:
                self.memo[key] = array
        elif isinstance(target, PickledDType):
            target.build(state)
        elif isinstance(target, Inert) and not isinstance(target, GlobalName):
            target.state = state
        elif not isinstance(target, dict):
            # attributes of a state dict (torch's _metadata) are no weights
            raise PickleError(f"refused: the file would set the state of a {type(target).__name__}")

    def push_persistent(self) -> None:
        """Replace the id on top by what persistent_load finds for it."""
        if self.persistent_load is None:
            raise PickleError("refused: a reference to an object outside the pickle")
        self.stack.append(self.persistent_load(self.stack.pop()))

    # ------------------------------------------------------------ the memo and containers

    def memoize(self, key: int) -> None:
        """Remember the topmost object under the number `key`."""
        top = self.stack[-1]
        self.memo[key] = top
        if isinstance(top, PickledArray):
            top.memo_keys.append(key)

    def extend_list(self, items: List[Any]) -> None:
        """Extend the list on top; refuse anything else."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise PickleError(f"refused: the file would extend a {type(target).__name__}")
        target.extend(items)

    def extend_set(self, items: List[Any]) -> None:
        """Extend the set on top; refuse anything else."""
        target = self.stack[-1]
        if not isinstance(target, set):
            raise PickleError(f"refused: the file would extend a {type(target).__name__}")
        target.update(keyable(item) for item in items)

    def set_items(self, items: List[Any]) -> None:
        """Fill the dict on top with keys and values in turn; what an inert package would be given
        is left out.
        """
        target = self.stack[-1]
        if isinstance(target, Inert) and not isinstance(target, GlobalName):
            return  # a dict's subclass from an inert package
        if type(target) not in (dict, OrderedDict):
            raise PickleError(f"refused: the file would set items of a {type(target).__name__}")
        if len(items) % 2:
            raise PickleError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            target[keyable(key)] = value

    def set_item(self) -> None:
        """Opcode SETITEM: one key and value into the dict below them."""
        value = self.stack.pop()
        key = self.stack.pop()
        self.set_items([key, value])

    def protocol(self) -> None:
        """Opcode PROTO: refuse a protocol that is not known."""
        if self.take(1)[0] > NEWEST_PROTOCOL:
            raise PickleError(f"a pickle protocol above {NEWEST_PROTOCOL}")


STOP = pickle.STOP[0]
OPCODES: Dict[int, Callable[[Unpickler], Any]] = {
    pickle.PROTO[0]: Unpickler.protocol,
    pickle.FRAME[0]: lambda m: m.number("<Q"),  # a hint for buffering
    pickle.MARK[0]: Unpickler.mark,
    pickle.POP[0]: Unpickler.pop,
    pickle.POP_MARK[0]: Unpickler.pop_mark,
    pickle.DUP[0]: lambda m: m.stack.append(m.stack[-1]),
    pickle.NONE[0]: lambda m: m.stack.append(None),
    pickle.NEWTRUE[0]: lambda m: m.stack.append(True),
    pickle.NEWFALSE[0]: lambda m: m.stack.append(False),
    pickle.BININT[0]: lambda m: m.stack.append(m.number("<i")),
    pickle.BININT1[0]: lambda m: m.stack.append(m.number("<B")),
    pickle.BININT2[0]: lambda m: m.stack.append(m.number("<H")),
    pickle.LONG1[0]: lambda m: m.push_integer("<B"),
    pickle.LONG4[0]: lambda m: m.push_integer("<i"),
    pickle.BINFLOAT[0]: lambda m: m.stack.append(m.number(">d")),
    pickle.BINUNICODE[0]: lambda m: m.push_text("<I"),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.push_text("<B"),
    pickle.BINUNICODE8[0]: lambda m: m.push_text("<Q"),
    pickle.BINBYTES[0]: lambda m: m.push_bytes("<I"),
    pickle.SHORT_BINBYTES[0]: lambda m: m.push_bytes("<B"),
    pickle.BINBYTES8[0]: lambda m: m.push_bytes("<Q"),
    pickle.BYTEARRAY8[0]: lambda m: m.push_bytes("<Q"),
    pickle.EMPTY_TUPLE[0]: lambda m: m.stack.append(()),
    pickle.TUPLE1[0]: lambda m: m.push_tuple(1),
    pickle.TUPLE2[0]: lambda m: m.push_tuple(2),
    pickle.TUPLE3[0]: lambda m: m.push_tuple(3),
    pickle.TUPLE[0]: lambda m: m.push_collected(tuple),
    pickle.EMPTY_LIST[0]: lambda m: m.push_new(list),
    pickle.LIST[0]: lambda m: m.push_collected(list),
    pickle.APPEND[0]: lambda m: m.extend_list([m.stack.pop()]),
    pickle.APPENDS[0]: lambda m: m.extend_list(m.pop_mark()),
    pickle.EMPTY_DICT[0]: lambda m: m.push_new(dict),
    pickle.SETITEM[0]: Unpickler.set_item,
    pickle.SETITEMS[0]: lambda m: m.set_items(m.pop_mark()),
    pickle.EMPTY_SET[0]: lambda m: m.push_new(set),
    pickle.ADDITEMS[0]: lambda m: m.extend_set(m.pop_mark()),
    pickle.FROZENSET[0]: lambda m: m.push_collected(new_frozenset),
    pickle.BINGET[0]: lambda m: m.fetch("<B"),
    pickle.LONG_BINGET[0]: lambda m: m.fetch("<I"),
    pickle.BINPUT[0]: lambda m: m.memoize(m.number("<B")),
    pickle.LONG_BINPUT[0]: lambda m: m.memoize(m.number("<I")),
    pickle.MEMOIZE[0]: lambda m: m.memoize(len(m.memo)),
    pickle.GLOBAL[0]: lambda m: m.find(m.line(), m.line()),
    pickle.STACK_GLOBAL[0]: Unpickler.find_on_stack,
    pickle.REDUCE[0]: Unpickler.reduce,
    pickle.NEWOBJ[0]: Unpickler.reduce,
    pickle.NEWOBJ_EX[0]: Unpickler.new_with_keywords,
    pickle.BUILD[0]: Unpickler.build,
    pickle.BINPERSID[0]: Unpickler.push_persistent,
}
