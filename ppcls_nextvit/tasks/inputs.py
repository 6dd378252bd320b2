"""The images that a prediction is asked for: files, folders, patterns, lists, pictures in memory
and streams of all of these, as one sequence.
"""

import itertools
import os
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Union

import numpy as np
from PIL import Image

from ..data.images import ImageError, open_image, upright_rgb
from ..schema import shown
from .common import list_images

__all__ = ["InputImage", "Source", "input_images"]

Pixels = Union[bytes, Image.Image, np.ndarray]
# what `input_images` takes: iterables of these and of themselves, too
Source = Union[str, "os.PathLike[str]", Pixels, Iterable[Any]]

EXPECTED = (
    "expected the path of an image, a folder, a pattern or a list, a PIL image, an array of uint8 "
    "[H, W, 3] (RGB), [H, W] (grey) or [N, H, W, 3], the bytes of an image file, or several of "
    "these"
)


class InputImage:
    """One image to predict. name: in messages and results. path: of its file; None for an image in
    memory, which is `content`: a file's bytes, a PIL image, or uint8 [H, W, 3] or [H, W].
    """

    def __init__(
        self, name: str, path: Optional[Path] = None, content: Optional[Pixels] = None
    ) -> None:
        self.name = name
        self.path = path
        self.content = content
        self._picture: Optional[Image.Image] = None

    def picture(self) -> Image.Image:
        """The image in mode RGB, turned upright; decoded once until `release`. ImageError if it
        cannot be read.
        """
        if self._picture is None:
            self._picture = self._decoded()
        return self._picture

    def pixels(self) -> np.ndarray:
        """`picture` as uint8 [H, W, 3]."""
        return np.asarray(self.picture())

    def release(self) -> None:
        """Forget the pixels of a file, which `picture` would read again."""
        if self.path is not None:
            self._picture = None

    def _decoded(self) -> Image.Image:
        if self.path is not None:
            return open_image(str(self.path), self.name)
        if isinstance(self.content, Image.Image):
            return upright_rgb(self.content, self.name)
        if isinstance(self.content, np.ndarray):
            return _from_array(self.content, self.name)
        assert self.content is not None
        return open_image(self.content, self.name)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """uint8 [H, W, 3], [H, W, 4] (alpha is dropped), [H, W, 1] or [H, W] in mode RGB."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not array.size or not (colours or array.ndim == 2):
        raise ImageError(
            f"{name}: an array of {array.dtype} {list(array.shape)}; expected uint8 [H, W, 3] in "
            f"the order RGB, or [H, W]"
        )
    return Image.fromarray(np.ascontiguousarray(array[:, :, :3] if colours else array)).convert(
        "RGB"
    )


def input_images(source: Source) -> Iterator[InputImage]:
    """The images of `source`, one by one: of paths see `list_images`; arrays are RGB, [N, H, W, 3]
    are N images; of an iterable, such as a generator, the next is asked for when it is needed.

    Images in memory are named `image_0`, `image_1`, ... FileNotFoundError, ConfigError as
    list_images; ValueError for anything else.
    """
    return _each(source, itertools.count())


def _each(source: Any, numbers: Iterator[int]) -> Iterator[InputImage]:
    if isinstance(source, (str, os.PathLike)):
        for path in list_images(os.fspath(source)):
            yield InputImage(str(path), path)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield InputImage(f"image_{next(numbers)}", content=bytes(source))
    elif isinstance(source, np.ndarray) and source.ndim == 4:
        for image in source:
            yield InputImage(f"image_{next(numbers)}", content=image)
    elif isinstance(source, (Image.Image, np.ndarray)):
        yield InputImage(f"image_{next(numbers)}", content=source)
    elif isinstance(source, Iterable) and not isinstance(source, dict):
        for part in source:
            yield from _each(part, numbers)
    else:
        raise ValueError(f"images: got {shown(source)}; {EXPECTED}")
