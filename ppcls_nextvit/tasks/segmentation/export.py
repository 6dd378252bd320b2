"""A segmentor as exported files: the label of every pixel, and the class scores they come from."""

from pathlib import Path
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple, Union

import numpy as np
import paddle
from paddle import Tensor, nn

from ...config import Config
from ...data.images import decode_image
from ...export import TARGETS
from ...export.target import Exported, Target
from ...export.target import export as export_layer
from ...export.verify import Batch, Signature, image_batches, relative_difference
from ...models import export_form
from ...models.resizing import resize_like
from ...models.segmentors.inference import Inference
from ...weights.digest import sha256_of
from ..base import ExportRequest
from ..common import class_names, compared_photos, trained_model
from ..joint import ONE_SIZE, check_request
from .views import Views

__all__ = ["LabelMap", "difference", "export", "export_segmentor", "mean_difference"]

INPUT_NAME = "x"
OUTPUTS = ("labels", "logits")
CHECKED = 8  # calibration images on which int8 files are compared with the model


class LabelMap(nn.Layer):
    """image [B, C, H, W] -> labels int32 [B, H, W] and logits [B, num_classes, h, w], at the size
    at which the heads answer, of the whole image, not mirrored.
    """

    def __init__(self, model: nn.Layer):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor]:
        """image: [B, C, H, W] -> labels int32 [B, H, W], logits [B, num_classes, h, w]."""
        logits = self.model.decode(image)
        return _best(resize_like(logits, image)).astype("int32"), logits


def _best(logits: Tensor) -> Tensor:
    """[B, C, H, W] -> the best class of each pixel, [B, H, W]."""
    if paddle.in_dynamic_mode() or paddle.framework.in_pir_mode():
        return logits.argmax(axis=1)
    # into a .pdmodel Paddle (3.3.1) cannot write its argmax
    return paddle.topk(logits, 1, axis=1)[1].squeeze(1)


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Of labels [B, H, W] the share of pixels that differ, of logits their relative difference."""
    if expected.ndim == 3:
        return float((output != expected).mean())
    return relative_difference(output, expected)


def mean_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """The same of a model that is `discontinuous`, in which rounding may move a few scores by much
    more: of logits the mean difference, or a hundredth of the largest if that is more, relative to
    their scale.
    """
    if expected.ndim == 3:
        return difference(output, expected)
    mean = float(np.abs(output - expected).mean() / np.abs(expected).max())
    return max(mean, relative_difference(output, expected) / 100)


def export_segmentor(
    model: nn.Layer,
    target: Target,
    directory: Union[str, Path],
    description: Dict[str, Any],
    image_size: Sequence[int] = (512, 512),
    batch: Optional[int] = None,
    size: Optional[Tuple[int, int]] = None,
    photos: Sequence[np.ndarray] = (),
    calibration: Sequence[np.ndarray] = (),
    **options: Any,
) -> Exported:
    """`model`, a Segmentor with its weights, as `target`'s files in `directory`. See
    export.target.export for the rest.

    description: what export.json shall hold beside what is known here. image_size: (height, width)
    meant for use. batch: a number, or None for any. size: (height, width), or None for any. photos:
    float32 [3, H, W], on which the files are checked too. calibration: float32 [3, H, W], for
    int8, on the first of which alone it is checked. `model` is left in eval mode. ValueError,
    ExportError, ImportError (a missing extra): nothing was written.
    """
    least = model.min_size
    if size and min(size) < least:
        raise ValueError(
            f"the size must be at least {least} x {least} pixels; got {size[0]} x {size[1]}"
        )
    model.eval()
    shape = (batch, model.in_channels, *(size or (None, None)))
    signature = Signature({INPUT_NAME: shape}, OUTPUTS, least)
    description = {
        **description,
        "Model": {
            "task": "segmentation",
            "class_num": model.num_classes,
            "input": {
                "name": INPUT_NAME,
                "dtype": "float32",
                "shape": list(shape),
                "image_size": list(size or image_size),
                "min_size": least,
            },
        },
    }
    height, width = image_size
    batches: Iterable[Batch] = image_batches(signature, (height, width), photos)
    if calibration:
        # outside their range int8 means nothing
        batches = [{INPUT_NAME: image[None]} for image in calibration[:CHECKED]]
    return export_layer(
        LabelMap(export_form(model)),
        target,
        directory,
        signature,
        batches,
        description,
        reference=LabelMap(model),
        compare=mean_difference if getattr(model, "discontinuous", False) else difference,
        images=calibration,
        **options,
    )


def export(config: Config, request: ExportRequest, images: Sequence[np.ndarray] = ()) -> Exported:
    """The segmentor of `config` with its weights, written into Global.save_inference_dir.

    Windows, scales and mirroring (Arch.inference) are left to the program that uses the files.
    images: float32 [C, H, W], to calibrate int8 with, on some of which alone it is compared.
    ConfigError, ValueError, ExportError, ImageError, ImportError (a missing extra): nothing was
    written.
    """
    check_request(config, request)
    photos = compared_photos(request.photos)
    model, weights = trained_model(config)
    names, transforms = class_names(config), config.section("Infer").transforms
    views = Views(transforms, Inference(), "Infer.transforms", model.min_size)
    prepared = [
        image[0].numpy()
        for path in photos
        for image, _ in views(decode_image(str(path)), str(path))
    ]
    description = {
        "Global": {"model_name": config.Arch.name},
        "PreProcess": {"transform_ops": transforms},
        "PostProcess": {"label_list": names},
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }
    options: Dict[str, Any] = {"format": request.format} if request.format else {}
    image_size, batch, size = config.Global.image_shape[1:], request.batch, request.size
    if request.to in ONE_SIZE:
        batch, size = batch or 1, size or image_size
    return export_segmentor(
        model,
        TARGETS[request.to],
        config.Global.save_inference_dir,
        description,
        image_size,
        batch,
        size,
        prepared,
        precision=request.precision,
        calibration=images,
        **options,
    )
