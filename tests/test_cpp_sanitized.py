"""deploy/cpp under the address and undefined-behaviour sanitisers: images with odd notes, damaged
images and damaged descriptions. FAULTS_SEED draws others, FAULTS_SECONDS makes it longer.
"""

import json
import os
import re
import struct
import time
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image

from ppcls_nextvit.data.images import decode_image
from support import cpp_programs
from support.faults import SEED, lasting
from support.odd_images import PIXELS, WITH_NOTES, damaged, turned
from test_deploy_cpp import CHW, DECODE, describe, png, resize

pytestmark = [pytest.mark.chain, pytest.mark.faults]  # the library is built anew, unoptimised

SECONDS = lasting(10)
REPORT = ("runtime error", "Sanitizer", "DEADLYSIGNAL")


@pytest.fixture(scope="module")
def programs():
    return cpp_programs.build("tests/support/sanitized")


def seed():
    return np.random.default_rng(SEED)


def checked(*command):
    """The finished program, which no sanitiser stopped. stderr: without how many threads it has."""
    done = cpp_programs.run(*command, errors="surrogateescape")
    assert done.returncode in (0, 1) and not any(text in done.stderr for text in REPORT), (
        done.stderr[-3000:]
    )
    done.stderr = re.sub(r"^threads: .*\n", "", done.stderr)
    return done


def classified(programs, model, folder):
    """{file name: its result} of all images of a folder."""
    out = folder.parent / "results.json"
    checked(f"{programs}/classify", "--model", model, "--images", folder, "--json", out)
    return {os.path.basename(one["file_name"]): one for one in json.loads(out.read_text())}


def decoded(programs, tmp_path, data):
    """An image as uint8 [H, W, 3], by the program `preprocess`; None if it refuses it."""
    (tmp_path / "image").write_bytes(data)
    yml = describe(tmp_path / "pixels.yml", [DECODE, CHW])
    done = cpp_programs.run(
        f"{programs}/nextvit/preprocess", yml, tmp_path / "image", text=False, timeout=60
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    if done.returncode:
        return None
    height, width = map(int, done.stderr.split())
    floats = np.frombuffer(done.stdout, np.float32).reshape(3, height, width)
    return floats.transpose(1, 2, 0).astype(np.uint8)


def note(kind, body):
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def profile(digits):
    """ImageMagick's note with EXIF in hexadecimal digits."""
    return note(b"tEXt", b"Raw profile type exif\0\nexif\n  40\n" + digits)


TURNED = b"4d4d002a00000008000101120003000000010006000000000000"
ODD_TYPE = TURNED.replace(b"01120003", b"01120002")  # a text


@pytest.mark.parametrize(
    "chunk, orientation",
    [
        (profile(TURNED), 6),
        (profile(TURNED.upper() + b"\n"), 6),
        (profile(b"\n".join(TURNED[i : i + 7] for i in range(0, len(TURNED), 7))), 6),
        (profile(TURNED[:-1]), 1),  # half a byte
        (profile(TURNED[:20] + b"zz" + TURNED[22:]), 1),
        (profile(ODD_TYPE), 1),
        (profile(b""), 1),
        (note(b"eXIf", bytes.fromhex(TURNED.decode())), 6),
        (note(b"eXIf", bytes.fromhex(TURNED.decode()))[:-4] + bytes(4), 6),
        (note(b"eXIf", b"MM\0*\xff\xff\xff\xf0" + bytes(20)), 1),
        (note(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(20)), 1),
        (note(b"tEXt", b"odd")[:-4] + bytes(4), 1),
    ],
)
def test_notes_of_a_png(programs, tmp_path, chunk, orientation):
    """Right values: a note that can be read turns the image, one that cannot changes nothing."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (4, 6, 3), np.uint8)
    data = png(values, 8, 2, chunks=chunk)
    expected = np.rot90(values, -1) if orientation == 6 else values
    assert np.array_equal(decoded(programs, tmp_path, data), expected)
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"PostProcess": {"Topk": {"topk": -3, "label_list": ["a", "b"]}}}, "topk: expected 1"),
        ({"PostProcess": {"Topk": {"topk": 1, "label_list": []}}}, "label_list has 0 names"),
        ({"Model": {"class_num": 0, "softmax": True, "input": {"shape": [1]}}}, "class_num: exp"),
        ({"Model": {"input": {"shape": [-4, 3, 32, 32]}}}, "shape: a batch of -4"),
        ({"PreProcess": {"transform_ops": [{"CropImage": {"size": 1 << 40}}]}}, "wrong type"),
        ({"PreProcess": {"transform_ops": [resize(size=1 << 30)]}}, "expected 1 to 89478485"),
        (
            {"PreProcess": {"transform_ops": [resize(size=1 << 30, interpolation="nearest")]}},
            "expected 1 to 89478485",
        ),
    ],
)
def test_a_description_of_values_that_cannot_be(programs, tmp_path, change, message):
    path = describe(tmp_path / "inference.yml", [DECODE, CHW])
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    done = checked(
        f"{programs}/classify", "--model", tmp_path, "--images", tmp_path / "a.png", "--topk", 1
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


def test_names_of_every_kind(programs, tmp_path):
    """Line breaks, what a terminal obeys, and bytes that are not UTF-8: one line each, and the JSON
    has the names as Python reads them.
    """
    describe(tmp_path / "inference.yml", [DECODE, CHW])
    folder = tmp_path / "images"
    folder.mkdir()
    names = [b"two\nlines.png", b"\x1b[2Jclear.png", b"latin\xe9.png", b"\xed\xa0\x80half.png"]
    names += [b"$HOME `x`.png", "\u540d\u524d \u0438\u043c\u044f.png".encode(), b"\xc2\x85.png"]
    names += [b"n" * 245 + b".png"]
    for name in names:
        Image.new("RGB", (9, 9)).save(os.fsencode(folder) + b"/" + name, "png")
    (folder / "bad\rname.png").write_bytes(b"no image")
    results = classified(programs, tmp_path, folder)
    assert set(results) == {os.fsdecode(name) for name in [*names, b"bad\rname.png"]}
    assert [name for name, one in results.items() if "error" in one] == ["bad\rname.png"]
    done = checked(f"{programs}/classify", "--model", tmp_path, "--images", folder)
    assert len(done.stdout.splitlines()) == len(names) and len(done.stderr.splitlines()) == 1
    assert "two\\x0alines.png: a" in done.stdout and "latin\\xe9.png: a" in done.stdout
    assert "bad\\x0dname.png" in done.stderr
    shown = (done.stdout + done.stderr).replace("\n", "")
    assert shown.isprintable() and "\u540d\u524d" in shown


def test_what_is_no_regular_file_is_an_error_at_once(programs, tmp_path):
    describe(tmp_path / "inference.yml", [DECODE, CHW])
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        done = checked(f"{programs}/classify", "--model", tmp_path, "--images", path)
        assert (done.returncode, done.stderr) == (1, f"error: {path}: not a regular file\n")


def test_an_earlier_runs_results_stay_until_there_are_new_ones(programs, tmp_path):
    describe(tmp_path / "inference.yml", [DECODE, CHW])
    (tmp_path / "out.json").write_text("[]")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    command = [f"{programs}/classify", "--model", tmp_path, "--json", tmp_path / "out.json"]
    assert checked(*command, "--images", tmp_path / "none").returncode == 1
    assert (tmp_path / "out.json").read_text() == "[]"
    assert checked(*command, "--images", tmp_path / "a.png").returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())[0]["class_ids"] == [0]


def test_images_drawn_anew(programs, tmp_path):
    """Images with odd notes are decoded, to the pixels that Python decodes; damaged ones decoded or
    refused.
    """
    rng, end = seed(), time.monotonic() + SECONDS
    describe(tmp_path / "inference.yml", [DECODE, CHW])
    images = refused = 0
    while time.monotonic() < end:
        folder = tmp_path / f"round{images}"
        folder.mkdir()
        noted, cases = [], {}
        for index in range(150):
            kind = ("png", "jpeg")[index % 2]
            name = f"{index}.{kind}"
            if index % 3:
                noted.append(name)
                cases[name] = WITH_NOTES[kind](rng)
            else:
                cases[name] = damaged(rng, kind)
            (folder / name).write_bytes(cases[name])
        results = classified(programs, tmp_path, folder)
        assert results.keys() == cases.keys()
        for name in noted:
            assert "error" not in results[name], (results[name], cases[name])
        for name in noted[:10]:
            data = cases[name]
            theirs = decode_image(data)
            # where another note is bad, Python reads none but EXIF's
            allowed = turned(theirs) if b"tiff:Orientation" in data else [theirs]
            ours = decoded(programs, tmp_path, data)
            assert any(np.array_equal(ours, one) for one in allowed), data
        images += len(cases)
        refused += sum("error" in result for result in results.values())
    print(f"{images} images, {refused} refused")
    assert images >= 150 and refused > 0


def test_descriptions_drawn_anew(programs, tmp_path):
    """A description with values of other kinds and sizes, or with damaged text: an error in one
    line, or predictions.
    """
    rng, end = seed(), time.monotonic() + SECONDS / 4
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    transforms = [DECODE, resize(resize_short=40), {"CropImage": {"size": [30, 20]}}]
    transforms += [{"NormalizeImage": {"order": "hwc"}}, CHW]
    good = describe(tmp_path / "inference.yml", transforms).read_text()
    odd = ["-1", "0", "1e9", "2147483647", "99999999999", ".nan", ".inf", "-.inf", "[]", "{}", "~"]
    odd += ["text", "[1, 2, 3]", "*a", "!!int x", "'\\0'", "[" * 3000]
    command = [f"{programs}/classify", "--model", tmp_path, "--images", tmp_path / "a.png"]
    assert checked(*command).returncode == 0
    refused = count = 0
    while time.monotonic() < end:
        words = good.split(" ")
        if rng.random() < 0.7:
            for place in rng.integers(0, len(words), rng.integers(1, 3)):
                words[place] = odd[rng.integers(len(odd))] + "\n" * words[place].endswith("\n")
            text = " ".join(words).encode()
        else:
            text = bytearray(good.encode())
            for place in rng.integers(0, len(text), 4):
                text[place] = rng.integers(256)
        (tmp_path / "inference.yml").write_bytes(text)
        done = checked(*command)
        assert done.stdout.count("\n") + done.stderr.count("\n") == 1, (text, done)
        refused += done.returncode
        count += 1
    print(f"{count} descriptions, {refused} refused")
    assert refused > 0
