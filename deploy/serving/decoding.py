"""From an image file to pixels, bit for bit those of evaluation. Needs numpy and Pillow; the same
file lies in deploy/python and deploy/serving, beside notes.py.
"""

import functools
import io
import os
import stat
from pathlib import Path

import numpy as np
from notes import exif_block, orientation_of, without_notes
from PIL import Image, ImageFile

# What is read, of all that Pillow knows: decoders that work within the process (EPS starts
# Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
EXTENSIONS = tuple(
    ".apng .avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif "
    ".tiff .webp".split()
)
MAX_PIXELS = 89_478_485  # 256 MiB of RGB
MAX_BYTES = 1 << 30  # of a file
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(ValueError):
    """Why a file gives no pixels, on one line, without the file's name. kind: 'missing', 'format'
    (no image, or of another format), 'large' or 'damaged'.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(one_line(reason))
        self.kind = kind


def one_line(text: object, limit: int = 1000) -> str:
    """Another program's message, `text`, with a space for every run of blanks and line breaks."""
    return shown_text(" ".join(str(text).split()), limit)


def shown_text(text: object, limit: int = 1000) -> str:
    """`text` with control characters as Python writes them, and of a long one both ends."""
    line = str(text)
    if len(line) > limit:
        line = f"{line[: limit // 2]}...{line[-limit // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def read_regular(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file: to open a pipe would wait for someone who writes. DecodeError
    if there is none of up to `limit` bytes.
    """
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DecodeError("missing", "not a regular file")
            if found.st_size > limit:
                raise DecodeError(
                    "large", f"{found.st_size} bytes are more than the limit of {limit}"
                )
            return file.readall()
    except OSError as error:
        raise DecodeError("missing", error.strerror or str(error)) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in mode RGB: turned upright as EXIF says, alpha dropped, 16-bit grey cut to its
    high byte, first frame. DecodeError for what is no whole picture of one of the FORMATS.

    A file on which Pillow fails is tried again without the notes beside its pixels.
    """
    if not data:
        raise DecodeError("damaged", "the file is empty (0 bytes)")
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        return _decoded(data, max_pixels, {})
    except DecodeError as error:
        plain = without_notes(data)
        if plain == data:
            raise
        try:
            # a TIFF has its orientation among the tags of its pixels
            exif = exif_block(data)
            return _decoded(plain, max_pixels, {"exif": exif} if exif else {})
        except DecodeError:
            raise error from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _decoded(data: bytes, max_pixels: int, notes: dict) -> Image.Image:
    """Whatever Pillow raises is the file's fault, as nothing else happens here; but for a name that
    is not defined, and a module that is not installed.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_readable())
        width, height = image.size
        if width * height > max_pixels:
            raise DecodeError(
                "large", f"{width} x {height} pixels are more than the limit of {max_pixels}"
            )
        image.info.update(notes)
        return _rgb(_upright(image))
    except (DecodeError, NameError, ImportError):
        raise
    except Image.UnidentifiedImageError:
        raise DecodeError(
            "format",
            f"not an image in one of the formats {', '.join(_readable())}; it begins with "
            f"{data[:8]!r}",
        ) from None
    except Image.DecompressionBombError as error:
        raise DecodeError("large", f"more pixels than the limit of {max_pixels}: {error}") from None
    except Exception as error:
        told = str(error) or type(error).__name__
        raise DecodeError("damaged", f"not an image, or damaged: {told}") from None


@functools.cache
def _readable() -> tuple:
    """Those of the FORMATS that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    """`image`, loaded and turned; of a TIFF Pillow does that while it loads."""
    if image.mode == "F":
        raise DecodeError(
            "format",
            "32-bit floating point pixels have no defined range; store it with 8 or 16 bits",
        )
    image.load()
    if image.format == "TIFF":
        return image
    method = UPRIGHT.get(orientation_of(image.info))
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
