"""From the bytes of a picture to the pixels of evaluation, bit for bit. Every option is in
export.json. Needs numpy and Pillow, decoding.py and notes.py; server.py and the Triton repository
share it.
"""

import inspect
from collections.abc import Callable
from typing import Any

import decoding
import numpy as np
from decoding import DecodeError, one_line
from PIL import Image

MAX_PIXELS = 50_000_000  # 150 MB as RGB; of the upload and of every step after it
STATUS = {"format": 415, "large": 413, "damaged": 422}  # of a DecodeError's kind


class ImageError(ValueError):
    """A picture that cannot be used. `status` is the HTTP status that says why: 413 too large, 415
    no image, 422 damaged.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(one_line(reason))
        self.status = status


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a PIL image in mode RGB, see decoding.decode. ImageError."""
    try:
        return decoding.decode(data, max_pixels)
    except DecodeError as error:
        raise ImageError(STATUS[error.kind], str(error)) from None


def check_pixels(size: tuple[int, int], max_pixels: int, what: str) -> None:
    """ImageError 413 if `what`, of `size` = (width, height), has too many pixels."""
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            413, f"{what} has {size[0]} x {size[1]} pixels, more than the limit of {max_pixels}"
        )


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def resize_image(
    image,
    max_pixels,
    size=None,
    resize_short=None,
    interpolation=None,
    backend="cv2",
    return_numpy=True,
):
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    if resize_short:
        short = pair(resize_short)[0]
        size = (
            (short, int(short * height / width))
            if width <= height
            else (int(short * width / height), short)
        )
        if size == (width, height):
            return image
    # a strip of 1 pixel by 50,000 would become 3 billion
    check_pixels(pair(size), max_pixels, "the resized image")
    if backend == "cv2":
        import cv2

        flags = {
            "nearest": cv2.INTER_NEAREST,
            "bilinear": cv2.INTER_LINEAR,
            "area": cv2.INTER_AREA,
            "bicubic": cv2.INTER_CUBIC,
            "lanczos": cv2.INTER_LANCZOS4,
        }
        return cv2.resize(
            np.asarray(image), pair(size), interpolation=flags[interpolation or "bilinear"]
        )
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.resize(pair(size), Image.Resampling[(interpolation or "bilinear").upper()])


def crop_image(image, max_pixels, size):
    """The centre; black is added where the image is smaller."""
    width, height = pair(size)
    if min(width, height) < 1:
        raise ValueError(f"CropImage: size: {width} x {height}")
    check_pixels((width, height), max_pixels, "the cropped image")
    pixels = np.asarray(image)
    missing_rows = max(height - pixels.shape[0], 0)
    missing_columns = max(width - pixels.shape[1], 0)
    if missing_rows or missing_columns:
        above, left = missing_rows // 2, missing_columns // 2
        rows, columns = (above, missing_rows - above), (left, missing_columns - left)
        pixels = np.pad(pixels, (rows, columns, (0, 0)))
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def normalize_image(
    image,
    max_pixels,
    scale=None,
    mean=None,
    std=None,
    order="chw",
    output_fp16=False,
    channel_num=3,
):
    """(image * scale - mean) / std, each step rounded to float32."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    scale = np.float32(1 / 255 if scale is None else scale)
    mean = np.asarray(mean or [0.485, 0.456, 0.406], np.float32).reshape(shape)
    std = np.asarray(std or [0.229, 0.224, 0.225], np.float32).reshape(shape)
    return (np.asarray(image).astype(np.float32) * scale - mean) / std


def decode_image(data, max_pixels, to_rgb=True, channel_first=False, to_np=True, backend="pil"):
    image = decode(data, max_pixels)
    return image if to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def to_chw(image, max_pixels):
    return np.asarray(image).transpose(2, 0, 1)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "DecodeImage": decode_image,
    "ResizeImage": resize_image,
    "CropImage": crop_image,
    "NormalizeImage": normalize_image,
    "ToCHWImage": to_chw,
}


class Preprocess:
    """The `PreProcess.transform_ops` of a description: `preprocess(data)`, data the picture's bytes
    -> float32 [3, H, W].

    max_pixels: of the picture and of every step. min_size: what the model needs. ValueError for an
    unknown transform, on calling ImageError for a bad picture.
    """

    def __init__(self, transform_ops: list, max_pixels: int = MAX_PIXELS, min_size: int = 1):
        self.steps = [
            (name, arguments or {}) for entry in transform_ops for name, arguments in entry.items()
        ]
        if not self.steps or self.steps[0][0] != "DecodeImage":
            self.steps.insert(0, ("DecodeImage", {}))
        self.max_pixels = max_pixels
        self.min_size = min_size
        for name, _ in self.steps:
            if name not in TRANSFORMS:
                raise ValueError(
                    f"unknown transform {name!r} in the description; this program knows "
                    f"{', '.join(TRANSFORMS)}"
                )
        self._try_out()

    def _try_out(self) -> None:
        """ValueError for arguments that a transform does not take, before any picture comes."""
        image: Any = Image.new("RGB", (64, 48))
        for name, arguments in self.steps:
            try:
                if name == "DecodeImage":
                    inspect.signature(decode_image).bind(image, self.max_pixels, **arguments)
                else:
                    image = TRANSFORMS[name](image, self.max_pixels, **arguments)
            except ImageError:  # too large: another picture may do
                return
            except Exception as error:  # of numpy, Pillow or OpenCV
                told = f"{type(error).__name__}: {error}"
                raise ValueError(f"{name} in the description: {one_line(told)}") from None

    def __call__(self, data: bytes) -> np.ndarray:
        image: Any = data
        for name, arguments in self.steps:
            image = TRANSFORMS[name](image, self.max_pixels, **arguments)
        pixels = np.asarray(image)
        if ("ToCHWImage", {}) not in self.steps:
            pixels = pixels.transpose(2, 0, 1)
        height, width = pixels.shape[1:]
        if min(height, width) < self.min_size:
            raise ImageError(
                422,
                f"{height} x {width} pixels after preprocessing; the model needs at least "
                f"{self.min_size}",
            )
        return np.ascontiguousarray(pixels, np.float32)
