"""Files of weights changed where a checksum or the order of operations would hide the change."""

import copy
import io
import json
import struct
import zipfile

NAMES = (
    *(("builtins", name) for name in ("tuple", "list", "dict", "set", "frozenset", "bytearray")),
    *(("collections", name) for name in ("OrderedDict", "Counter", "deque", "defaultdict")),
    ("builtins", "getattr"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("argparse", "Namespace"),
    ("mmengine.a", "B"),
)


class MadePickle:
    """Operations that find what they need on the stack, in an order that makes no sense."""

    def __init__(self, rng):
        self.rng = rng
        self.code = bytearray(b"\x80\x04")
        self.memo = 0
        self.depths = [0]  # of the stack, and of those below its marks

    def push(self, code):
        self.code += code
        self.depths[-1] += 1

    def replace(self, count, code):
        """An operation that takes `count` objects and leaves one."""
        self.code += code
        self.depths[-1] += 1 - count

    def value(self):
        rng = self.rng
        size = rng.choice([0, 4, 8, 300])
        fetched = b"h" + bytes([rng.randrange(max(1, min(self.memo, 256)))])
        self.push(
            rng.choice(
                [
                    b"K" + rng.randbytes(1),
                    b"J" + rng.choice([b"\xff\xff\xff\x7f", rng.randbytes(4)]),
                    b"\x8c\x02" + rng.choice([b"f4", b"u2", b"ab", b"<i"]),
                    b"B" + struct.pack("<I", size) + rng.randbytes(size),
                    rng.choice([b"N", b"\x88", b")", b"]", b"}", b"\x8f"]),
                    b"K\x04\x85",
                    fetched if self.memo else b"N",
                    fetched if self.memo else b"N",
                ]
            )
        )

    def call(self):
        module, name = self.rng.choice(NAMES)
        self.push(f"c{module}\n{name}\n".encode())
        count = self.rng.randrange(4)
        for _ in range(count):
            self.value()
        self.push(b")") if not count else self.replace(
            count, (b"\x85", b"\x86", b"\x87")[count - 1]
        )
        self.replace(2, b"R")

    def step(self):
        present = self.depths[-1]
        kind = self.rng.choice("vvvvcc2pmm(tasb")
        if kind == "c":
            self.call()
        elif kind == "2" and present:
            self.push(b"2")
        elif kind == "p" and present >= 2:
            self.replace(2, b"\x86")
        elif kind == "m" and present:
            self.code += b"\x94"
            self.memo += 1
        elif kind == "(":
            self.code += b"("
            self.depths.append(0)
        elif kind == "t" and len(self.depths) > 1:
            self.close()
        elif kind == "a":
            self.push(b"]")
            self.value()
            self.replace(2, b"a")
        elif kind == "s":
            self.push(b"}")
            self.value()
            self.value()
            self.replace(3, b"s")
        elif kind == "b" and present >= 2:
            self.replace(2, b"b")
        else:
            self.value()

    def close(self):
        self.depths.pop()
        self.push(b"t")

    def bytes(self):
        for _ in range(self.rng.randrange(3, 80)):
            self.step()
        while len(self.depths) > 1:
            self.close()
        if not self.depths[0]:
            self.push(b"N")
        return bytes(self.code + b"0" * (self.depths[0] - 1) + b".")


def mutated_member(content, change):
    """The archive with `change` of its pickle or of one array, and checksums that are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        chosen = next(name for name in names if name.endswith(("data.pkl", ".npy")))
        for name in names:
            new.writestr(name, change(old.read(name)) if name == chosen else old.read(name))
    return stream.getvalue()


VALUES = (None, True, -1, 0, 2**31, 2**62, 2**64, 10**30, 10**300, 1.5, float("inf"), "", "F32")
VALUES += ("BF16", "F8_E4M3", "x" * 9999, [], [[]], [0], [2**40] * 3, [1] * 40, {}, {"a": 1})


def mutated_header(content, rng):
    """The safetensors file with a header that says other things."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    for _ in range(rng.randrange(1, 4)):
        key = rng.choice(list(header))
        field = rng.choice(["dtype", "shape", "data_offsets"])
        entry = header[key]
        kind = rng.randrange(6)
        if kind == 0 or not isinstance(entry, dict):
            header[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 1:
            entry.pop(field, None)
        elif kind == 2:
            header[f"\n{key}"] = dict(entry)
        elif kind == 3 and isinstance(entry.get(field), list) and entry[field]:
            numbers = list(entry[field])
            numbers[rng.randrange(len(numbers))] = copy.deepcopy(rng.choice(VALUES))
            entry[field] = numbers
        else:
            entry[field] = copy.deepcopy(rng.choice(VALUES))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]
