"""Names on pictures in every script: each is drawn in the first font here that has its letters.

Pillow's own font has those of English alone. Matplotlib, of the extra `train`, brings one for the
rest of Latin, Greek and Cyrillic, the extra `fonts` one for Chinese, Japanese and Korean, and
systems have theirs.
"""

import contextlib
import functools
import importlib.util
import unicodedata
import warnings
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from PIL import ImageDraw, ImageFont

from ..engine.logger import logger
from ..schema import shown_text

__all__ = ["draw_text", "shortened", "text_width", "with_letters_of"]


class FontFile(NamedTuple):
    """A font as Pillow finds it. path: a file, or the name of one in the system's folders."""

    path: str
    face: int = 0  # of the file's


# (package, file in it): loaded as files, the packages are not imported
PACKAGED = (
    ("matplotlib", FontFile("mpl-data/fonts/ttf/DejaVuSans.ttf")),
    ("noto_cjk_sans_otc", FontFile("NotoSansCJK-Regular.ttc", face=2)),  # as China writes
)
OF_SYSTEMS = (
    FontFile("NotoSansCJK-Regular.ttc", face=2),
    FontFile("wqy-zenhei.ttc"),
    FontFile("wqy-microhei.ttc"),
    FontFile("DroidSansFallbackFull.ttf"),
    FontFile("msyh.ttc"),  # Windows
    FontFile("simsun.ttc"),
    FontFile("segoeui.ttf"),
    FontFile("PingFang.ttc"),  # macOS
    FontFile("Hiragino Sans GB.ttc"),
    FontFile("Arial Unicode.ttf"),
    FontFile("DejaVuSans.ttf"),
)
NO_LETTER = "\uffff"  # which no font has: how it draws what it lacks
LONGEST = 80  # characters of a name on a picture

_told: Set[str] = set()  # letters of the one warning of this process


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` as a picture shows it: on one line, and cut if it is long."""
    text = shown_text(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def text_width(text: str, size: int) -> float:
    """How many pixels wide `draw_text` draws it."""
    return _font_for(text, size).getlength(text)


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: Tuple[float, float],
    text: str,
    colour: str,
    size: int,
    **outline: Any,
) -> None:
    """Draw one line of text, `size` pixels high, at `place` = (left, top). A warning says, once,
    which letters no font here has.
    """
    left, top = place
    # all fonts stand on the line of Pillow's own
    base = top + _font(None, size).getmetrics()[0]
    draw.text((left, base), text, colour, _font_for(text, size), anchor="ls", **outline)


@contextlib.contextmanager
def with_letters_of(texts: Sequence[str]) -> Iterator[None]:
    """Within the block Matplotlib draws `texts` in fonts that have their letters."""
    from matplotlib import font_manager, rc_context

    files = {getattr(_font_for(text, 12), "path", None) for text in texts}
    families = ["DejaVu Sans"]
    with warnings.catch_warnings():
        # of which there was one warning already
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for path in sorted(path for path in files if isinstance(path, str)):
            try:
                for text in texts:
                    font_manager.get_font(path).set_text(text)
                font_manager.fontManager.addfont(path)
                name = font_manager.FontProperties(fname=path).get_name()
            except Exception:  # of a font that is damaged in a part which Pillow does not use
                continue
            families += [name] * (name not in families)
        with rc_context({"font.family": families}):
            yield


@functools.lru_cache(maxsize=1 << 12)
def _font_for(text: str, size: int) -> Any:
    """The first font that has all letters of `text`, or else the one that lacks fewest of them."""
    best, lacks = None, _lacking(None, text)
    for file in _files() if lacks else ():
        left = _lacking(file, text)
        if len(left) < len(lacks) and _draws(file, text, size):
            best, lacks = file, left
        if not lacks:
            break
    if lacks and not _told:
        _told.update(lacks)
        logger.warning(
            "no font here has the letters %s, as in %s: boxes are drawn for such. Install one that "
            "has them, for Chinese, Japanese and Korean by pip install 'ppcls_nextvit[fonts]'",
            shown_text("".join(lacks), 40),
            shown_text(text, 80),
        )
    return _font(best, size)


def _lacking(file: Optional[FontFile], text: str) -> List[str]:
    """The letters of `text` that the font does not have."""
    return [letter for letter in dict.fromkeys(text) if not _has(file, letter)]


@functools.lru_cache(maxsize=1 << 16)
def _has(file: Optional[FontFile], letter: str) -> bool:
    if letter.isspace() or unicodedata.category(letter) == "Cf":  # nothing is to be seen of it
        return True
    font = _font(file, 13)
    try:
        return bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))
    except Exception:  # of a damaged font, whatever it is
        return False


def _draws(file: FontFile, text: str, size: int) -> bool:
    """Whether the font can draw `text`: a damaged one may fail at some sizes or outlines alone."""
    font = _font(file, size)
    try:
        for outline in (0, 1, 2):
            font.getmask(text, stroke_width=outline)
        return font.getlength(text) >= 0
    except Exception:
        return False


@functools.lru_cache(maxsize=64)
def _font(file: Optional[FontFile], size: int) -> Any:
    """Pillow's font of the file; None: its own. OSError where there is no such file."""
    if file is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(file.path, size, index=file.face)


@functools.cache
def _files() -> List[FontFile]:
    """The fonts there are beside Pillow's own, in the order in which they are tried."""
    found = []
    for package, file in PACKAGED:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found.append(file._replace(path=str(Path(folder) / file.path)))
    return [file for file in (*found, *OF_SYSTEMS) if _opens(file)]


def _opens(file: FontFile) -> bool:
    try:
        _font(file, 13)
    except Exception:  # OSError where there is none, anything where it is damaged
        return False
    return True
