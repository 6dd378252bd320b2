"""A pickle reader which cannot run code: its own small machine for protocols 2 to 5, over a memory
map.

Python's `pickle` calls whatever a file names, and a restricted `find_class` still trusts the file's
sizes. Here a global is a name that is looked up in a table of constructors of our own; nothing is
imported, no attribute of any object is set, and every declared size is checked against the bytes
that are there. Long byte strings are views of the file, not copies.
"""

import struct
from collections import OrderedDict

import numpy as np

__all__ = ["BFLOAT16", "Inert", "PickleError", "Unpickler", "numpy_dtype", "strided_array", "widen"]

# a checkpoint with its optimiser has about 300 000; bounds what a hostile file can allocate
MAX_OPCODES = 5_000_000
VIEW_BYTES = 256  # byte strings from here on stay views of the file
NUMBERS = {"b1", "f2", "f4", "f8", "c8", "c16", *(kind + size for kind in "iu" for size in "1248")}
BFLOAT16 = "bfloat16"  # numpy has no such type: read as uint16, widened to float32 without loss
SCALARS = (str, int, float, bool, bytes, type(None))


class PickleError(ValueError):
    """Why a pickle was refused: one line, without the file's name, which the caller adds."""


class Inert:
    """An object of the file that is kept as data: the name of its class, its arguments, its state.
    It does nothing.
    """

    def __init__(self, name, args=(), state=None):
        self.name, self.args, self.state = name, args, state

    def __repr__(self):
        return f"<inert {self.name}>"


class _Global(Inert):
    """A name of the allow-list; `make(*args)` is our own constructor for it, None where it must
    never be called.
    """

    def __init__(self, name, make):
        super().__init__(name)
        self.make = make


class _DType:
    """numpy.dtype while it is being built: its type string, then (by BUILD) its byte order."""

    def __init__(self, text, *_):
        self.text, self.order = text, "="

    def build(self, state):
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or any(part is not None for part in state[2:5])
        ):
            raise PickleError("a structured array is not a tensor")
        self.order = "=" if state[1] == "|" else state[1]


class _Array:
    """numpy.ndarray between its creation and the BUILD that fills it, which puts the real array in
    its place.
    """

    def __init__(self, *_):
        self.memo_keys = []

    def build(self, state):
        _, shape, dtype, fortran, data = state
        return _from_bytes(data, dtype, shape, "F" if fortran else "C")


def numpy_dtype(text, order="="):
    """The dtype that `text` ('f4', '<i8', ...) names; little-endian booleans and numbers only, else
    PickleError.
    """
    if not isinstance(text, str) or text.lstrip("<=|") not in NUMBERS or order not in ("<", "="):
        raise PickleError(
            f"an array of type {text!r} (byte order {order!r}); only little-endian numbers are read"
        )
    return np.dtype(text)


def _from_bytes(data, dtype, shape, order="C"):
    """The array of `shape` in the byte string `data`, without a copy where the machine's byte order
    allows it.
    """
    if not isinstance(dtype, _DType):
        raise PickleError("an array without a type")
    dtype = numpy_dtype(dtype.text, dtype.order)
    if (
        not isinstance(shape, tuple)
        or not all(type(n) is int and n >= 0 for n in shape)
        or len(shape) > 32
    ):
        raise PickleError(f"an array of shape {str(shape)[:60]}")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise PickleError(f"an array whose data is a {type(data).__name__}")
    needed = dtype.itemsize
    for n in shape:
        needed *= n
    if needed != len(data):
        raise PickleError(
            f"an array of shape {shape} and type {dtype} needs {needed} bytes, the file has "
            f"{len(data)} for it"
        )
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def strided_array(data, dtype, offset, shape, strides, limit):
    """A view of the 1-D array-like storage `data` (bytes): `shape`, with `strides` and `offset`
    counted in elements.

    Raises PickleError when it would reach outside, or spread (stride 0) to more than `limit`
    elements.
    """
    numbers = (offset, *shape, *strides)
    if (
        not all(type(n) is int and n >= 0 for n in numbers)
        or len(shape) != len(strides)
        or len(shape) > 32
    ):
        raise PickleError(
            f"a tensor of shape {str(shape)[:60]}, strides {str(strides)[:60]}, offset "
            f"{str(offset)[:20]}"
        )
    count, last = 1, offset
    for n, stride in zip(shape, strides):
        count *= n
        last += (n - 1) * stride
    stored = len(data) // dtype.itemsize
    if count == 0:
        return np.zeros(shape, dtype)
    if last >= stored or count > limit:
        raise PickleError(
            f"a tensor of shape {str(shape)[:60]} at offset {offset} does not fit its storage of "
            f"{stored} elements"
        )
    flat = np.frombuffer(data, dtype, count=stored)
    return np.lib.stride_tricks.as_strided(
        flat[offset:], shape, [n * dtype.itemsize for n in strides], writeable=False
    )


def widen(bits):
    """bfloat16 bits (uint16) -> float32: the upper half of a float32 of the same value."""
    array = (bits.astype(np.uint32) << 16).view(np.float32)
    array.flags.writeable = False
    return array


def _scalar(dtype, data=b""):
    return _from_bytes(data, dtype, ()).item()


def _frombuffer(data, dtype, shape, order):
    return _from_bytes(data, dtype, shape, order if order in ("C", "F") else "C")


def _tuple(items=()):
    """paddle.save writes a tensor as tuple((name, array)): what is wanted of it is the array."""
    items = tuple(items)
    if len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray):
        return items[1]
    return items


def _encode(text, encoding="utf-8", *_):
    """codecs.encode, by which protocol 2 writes byte strings."""
    if encoding not in ("latin1", "utf-8") or not isinstance(text, str):
        raise PickleError(f"a byte string in encoding {str(encoding)[:30]!r}")
    return text.encode(encoding)


def _getattr(owner, attribute):
    """A method named by a meta object of mmengine: a name, nothing more."""
    if not isinstance(owner, _Global) or owner.make is not None or not isinstance(attribute, str):
        raise PickleError("refused: the file would call builtins.getattr")
    return _Global(f"{owner.name}.{attribute}", None)


def _keyable(key):
    """Keys are scalars or flat tuples of them: hashing a deeply nested tuple exhausts the C
    stack.
    """
    if (
        isinstance(key, SCALARS)
        or isinstance(key, tuple)
        and all(isinstance(k, SCALARS) for k in key)
    ):
        return key
    raise PickleError(f"a key of type {type(key).__name__}")


def _frozenset(items=()):
    return frozenset(_keyable(item) for item in items)


def _dict(items=()):
    return {
        _keyable(key): value for key, value in (items.items() if isinstance(items, dict) else items)
    }


def _ordered(items=()):
    return OrderedDict(_dict(items))


_BUILTINS = {
    "tuple": _tuple,
    "list": lambda items=(): list(items),
    "dict": _dict,
    "set": lambda items=(): {_keyable(item) for item in items},
    "frozenset": _frozenset,
    "bytearray": lambda data=b"": bytes(data),
    "int": None,
    "float": None,
    "str": None,
    "bool": None,
    "object": None,
    "getattr": _getattr,
}
GLOBALS = {
    **{
        (module, name): make
        for module in ("builtins", "__builtin__")
        for name, make in _BUILTINS.items()
    },
    ("collections", "OrderedDict"): _ordered,
    ("collections", "Counter"): _dict,
    ("collections", "deque"): lambda items=(), maxlen=None: list(items),
    ("collections", "defaultdict"): lambda factory=None, items=(): _dict(items),
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,
}
for _core in ("core", "_core"):
    GLOBALS[f"numpy.{_core}.multiarray", "_reconstruct"] = _Array
    GLOBALS[f"numpy.{_core}.multiarray", "scalar"] = _scalar
    GLOBALS[f"numpy.{_core}.numeric", "_frombuffer"] = _frombuffer
# Classes whose instances checkpoints carry beside their tensors. They become Inert, whatever their
# state.
INERT = {
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "datetime.datetime",
    "datetime.timedelta",
    "torch.torch_version.TorchVersion",
    "torch.device",
}
INERT_PACKAGES = ("mmengine.", "mmcv.", "mmdet.", "mmseg.", "mmcls.", "mmpretrain.")


class Unpickler:
    """Reads pickles one after another from `buffer` (a memoryview), beginning at `position`.

    extra_globals: {(module, name): constructor} beyond GLOBALS; a constructor is our own function,
    None a name that is
    data only, a string the reason for which the name is refused. persistent_load: called with the
    id of a persistent object (torch's storages). Every method raises PickleError for what is
    refused or damaged.
    """

    def __init__(self, buffer, position=0, extra_globals=None, persistent_load=None):
        self.buffer, self.position = buffer, position
        self.globals = {**GLOBALS, **(extra_globals or {})}
        self.persistent_load = persistent_load

    def load(self):
        """The next pickle's object. Raises PickleError."""
        self.stack, self.marks, self.memo = [], [], {}
        # what constructors may copy, so that a small file cannot fill the memory
        self.budget = 4 * len(self.buffer) + 65536
        start = self.position
        try:
            for _ in range(MAX_OPCODES):
                code = self.take(1)[0]
                if code == 0x2E:  # STOP
                    value = self.stack.pop()
                    if self.stack or self.marks:
                        raise PickleError("objects left over at its end")
                    return value
                handler = _OPCODES.get(code)
                if handler is None:
                    raise PickleError(
                        f"opcode 0x{code:02x}, which no pickle of protocol 2 to 5 with plain data "
                        f"has"
                    )
                handler(self)
        except PickleError as error:
            raise PickleError(
                f"{error} (pickle at byte {start}, near byte {self.position})"
            ) from None
        except (
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            MemoryError,
            RecursionError,
            struct.error,
        ) as error:
            raise PickleError(
                f"damaged pickle: {type(error).__name__} near byte {self.position}"
            ) from error
        raise PickleError(f"a pickle of more than {MAX_OPCODES} operations is no checkpoint")

    def take(self, count):
        """The next `count` bytes, as a view."""
        end = self.position + count
        if end > len(self.buffer):
            raise PickleError(f"ends {end - len(self.buffer)} bytes too early")
        view = self.buffer[self.position : end]
        self.position = end
        return view

    def number(self, form):
        """The next number; form: struct's, as '<I'."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        """Text up to the next newline: names of modules, classes and attributes."""
        head = bytes(self.buffer[self.position : self.position + 512])
        end = head.find(b"\n")
        if end < 0:
            raise PickleError("a name without an end")
        self.position += end + 1
        return head[:end].decode("utf-8")

    def popmark(self):
        """What was pushed since the last mark, as a list; the stack before it comes back."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self):
        """Begin a new stack over the present one."""
        self.marks.append(self.stack)
        self.stack = []

    def push_collected(self, kind):
        """Push `kind` of what was pushed since the last mark."""
        # brings the outer stack back, onto which the collection goes
        items = self.popmark()
        self.stack.append(kind(items))

    def string(self, form):
        """Push a text whose length comes first, as `form`."""
        self.stack.append(str(self.take(self.number(form)), "utf-8", "surrogatepass"))

    def bytes(self, form):
        """Push a byte string whose length comes first, as `form`: a copy if it is short, else a
        view of the file.
        """
        view = self.take(self.number(form))
        self.stack.append(bytes(view) if len(view) < VIEW_BYTES else view)

    def integer(self, form):
        """Push an integer whose number of bytes comes first, as `form`; 1024 at most."""
        size = self.number(form)
        if not 0 <= size <= 1024:
            raise PickleError(f"an integer of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def collect(self, count):
        """Replace the topmost `count` objects by their tuple."""
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise PickleError("a tuple without its items")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def find(self, module, name):
        """Push the global `module.name` of the allow-list; refuse any other by name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a global without a name")
        full = f"{module}.{name}"
        if (module, name) in self.globals:
            make = self.globals[module, name]
            if isinstance(make, str):
                raise PickleError(f"refused: {full[:120]}: {make}")
            self.stack.append(_Global(full, make))
        elif full in INERT or full.startswith(INERT_PACKAGES):
            self.stack.append(_Global(full, lambda *args: Inert(full, args)))
        else:
            raise PickleError(
                f"refused: the file names {full[:120]!r}, code to run, not data. "
                "If it holds a whole model or optimiser, save the state_dict() of it instead"
            )

    def call(self, target, args):
        """Push what the constructor of our own that `target` stands for makes of `args`; refuse
        anything else.
        """
        if not isinstance(target, _Global) or target.make is None or not isinstance(args, tuple):
            raise PickleError(
                f"refused: the file would call "
                f"{getattr(target, 'name', type(target).__name__)[:120]}"
            )
        self.budget -= sum(len(arg) for arg in args if hasattr(arg, "__len__"))
        if self.budget < 0:
            raise PickleError("refused: it copies more data than the file holds")
        self.stack.append(target.make(*args))

    def reduce(self):
        """Opcode REDUCE: call what lies below the arguments."""
        args, target = self.stack.pop(), self.stack.pop()
        self.call(target, args)

    def new(self, keywords):
        """Opcodes NEWOBJ and NEWOBJ_EX, without keyword arguments."""
        if keywords and self.stack.pop():
            raise PickleError("an object with keyword arguments")
        self.reduce()

    def build(self):
        """Opcode BUILD: the state of an array, of a type or of an inert object; refused for
        anything else.
        """
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array):
            array = self.stack[-1] = target.build(state)
            for key in target.memo_keys:
                self.memo[key] = array
        elif isinstance(target, _DType):
            target.build(state)
        elif isinstance(target, Inert) and not isinstance(target, _Global):
            target.state = state
        elif not isinstance(target, dict):
            # attributes of a state dict (torch's _metadata) are no weights
            raise PickleError(f"refused: the file would set the state of a {type(target).__name__}")

    def fetch(self, form):
        """Push the remembered object whose number comes next, as `form`."""
        self.stack.append(self.memo[self.number(form)])

    def memoize(self, key):
        """Remember the topmost object under the number `key`."""
        self.memo[key] = top = self.stack[-1]
        if isinstance(top, _Array):
            top.memo_keys.append(key)

    def append(self, items, target):
        """Extend the list `target`; refuse anything else."""
        if not isinstance(target, list):
            raise PickleError(f"refused: the file would extend a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items, target):
        """Fill the dict `target` with keys and values in turn; what an inert package would be given
        is left out.
        """
        if isinstance(target, Inert) and not isinstance(target, _Global):
            return  # a dict's subclass from an inert package
        if type(target) not in (dict, OrderedDict):
            raise PickleError(f"refused: the file would set items of a {type(target).__name__}")
        if len(items) % 2:
            raise PickleError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            target[_keyable(key)] = value

    def add_items(self, items, target):
        """Extend the set `target`; refuse anything else."""
        if not isinstance(target, set):
            raise PickleError(f"refused: the file would extend a {type(target).__name__}")
        target.update(_keyable(item) for item in items)

    def push_persistent(self):
        """Replace the id on top by what persistent_load finds for it."""
        if self.persistent_load is None:
            raise PickleError("refused: a reference to an object outside the pickle")
        self.stack.append(self.persistent_load(self.stack.pop()))

    def set_one(self):
        """Opcode SETITEM: one key and value into the dict below them."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items((key, value), self.stack[-1])

    def protocol(self):
        """Opcode PROTO: refuse a protocol above 5."""
        if self.take(1)[0] > 5:
            raise PickleError("a pickle protocol above 5")


_OPCODES = {
    0x80: Unpickler.protocol,
    # FRAME: a hint for buffering
    0x95: lambda m: m.number("<Q"),
    0x28: Unpickler.mark,
    0x30: lambda m: m.stack.pop() if m.stack else m.popmark(),
    0x31: Unpickler.popmark,
    0x32: lambda m: m.stack.append(m.stack[-1]),
    0x4E: lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    0x4A: lambda m: m.stack.append(m.number("<i")),
    0x4B: lambda m: m.stack.append(m.number("<B")),
    0x4D: lambda m: m.stack.append(m.number("<H")),
    0x8A: lambda m: m.integer("<B"),
    0x8B: lambda m: m.integer("<i"),
    0x47: lambda m: m.stack.append(m.number(">d")),
    0x58: lambda m: m.string("<I"),
    0x8C: lambda m: m.string("<B"),
    0x8D: lambda m: m.string("<Q"),
    0x42: lambda m: m.bytes("<I"),
    0x43: lambda m: m.bytes("<B"),
    0x8E: lambda m: m.bytes("<Q"),
    0x96: lambda m: m.bytes("<Q"),
    0x29: lambda m: m.stack.append(()),
    0x85: lambda m: m.collect(1),
    0x86: lambda m: m.collect(2),
    0x87: lambda m: m.collect(3),
    0x74: lambda m: m.push_collected(tuple),
    0x5D: lambda m: m.stack.append([]),
    0x6C: lambda m: m.push_collected(list),
    0x61: lambda m: m.append([m.stack.pop()], m.stack[-1]),
    0x65: lambda m: m.append(m.popmark(), m.stack[-1]),
    0x7D: lambda m: m.stack.append({}),
    0x73: Unpickler.set_one,
    0x75: lambda m: m.set_items(m.popmark(), m.stack[-1]),
    0x8F: lambda m: m.stack.append(set()),
    0x90: lambda m: m.add_items(m.popmark(), m.stack[-1]),
    0x91: lambda m: m.push_collected(_frozenset),
    0x68: lambda m: m.fetch("<B"),
    0x6A: lambda m: m.fetch("<I"),
    0x71: lambda m: m.memoize(m.number("<B")),
    0x72: lambda m: m.memoize(m.number("<I")),
    0x94: lambda m: m.memoize(len(m.memo)),
    0x63: lambda m: m.find(m.line(), m.line()),
    0x93: lambda m: m.find(*reversed([m.stack.pop(), m.stack.pop()])),
    0x52: Unpickler.reduce,
    0x81: lambda m: m.new(False),
    0x92: lambda m: m.new(True),
    0x62: Unpickler.build,
    0x51: Unpickler.push_persistent,
}
