"""Image files to pixels: decoding, with one exception for whatever is wrong with a file."""

import contextlib
import functools
import io
import logging
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, TypeVar, Union

import numpy as np
from PIL import Image, ImageFile

from ..files import IMAGE_BYTES, MAX_PIXELS, UnreadableError, open_file, parsing, read_file
from ..schema import shown_text
from .notes import ORIENTATION, exif_block, orientation_of, without_notes

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "MAX_PIXELS",
    "ImageError",
    "Upright",
    "bytes_of",
    "decode_image",
    "decode_upright",
    "image_size",
    "open_image",
    "upright_rgb",
    "use_picture",
]

log = logging.getLogger(__name__)

# an image between transforms: in mode RGB, or an array [H, W, 3]
Picture = Union[Image.Image, np.ndarray]
Source = Union[str, os.PathLike, bytes, bytearray, memoryview]  # a path, or a file's bytes
Result = TypeVar("Result")

# What is read, of all that Pillow knows: decoders that work within the process (EPS starts
# Ghostscript). The programs of deploy/ have the same list.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
# Endings of such files, by which they are found in folders.
EXTENSIONS = tuple(
    ".apng .avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif "
    ".tiff .webp".split()
)

UPRIGHT = {  # by EXIF's orientation: what turns the pixels as stored upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ACROSS = (5, 6, 7, 8)  # those that exchange width and height
HEADED = ("JPEG", "PNG", "BMP")  # formats whose header says the size and how it is turned


class ImageError(ValueError):
    """An image that cannot be read or transformed. The message begins with its path, and is one
    line of bounded length whatever the path and the file hold.
    """

    def __init__(self, message: str):
        super().__init__(shown_text(message, 4000))


class Upright(NamedTuple):
    """An image as it is to be seen. turned: EXIF's orientation, by which it was turned or mirrored;
    1 if it was not.
    """

    image: Image.Image
    turned: int


def open_image(source: Source, name: Optional[str] = None) -> Image.Image:
    """The image in a file or in bytes, as a PIL image in mode RGB. Arguments, conventions and
    ImageErrors are `decode_image`'s.
    """
    return decode_upright(source, name).image


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image that somebody else opened or made, in mode RGB, by the conventions of
    `decode_image`. ImageError, beginning with `name`, for one that cannot be loaded.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}"
        )
    with parsing(f"{name}: truncated or damaged image", ImageError):
        return _upright(image, name).image


def decode_upright(source: Source, name: Optional[str] = None, reduction: int = 1) -> Upright:
    """The image in a file or in bytes, in mode RGB, and how it was turned. Arguments, conventions
    and ImageErrors are `decode_image`'s.

    reduction: 1, or, of a JPEG file, 2, 4 or 8: libjpeg makes one pixel of so many times so many.
    """
    data, name = bytes_of(source, name)

    def use(image: ImageFile.ImageFile) -> Upright:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        return _upright(image, name)

    return use_picture(data, name, use)


def decode_image(source: Source, to_rgb: bool = True, name: Optional[str] = None) -> np.ndarray:
    """The image in the file `source` (a path), or in `source` itself (bytes), as uint8 [H, W, 3],
    RGB (BGR with to_rgb=False).

    Conventions: the EXIF orientation is applied (PaddleClas does so too, since OpenCV's decoder
    does; torchvision does not). Grey and palette images become RGB. Alpha is dropped, not composed,
    as in PaddleClas and torchvision. CMYK is converted without a colour profile. 16-bit grey keeps
    its high byte; where that leaves next to nothing of an image, a warning says so. Of an animation
    the first frame is taken. `name` is what error messages call an image given as bytes. Raises
    ImageError, beginning with the path, for a file that is missing, unreadable, no regular file,
    empty, truncated, damaged, not of one of the FORMATS, or larger than MAX_PIXELS.
    """
    rgb = np.asarray(open_image(source, name))
    return rgb if to_rgb else np.ascontiguousarray(rgb[:, :, ::-1])


def image_size(path: str) -> Tuple[int, int]:
    """(width, height) of the upright image in the file `path`, by its header where that says it.
    ImageError for a file that cannot be read.
    """
    with contextlib.suppress(ImageError, UnreadableError):  # which reading the whole file tells of
        with open_file(path) as file, parsing(path, ImageError):
            image = Image.open(file, formats=_readable())
            if image.format in HEADED:
                across = orientation_of(image.info) in ACROSS
                return (image.height, image.width) if across else image.size
    return open_image(path).size


def bytes_of(source: Source, name: Optional[str]) -> Tuple[bytes, str]:
    """(the file's bytes, what messages call it). ImageError for a file that cannot be read."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), name or "image in memory"
    name = name or os.fspath(source)
    try:
        return read_file(source, IMAGE_BYTES), name
    except UnreadableError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__


def use_picture(data: bytes, name: str, use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    """`use(image)` of the image file in the bytes `data`, opened by Pillow and not loaded yet.

    A file on which opening or `use` fails is tried again without the notes beside its pixels, of
    which only EXIF is left, in `image.info`. ImageError, beginning with `name`, for what is wrong
    with the file as it came.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    # importing PaddleDetection sets it
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        return _used(data, name, use, {})
    except ImageError as error:
        plain = without_notes(data)
        if plain == data:
            raise
        try:
            # a TIFF has its orientation among the tags of its pixels
            exif = exif_block(data)
            return _used(plain, name, use, {"exif": exif} if exif else {})
        except ImageError:
            raise error from error.__cause__
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _used(
    data: bytes, name: str, use: Callable[[ImageFile.ImageFile], Result], notes: Dict[str, bytes]
) -> Result:
    with parsing(f"{name}: damaged image header", ImageError):
        image = _opened(data, name)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}"
        )
    with parsing(f"{name}: truncated or damaged image", ImageError):
        image.info.update(notes)
        return use(image)


def _opened(data: bytes, name: str) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=_readable())
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name}: not an image, or of a format that is not read (it begins with "
            f"{data[:8]!r}); read are {', '.join(_readable())}"
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more pixels than the limit of {MAX_PIXELS} ({error})") from error


@functools.cache
def _readable() -> List[str]:
    """Those of the FORMATS that the installed Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(image: Image.Image, name: str) -> Upright:
    """The opened `image`, loaded, turned upright and in mode RGB."""
    if image.mode == "F":
        raise ImageError(
            f"{name}: 32-bit floating point pixels have no defined range; store it with 8 or 16 "
            f"bits"
        )
    # of a TIFF: loading turns it and forgets the tag
    stored = getattr(image, "tag_v2", {}).get(ORIENTATION)
    image.load()
    if image.format == "TIFF":
        return Upright(_rgb(image, name), stored if stored in UPRIGHT else 1)
    turned = orientation_of(image.info)
    method = UPRIGHT.get(turned)
    return Upright(_rgb(image if method is None else image.transpose(method), name), turned)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """`image` in mode RGB."""
    # 16 bits in I;16 or, with older Pillow, in I: keep the high byte
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        _warn_of_range(int(values.min()), int(values.max()), name)
        image = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


_told: Set[str] = set()  # what this process has warned of


def _warn_of_range(low: int, high: int, name: str) -> None:
    """Warn, once of each kind, of grey values from `low` to `high` that 16 bits do not hold, or of
    which the high byte holds next to nothing.
    """
    if low < 0:
        kind, told = "signed", f"grey values from {low} on; those below 0 become black"
    elif high > 65535:
        kind, told = "long", f"grey values up to {high}; those above 65535 become white"
    elif 0 < high < 1 << 14:
        bits = high.bit_length()
        kind, told = (
            "low",
            (
                f"its 16-bit grey values use {bits} bits, up to {high}; their high byte is kept, "
                f"which is almost black. Stretch such images to 16 bits, or store them with 8"
            ),
        )
    else:
        return
    if kind not in _told:
        _told.add(kind)
        log.warning("%s: %s", shown_text(name), told)


def as_pil(image: Picture) -> Image.Image:
    """`image` (an array must be uint8) as a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8:
        raise ValueError(
            f"this transform needs uint8 pixels, got {image.dtype}; put it before NormalizeImage"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def as_array(image: Picture) -> np.ndarray:
    """`image` as an array [H, W, 3]."""
    return np.asarray(image)


def size_of(image: Any) -> Tuple[int, int]:
    """(width, height) of a Picture, or of a ScalableJpeg."""
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size
