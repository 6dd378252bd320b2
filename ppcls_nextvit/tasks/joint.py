"""What detection and segmentation share: an image as their models take it, the images of a
configuration drawn one by one, training steps of models that bring their losses, and what they can
be exported to.
"""

import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import paddle
from PIL import Image

from ..config import Config
from ..data.images import ImageError, decode_image
from ..data.transforms.joint import JointPipeline
from ..engine.logger import logger
from ..schema import ConfigError, shown_text
from .base import ExportRequest, Step
from .common import write_json

__all__ = [
    "IMAGES_IN_REPORT",
    "OUT",
    "Drawn",
    "ModelInput",
    "check_request",
    "check_size",
    "draw_images",
    "model_input",
    "output_stems",
    "shares",
    "step_of",
]

OUT = "output/infer"  # where pictures go if the user does not say
IMAGES_IN_REPORT = 4
LONGEST_NAME = 200  # bytes, of the 255 that systems allow
TARGETS = ("paddle", "onnx")  # where detectors and segmentors were shown to be right


class ModelInput(NamedTuple):
    """One image as a model takes it."""

    image: np.ndarray  # float32 [1, 3, H, W]
    shape: Tuple[int, int]  # (height, width) before padding
    scale: Tuple[float, float]  # (y, x): the factors of its resize


def model_input(
    image: np.ndarray, transforms: JointPipeline, name: str, min_size: int
) -> ModelInput:
    """`image`, uint8 [H, W, 3], transformed. ImageError, beginning with `name`, for what a
    transform cannot take, and for one that is then too small for the model.
    """
    sample = transforms(
        {"image": image, "scale": (1.0, 1.0), "flip": False}, np.random.default_rng(0), name
    )
    pixels = sample["image"]
    check_size(pixels.shape[:2], min_size, name)
    array = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    return ModelInput(array, sample.get("shape", pixels.shape[:2]), sample["scale"])


def check_size(size: Sequence[int], min_size: int, name: str) -> None:
    """ImageError, beginning with `name`, for an image of `size` (height, width) that is too small
    for the model.
    """
    if min(size) < min_size:
        raise ImageError(
            f"{name}: {size[0]} x {size[1]} pixels when transformed; the model needs {min_size} "
            f"or more"
        )


class Drawn(NamedTuple):
    """What is known of one image: for the JSON, and as pictures by the ends of their names."""

    told: Dict[str, Any]
    pictures: Mapping[str, Image.Image]


def draw_images(
    paths: Sequence[Path],
    draw: Callable[[np.ndarray, Path], Drawn],
    directory: Union[str, Path],
    json_file: Optional[str] = None,
) -> int:
    """Call `draw(image, path)` for every image file, and write its pictures into `directory`, which
    is made if need be; returns the exit status, 1 if one could not be read or written.

    Images of several folders go into folders of the same names. json_file: gets a list of
    {file_name, height, width} with what was told, or {file_name, error} for an image that could not
    be read; an error beside the others tells which picture could not be written.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    results: List[Dict[str, Any]] = []
    for path, stem in zip(paths, output_stems(paths)):
        result: Dict[str, Any] = {"file_name": str(path)}
        try:
            image = decode_image(str(path))
            drawn = draw(image, path)
            result |= {"height": image.shape[0], "width": image.shape[1], **drawn.told}
            _save(drawn.pictures, Path(directory) / stem)
        except (ImageError, OSError) as error:
            result["error"] = shown_text(error)
            logger.error("%s", result["error"])
        results.append(result)
    if json_file:
        write_json(json_file, results)
    return int(any("error" in result for result in results))


def _save(pictures: Mapping[str, Image.Image], stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending, picture in pictures.items():
        picture.save(stem.with_name(f"{stem.name}{ending}"), "png")


def output_stems(paths: Sequence[Path]) -> List[str]:
    """For each path the beginning of the names of what is written of it: its folders below the one
    that holds them all, and its name, with the ending only where another differs by nothing else.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    if not whole:
        return []
    root = os.path.commonpath([path.parent for path in whole])
    below = [path.relative_to(root) for path in whole]
    times = Counter(path.with_suffix("") for path in dict.fromkeys(below))
    names = [path if times[path.with_suffix("")] > 1 else path.with_suffix("") for path in below]
    return [str(path.with_name(_bounded(path.name))) for path in names]


def _bounded(name: str) -> str:
    """`name`, or of a long one its beginning and a digest: endings are yet to come."""
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    kept = data[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{kept}-{zlib.crc32(data):08x}"


def step_of(parts: Mapping[str, paddle.Tensor], counts: Mapping[str, Any], images: int) -> Step:
    """The Step of what a model's `losses` gave of a batch of so many `images`."""
    return Step(
        sum(parts.values()),
        {name: part.detach() for name, part in parts.items()},
        images,
        {name: np.asarray(count, np.int64) for name, count in counts.items()},
    )


def shares(counts: Mapping[str, np.ndarray]) -> Dict[str, float]:
    """{name: share} of summed counts (right, seen)."""
    return {name: float(right) / max(float(seen), 1.0) for name, (right, seen) in counts.items()}


def check_request(config: Config, request: ExportRequest) -> None:
    """ConfigError for a target, precision or format in which these models were not shown to be
    right.
    """
    if request.to not in TARGETS or request.features:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {' and '.join(TARGETS)}, whole; "
            f"--to {request.to}{' --features' if request.features else ''} is for classifiers"
        )
    if request.precision != "fp32" or request.format == "pdmodel":
        raise ConfigError(
            f"{config.path}: {config.Arch.name} is exported in fp32, for --to paddle as pir; "
            f"other precisions and formats are for classifiers"
        )
