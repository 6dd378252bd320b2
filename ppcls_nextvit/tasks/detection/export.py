"""A detector as exported files: one image in, its objects out, suppression included; any image
size.
"""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import paddle
from paddle import Tensor, nn

from ...config import Config
from ...data.images import ImageError, decode_image
from ...export import TARGETS
from ...export.target import Exported
from ...export.target import export as export_layer
from ...export.verify import ExportError, Signature
from ...models import export_form
from ...models.recording import with_one_more
from ...weights.digest import sha256_of
from ..base import ExportRequest
from ..common import class_names, images_of, list_images, trained_model
from ..joint import check_request
from .predict import check_post_process, model_inputs, transforms_of

__all__ = ["ObjectTable", "export", "padded", "set_difference"]

# the inputs are PaddleDetection's
INPUTS, OUTPUTS = ("image", "im_shape", "scale_factor"), ("objects", "masks")
# to compare on, if none are given
PHOTOS = 4


class ObjectTable(nn.Layer):
    """A detector for one image -> objects [n, 6], each (label, score, x1, y1, x2, y2), and, if it
    has any, their masks (of MaskRCNN [n, 28, 28], probabilities on a grid over the box, see
    masks.paste).

    image: [1, 3, H, W]; im_shape: [1, 2], its (height, width) before padding; scale_factor: [1, 2],
    the (y, x) factors of its resize. All are float32. Boxes are in pixels of the original image.
    """

    def __init__(self, model: nn.Layer):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image: Tensor, im_shape: Tensor, scale_factor: Tensor) -> Tuple[Tensor, ...]:
        """image [1, 3, H, W], im_shape [1, 2], scale_factor [1, 2] -> objects [n, 6] and masks [n,
        ...]; n may be 0.
        """
        (found,) = self.model(image, im_shape, scale_factor)
        objects = with_one_more(_rows, found.labels, found.scores, found.boxes)
        return (objects,) if found.masks is None else (objects, found.masks)


def _rows(labels: Tensor, scores: Tensor, boxes: Tensor) -> Tensor:
    """labels [n], scores [n], boxes [n, 4] -> [n, 6]."""
    numbers = paddle.stack([labels.astype("float32"), scores], axis=-1)
    return paddle.concat([numbers, boxes], axis=-1)


def set_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """How far the rows of two arrays lie apart at most, each from the nearest of the other, columns
    as shares of their scale.

    Objects of equal scores may come in any order.
    """
    if not expected.size:
        return 0.0
    rows, others = output.reshape(len(output), -1), expected.reshape(len(expected), -1)
    scale = np.maximum(np.abs(others).max(axis=0), 1e-2)
    apart = np.array([np.abs((others - row) / scale).max(axis=1) for row in rows])
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


def export(config: Config, request: ExportRequest) -> Exported:
    """The detector of `config` with its weights, written into Global.save_inference_dir.

    request.batch: 1 or None; the program takes one image. request.size: of the padded image,
    multiples of 32, or None for any. request.photos: on which the files are compared with the
    model; by default the first of Infer.infer_imgs. ConfigError, ValueError, ExportError,
    ImageError, ImportError (a missing extra): nothing was written.
    """
    check_request(config, request)
    if request.batch not in (None, 1):
        raise ValueError(
            f"an exported detector takes one image at a time; got a batch of {request.batch}"
        )
    infer = config.section("Infer")
    paths = list_images(request.photos) if request.photos else images_of(config)[:PHOTOS]
    names, threshold = class_names(config), check_post_process(infer.PostProcess)
    model, weights = trained_model(config)
    reference = ObjectTable(model)
    batches = _batches(model, config, paths, request.size)
    outputs = _outputs(reference, batches, paths)
    sides = request.size or (None, None)
    signature = Signature(
        {"image": (1, model.in_channels, *sides), "im_shape": (1, 2), "scale_factor": (1, 2)},
        outputs,
    )
    description = {
        "Global": {"model_name": config.Arch.name},
        "PreProcess": {"transform_ops": infer.transforms},
        "PostProcess": {"label_list": names, "score_threshold": threshold},
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }
    options: Dict[str, Any] = {"format": request.format} if request.format else {}
    return export_layer(
        export_form(reference),
        TARGETS[request.to],
        config.Global.save_inference_dir,
        signature,
        batches,
        description,
        reference=reference,
        compare=set_difference,
        **options,
    )


def _batches(
    model: nn.Layer, config: Config, paths: Sequence[Path], size: Optional[Tuple[int, int]]
) -> List[Dict[str, np.ndarray]]:
    """The inputs of the program of each image, padded to `size` (height, width)."""
    transforms, batches = transforms_of(config), []
    for path in paths:
        made = model_inputs(decode_image(str(path)), transforms, str(path), model.min_size)
        inputs = dict(zip(INPUTS, made.values()))
        inputs["image"] = padded(inputs["image"], size or inputs["image"].shape[2:], path)
        batches.append(inputs)
    return batches


def _outputs(
    reference: ObjectTable, batches: Sequence[Dict[str, np.ndarray]], paths: Sequence[Path]
) -> Tuple[str, ...]:
    """The names of the program's outputs. ExportError where nothing is found in any image."""
    number, found = 0, 0
    for inputs in batches:
        with paddle.no_grad():
            outputs = reference(*map(paddle.to_tensor, inputs.values()))
        number, found = len(outputs), found + len(outputs[0])
    if not found:
        raise ExportError(
            f"the model finds nothing in {paths[0]} (of {len(paths)}), so the files could not be "
            f"compared with it; give photos with objects"
        )
    return OUTPUTS[:number]


def padded(image: np.ndarray, size: Sequence[int], name: Union[str, Path]) -> np.ndarray:
    """`image` [1, 3, H, W] with zeros at the right and below, up to `size` (height, width).
    ImageError, beginning with `name`, for a larger one.
    """
    missing = [wanted - side for wanted, side in zip(size, image.shape[2:])]
    if min(missing) < 0:
        raise ImageError(
            f"{name}: {image.shape[2]} x {image.shape[3]} pixels when transformed, more than the "
            f"{size[0]} x {size[1]} of the exported program"
        )
    return np.pad(image, [(0, 0), (0, 0), (0, missing[0]), (0, missing[1])])
