"""The notes in an image file beside its pixels: the one that counts, EXIF's orientation, and how a
file looks without any.

Cameras and programs write odd notes, and libraries trip over them. Of EXIF nothing is read but the
one number, and where a decoder fails on a file it is given the file without notes: a bad note never
costs the picture.
"""

import re
import struct
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

__all__ = ["exif_block", "orientation_of", "without_notes"]

ORIENTATION = 0x112  # EXIF's tag, whose values are 1 to 8; 1: upright
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # EXIF's types
XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# TIFF's tags that say how the pixels are stored; 273: where
PIXEL_TAGS = {254, 256, 257, 258, 259, 262, 266, 273, ORIENTATION, 277, 278, 279, 284, 292, 293}
PIXEL_TAGS |= {317, 320, 322, 323, 324, 325, 338, 339, 347, *range(512, 522), *range(529, 533)}


def orientation_of(info: Mapping[Any, Any]) -> int:
    """EXIF's orientation, 1 to 8, in what Pillow found beside an image's pixels, its `info`; 1
    (upright) where none can be read.
    """
    exif = info.get("exif")
    found = _orientation_in(_raw_profile(info) if exif is None else exif)
    if found is None:
        found = _orientation_in_xmp(info)
    return found if found is not None and 1 < found < 9 else 1


def _raw_profile(info: Mapping[Any, Any]) -> bytes:
    """EXIF as ImageMagick writes it into a PNG, in hexadecimal digits."""
    try:
        return bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
    except (KeyError, ValueError):
        return b""


def _orientation_in(exif: bytes) -> Optional[int]:
    """The orientation in EXIF's own bytes, None where there is none that can be read."""
    exif = re.sub(rb"^(?:Exif\0\0){1,2}", b"", exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    found = None
    for tag, kind, count, value in _entries(exif, order):
        if tag == ORIENTATION and count == 1 and kind in INTEGERS:
            found = struct.unpack_from(order + INTEGERS[kind], value)[0]
    return found


def _entries(exif: bytes, order: str) -> Iterator[Tuple[int, int, int, bytes]]:
    """(tag, type, count, the four bytes of the value) of the first directory of a TIFF or of EXIF,
    as far as it is there.
    """
    if len(exif) < 8:
        return
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", exif, place)
        yield tag, kind, number, exif[place + 8 : place + 12]


def _orientation_in_xmp(info: Mapping[Any, Any]) -> Optional[int]:
    text = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    match = XMP.search(text.encode(errors="replace") if isinstance(text, str) else text)
    return int(match[1]) if match else None


def exif_block(data: bytes) -> bytes:
    """EXIF's bytes in a JPEG or PNG file, b'' where there are none."""
    if data.startswith(JPEG):
        blocks = (block for marker, block in _jpeg_segments(data) if marker == 0xE1)
        return next((block[4:] for block in blocks if block[4:10] == b"Exif\0\0"), b"")
    if data.startswith(PNG):
        return next((chunk[8:-4] for kind, chunk in _png_chunks(data) if kind == b"eXIf"), b"")
    return b""


def without_notes(data: bytes) -> bytes:
    """The image file `data` without what its pixels do not need; as it is, if it has no such notes
    or is of a format that never failed for one.
    """
    if data.startswith(JPEG):
        return _jpeg_without_notes(data)
    if data.startswith(PNG):
        kept = (chunk for kind, chunk in _png_chunks(data) if kind[:1].isupper() or kind == b"tRNS")
        return PNG + b"".join(kept)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_without_notes(data)
    return data


def _png_chunks(data: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """(kind, whole chunk) of every chunk of a PNG; the last may be cut."""
    place = len(PNG)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place : place + length + 12]
        place += length + 12


def _jpeg_segments(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """(marker, whole segment) of a JPEG up to its pixels, which come as the last with all that
    follows.
    """
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker == 0xDA:  # the pixels
            break
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place : place + length]
        place += length
    yield 0xDA, data[place:]


def _jpeg_without_notes(data: bytes) -> bytes:
    """Without comments and applications' segments; Adobe's says which colours the channels are."""
    kept = (
        segment
        for marker, segment in _jpeg_segments(data)
        if marker != 0xFE and (not 0xE0 <= marker <= 0xEF or segment[4:9] == b"Adobe")
    )
    return JPEG + b"".join(kept)


def _tiff_without_notes(data: bytes) -> bytes:
    """With a directory at the end that has the pixels' tags alone."""
    order = "<" if data[:2] == b"II" else ">"
    kept: Dict[int, bytes] = {}
    for tag, kind, count, value in _entries(data, order):
        if tag in PIXEL_TAGS and (tag != ORIENTATION or (count == 1 and kind in INTEGERS)):
            kept[tag] = struct.pack(order + "HHI", tag, kind, count) + value
    directory = b"".join(kept[tag] for tag in sorted(kept))
    place = len(data) + len(data) % 2
    head = data[:4] + struct.pack(order + "I", place)
    whole = head + data[8:] + b"\0" * (len(data) % 2)
    return whole + struct.pack(order + "H", len(kept)) + directory + bytes(4)
