"""From an image file to the pixels of evaluation, bit for bit. Every option is in the export's
description.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decoding
import numpy as np
from decoding import MAX_PIXELS, DecodeError, shown_text
from PIL import Image


class ImageError(ValueError):
    """An image that cannot be read or used. The message begins with its path and is one line."""

    def __init__(self, message: str):
        super().__init__(shown_text(message, 4000))


def decode(path: str | Path) -> Image.Image:
    """The image as a PIL image in mode RGB, see decoding.decode. ImageError."""
    try:
        return decoding.decode(decoding.read_regular(path))
    except DecodeError as error:
        raise ImageError(f"{path}: {error}") from None


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def resize(image, size, interpolation, backend):
    """`image` at `size` = (width, height), by Pillow or OpenCV."""
    # a strip of 1 x 50,000 pixels whose short side becomes 256
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels after resizing are more than the limit of {MAX_PIXELS}"
        )
    name = interpolation or "bilinear"
    if backend == "cv2":
        import cv2

        flags = {
            "nearest": cv2.INTER_NEAREST,
            "bilinear": cv2.INTER_LINEAR,
            "area": cv2.INTER_AREA,
            "bicubic": cv2.INTER_CUBIC,
            "lanczos": cv2.INTER_LANCZOS4,
        }
        return cv2.resize(np.asarray(image), size, interpolation=flags[name])
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.resize(size, Image.Resampling[name.upper()])


def resize_image(
    image, size=None, resize_short=None, interpolation=None, backend="cv2", return_numpy=True
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
    return resize(image, pair(size), interpolation, backend)


def crop_image(image, size):
    """The centre; black is added where the image is smaller."""
    width, height = pair(size)
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"CropImage: size: {width} x {height}")
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
    image, scale=None, mean=None, std=None, order="chw", output_fp16=False, channel_num=3
):
    """(image * scale - mean) / std, each step rounded to float32."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    scale = np.float32(1 / 255 if scale is None else scale)
    mean = np.asarray(mean or [0.485, 0.456, 0.406], np.float32).reshape(shape)
    std = np.asarray(std or [0.229, 0.224, 0.225], np.float32).reshape(shape)
    return (np.asarray(image).astype(np.float32) * scale - mean) / std


def decode_image(path, to_rgb=True, channel_first=False, to_np=True, backend="pil"):
    image = decode(path)
    return image if to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def to_chw(image):
    return np.asarray(image).transpose(2, 0, 1)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "DecodeImage": decode_image,
    "ResizeImage": resize_image,
    "CropImage": crop_image,
    "NormalizeImage": normalize_image,
    "ToCHWImage": to_chw,
}


class Preprocess:
    """The `PreProcess.transform_ops` of a description: `preprocess(path)` -> float32 [3, H, W].
    ValueError for what is unknown.

    min_size: what H and W must be at least. size: (H, W) where the model takes no other. source:
    the name of the description, for errors.
    """

    def __init__(
        self,
        transform_ops: list,
        min_size: int = 32,
        size: tuple = (None, None),
        source: str = "transform_ops",
    ):
        self.steps = [
            (name, arguments or {}) for entry in transform_ops for name, arguments in entry.items()
        ]
        self.min_size = min_size
        self.size = tuple(size)
        for name, _ in self.steps:
            if name not in TRANSFORMS:
                raise ValueError(
                    f"{source}: unknown transform {name!r}; this program knows "
                    f"{', '.join(TRANSFORMS)}"
                )
        if any(
            arguments.get("backend") == "cv2"
            for name, arguments in self.steps
            if name == "ResizeImage"
        ):
            try:
                import cv2  # noqa: F401
            except ImportError:
                raise ValueError(
                    f"{source}: ResizeImage has `backend: cv2`: pip install opencv-python-headless"
                ) from None
        self._try_out(source)

    def _try_out(self, source):
        """ValueError for arguments that a transform does not take, before any image is read."""
        image: Any = Image.new("RGB", (64, 48))
        for name, arguments in self.steps:
            try:
                if name == "DecodeImage":
                    inspect.signature(decode_image).bind(image, **arguments)
                else:
                    image = TRANSFORMS[name](image, **arguments)
            except ImageError:  # too large: another image may do
                return
            except Exception as error:  # of numpy, Pillow or OpenCV
                told = f"{type(error).__name__}: {error}"
                raise ValueError(f"{source}: {name}: {shown_text(told)}") from None

    def __call__(self, path: str | Path) -> np.ndarray:
        image: Any = path
        if not self.steps or self.steps[0][0] != "DecodeImage":
            image = decode(path)
        for name, arguments in self.steps:
            try:
                image = TRANSFORMS[name](image, **arguments)
            except ImageError as error:
                raise error if name == "DecodeImage" else ImageError(f"{path}: {error}") from None
        pixels = np.asarray(image)
        if ("ToCHWImage", {}) not in self.steps:
            pixels = pixels.transpose(2, 0, 1)
        self._check_size(path, *pixels.shape[1:])
        return np.ascontiguousarray(pixels, np.float32)

    def _check_size(self, path, height, width):
        if min(height, width) < self.min_size:
            raise ImageError(
                f"{path}: {height} x {width} pixels after preprocessing; the model needs at least "
                f"{self.min_size}"
            )
        if self.size not in ((None, None), (height, width)):
            raise ImageError(
                f"{path}: {height} x {width} pixels after preprocessing; the model was exported "
                f"for {self.size[0]} x {self.size[1]} alone"
            )
