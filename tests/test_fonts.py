"""Names in every script are drawn readably, or one warning says how."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ppcls_nextvit.tasks import fonts
from ppcls_nextvit.tasks.classification.pictures import draw_confusion, draw_predictions
from ppcls_nextvit.tasks.classification.predict import contact_sheet
from ppcls_nextvit.tasks.classification.results import ClassificationResult
from ppcls_nextvit.tasks.inputs import InputImage
from ppcls_nextvit.tasks.segmentation.pictures import draw_labels

SCRIPTS = {"English": "cat", "French": "âne", "Greek": "γάτα", "Russian": "кот", "Chinese": "猫"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test as in a new process."""
    monkeypatch.setattr(fonts.logger, "propagate", True)
    monkeypatch.setattr(fonts, "_told", set())
    fonts._font_for.cache_clear()
    fonts._files.cache_clear()
    yield
    fonts._font_for.cache_clear()
    fonts._files.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine with Pillow's own font alone."""
    monkeypatch.setattr(fonts, "PACKAGED", ())
    monkeypatch.setattr(fonts, "OF_SYSTEMS", ())


def drawn(text, size=13):
    picture = Image.new("L", (200, 30), "white")
    fonts.draw_text(ImageDraw.Draw(picture), (3, 4), text, "black", size)
    return np.asarray(picture)


def boxes(font, text):
    """Whether the font has none of the letters of `text`."""
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(letter)) == missing for letter in text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_are_drawn_in_a_font_that_has_their_letters(script, caplog):
    if script == "Chinese":
        pytest.importorskip("noto_cjk_sans_otc", reason="needs the extra `fonts`")
    elif script != "English":
        pytest.importorskip("matplotlib", reason="needs the extra `train`")
    name = SCRIPTS[script]
    font = fonts._font_for(name, 13)
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in name)
    assert not caplog.records
    # distinct letters look different, as boxes do not
    assert len({drawn(letter).tobytes() for letter in name}) == len(set(name))


def test_english_names_look_as_in_pillows_own_font():
    for size, place, outline in ((13, (3, 4), 0), (11, (5.3, 6.7), 1)):
        pictures = [Image.new("RGB", (200, 30), "white") for _ in range(2)]
        ours, theirs = map(ImageDraw.Draw, pictures)
        options = {"stroke_width": outline, "stroke_fill": "red"}
        fonts.draw_text(ours, place, "Ankle boot 0.53", "black", size, **options)
        theirs.text(place, "Ankle boot 0.53", "black", ImageFont.load_default(size), **options)
        np.testing.assert_array_equal(*map(np.asarray, pictures))


def test_without_a_font_one_warning_names_letters_and_a_way_out(no_fonts, caplog, tmp_path):
    names = ["猫 a", "кот", "γάτα", "cat"]
    labels = np.repeat(np.arange(4), 20)[:, None].repeat(50, 1)
    draw_labels(np.zeros((80, 50, 3), np.uint8), labels, names)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    image = InputImage("a.png", tmp_path / "a.png")
    contact_sheet([ClassificationResult(image, np.roll([1, 0, 0, 0], i), names) for i in range(4)])
    draw_confusion(tmp_path / "matrix.png", np.arange(4), np.arange(4), names)
    assert len(caplog.records) == 1
    assert "no font here has the letters 猫, as in 猫 a" in caplog.text
    assert "pip install 'ppcls_nextvit[fonts]'" in caplog.text
    assert boxes(fonts._font_for("кот", 13), "кот")


def test_the_font_that_lacks_fewest_letters_is_taken(caplog):
    pytest.importorskip("matplotlib", reason="needs the extra `train`")
    font = fonts._font_for("кот \U0001f408", 13)  # a cat, of which there is no font
    assert not boxes(font, "к") and "the letters \U0001f408" in caplog.text
    # and where none has more, Pillow's own
    assert fonts._font_for("\U0001f408", 13).getname() == ImageFont.load_default(13).getname()


def test_matplotlibs_pictures_have_the_letters_too(tmp_path, recwarn):
    pytest.importorskip("noto_cjk_sans_otc", reason="needs the extra `fonts`")
    pictures = {}
    for names in (["猫", "кот"], ["狗", "кот"], ["\U0001f408", "кот"], ["\U0001f415", "кот"]):
        draw_confusion(tmp_path / "m.png", np.arange(2), np.arange(2), names)
        pictures[names[0]] = (tmp_path / "m.png").read_bytes()
    assert pictures["猫"] != pictures["狗"]
    # of which no font has any: Matplotlib's sign for it, and no warning of its own
    assert pictures["\U0001f408"] == pictures["\U0001f415"] != pictures["猫"]
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]


def test_names_are_no_formulas_and_no_longer_than_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `train`")
    names = ["$\\frac$ $", "x" * 5000, "two\nlines", "\udcff"]
    draw_confusion(tmp_path / "m.png", np.arange(4), np.arange(4), names)
    draw_predictions(tmp_path / "p.png", [np.zeros((8, 8, 3), np.uint8)] * 4, names, names[::-1])
    assert Image.open(tmp_path / "m.png").width < 1000
    assert fonts.shortened("x" * 5000) == "x" * 79 + "…"
    assert fonts.shortened("two\nlines") == "two\\nlines"
