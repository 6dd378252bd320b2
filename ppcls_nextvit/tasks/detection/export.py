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
from ...engine.logger import logger
from ...export import TARGETS
from ...export.coreml import package_of
from ...export.parts import Parts
from ...export.target import Exported
from ...export.target import export as export_layer
from ...export.trunk import WithTrunk
from ...export.verify import TOLERANCES, Compare, ExportError, Signature, eager
from ...models import export_form, variant_of
from ...models.recording import with_one_more
from ...schema import ConfigError
from ...weights.digest import sha256_of
from ..base import ExportRequest
from ..common import class_names, images_of, list_images, trained_model
from ..joint import ONE_SIZE, check_request
from .differences import matched_difference, score_difference, set_difference
from .predict import check_post_process, model_inputs, transforms_of

__all__ = ["ObjectTable", "export", "padded", "set_difference"]

# the inputs are PaddleDetection's
INPUTS, OUTPUTS = ("image", "im_shape", "scale_factor"), ("objects", "masks")
# to compare on, if none are given
PHOTOS = 4
# up to where int8 and the files of fp16 go: suppression and what leads to it stay in float32
TRUNK, UP_TO_TRUNK = "model.neck", ("int8", "fp16")
# whose programs cannot choose boxes by suppression: numpy does it between those of `parts`
IN_PARTS = ("coreml",)
# by which an image is moved, as a share of its scale, and how often
ROUNDING, MOVES = 2e-6, 2

Inputs = Dict[str, np.ndarray]


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


def export(config: Config, request: ExportRequest, images: Sequence[np.ndarray] = ()) -> Exported:
    """The detector of `config` with its weights, written into Global.save_inference_dir.

    request.batch: 1 or None; the program takes one image. request.size: of the padded image,
    multiples of 32; None for any or, where a target takes one alone, for Global.image_shape's.
    request.photos: on which the files are compared with the model; by default the first of
    Infer.infer_imgs. images: to calibrate int8 with. ConfigError, ValueError, ExportError,
    ImageError, ImportError (a missing extra): nothing was written.
    """
    check_request(config, request)
    family = variant_of(config.Arch.name).family
    if request.to in IN_PARTS and request.precision == "fp16" and not hasattr(family, "parts"):
        raise ConfigError(
            f"{config.path}: {config.Arch.name} goes to {request.to} in fp32: half precision "
            f"cannot hold the places that it finds in one program"
        )
    if request.batch not in (None, 1):
        raise ValueError(
            f"an exported detector takes one image at a time; got a batch of {request.batch}"
        )
    infer = config.section("Infer")
    paths = list_images(request.photos) if request.photos else images_of(config)[:PHOTOS]
    names, threshold = class_names(config), check_post_process(infer.PostProcess)
    model, weights = trained_model(config)
    reference = ObjectTable(model)
    size = request.size
    if request.to in ONE_SIZE:
        size = size or config.Global.image_shape[1:]
    batches = _batches(model, config, paths, size)
    outputs = _outputs(reference, batches, paths)
    shape = (1, model.in_channels, *(size or (None, None)))
    signature = Signature(
        {"image": shape, "im_shape": (1, 2), "scale_factor": (1, 2)}, outputs, model.min_size
    )
    description = {
        "Global": {"model_name": config.Arch.name},
        "Model": {
            "task": "detection",
            "class_num": config.Arch.class_num,
            "input": {
                "name": INPUTS[0],
                "dtype": "float32",
                "shape": list(shape),
                "image_size": list(size or config.Global.image_shape[1:]),
                "min_size": model.min_size,
            },
        },
        "PreProcess": {"transform_ops": infer.transforms},
        "PostProcess": {"label_list": names, "score_threshold": threshold},
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }
    options: Dict[str, Any] = {"format": request.format} if request.format else {}
    compared, compare = _comparison(reference, batches, request.precision)
    return export_layer(
        _recorded(reference, request, description, size),
        TARGETS[request.to],
        config.Global.save_inference_dir,
        signature,
        compared,
        description,
        request.precision,
        reference=reference,
        compare=compare,
        any_rows=compare is not set_difference,
        images=images,
        **options,
    )


def _recorded(
    reference: ObjectTable,
    request: ExportRequest,
    description: Dict[str, Any],
    size: Optional[Sequence[int]],
) -> Union[nn.Layer, Parts]:
    """What is written of `reference`. Of a model that has parts, for programs that cannot choose
    boxes, Parts, of which `description` tells then.
    """
    if request.to not in IN_PARTS or not hasattr(reference.model, "parts"):
        recorded = export_form(reference)
        return WithTrunk(recorded, TRUNK) if request.precision in UP_TO_TRUNK else recorded
    programs, settings = reference.model.parts(tuple(size or ()))
    description["Model"]["two_stage"] = {
        **settings,
        "programs": {
            package_of(name): {"inputs": _lists(part.inputs), "outputs": list(part.outputs)}
            for name, part in programs.items()
        },
    }
    made = {
        name: (export_form(part.layer), Signature(part.inputs, part.outputs))
        for name, part in programs.items()
    }
    return Parts(made, settings)


def _lists(shapes: Dict[str, Tuple[int, ...]]) -> Dict[str, List[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _comparison(
    reference: ObjectTable, batches: Sequence[Inputs], precision: str
) -> Tuple[Sequence[Inputs], Compare]:
    """On which of `batches`, and how, the files are compared with the model.

    In float32 on those whose objects stay what they are when the image moves by rounding. Where
    scores tie, as an untrained model's do, they do not, and an engine's rounding says what is kept.
    """
    if precision != "fp32":
        return batches, matched_difference
    steady = [inputs for inputs in batches if _is_steady(reference, inputs)]
    if steady:
        return steady, set_difference
    logger.warning(
        "in every image that the files are compared on, scores tie so closely that rounding says "
        "which boxes are kept (an untrained model?): the scores alone are compared"
    )
    return batches, score_difference


def _is_steady(reference: ObjectTable, inputs: Inputs) -> bool:
    """Whether what is found stays the same when the image moves by rounding, and most scores are
    not equal to the next but for rounding.
    """
    exact = eager(reference, Signature({name: () for name in inputs}, OUTPUTS[:1]))
    expected, rng = exact(inputs)[OUTPUTS[0]], np.random.default_rng(0)
    gaps = -np.diff(np.sort(expected[:, 1])[::-1])
    if len(gaps) and (gaps < ROUNDING).mean() > 0.5:
        return False
    for _ in range(MOVES):
        image = inputs[INPUTS[0]]
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        moved = exact({**inputs, INPUTS[0]: image + ROUNDING * np.abs(image).max() * noise})
        if set_difference(moved[OUTPUTS[0]], expected) > TOLERANCES["fp32"]:
            return False
    return True


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
