"""From an image file to the model's input: decoding, and the transforms of evaluation. numpy and
Pillow only.

Evaluation, prediction, export and the deployed programs share one description of this, a list in
PaddleClas's dialect: `Preprocess(transform_ops)` runs it, `Preprocess.describe()` is what
`inference.yml` holds.

Between transforms an image is a PIL image in mode RGB, or an array [H, W, 3], uint8 before and
float32 after NormalizeImage.
"""

import io
import os
import struct
import zlib
from typing import Any, Dict, List, Literal, Optional, Union

import numpy as np
from PIL import Image, ImageFile, ImageOps

from .schema import ConfigError, Registry, named_entries, yaml_parameters

__all__ = [
    "MAX_PIXELS",
    "TRANSFORMS",
    "ImageError",
    "Pipeline",
    "Preprocess",
    "Resizer",
    "center_crop",
    "decode_image",
    "normalize",
    "open_image",
    "resize_short",
]

# 256 MiB of RGB, where Pillow begins to warn: a larger image is a decompression bomb or a mistake
MAX_PIXELS = 89_478_485
TRANSFORMS = Registry("transform")

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


def open_image(source, name=None):
    """The image in a file or in bytes, as a PIL image in mode RGB. Arguments, conventions and
    ImageErrors are `decode_image`'s.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = name or "image in memory", bytes(source)
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
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        # 16 bits in I;16 or, with older Pillow, in I: keep the high byte
        if image.mode.startswith("I"):
            high = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
            image = Image.fromarray(high.astype(np.uint8))
        return image if image.mode == "RGB" else image.convert("RGB")
    except DECODER_ERRORS as error:
        raise ImageError(f"{name}: truncated or damaged image: {error}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def decode_image(source, to_rgb=True, name=None):
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


def as_pil(image):
    """`image` (PIL image, or uint8 [H, W, 3]) as a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8:
        raise ValueError(
            f"this transform needs uint8 pixels, got {image.dtype}; put it before NormalizeImage"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def as_array(image):
    """`image` (PIL image, or array) as an array [H, W, 3]."""
    return np.asarray(image)


def size_of(image):
    """(width, height) of a PIL image or an array [H, W, 3]."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


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
    image, from `rng`. ConfigError for a name that the backend lacks, ImportError for backend cv2
    without OpenCV.
    """

    def __init__(self, interpolation, backend):
        known = PIL_FILTERS if backend == "pil" else CV2_FILTERS
        self.names = ("bilinear", "bicubic") if interpolation == "random" else (interpolation,)
        if self.names[0] not in known:
            raise ConfigError(
                f"interpolation: backend {backend!r} has no {interpolation!r}. Expected one of: "
                f"{', '.join(known)}, random."
            )
        self.cv2 = None
        if backend == "cv2":
            try:
                import cv2
            except ImportError as error:
                raise ImportError(
                    "backend: cv2 needs OpenCV: install ppcls_nextvit[cv2], or write `backend: pil`"
                ) from error
            self.cv2 = cv2

    def __call__(self, image, size, rng=None):
        # a strip of 1 x 50,000 pixels whose shorter side becomes 256
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(
                f"{size[0]} x {size[1]} pixels after resizing are more than the limit of "
                f"{MAX_PIXELS}"
            )
        name = self.names[0] if len(self.names) == 1 else self.names[rng.integers(len(self.names))]
        if self.cv2 is None:
            return as_pil(image).resize(size, PIL_FILTERS[name])
        return self.cv2.resize(
            as_array(image), size, interpolation=getattr(self.cv2, CV2_FILTERS[name])
        )


def resize_short(image, short, resizer=None):
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
    return image if size == (width, height) else (resizer or Resizer("bicubic", "pil"))(image, size)


def center_crop(image, size):
    """The central `size` = (height, width) of `image` as uint8 [height, width, 3]; an image that is
    smaller is padded with black.

    As torchvision's CenterCrop: an odd remainder is halved with rounding to even (PaddleClas rounds
    down, one pixel apart).
    """
    pixels, (height, width) = as_array(image), size
    h, w = pixels.shape[:2]
    if h < height or w < width:
        dh, dw = max(height - h, 0), max(width - w, 0)
        pixels = np.pad(pixels, ((dh // 2, (dh + 1) // 2), (dw // 2, (dw + 1) // 2), (0, 0)))
        h, w = pixels.shape[:2]
    top, left = round((h - height) / 2), round((w - width) / 2)
    return pixels[top : top + height, left : left + width]


def normalize(image, scale, mean, std):
    """(image * scale - mean) / std in float32: [H, W, 3] -> [H, W, 3].

    The memory behind the result is [3, H, W], so that the later move to channels first costs
    nothing.
    """
    pixels = as_array(image)
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    for channel, plane in enumerate(planes):
        np.multiply(pixels[:, :, channel], np.float32(scale), out=plane, dtype=np.float32)
        plane -= np.float32(mean[channel])
        plane /= np.float32(std[channel])
    return planes.transpose(1, 2, 0)


def pair(size, what="size"):
    """`size` (int, or a list of two) as (first, second), both 1 or more."""
    values = (size, size) if isinstance(size, int) else tuple(size)
    if len(values) != 2 or min(values) < 1:
        raise ValueError(f"{what}: expected one or two numbers of 1 or more, got {size!r}")
    return values


Size = Union[int, List[int]]


@TRANSFORMS.register
class DecodeImage:
    """File contents -> RGB image (see decode_image). Both backends decode with Pillow, whose pixels
    equal OpenCV's and which, unlike OpenCV, notices truncated files."""

    def __init__(
        self,
        *,
        to_rgb: bool = True,
        channel_first: Literal[False] = False,
        to_np: bool = True,
        backend: Backend = "pil",
    ):
        self.to_rgb = to_rgb

    def __call__(self, source, rng=None, name=None):
        image = open_image(source, name)
        return image if self.to_rgb else decode_image(source, to_rgb=False, name=name)


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
        self.short = resize_short and pair(resize_short, "resize_short")[0]
        self.size = size and pair(size)
        self.resizer = Resizer(interpolation, backend)

    def __call__(self, image, rng=None):
        return (
            resize_short(image, self.short, self.resizer)
            if self.short
            else self.resizer(image, self.size, rng)
        )


@TRANSFORMS.register
class CropImage:
    """The central `size` = [width, height] pixels; black is added where the image is smaller (see
    center_crop).
    """

    def __init__(self, *, size: Size):
        self.width, self.height = pair(size)

    def __call__(self, image, rng=None):
        return center_crop(image, (self.height, self.width))


@TRANSFORMS.register
class NormalizeImage:
    """(image * scale - mean) / std per channel, in float32. `order` says where the channels are: ''
    and 'hwc' last, 'chw' first.
    """

    def __init__(
        self,
        *,
        scale: float = 1 / 255,
        mean: List[float] = (0.485, 0.456, 0.406),
        std: List[float] = (0.229, 0.224, 0.225),
        order: Literal["", "hwc", "chw"] = "chw",
        output_fp16: Literal[False] = False,
        channel_num: Literal[3] = 3,
    ):
        self.scale, self.mean, self.std = scale, mean, std
        self.channels_first = order == "chw"
        if len(mean) != 3 or len(std) != 3 or 0 in std:
            raise ValueError(
                f"mean and std need three values each, those of std not 0; got mean={mean}, "
                f"std={std}"
            )

    def __call__(self, image, rng=None):
        if self.channels_first:
            return normalize(
                as_array(image).transpose(1, 2, 0), self.scale, self.mean, self.std
            ).transpose(2, 0, 1)
        return normalize(image, self.scale, self.mean, self.std)


@TRANSFORMS.register
class ToCHWImage:
    """[H, W, 3] -> [3, H, W]. Needed in no list: a pipeline's output is channels-first anyway."""

    def __init__(self):
        pass

    def __call__(self, image, rng=None):
        return as_array(image).transpose(2, 0, 1)


class Pipeline:
    """A list of transforms in PaddleClas's dialect: `pipeline(source, rng, name)` -> float32 [3, H,
    W], contiguous.

    transform_ops: [{name: {key: value}}, ...]. source: a path or a file's bytes (a decoded image
    where the list has no DecodeImage).
    rng: numpy Generator for the random transforms. ConfigError, naming `where`, for an unknown name
    or key or a wrong value; on calling, ImageError for a bad image.
    """

    def __init__(self, transform_ops, where="transform_ops"):
        self.entries = [
            (
                name,
                TRANSFORMS.check(name, arguments, place),
                TRANSFORMS.build(name, arguments, place),
            )
            for name, arguments, place in named_entries(transform_ops, where)
        ]
        names = [name for name, _, _ in self.entries]
        self.channels_first = "ToCHWImage" in names
        if "DecodeImage" in names[1:]:
            raise ConfigError(f"{where}: DecodeImage must be the first transform")
        self.decodes = bool(names) and names[0] == "DecodeImage"

    def __call__(self, source, rng=None, name=None):
        image = source
        for i, (kind, _, transform) in enumerate(self.entries):
            try:
                image = (
                    transform(image, rng, name)
                    if i == 0 and self.decodes
                    else transform(image, rng)
                )
            except ImageError:
                raise
            except ValueError as error:
                raise ImageError(f"{name or 'image in memory'}: {kind}: {error}") from error
        pixels = as_array(image)
        return np.ascontiguousarray(
            pixels if self.channels_first else pixels.transpose(2, 0, 1), np.float32
        )

    def describe(self) -> List[Dict[str, Any]]:
        """The list with every default written out, in plain YAML types: another program can follow
        it without knowing ours.
        """
        described = []
        for name, arguments, _ in self.entries:
            defaults = {
                key: parameter.default
                for key, parameter in yaml_parameters(TRANSFORMS.get(name)).items()
            }
            described.append(
                {
                    name: {
                        key: list(value) if isinstance(value, tuple) else value
                        for key, value in {**defaults, **arguments}.items()
                        if value is not None
                    }
                }
            )
        return described


class Preprocess(Pipeline):
    """A pipeline without chance, for evaluation, prediction and deployment: `preprocess(path or
    bytes)` -> float32 [3, H, W].
    """

    DETERMINISTIC = ("DecodeImage", "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")

    def __init__(self, transform_ops, where="transform_ops"):
        for name, _, place in named_entries(transform_ops, where):
            if name not in self.DETERMINISTIC:
                TRANSFORMS.get(name, place)
                raise ConfigError(
                    f"{place}: not a transform of evaluation. Expected one of: "
                    f"{', '.join(self.DETERMINISTIC)}."
                )
        super().__init__(transform_ops, where)
