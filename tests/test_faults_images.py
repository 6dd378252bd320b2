"""Image files as they come: odd notes beside whole pixels, damage, other formats, and how messages
show what is in them.
"""

import contextlib
import copy
import io
import logging
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import images
from ppcls_nextvit.data.images import ImageError, decode_image, decode_upright
from ppcls_nextvit.data.transforms.pipeline import Pipeline, channels_of
from ppcls_nextvit.files import parsing
from ppcls_nextvit.schema import ConfigError, shown, shown_text
from support import odd_images
from support.faults import RNG, assert_one_line, generators
from support.programs import program_at

ALL_KINDS = ("jpeg", "png", "gif", "bmp", "ppm", "tiff", "webp", "jpeg2000")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def deployed():
    """deploy/python/decoding.py, of which deploy/serving has a copy."""
    return program_at("deploy/python/decoding.py")


# Messages
# --------------------------------------------------------------------------------------


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


def test_values_as_messages_show_them():
    plain = [
        1,
        -2.5,
        True,
        None,
        "a'b",
        "é\n",
        b"\0",
        [],
        (),
        {},
        set(),
        (1,),
        {"a": [1, (2, {3})]},
    ]
    assert [shown(value) for value in plain] == [repr(value) for value in plain]
    bomb = ["x"] * 10
    for _ in range(60):
        bomb = [bomb] * 10
    circle = []
    circle.append(circle)
    for value in (
        bomb,
        circle,
        "x" * 10**7,
        b"\0" * 10**6,
        10**5000,
        list(range(10**6)),
        [Broken()],
    ):
        start = time.perf_counter()
        assert len(shown(value)) < 1100 and time.perf_counter() - start < 1
    assert shown("x" * 300).endswith("x'... (300 characters)")
    assert shown([Broken()]) == "[a Broken]"


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202egnp.exe", "\udcff", "\0", "\x7f"])
def test_names_as_messages_show_them(text):
    assert shown_text(text).isprintable()
    assert shown_text("日本 é.jpg") == "日本 é.jpg"
    assert (
        len(shown_text(text + "x" * 9999)) < 1100 and shown_text("x" * 9999 + ".jpg")[-4:] == ".jpg"
    )
    for kind in (ConfigError, ImageError):
        assert str(kind(f"{text}: wrong")).isprintable()


def test_a_damaged_file_and_a_mistake_of_ours_are_told_apart():
    for error in (
        ValueError("x"),
        KeyError("k"),
        AttributeError("a"),
        MemoryError(),
        RecursionError(),
    ):
        with pytest.raises(ConfigError, match=r"^f\.json: damaged: ") as raised:
            with parsing("f.json: damaged"):
                raise error
        assert raised.value.__cause__ is error
    with pytest.raises(ImageError, match="^kept$"), parsing("f", ImageError):
        raise ImageError("kept")
    for mistake in (ImportError("no module"), KeyboardInterrupt()):
        with pytest.raises(type(mistake)), parsing("f"):
            raise mistake


def test_a_mistake_in_our_decoding_keeps_its_traceback(monkeypatch):
    def mistaken(*_):
        raise NameError("name 'imgae' is not defined")

    monkeypatch.setattr(images, "_rgb", mistaken)
    # raised outside of the package it is the file's
    with pytest.raises(ImageError, match="truncated or damaged image: name 'imgae'"):
        decode_image(odd_images.encoded("png"))
    monkeypatch.setattr("ppcls_nextvit.files.PACKAGE", os.path.dirname(__file__))
    with pytest.raises(NameError):
        decode_image(odd_images.encoded("png"))


# Images
# --------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("kind", odd_images.WITH_NOTES)
def test_notes_beside_whole_pixels_never_cost_the_picture(kind, deployed):
    options = {"jpeg": {"quality": 95}, "webp": {"lossless": True}}.get(kind, {})
    upright = odd_images.turned(decode_image(odd_images.encoded(kind, **options)))
    for rng in generators():
        data = odd_images.WITH_NOTES[kind](rng)
        pixels = decode_image(data, name="x")
        assert any(np.array_equal(pixels, expected) for expected in upright)
        assert np.array_equal(pixels, np.asarray(deployed.decode(data)))


@pytest.mark.faults
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_damaged_files_raise_image_errors_alone(kind, deployed):
    for rng in generators():
        data = odd_images.damaged(rng, kind)
        try:
            pixels = decode_image(data, name="a\nb")
        except ImageError as error:
            assert_one_line(error, r"a\nb: ")
            with pytest.raises(deployed.DecodeError):
                deployed.decode(data)
        else:
            assert np.array_equal(pixels, np.asarray(deployed.decode(data)))


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_files_that_end_anywhere_raise_image_errors_alone(kind, deployed):
    """Also a header that ends within itself."""
    whole = odd_images.encoded(kind)
    for end in (*range(60), *range(60, len(whole), 97)):
        with contextlib.suppress(ImageError):
            decode_image(whole[:end], name="x")
        with contextlib.suppress(deployed.DecodeError):
            deployed.decode(whole[:end])


def test_a_tiff_is_turned_once_also_where_a_note_was_left_out(deployed):
    """Its orientation is among the tags of its pixels."""
    orientation = Image.Exif()
    orientation[0x112], orientation[0x10F] = 6, "maker"
    data = bytearray(odd_images.encoded("tiff", exif=orientation))
    upright = decode_image(bytes(data))
    assert upright.shape == (*odd_images.PIXELS.shape[1::-1], 3)
    maker = struct.pack("<HHI", 0x10F, 2, 6)
    assert data.count(maker) == 1
    at = data.index(maker)
    for kind in (1, 2, 5, 13):  # of a note that lies outside the file
        data[at : at + 12] = struct.pack("<HHII", 0x10F, kind, 6, 1 << 31)
        assert np.array_equal(decode_image(bytes(data)), upright)
        assert np.array_equal(np.asarray(deployed.decode(bytes(data))), upright)


def exif(*entries, order="<"):
    """EXIF's bytes with a directory of (tag, type, count, value of four bytes)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    rows = [struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries]
    return head + struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)


def with_exif(data, *, kind="jpeg"):
    pixels = np.arange(40 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 40, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=b"Exif\0\0" + data)
    return file.getvalue()


SIX = (0x112, 3, 1, b"\6\0\0\0")


@pytest.mark.parametrize(
    "data, turned",
    [
        (exif(SIX), 6),
        (exif((0x112, 3, 1, b"\0\6\0\0"), order=">"), 6),
        # a fraction for the maker, at which re-writing EXIF failed
        (exif((0x10F, 5, 1, struct.pack("<I", 8)), SIX), 6),
        (exif(SIX, (0x8769, 4, 1, b"\xff\xff\xff\x7f")), 6),
        (exif((0x112, 4, 1, b"\6\0\0\0")), 6),
        (exif((0x112, 2, 2, b"6\0\0\0")), 1),
        (exif((0x112, 3, 2, b"\6\0\6\0")), 1),
        (exif((0x112, 3, 1, b"\x09\0\0\0")), 1),
        (exif((0x112, 3, 1, b"\0\0\0\0")), 1),
        (exif(SIX)[:-8], 1),
        (b"XX*\0\x08\0\0\0", 1),
        (b"", 1),
    ],
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_of_exif_the_orientation_alone_is_read(data, turned, kind, deployed):
    file = with_exif(data, kind=kind)
    image, found = decode_upright(file)
    assert found == turned and image.size == ((32, 40) if turned == 6 else (40, 32))
    assert deployed.decode(file).size == image.size


@pytest.mark.parametrize("packed", [None, "tiff_lzw"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_tiff_is_turned_once(turned, packed):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "tiff", tiffinfo={0x112: turned}, compression=packed)
    png = io.BytesIO()
    note = Image.Exif()
    note[0x112] = turned
    Image.fromarray(pixels).save(png, "png", exif=note)
    image, found = decode_upright(file.getvalue())
    assert found == turned
    assert np.array_equal(np.asarray(image), decode_image(png.getvalue()))


def test_a_picture_whose_orientation_stands_among_bad_notes():
    """The file is read again without its notes, and is turned all the same."""
    plain = with_exif(exif(SIX), kind="png")
    bomb = b"zTXt" + b"note\0\0" + zlib.compress(bytes(3_000_000))
    chunk = struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb))
    assert decode_image(plain[:33] + chunk + plain[33:]).shape == (40, 32, 3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n{} loop\n"


@pytest.mark.parametrize(
    "data",
    [
        EPS,
        b"\xd7\xcd\xc6\x9a" + bytes(80),
        b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
        b"8BPS\0\1" + bytes(60),
        b"#define im_width 9\n#define im_height 9\nstatic char im_bits[] = {\n0x00};",
        b"SIMPLE  =                    T" + b" " * 2850,
    ],
)
def test_other_formats_of_pillow_are_not_read_and_start_nothing(
    data, tmp_path, monkeypatch, deployed
):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(
        ImageError, match="photo.jpg: not an image, or of a format that is not read"
    ):
        decode_image(path)
    with pytest.raises(deployed.DecodeError, match="not an image in one of the formats JPEG, PNG"):
        deployed.decode(data)
    assert not (tmp_path / "started").exists()


def grey(values, kind="tiff"):
    file = io.BytesIO()
    Image.fromarray(np.array([values])).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "data, message",
    [
        (
            grey(np.array([0, 4095], np.uint16), "png"),
            "its 16-bit grey values use 12 bits, up to 4095",
        ),
        (grey(np.array([0, 255], np.uint16)), "use 8 bits, up to 255"),
        (
            grey(np.array([-5, 9000], np.int32)),
            "grey values from -5 on; those below 0 become black",
        ),
        (grey(np.array([0, 1 << 20], np.int32)), "up to 1048576; those above 65535 become white"),
        (grey(np.array([0, 65535], np.uint16)), None),
        (grey(np.array([0, 0], np.uint16)), None),
        (grey(np.array([0, 200], np.uint8), "png"), None),
    ],
)
def test_grey_whose_high_byte_holds_nothing_is_told_once(data, message, caplog, monkeypatch):
    monkeypatch.setattr(images, "_told", set())
    caplog.set_level(logging.WARNING, "ppcls_nextvit")
    for _ in range(2):
        decode_image(data, name="x.tif")
    told = [record.getMessage() for record in caplog.records]
    assert (len(told) == 1 and message in told[0]) if message else told == []


# Channels
# --------------------------------------------------------------------------------------


GREY = [
    {"DecodeImage": None},
    {"NormalizeImage": {"scale": 1, "mean": [3], "std": [2], "order": ""}},
]


def test_one_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    found = Pipeline(GREY)(file.getvalue(), name="x")
    assert found.shape == (1, 6, 5) and np.array_equal(
        found[0], (pixels.astype(np.float32) - 3) / 2
    )
    coloured = odd_images.encoded("png")
    expected = np.asarray(Image.fromarray(odd_images.PIXELS).convert("L"), np.float32)
    for order in ("", "hwc", "chw"):
        ops = copy.deepcopy(GREY)
        ops[1]["NormalizeImage"]["order"] = order
        ops[1:1] = [{"ToCHWImage": None}] if order == "chw" else []
        assert np.array_equal(Pipeline(ops)(coloured, name="x")[0], (expected - 3) / 2)
    erased = Pipeline([*GREY, {"RandomErasing": {"EPSILON": 1.0}}])(coloured, RNG, "x")
    assert erased.shape == (1, *expected.shape)
    assert (
        channels_of(GREY) == 1 and channels_of([{"NormalizeImage": {}}]) == channels_of(None) == 3
    )
