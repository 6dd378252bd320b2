"""Names of every script and length on every picture, and fonts that are damaged: a picture, or one
line that names the file of names.
"""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ppcls_nextvit.data.lists import read_class_names
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import fonts
from ppcls_nextvit.tasks.classification.pictures import draw_confusion, draw_predictions
from ppcls_nextvit.tasks.classification.predict import contact_sheet
from ppcls_nextvit.tasks.classification.results import ClassificationResult
from ppcls_nextvit.tasks.fonts import FontFile
from ppcls_nextvit.tasks.inputs import InputImage
from ppcls_nextvit.tasks.segmentation.pictures import draw_labels
from support.faults import assert_one_line, generators, many
from support.programs import program_at

TEXT = "кот γάτα âne"
CACHES = ("_font_for", "_files", "_has", "_font")
pytest.importorskip("matplotlib", reason="needs the extra `train`")
DEJAVU = Path(importlib.util.find_spec("matplotlib").origin).with_name("mpl-data")
DEJAVU = DEJAVU / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture
def only(monkeypatch):
    """A function that makes `fonts` know one font beside Pillow's, as in a new process."""

    def fresh():
        for name in CACHES:
            getattr(fonts, name).cache_clear()

    def use(path):
        monkeypatch.setattr(fonts, "PACKAGED", ())
        monkeypatch.setattr(fonts, "OF_SYSTEMS", (FontFile(str(path)),))
        fresh()

    yield use
    monkeypatch.undo()
    fresh()


@pytest.fixture(scope="module")
def deployed():
    """deploy/python/fonts.py."""
    return program_at("deploy/python/fonts.py")


def damaged(rng, data):
    """The bytes of a font, cut off, or with other bytes in its tables or glyphs, or of no font."""
    kind = rng.integers(5)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return rng.bytes(rng.integers(600))
    changed = bytearray(data)
    most, end = [(20, 600), (2000, len(data)), (20_000, len(data))][kind - 2]
    for place in rng.integers(0, end, rng.integers(1, most)):
        changed[place] = rng.integers(256)
    return bytes(changed)


@pytest.mark.faults
def test_damaged_fonts_cost_no_picture(tmp_path, only, deployed, monkeypatch):
    data, own = DEJAVU.read_bytes(), 0
    for number, rng in enumerate(generators(many(20))):
        path = tmp_path / f"{number}.ttf"
        path.write_bytes(damaged(rng, data))
        only(path)
        monkeypatch.setattr(deployed, "OF_SYSTEMS", ((str(path), 0),))
        for name in ("font_for", "_installed", "_has", "_font"):
            getattr(deployed, name).cache_clear()
        since = time.process_time()
        for module in (fonts, deployed):
            draw = ImageDraw.Draw(Image.new("L", (300, 60), "white"))
            for size in (11, 13):
                module.draw_text(draw, (3, 4), TEXT, "black", size, stroke_width=1)
                assert module.text_width(TEXT, size) >= 0
        if number % 5 == 0:
            draw_confusion(tmp_path / "m.png", np.arange(2), np.arange(2), [TEXT, "кот"])
        assert time.process_time() - since < 5
        own += fonts._font_for(TEXT, 13).getname() == ImageFont.load_default(13).getname()
    assert own >= many(5), "of others enough is whole"


@pytest.mark.parametrize("module", ["fonts", "deployed"])
def test_a_font_that_opens_and_cannot_draw(module, tmp_path, only, deployed, monkeypatch):
    """Its glyphs are gone: Pillow's own stands in."""
    data = bytearray(DEJAVU.read_bytes())
    at = data.index(b"glyf") + 8
    place, size = (int.from_bytes(data[at + i : at + i + 4], "big") for i in (0, 4))
    data[place : place + size] = b"\xff" * size
    path = tmp_path / "a.ttf"
    path.write_bytes(data)
    assert ImageFont.truetype(str(path), 13).getname()[0] == "DejaVu Sans"
    only(path)
    monkeypatch.setattr(deployed, "OF_SYSTEMS", ((str(path), 0),))
    for name in ("font_for", "_installed", "_has", "_font"):
        getattr(deployed, name).cache_clear()
    found = fonts._font_for(TEXT, 13) if module == "fonts" else deployed.font_for(TEXT, 13)
    assert found.getname() == ImageFont.load_default(13).getname()


PIECES = ["cat", "кот", "猫", "γάτα", "قطة", "חתול", "แมว", "बिल्ली", "고양이", "\U0001f408\u200d⬛"]
PIECES += ["\u202e", "\u2066", "e" + "\u0301" * 60, "\x1b[2J", "\t", "$x^2$", "\\frac", "%s", "{}"]
PIECES += ["\ufeff", "\ud7ff", "\U0010ffff", "﷽" * 40, "x" * 3000, "\u200b", "'", '"', "&<>", "ﬁ"]
ENDS = ["\n"] * 12 + ["\r\n", "\x0b", "\u2028", "\x85", "\n\n"]


def odd_names(rng, count):
    """The content of a file of names."""

    def name():
        return "".join(PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(1, 4)))

    lines = [f"{number} {name()}" for number in range(count)]
    text = "".join(line + ENDS[rng.integers(len(ENDS))] for line in lines)
    start = ["", "", "\ufeff"][rng.integers(3)]
    return (start + text).encode((["utf-8"] * 5 + ["utf-16", "gb18030"])[rng.integers(7)])


@pytest.mark.faults
@pytest.mark.filterwarnings("error:Glyph")
def test_names_of_any_script_are_drawn_or_the_file_is_named(tmp_path):
    drawn = 0
    for number, rng in enumerate(generators()):
        path = tmp_path / "names.txt"
        path.write_bytes(odd_names(rng, 3))
        try:
            names = read_class_names(path, 3)
        except ConfigError as error:
            assert_one_line(error)
            assert str(path) in str(error)
            continue
        drawn += 1
        since = time.process_time()
        labels = np.repeat(np.arange(3), 20)[:, None].repeat(50, 1)
        picture = draw_labels(np.zeros((60, 50, 3), np.uint8), labels, names)
        assert max(picture.size) < 3000
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        image = InputImage(names[0], tmp_path / "a.png")
        results = [ClassificationResult(image, np.roll([1.0, 0, 0], i), names) for i in range(3)]
        assert max(contact_sheet(results).size) < 3000
        if number % 8 == 0:
            draw_confusion(tmp_path / "m.png", np.arange(3), np.arange(3), names)
            black = [np.zeros((8, 8, 3), np.uint8)] * 3
            draw_predictions(tmp_path / "p.png", black, names, names[::-1])
            for file in ("m.png", "p.png"):
                with Image.open(tmp_path / file) as opened:
                    assert max(opened.size) < 5000
        assert time.process_time() - since < 10
    assert drawn >= many(5)
