"""From pixels to what a detector or a segmentor takes, bit for bit as in evaluation. Needs numpy
and OpenCV; the same file lies in deploy/python and deploy/serving.
"""

import os
from typing import Any, NamedTuple, Optional

import numpy as np

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MAX_PIXELS = 89_478_485  # of an image after a transform: 256 MiB of RGB
LONGEST = 1 << 20  # of a side


class SizeError(ValueError):
    """An image of a size that cannot be used; one line, without the file's name. large: it has too
    many pixels.
    """

    def __init__(self, reason: str, large: bool = False):
        super().__init__(reason)
        self.large = large


class Prepared(NamedTuple):
    """One image as a model takes it."""

    image: np.ndarray  # float32 [1, 3, H, W]
    shape: tuple[int, int]  # (height, width) before padding
    scale: tuple[float, float]  # (y, x): the factors of its resize


def whole_sizes(sizes: Any, count: int) -> list[int]:
    """`sizes`, if they are `count` whole numbers that an image's side may have. ValueError."""
    if not isinstance(sizes, (list, tuple)) or len(sizes) != count:
        raise ValueError(f"expected {count} sizes, got {str(sizes)[:60]}")
    if not all(type(side) is int and 1 <= side <= LONGEST for side in sizes):
        raise ValueError(f"expected whole numbers from 1 to {LONGEST}, got {str(sizes)[:60]}")
    return list(sizes)


class Resize:
    """To the largest size within `scale` = [longer, shorter side] in proportion; without keep_ratio
    to [width, height].
    """

    def __init__(
        self,
        scale: Any,
        keep_ratio: bool = True,
        ratio_range: None = None,
        multiscale_mode: str = "value",
    ):
        sizes = [scale] if all(isinstance(side, int) for side in scale) else list(scale)
        if len(sizes) != 1 or ratio_range is not None:
            raise ValueError("leaves the size to chance, which only training does")
        self.scale = whole_sizes(sizes[0], 2)
        self.keep_ratio = bool(keep_ratio)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after this transform."""
        if not self.keep_ratio:
            return self.scale[1], self.scale[0]
        longer, shorter = max(self.scale), min(self.scale)
        factor = min(longer / max(height, width), shorter / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        import cv2

        height, width = self.target(*pixels.shape[:2])
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


class Normalize:
    """(pixels - mean) / std, each step rounded to float32."""

    def __init__(self, mean: Any = MEAN, std: Any = STD):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"expected three values each, got mean={mean}, std={std}")
        self.mean, self.std = np.float32(mean), np.float32(std)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after this transform: as before."""
        return height, width

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.float32) - self.mean) / self.std


class Pad:
    """Zeros at the right and below, up to `size` = [height, width] or to multiples of
    `size_divisor`.
    """

    def __init__(self, size: Any = None, size_divisor: Optional[int] = None):
        if (size is None) == (size_divisor is None):
            raise ValueError("expected either size = [height, width] or size_divisor")
        self.divisor = None if size_divisor is None else whole_sizes([size_divisor], 1)[0]
        self.size = None if size is None else whole_sizes(size, 2)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after this transform."""
        if self.size is not None:
            return max(height, self.size[0]), max(width, self.size[1])
        rows, columns = -(-height // self.divisor), -(-width // self.divisor)
        return rows * self.divisor, columns * self.divisor

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        height, width = self.target(*pixels.shape[:2])
        below, right = height - pixels.shape[0], width - pixels.shape[1]
        return np.pad(pixels, [(0, below), (0, right), (0, 0)])


TRANSFORMS: dict[str, Any] = {"Resize": Resize, "Normalize": Normalize, "Pad": Pad}


class JointPreprocess:
    """The `PreProcess.transform_ops` of a detector or a segmentor: `prepare(pixels)`, uint8 [H, W,
    3], RGB -> Prepared. ValueError, which begins with `source`, for what is unknown.

    sides: the model's (H, W), None for any. fills: a smaller image is padded to `sides` with zeros,
    as detectors take it; else it must have that size. min_size: of the image after the transforms.
    classes: of a segmentor, whose scores take memory; 0: none. memory: bytes that a run may take,
    None: what is free. max_pixels: of an image after each transform.
    """

    def __init__(
        self,
        transform_ops: list,
        sides: Any,
        fills: bool,
        min_size: int = 1,
        classes: int = 0,
        memory: Optional[int] = None,
        source: str = "transform_ops",
        max_pixels: int = MAX_PIXELS,
    ):
        self.max_pixels = max_pixels
        self.sides = (sides[0], sides[1])
        self.fills, self.min_size = fills, min_size
        self.classes, self.memory = classes, memory
        self.steps = []
        for entry in transform_ops:
            for name, arguments in entry.items():
                if name not in TRANSFORMS:
                    raise ValueError(
                        f"{source}: unknown transform {name!r}; of a detector or segmentor this "
                        f"program knows {', '.join(TRANSFORMS)}"
                    )
                try:
                    self.steps.append((name, TRANSFORMS[name](**(arguments or {}))))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{source}: {name}: {error}") from None
        self._check_steps(source)

    def _check_steps(self, source: str) -> None:
        names = [name for name, _ in self.steps]
        if "Normalize" in names and "Resize" in names[names.index("Normalize") :]:
            raise ValueError(f"{source}: Resize needs uint8 pixels; put it before Normalize")
        if "Resize" in names:
            try:
                import cv2  # noqa: F401
            except ImportError:
                raise ValueError(
                    f"{source}: Resize needs OpenCV: pip install opencv-python-headless"
                ) from None

    def check(self, height: int, width: int) -> None:
        """SizeError for an image of this size that cannot be used; nothing is computed."""
        original = height * width
        for name, step in self.steps:
            height, width = step.target(height, width)
            if height * width > self.max_pixels:
                raise SizeError(
                    f"{height} x {width} pixels after {name} are more than the limit of "
                    f"{self.max_pixels}",
                    large=True,
                )
        if min(height, width) < self.min_size:
            raise SizeError(
                f"{height} x {width} pixels when transformed; the model needs {self.min_size} or "
                f"more"
            )
        self._check_sides(height, width)
        needed = needed_memory(height, width, original, self.classes)
        free = free_memory() if self.memory is None else self.memory
        if free is not None and needed > free:
            raise SizeError(
                f"{height} x {width} pixels when transformed take {needed / 1e9:.1f} GB or more, "
                f"and {free / 1e9:.1f} GB may be used; give a smaller image",
                large=True,
            )

    def _check_sides(self, height: int, width: int) -> None:
        if self.sides[0] is None or self.sides == (height, width):
            return
        if not self.fills:
            raise SizeError(
                f"{height} x {width} pixels when transformed; the exported program takes "
                f"{self.sides[0]} x {self.sides[1]}"
            )
        if height > self.sides[0] or width > self.sides[1]:
            raise SizeError(
                f"{height} x {width} pixels when transformed, more than the {self.sides[0]} x "
                f"{self.sides[1]} of the exported program"
            )

    def __call__(self, pixels: np.ndarray) -> Prepared:
        height, width = pixels.shape[:2]
        self.check(height, width)
        shape, scale = None, (1.0, 1.0)
        for name, step in self.steps:
            before = pixels.shape[:2]
            pixels = step(pixels)
            if name == "Resize":
                after = pixels.shape[:2]
                scale = (scale[0] * (after[0] / before[0]), scale[1] * (after[1] / before[1]))
            shape = before if name == "Pad" else shape
        if self.fills and self.sides[0] is not None:
            shape = shape or pixels.shape[:2]
            pixels = Pad(self.sides)(pixels)
        image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        return Prepared(image, shape or pixels.shape[:2], scale)


def needed_memory(height: int, width: int, original: int, classes: int) -> int:
    """Bytes that a model's input of that size, its scores of `classes` at a quarter of each side,
    and the labels of `original` pixels take at least.
    """
    return height * width * (3 * 4 + classes * 4 // 16) + (8 * original if classes else 0)


def free_memory() -> Optional[int]:
    """Bytes that this machine has left; None where that cannot be known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
