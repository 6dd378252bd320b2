"""Names on pictures in every script: each is drawn in the first font here that has its letters.

Pillow's own font has those of English alone; systems have fonts for others.
"""

import functools
import unicodedata
from typing import Any, Optional

from decoding import shown_text
from PIL import ImageDraw, ImageFont

# (file in the system's folders, face of it)
OF_SYSTEMS = (
    ("NotoSansCJK-Regular.ttc", 2),  # as China writes
    ("wqy-zenhei.ttc", 0),
    ("wqy-microhei.ttc", 0),
    ("DroidSansFallbackFull.ttf", 0),
    ("msyh.ttc", 0),  # Windows
    ("simsun.ttc", 0),
    ("segoeui.ttf", 0),
    ("PingFang.ttc", 0),  # macOS
    ("Hiragino Sans GB.ttc", 0),
    ("Arial Unicode.ttf", 0),
    ("DejaVuSans.ttf", 0),
)
NO_LETTER = "\uffff"  # which no font has: how it draws what it lacks
LONGEST = 80  # characters of a name on a picture
Font = Optional[tuple[str, int]]  # None: Pillow's own


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` as a picture shows it: on one line, and cut if it is long."""
    text = shown_text(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def text_width(text: str, size: int) -> float:
    """How many pixels wide `draw_text` draws it."""
    return font_for(text, size).getlength(text)


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: str,
    size: int,
    **outline: Any,
) -> None:
    """Draw one line of text, `size` pixels high, at `place` = (left, top)."""
    left, top = place
    # all fonts stand on the line of Pillow's own
    base = top + _font(None, size).getmetrics()[0]
    draw.text((left, base), text, colour, font_for(text, size), anchor="ls", **outline)


@functools.lru_cache(maxsize=1 << 12)
def font_for(text: str, size: int) -> Any:
    """The first font that has all letters of `text`, or else the one that lacks fewest of them."""
    best: Font = None
    lacks = _lacking(None, text)
    for font in _installed() if lacks else ():
        left = _lacking(font, text)
        if len(left) < len(lacks) and _draws(font, text, size):
            best, lacks = font, left
        if not lacks:
            break
    return _font(best, size)


def _lacking(font: Font, text: str) -> list[str]:
    return [letter for letter in dict.fromkeys(text) if not _has(font, letter)]


@functools.lru_cache(maxsize=1 << 16)
def _has(font: Font, letter: str) -> bool:
    if letter.isspace() or unicodedata.category(letter) == "Cf":  # nothing is to be seen of it
        return True
    drawn = _font(font, 13)
    try:
        return bytes(drawn.getmask(letter)) != bytes(drawn.getmask(NO_LETTER))
    except Exception:  # of a damaged font, whatever it is
        return False


def _draws(font: tuple[str, int], text: str, size: int) -> bool:
    """Whether the font can draw `text`: a damaged one may fail at some sizes or outlines alone."""
    drawn = _font(font, size)
    try:
        for outline in (0, 1, 2):
            drawn.getmask(text, stroke_width=outline)
        return drawn.getlength(text) >= 0
    except Exception:
        return False


@functools.lru_cache(maxsize=64)
def _font(font: Font, size: int) -> Any:
    """OSError where there is no such file."""
    if font is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(font[0], size, index=font[1])


@functools.cache
def _installed() -> list[tuple[str, int]]:
    return [font for font in OF_SYSTEMS if _opens(font)]


def _opens(font: tuple[str, int]) -> bool:
    try:
        _font(font, 13)
    except Exception:  # OSError where there is none, anything where it is damaged
        return False
    return True
