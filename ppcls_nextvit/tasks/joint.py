"""What detection and segmentation share: an image as their models take it, the images of a
configuration predicted one by one, training steps of models that bring their losses, and what they
can be exported to.
"""

from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import paddle

from ..config import Config
from ..data.images import ImageError
from ..data.transforms.joint import JointPipeline
from ..models import variant_of
from ..schema import ConfigError, shown_text
from .base import ExportRequest, Step
from .common import images_of, write_json
from .inputs import InputImage
from .results import Failed, Predictor, Result, predictions, save_results

__all__ = [
    "IMAGES_IN_REPORT",
    "IMAGES_JUDGED",
    "OUT",
    "ONE_SIZE",
    "ImagePredictor",
    "ModelInput",
    "check_request",
    "check_size",
    "infer_with",
    "model_input",
    "refuse_multilabel",
    "shares",
    "step_of",
]

OUT = "output/infer"  # where pictures go if the user does not say
IMAGES_IN_REPORT = 4
IMAGES_JUDGED = 100  # from whose mistakes the worst are shown
# where, and in which precision, detectors and segmentors were shown to be right
TARGETS = {
    "paddle": ("fp32", "bf16"),
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16", "bf16"),
    "tensorrt": ("fp32", "fp16"),
    "coreml": ("fp32", "fp16"),
    "lite": ("fp32",),
    "lite-x86": ("fp32",),
}
# where a program takes images of one size, one by one
ONE_SIZE = ("coreml", "lite", "lite-x86")


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


class ImagePredictor(Predictor):
    """A Predictor that takes one image after the other, as the published evaluations do.

    result(image, names) -> the Result of one InputImage; ImageError for one that the model cannot
    take.
    """

    batch_size = 1

    def __init__(
        self, names: Sequence[str], result: Callable[[InputImage, Sequence[str]], Result]
    ) -> None:
        self.names = names
        self.result = result

    def predict(self, images: Sequence[InputImage]) -> List[Result]:
        """See Predictor."""
        return [self._one(image) for image in images]

    def write(
        self,
        images: Sequence[InputImage],
        json: Optional[str] = None,
        sheet: Optional[str] = None,
        out: Optional[str] = None,
    ) -> int:
        """See Predictor: a line for each image, and pictures in the folder `out`. The status is 1,
        too, where one could not be written.
        """
        told = save_results(_said(predictions(self, images)), images, out or OUT)
        if json:
            write_json(json, told)
        return int(any("error" in entry for entry in told))

    def _one(self, image: InputImage) -> Result:
        try:
            return self.result(image, self.names)
        except ImageError as error:
            return Failed(image, self.names, error)


def _said(results: Iterator[Result]) -> Iterator[Result]:
    """`results`, of each of which a line is printed; what is wrong with an image is logged."""
    for result in results:
        if result.error is None:
            print(f"{shown_text(result.file_name)}: {shown_text(result.line())}", flush=True)
        yield result


def infer_with(
    make: Callable[[Config], ImagePredictor],
    config: Config,
    out: Union[str, Path],
    json_file: Optional[str] = None,
) -> int:
    """Predict the images of Infer.infer_imgs by the Predictor that `make` makes of `config`, and
    draw them into the folder `out`; returns the exit status, 1 if an image could not be read or a
    picture not be written. json_file: gets what is known of each.
    """
    images = [InputImage(str(path), path) for path in images_of(config)]
    return make(config).write(images, json_file, out=str(out))


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


def refuse_multilabel(config: Config) -> None:
    """ConfigError for Global.use_multilabel, which is for classifiers."""
    if config.Global.use_multilabel:
        raise ConfigError(
            f"Global.use_multilabel: is for classifiers, which {config.Arch.name} is not; leave "
            f"the key out"
        )


def check_request(config: Config, request: ExportRequest) -> None:
    """ConfigError for a target, precision or format in which these models were not shown to be
    right.
    """
    *some, last = TARGETS
    if request.attention:
        raise ConfigError(
            f"{config.path}: --attention is for classifiers; {config.Arch.name} goes out whole"
        )
    if request.to not in TARGETS or request.features:
        known = f"{', '.join(some)} and {last}"
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {known}, whole; "
            f"--to {request.to}{' --features' if request.features else ''} is for classifiers"
        )
    reason = getattr(variant_of(config.Arch.name).family, "refused", {}).get(request.to)
    if reason:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} does not go to {request.to}: {reason}"
        )
    if request.format == "pdmodel":
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to paddle as pir; --format pdmodel is for "
            f"classifiers"
        )
    if request.any_size and request.to in ONE_SIZE:
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {request.to} for one size; leave --size "
            f"dynamic out, or give --size HEIGHT WIDTH"
        )
    precisions = TARGETS[request.to]
    # int8 is quantize's, which knows where there is one
    if request.precision not in (*precisions, "int8"):
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {request.to} in {', '.join(precisions)}; "
            f"got --precision {request.precision}"
        )
