"""Image files with whole pixels and odd notes beside them, and damaged ones: made at random,
without end.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
)
CODES = b"\0\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0c\x0d\x10\xff"  # of EXIF's types, known or not
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
# what the tags of EXIF's first directory mean to somebody, and some that mean nothing
TAGS = [0x10E, 0x10F, 0x110, 0x112, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x13B, 0x213, 0x8298, 0x8769]
TAGS += [0x8825, 0x4746, 0x9C9B, 0xC4A5, 0xA005, 0x14A, 0x201, 0x202, 0x9286, 0xEA1C, 0, 0xFFFF]


def encoded(kind, **options):
    """PIXELS as a file of format `kind`."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def odd_exif(rng):
    """EXIF's bytes with directories of odd entries, cut or damaged at times."""
    order = "<>"[rng.integers(2)]
    parts, start = [], 8
    for _ in range(rng.integers(1, 4)):
        entries = [odd_entry(rng, order) for _ in range(rng.integers(0, 6))]
        body = struct.pack(order + "H", rng.choice([len(entries), len(entries), 65535]))
        body += b"".join(entries) + struct.pack(order + "I", rng.choice([0, 0, start, 1 << 31]))
        parts.append(body + rng.bytes(rng.integers(0, 40)))
        start += len(parts[-1])
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "I", rng.choice([8, 8, 8, 8, 0, 7, 1 << 31, start])
    )
    exif = bytearray(head + b"".join(parts))
    if rng.random() < 0.3:
        exif[rng.integers(len(exif))] = rng.integers(256)
    return bytes(exif[: rng.integers(0, len(exif) + 1)] if rng.random() < 0.2 else exif)


def odd_entry(rng, order):
    """One entry of a directory: a tag of any type, count and value."""
    code = int(rng.choice(list(CODES)))
    count = int(rng.choice([0, 1, 1, 1, 2, 3, 4, 9, 1 << 16, (1 << 32) - 1]))
    small = SIZES.get(code, 1) * count <= 4
    value = rng.bytes(4) if small else struct.pack(order + "I", rng.choice([8, 26, 200, 1 << 31]))
    if rng.random() < 0.3:
        value = struct.pack(order + "HH", rng.integers(0, 10), 0)
    return struct.pack(order + "HHI", int(rng.choice(TAGS)), code, count) + value


def odd_text(rng):
    """A note: empty, not UTF-8, a bomb of 3 MB, not deflated, or about an orientation."""
    return [
        b"",
        rng.bytes(30),
        b"key\0\0" + zlib.compress(bytes(3_000_000)),
        b"key\0\0not deflate",
        b"key\0\1\0\0\0" + zlib.compress(bytes(3_000_000)),
        b"\xff" * 90,
        b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3">',
        b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  10\nzz45"),
        struct.pack(">I", 2**31) * 4,
    ][rng.integers(9)]


def png(rng):
    """A PNG with one or two odd chunks before or after its pixels."""
    data = encoded("png")
    for _ in range(rng.integers(1, 3)):
        kinds = [b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"tIME"]
        kinds += [b"sRGB", b"acTL", b"fcTL", b"prVt"]
        kind = kinds[rng.integers(len(kinds))]
        note = odd_exif(rng) if kind == b"eXIf" else odd_text(rng)
        check = zlib.crc32(kind + note) if rng.random() < 0.9 else 0
        chunk = struct.pack(">I", len(note)) + kind + note + struct.pack(">I", check)
        place = 33 if rng.random() < 0.7 else len(data) - 12
        data = data[:place] + chunk + data[place:]
    return data


def jpeg(rng):
    """A JPEG with one to three odd segments at its front."""
    data = encoded("jpeg", quality=95)
    for _ in range(rng.integers(1, 4)):
        marker = [0xE0, 0xE1, 0xE1, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xE5][rng.integers(9)]
        starts = {0xE0: b"JFIF\0", 0xE1: b"Exif\0\0", 0xE2: b"MPF\0", 0xED: b"Photoshop 3.0\0"}
        note = odd_exif(rng) if marker in (0xE1, 0xE2) else odd_text(rng)[:60000]
        start = starts.get(marker, b"") if rng.random() < 0.8 else b"http://ns.adobe.com/xap/1.0/\0"
        if marker == 0xE2 and rng.random() < 0.5:
            start, note = b"ICC_PROFILE\0", bytes(rng.integers(0, 4, 2, np.uint8)) + note
        if marker == 0xEE:  # not Adobe's own, which says how the colours are stored
            start = b"Ducky"
        body = start + note
        segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
        data = data[:2] + segment + data[2:]
    return data


def webp(rng):
    """A WebP with odd EXIF, XMP and colour profile."""
    data = encoded("webp", lossless=True, exif=b"Exif\0\0II*\0", xmp=b"<x>", icc_profile=b"i" * 130)
    for kind, note in ((b"EXIF", odd_exif(rng)), (b"XMP ", odd_text(rng)), (b"ICCP", rng.bytes(9))):
        place = data.index(kind)
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + length + length % 2
        chunk = kind + struct.pack("<I", len(note)) + note + b"\0" * (len(note) % 2)
        data = data[:place] + chunk + data[end:]
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def tiff(rng):
    """A TIFF of strips, plain or packed, with odd entries in its directory."""
    packed = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"][rng.integers(4)]
    data = encoded("tiff", compression=packed)
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    entries = [data[place + 2 + 12 * i : place + 14 + 12 * i] for i in range(count)]
    known = {struct.unpack_from("<H", entry)[0] for entry in entries}
    for _ in range(rng.integers(1, 4)):
        entry = odd_entry(rng, "<")
        if struct.unpack_from("<H", entry)[0] not in known | {
            0x14A,
            0x201,
            0x202,
            0x213,
            0,
            0xFFFF,
        }:
            known.add(struct.unpack_from("<H", entry)[0])
            entries.append(entry)
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    start = len(data) + len(data) % 2
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", start) + data[8:].ljust(start - 8, b"\0") + directory


WITH_NOTES = {"png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff}


def turned(pixels):
    """`pixels` in all eight orientations."""
    both = (pixels, pixels.transpose(1, 0, 2))
    return [one[::y, ::x] for one in both for y in (1, -1) for x in (1, -1)]


def damaged(rng, kind):
    """A file of format `kind` with up to eight bytes changed, cut, or parts taken out or twice."""
    modes = {"jpeg": "RGB L CMYK", "png": "RGB L P 1 I;16 RGBA LA", "gif": "P", "bmp": "RGB 1 P L"}
    mode = rng.choice(modes.get(kind, "RGB L").split())
    image = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)
    image = image if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    data = bytearray(file.getvalue())
    for _ in range(rng.integers(0, 9)):
        # most of what decides lies in front
        place = rng.integers(len(data)) if rng.random() < 0.5 else rng.integers(min(200, len(data)))
        data[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    first, last = sorted(rng.integers(0, len(data) + 1, 2))
    choice = rng.random()
    if choice < 0.2:
        del data[first:last]
    elif choice < 0.3:
        data[first:first] = data[first:last]
    elif choice < 0.5:
        del data[last:]
    return bytes(data)
