"""Files of weights that are small and ask for much, made opcode by opcode: one for each way that is
known.
"""

import io
import json
import struct
import zipfile
import zlib

DEEP = b"K\x01" + b"2\x86" * 40  # a tuple of itself twice, 40 deep: its text has 2**40 parts
REFERENCES = 300_000


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def data(size):
    return b"B" + struct.pack("<I", size) + bytes(size)


FLOAT32, FIRST = text("f4"), text("0")
LIST, TUPLE = name("builtins", "list"), name("builtins", "tuple")
ARRAY = (
    name("numpy.core.multiarray", "_reconstruct")
    + name("numpy", "ndarray")
    + b"K\x00\x85C\x01b\x87R"
)
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def dtype(kind=FLOAT32, order=b""):
    return name("numpy", "dtype") + kind + b"\x85R" + order


def array(shape=b"K\x01\x85", kind=None, content=b"C\x04abcd"):
    return ARRAY + b"(K\x01" + shape + (kind or dtype()) + b"\x89" + content + b"tb"


def storage(key=FIRST, count=b"K\x0c", kind="FloatStorage"):
    return b"(" + text("storage") + name("torch", kind) + key + text("cpu") + count + b"tQ"


def tensor(stored, offset=b"K\x00", shape=b"K\x04\x85", strides=b"K\x01\x85"):
    return REBUILD + b"(" + stored + offset + shape + strides + b"\x89NtR"


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return stream.getvalue()


def torch_file(pickle, **storages):
    return zipped(
        {"a/data.pkl": b"\x80\x02" + pickle, **{f"a/data/{k}": v for k, v in storages.items()}}
    )


def raw_zip(members):
    """members: (name, None or the place of another whose bytes it shares, method, declared size,
    bytes, checksum).
    """
    body, central = bytearray(), bytearray()
    for member, at, method, size, content, checksum in members:
        start = len(body)
        if at is None:
            body += struct.pack(
                "<4sHHHHHIIIHH",
                b"PK\3\4",
                20,
                0,
                method,
                0,
                0,
                checksum,
                len(content),
                size,
                len(member),
                0,
            )
            body += member + content
        else:
            start = at
        central += (
            struct.pack(
                "<4sHHHHHHIIIHHHHHII",
                b"PK\1\2",
                20,
                20,
                0,
                method,
                0,
                0,
                checksum,
                len(content),
                size,
                len(member),
                0,
                0,
                0,
                0,
                0,
                start,
            )
            + member
        )
    end = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), len(central), len(body), 0
    )
    return bytes(body + central) + end


def deflated(size):
    """(bytes, checksum) of so many zeros."""
    squeeze, block, checksum = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20), 0
    parts = []
    for _ in range(size >> 20):
        parts.append(squeeze.compress(block))
        checksum = zlib.crc32(block, checksum)
    return b"".join([*parts, squeeze.flush()]), checksum


def bomb(count, size):
    """A torch file whose `count` storages of `size` bytes are compressed."""
    content, checksum = deflated(size)
    pickle = b"\x80\x02}"
    for number in range(count):
        stored = storage(text(str(number)), b"J" + struct.pack("<i", size // 4))
        pickle += text(str(number)) + tensor(stored, shape=b"K\x01\x85") + b"s"
    pickle += b"."
    members = [(b"a/data.pkl", None, 0, len(pickle), pickle, zlib.crc32(pickle))]
    members += [(f"a/data/{n}".encode(), None, 8, size, content, checksum) for n in range(count)]
    return raw_zip(members)


def overlapping(count, size):
    """An .npz whose members all lie in the same place."""
    content = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % size
    )
    content = content.ljust(127) + b"\n" + bytes(size)
    checksum = zlib.crc32(content)
    return raw_zip(
        [
            (b"%06d.npy" % n, None if n == 0 else 0, 0, len(content), content, checksum)
            for n in range(count)
        ]
    )


def safetensors(header, content=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content


def legacy(keys):
    """torch.save before 1.6, of an empty dict, with that list of storages."""
    return (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
        + b"\x80\x02M\xe9\x03."
        + b"\x80\x02}"
        + text("little_endian")
        + b"\x88s."
        + b"\x80\x02}."
        + b"\x80\x02"
        + keys
        + b"."
    )


def repeated(first, again, count=REFERENCES, begin=b"\x80\x02]("):
    """A list of what `first` makes and then of `again`, which may fetch what was remembered."""
    return begin + first + again * count + b"e."


def from_list(kind):
    """The same list given to `kind` again and again."""
    return repeated(
        b"](" + b"K\x01" * 20_000 + b"eq\x01" + kind + b"q\x02h\x01\x85q\x03", b"h\x02h\x03R"
    )


def from_letters(kind):
    """The same long text given to `kind`."""
    return repeated(
        text("\u4e00" * 100_000) + b"q\x01" + kind + b"q\x02h\x01\x85q\x03", b"h\x02h\x03R"
    )


def from_pairs():
    pairs = b"".join(b"M" + struct.pack("<H", number) + b"N\x86" for number in range(10_000))
    ordered = name("collections", "OrderedDict")
    return repeated(b"](" + pairs + b"eq\x01" + ordered + b"q\x02h\x01\x85q\x03", b"h\x02h\x03R")


def bytes_again():
    made = name("builtins", "bytearray")
    return repeated(data(1 << 20) + b"q\x01" + made + b"q\x02h\x01\x85q\x03", b"h\x02h\x03R")


def encoded_again():
    encode = name("_codecs", "encode") + b"q\x02h\x01" + text("utf-8") + b"\x86q\x03"
    return repeated(text("a" * (1 << 20)) + b"q\x01" + encode, b"h\x02h\x03R")


def long_names():
    long = text("mmengine." + "a" * (1 << 20)) + b"q\x01" + text("B") + b"q\x02"
    return repeated(long, b"h\x01h\x02\x93", begin=b"\x80\x04](")


def names_of_names():
    first = name("builtins", "getattr") + b"q\x02" + name("mmengine.a", "B") + b"q\x03"
    return b"\x80\x02" + first + (b"q\x04h\x02h\x04" + text("b" * 100) + b"\x86R") * 10_000 + b"."


def in_torch(made, **storages):
    return torch_file(b"}" + text("a") + made + b"s.", **storages)


ONE = {"0": bytes(48)}
BFLOAT16_COUNT = struct.pack("<i", 2_000_000)


def tensors_again():
    arguments = b"(h\x01K\x00K\x04\x85K\x01\x85\x89Ntq\x02"
    first = b"](" + storage() + b"q\x01" + arguments + REBUILD + b"q\x03"
    return torch_file(first + b"h\x03h\x02R" * REFERENCES + b"e.", **ONE)


def subclass(function, *arguments):
    """torch's way to write a tensor of a class of one's own."""
    made = name("torch._tensor", "_rebuild_from_type_v2") + b"(" + function
    return torch_file(made + name("torch", "Tensor") + b"".join(arguments) + b"NtR.")


def named_again(first, again, begin=b"\x80\x02}("):
    keys = b"".join(text(f"k{number:07}") + again for number in range(2000))
    return begin + text("a") + first + keys + b"u."


def widened():
    shape = b"J" + BFLOAT16_COUNT + b"\x85"
    made = ARRAY + b"q\x05(K\x01" + shape + dtype(text("u2")) + b"\x89" + data(4_000_000) + b"tb"
    return named_again(made, b"h\x05")


def widened_views():
    made = name("numpy.core.numeric", "_frombuffer") + b"q\x030"
    known = data(4_000_000) + b"q\x010" + dtype(text("u2")) + b"q\x020" + made
    view = b"h\x03(h\x01h\x02J" + BFLOAT16_COUNT + b"\x85" + text("C") + b"tR"
    return named_again(view, view, b"\x80\x02" + known + b"}(")


def widened_storage():
    shape = b"J" + BFLOAT16_COUNT + b"\x85"
    stored = storage(count=b"J" + BFLOAT16_COUNT, kind="BFloat16Storage") + b"q\x01"
    pickle = named_again(tensor(stored, shape=shape), tensor(b"h\x01", shape=shape), b"}(")
    return torch_file(pickle, **{"0": bytes(4_000_000)})


def one_tensor(shape, kind="F32"):
    return safetensors({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, 8]}}, bytes(8))


COPIES = "copies more data than the file holds"
SHARED = "share storages so often that they hold more data than the file"
UNPACKS = r"unpacks to \d+ bytes, more than the limit of"
# {name: (what makes the bytes, a regular expression of the refusal)}
HOSTILE = {
    "shape": (lambda: b"\x80\x02" + array(DEEP) + b".", "an array of shape"),
    "type": (lambda: b"\x80\x02" + array(kind=dtype(DEEP)) + b".", "an array of type"),
    "byte order": (
        lambda: b"\x80\x02" + array(kind=dtype(order=b"(K\x03" + DEEP + b"NNNtb")) + b".",
        "byte order",
    ),
    "encoding": (
        lambda: b"\x80\x02" + name("_codecs", "encode") + text("a") + DEEP + b"\x86R.",
        "a byte string in encoding",
    ),
    "key": (lambda: b"\x80\x02}" + DEEP + b"K\x01s.", "a key of type tuple"),
    "scalar": (
        lambda: b"\x80\x02" + name("numpy.core.multiarray", "scalar") + DEEP + DEEP + b"\x86R.",
        "an array without a type",
    ),
    "set": (lambda: b"\x80\x02" + name("builtins", "set") + DEEP + b"\x85R.", "made of a tuple"),
    "frozenset": (lambda: b"\x80\x04(" + DEEP + b"\x91.", "a key of type tuple"),
    "called": (lambda: b"\x80\x02" + DEEP + b")R.", "would call tuple"),
    "state": (lambda: b"\x80\x02" + DEEP + DEEP + b"b.", "would set the state of a tuple"),
    "module": (lambda: b"\x80\x04" + DEEP + text("x") + b"\x93.", "a global without a name"),
    "torch's shape": (lambda: in_torch(tensor(storage(), shape=DEEP), **ONE), "tensor of shape"),
    "torch's strides": (lambda: in_torch(tensor(storage(), strides=DEEP), **ONE), "strides"),
    "torch's offset": (lambda: in_torch(tensor(storage(), offset=DEEP), **ONE), "offset"),
    "torch's storage": (lambda: in_torch(tensor(storage(key=DEEP))), "a persistent id that is not"),
    "torch's count": (lambda: in_torch(tensor(storage(count=DEEP))), "of a negative size"),
    "torch's id": (lambda: in_torch(tensor(DEEP + b"Q")), "a persistent id that is not"),
    "torch's class": (lambda: subclass(DEEP, DEEP), "made by something else than torch"),
    "torch's function": (
        lambda: subclass(LIST, b"](" + b"K\x01" * 1000 + b"e\x85"),
        "made by something else than torch",
    ),
    "deep storage keys": (
        lambda: legacy(b"](" + b")" + b"\x85" * 200_000 + b"e"),
        "its list of storages differs",
    ),
    "wide storage keys": (lambda: legacy(b"](" + DEEP + b"e"), "its list of storages differs"),
    "lists": (lambda: b"\x80\x02](" + b"]" * 4_000_000 + b"e.", COPIES),
    "dicts": (lambda: b"\x80\x02](" + b"}" * 4_000_000 + b"e.", COPIES),
    "sets": (lambda: b"\x80\x04](" + b"\x8f" * 4_000_000 + b"e.", COPIES),
    "lists of a list": (lambda: from_list(LIST), COPIES),
    "tuples of a list": (lambda: from_list(TUPLE), COPIES),
    "lists of a text": (lambda: from_letters(LIST), "a container made of a str"),
    "tuples of a text": (lambda: from_letters(TUPLE), "a container made of a str"),
    "dicts of pairs": (from_pairs, COPIES),
    "a number of bytes": (
        lambda: b"\x80\x02" + name("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.",
        "a byte string made of a int",
    ),
    "bytes again": (bytes_again, COPIES),
    "encoded again": (encoded_again, COPIES),
    "long names": (long_names, "a name of 1048586 characters"),
    "names of names": (names_of_names, "a name of 5"),
    "tensors again": (tensors_again, COPIES),
    "inert objects": (
        lambda: repeated(name("argparse", "Namespace") + b"q\x01", b"h\x01)\x81"),
        COPIES,
    ),
    "widened": (widened, SHARED),
    "widened views": (widened_views, COPIES),
    "widened storage": (widened_storage, SHARED),
    "few large members": (lambda: bomb(4, 1 << 30), UNPACKS),
    "many members": (lambda: bomb(300, 1 << 20), UNPACKS),
    "members over each other": (lambda: overlapping(20_000, 4_000_000), "members overlap"),
    "long shape": (lambda: one_tensor([2**62] * 300_000), "an array of shape"),
    "long number": (lambda: one_tensor([10**3999]), "needs an integer of"),
    "deep header": (lambda: safetensors(b'{"a":' + b"[" * 1_000_000), "damaged: RecursionError"),
    "deep type": (lambda: one_tensor([2], kind=[[[]]]), "is of type list"),
    "wide header": (
        lambda: safetensors(b'{"a": [' + b"[]," * 3_000_000 + b"[]]}"),
        "damaged: TypeError",
    ),
}
