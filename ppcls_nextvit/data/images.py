"""Image files to pixels: decoding, with one exception for whatever is wrong with a file."""

import io
import os
import struct
import zlib
from typing import Optional, Tuple, Union

import numpy as np
from PIL import Image, ImageFile, ImageOps

__all__ = ["ImageError", "MAX_PIXELS", "decode_image", "open_image"]

# an image between transforms: in mode RGB, or an array [H, W, 3]
Picture = Union[Image.Image, np.ndarray]
Source = Union[str, os.PathLike, bytes, bytearray, memoryview]  # a path, or a file's bytes

# 256 MiB of RGB, where Pillow begins to warn: a larger image is a decompression bomb or a mistake
MAX_PIXELS = 89_478_485

# What Pillow's decoders raise on damaged files, by its own fuzzing and ours.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """An image that cannot be read or transformed. The message begins with its path."""


def open_image(source: Source, name: Optional[str] = None) -> Image.Image:
    """The image in a file or in bytes, as a PIL image in mode RGB. Arguments, conventions and
    ImageErrors are `decode_image`'s.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "image in memory"
        data = bytes(source)
    else:
        name = name or os.fspath(source)
        try:
            with open(source, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise ImageError(f"{name}: no such file") from None
        except OSError as error:
            raise ImageError(f"{name}: cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name}: not an image, or of a format that Pillow does not read (it begins with "
            f"{data[:8]!r})"
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more pixels than the limit of {MAX_PIXELS} ({error})") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"{name}: damaged image header: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}"
        )
    if image.mode == "F":
        raise ImageError(
            f"{name}: 32-bit floating point pixels have no defined range; store it with 8 or 16 "
            f"bits"
        )
    # importing PaddleDetection sets it
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except DECODER_ERRORS as error:
        raise ImageError(f"{name}: truncated or damaged image: {error}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB."""
    # 16 bits in I;16 or, with older Pillow, in I: keep the high byte
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_image(source: Source, to_rgb: bool = True, name: Optional[str] = None) -> np.ndarray:
    """The image in the file `source` (a path), or in `source` itself (bytes), as uint8 [H, W, 3],
    RGB (BGR with to_rgb=False).

    Conventions: the EXIF orientation is applied (PaddleClas does so too, since OpenCV's decoder
    does; torchvision does not). Grey and palette images become RGB. Alpha is dropped, not composed,
    as in PaddleClas and torchvision. CMYK is converted without a colour profile. 16-bit grey keeps
    its high byte. Of an animation the first frame is taken. `name` is what error messages call an
    image given as bytes. Raises ImageError, beginning with the path, for a file that is missing,
    unreadable, empty, truncated, damaged, not an image, or larger than MAX_PIXELS.
    """
    rgb = np.asarray(open_image(source, name))
    return rgb if to_rgb else np.ascontiguousarray(rgb[:, :, ::-1])


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


def size_of(image: Picture) -> Tuple[int, int]:
    """(width, height) of `image`."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
