"""From an image file to the model's input: decoding, and the transforms of evaluation. numpy and
Pillow only.

Evaluation, prediction, export and the deployed programs share one description of this, a list in
PaddleClas's dialect: `Preprocess(transform_ops)` runs it, `Preprocess.describe()` is what
`inference.yml` holds.

What an image is between transforms, ppcls_nextvit.data.transforms.registry says.
"""

from typing import Any, List, Literal, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from ..images import (
    MAX_PIXELS,
    Picture,
    Source,
    as_array,
    as_pil,
    open_image,
    size_of,
)
from ..scaled import Box, Region, ScalableJpeg, open_scalable
from .registry import TRANSFORMS

__all__ = ["Resizer", "center_crop", "crop", "normalize", "resize_short"]

Rng = Optional[np.random.Generator]

PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
}
CV2_FILTERS = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "area": "INTER_AREA",
    "bicubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
}
Backend = Literal["pil", "cv2"]


class Resizer:
    """`resizer(image, (width, height), rng=None)`: resizing by Pillow (antialiased, as in timm) or
    by OpenCV (not antialiased).

    interpolation: a name of PIL_FILTERS or CV2_FILTERS; 'random' draws bilinear or bicubic for each
    image, from `rng`. ValueError for a name that the backend lacks, ImportError for backend cv2
    without OpenCV.
    """

    def __init__(self, interpolation: str, backend: Backend):
        known: Sequence[str] = list(PIL_FILTERS if backend == "pil" else CV2_FILTERS)
        self.names = ("bilinear", "bicubic") if interpolation == "random" else (interpolation,)
        if self.names[0] not in known:
            raise ValueError(
                f"interpolation: backend {backend!r} has no {interpolation!r}. Expected one of: "
                f"{', '.join(known)}, random."
            )
        self.cv2: Any = None
        if backend == "cv2":
            try:
                import cv2
            except ImportError as error:
                raise ImportError(
                    "backend: cv2 needs OpenCV: install ppcls_nextvit[cv2], or write `backend: pil`"
                ) from error
            self.cv2 = cv2

    def __call__(
        self,
        image: Picture,
        size: Tuple[int, int],
        rng: Rng = None,
        region: Optional[Region] = None,
    ) -> Picture:
        # a strip of 1 x 50,000 pixels whose shorter side becomes 256
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(
                f"{size[0]} x {size[1]} pixels after resizing are more than the limit of "
                f"{MAX_PIXELS}"
            )
        name = self.draw(rng)
        if self.cv2 is None:
            return as_pil(image).resize(size, PIL_FILTERS[name], region)
        return self.cv2.resize(
            as_array(image), size, interpolation=getattr(self.cv2, CV2_FILTERS[name])
        )

    def part(
        self,
        image: Union[Picture, ScalableJpeg],
        box: Box,
        size: Tuple[int, int],
        rng: Rng = None,
    ) -> Picture:
        """The rectangle `box` of `image`, resized."""
        if isinstance(image, ScalableJpeg):
            pixels, region = image.part(box, size)
            return self(pixels, size, rng, region)
        return self(crop(image, box), size, rng)

    @property
    def takes_scaled(self) -> bool:
        """Whether `part` takes a JPEG file that is not decoded yet: Pillow finds fractions of
        pixels in it.
        """
        return self.cv2 is None

    def draw(self, rng: Rng) -> str:
        """The name of the interpolation for one image. ValueError if it is random and `rng` is
        None.
        """
        if len(self.names) == 1:
            return self.names[0]
        if rng is None:
            raise ValueError("interpolation: random is for training")
        return self.names[rng.integers(len(self.names))]


def crop(image: Picture, box: Box) -> Picture:
    """The rectangle `box` of `image`."""
    left, top, width, height = box
    if box == (0, 0, *size_of(image)):
        return image
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def resize_short(
    image: Union[Picture, ScalableJpeg],
    short: int,
    resizer: Optional[Resizer] = None,
    rng: Rng = None,
) -> Picture:
    """`image` with its shorter side at `short` pixels, the other in proportion, truncated to a
    whole pixel as torchvision's Resize does.

    image: a PIL image or uint8 [H, W, 3]; the result is what the resizer gives, or `image` itself
    where it has that size.
    PaddleClas rounds, so that its long side is a pixel longer for some images. Default resizer:
    Pillow's bicubic.
    """
    width, height = size_of(image)
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    if size == (width, height) and not isinstance(image, ScalableJpeg):
        return image
    resizer = resizer or Resizer("bicubic", "pil")
    return resizer.part(image, (0, 0, width, height), size, rng)


def center_crop(image: Picture, size: Tuple[int, int]) -> np.ndarray:
    """The central `size` = (height, width) of `image` as uint8 [height, width, 3]; an image that is
    smaller is padded with black.

    As torchvision's CenterCrop: an odd remainder is halved with rounding to even (PaddleClas rounds
    down, one pixel apart).
    """
    pixels = as_array(image)
    height, width = size
    h, w = pixels.shape[:2]
    if h < height or w < width:
        dh, dw = max(height - h, 0), max(width - w, 0)
        pixels = np.pad(pixels, ((dh // 2, (dh + 1) // 2), (dw // 2, (dw + 1) // 2), (0, 0)))
        h, w = pixels.shape[:2]
    top, left = round((h - height) / 2), round((w - width) / 2)
    return pixels[top : top + height, left : left + width]


def normalize(
    image: Picture, scale: float, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """(image * scale - mean) / std in float32: [H, W, 3] -> [H, W, C], C being the number of values
    of `mean`. With one, `image`, which must be uint8, becomes grey first, by ITU-R 601-2.

    The memory behind the result is [3, H, W], so that the later move to channels first costs
    nothing.
    """
    pixels = as_array(image)
    if len(mean) == 1 and pixels.shape[2] == 3:
        pixels = np.asarray(as_pil(image).convert("L"))[:, :, None]
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    for channel, plane in enumerate(planes):
        np.multiply(pixels[:, :, channel], np.float32(scale), out=plane, dtype=np.float32)
        plane -= np.float32(mean[channel])
        plane /= np.float32(std[channel])
    return planes.transpose(1, 2, 0)


Size = Union[int, List[int]]


def pair(size: Size, what: str = "size") -> Tuple[int, int]:
    """`size` (int, or a list of two) as (first, second), both 1 or more."""
    values = [size, size] if isinstance(size, int) else list(size)
    if len(values) != 2 or min(values) < 1:
        raise ValueError(f"{what}: expected one or two numbers of 1 or more, got {size!r}")
    return values[0], values[1]


@TRANSFORMS.register
class DecodeImage:
    """File contents -> RGB image (see decode_image); a PIL image in mode RGB is decoded already.
    Both backends decode with Pillow, whose pixels equal OpenCV's and which, unlike OpenCV, notices
    truncated files.

    scaled: of a JPEG decode at 1/2, 1/4 or 1/8 of its size what the next transform makes smaller by
    that much (see ppcls_nextvit.data.scaled). For training: pixels differ a little.
    """

    def __init__(
        self,
        *,
        to_rgb: bool = True,
        channel_first: Literal[False] = False,
        to_np: bool = True,
        backend: Backend = "pil",
        scaled: Optional[bool] = None,
    ):
        if scaled and not to_rgb:
            raise ValueError("scaled: True needs to_rgb: True")
        self.to_rgb = to_rgb
        self.scaled = bool(scaled)

    def __call__(
        self, source: Union[Source, Image.Image], rng: Rng = None, name: Optional[str] = None
    ) -> Union[Picture, ScalableJpeg]:
        if self.scaled and not isinstance(source, Image.Image):
            return open_scalable(source, name)
        image = source if isinstance(source, Image.Image) else open_image(source, name)
        return image if self.to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


@TRANSFORMS.register
class ResizeImage:
    """To `size` = [width, height], or to the shorter side `resize_short`. Without `backend: pil`
    OpenCV does it, as in PaddleClas.
    """

    def __init__(
        self,
        *,
        size: Optional[Size] = None,
        resize_short: Optional[int] = None,
        interpolation: str = "bilinear",
        backend: Backend = "cv2",
        return_numpy: bool = True,
    ):
        if (size is None) == (resize_short is None):
            raise ValueError(
                f"give either size or resize_short, got size={size} and resize_short={resize_short}"
            )
        self.short = None if resize_short is None else pair(resize_short, "resize_short")[0]
        self.size = None if size is None else pair(size)
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image: Union[Picture, ScalableJpeg], rng: Rng = None) -> Picture:
        if self.size is not None:
            return self.resizer.part(image, (0, 0, *size_of(image)), self.size, rng)
        assert self.short is not None
        return resize_short(image, self.short, self.resizer, rng)


@TRANSFORMS.register
class CropImage:
    """The central `size` = [width, height] pixels; black is added where the image is smaller (see
    center_crop).
    """

    def __init__(self, *, size: Size):
        self.width, self.height = pair(size)

    def __call__(self, image: Picture, rng: Rng = None) -> np.ndarray:
        return center_crop(image, (self.height, self.width))


@TRANSFORMS.register
class NormalizeImage:
    """(image * scale - mean) / std per channel, in float32. `order` says where the channels are: ''
    and 'hwc' last, 'chw' first. With one value each, mean and std give one channel, of grey.
    """

    def __init__(
        self,
        *,
        scale: float = 1 / 255,
        mean: Tuple[float, ...] = (0.485, 0.456, 0.406),
        std: Tuple[float, ...] = (0.229, 0.224, 0.225),
        order: Literal["", "hwc", "chw"] = "chw",
        output_fp16: Literal[False] = False,
        channel_num: Literal[1, 3] = 3,
    ):
        self.scale, self.mean, self.std = scale, mean, std
        self.channels_first = order == "chw"
        if len(mean) not in (1, 3) or len(std) != len(mean) or 0 in std:
            raise ValueError(
                f"mean and std need three values each, or one for grey, those of std not 0; got "
                f"mean={list(mean)}, std={list(std)}"
            )

    def __call__(self, image: Picture, rng: Rng = None) -> np.ndarray:
        if self.channels_first:
            last = as_array(image).transpose(1, 2, 0)
            return normalize(last, self.scale, self.mean, self.std).transpose(2, 0, 1)
        return normalize(image, self.scale, self.mean, self.std)


@TRANSFORMS.register
class ToCHWImage:
    """[H, W, 3] -> [3, H, W]. Needed in no list: a pipeline's output is channels-first anyway."""

    def __call__(self, image: Picture, rng: Rng = None) -> np.ndarray:
        return as_array(image).transpose(2, 0, 1)
