"""A detector as exported files: one image in, its objects out, suppression included; any image
size.
"""

from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from ...data.images import decode_image
from ...export import TARGETS
from ...export.graph import export_form
from ...export.target import Signature
from ...weights.digest import sha256_of
from ...export.target import export as export_layer
from ...export.verify import ExportError
from ..common import class_names, images_of, trained_model
from .predict import check_post_process, model_inputs, transforms_of

__all__ = ["Detector", "export", "set_difference"]

# the inputs are PaddleDetection's
INPUTS, OUTPUTS = ("image", "im_shape", "scale_factor"), ("objects", "masks")
# to compare on, if none are given
PHOTOS = 4


class Detector(nn.Layer):
    """`model` for one image -> objects [n, 6], each (label, score, x1, y1, x2, y2), and their masks
    [n, 28, 28].

    image: [1, 3, H, W]; im_shape: [1, 2], its (height, width) before padding; scale_factor: [1, 2],
    the (y, x) factors of its resize. All are float32. Boxes are in pixels of the original image; a
    mask is probabilities on a grid over its box (see masks.paste).
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image, im_shape, scale_factor):
        """image [1, 3, H, W], im_shape [1, 2], scale_factor [1, 2] -> objects [n, 6], masks [n, 28,
        28]; n may be 0.
        """
        (found,) = self.model(image, im_shape, scale_factor)
        numbers = paddle.stack([found.labels.astype("float32"), found.scores], axis=-1)
        return paddle.concat([numbers, found.boxes], axis=-1), found.masks


def set_difference(output, expected):
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


def export(config, to="paddle", batch=None, size=None, photos=(), **options):
    """The detector of `config` with its weights, written into Global.save_inference_dir; returns
    Exported.

    to: a name of export.TARGETS. batch: 1 or None; the program takes one image. size: (height,
    width) of the padded image, multiples of
    32, or None for any. photos: image files on which the files are compared with the model; by
    default the first of Infer.infer_imgs. ConfigError, ValueError, ExportError, ImageError,
    ImportError (a missing extra): nothing was written.
    """
    if batch not in (None, 1):
        raise ValueError(f"an exported detector takes one image at a time; got a batch of {batch}")
    infer = config.section("Infer")
    paths = list(photos) or images_of(config)[:PHOTOS]
    names, threshold, transforms = (
        class_names(config),
        check_post_process(infer.PostProcess),
        transforms_of(config),
    )
    model, weights = trained_model(config)
    reference, batches, found = Detector(model), [], 0
    for path in paths:
        inputs = dict(zip(INPUTS, model_inputs(decode_image(str(path)), transforms, str(path))))
        inputs["image"] = _padded(inputs["image"], size or inputs["image"].shape[2:], path)
        with paddle.no_grad():
            found += len(reference(*map(paddle.to_tensor, inputs.values()))[0])
        batches.append(inputs)
    if not found:
        raise ExportError(
            f"the model finds nothing in {paths[0]} (of {len(paths)}), so the files could not be "
            f"compared with it; give "
            "photos with objects"
        )
    signature = Signature(
        {
            "image": (1, model.in_channels, *(size or (None, None))),
            "im_shape": (1, 2),
            "scale_factor": (1, 2),
        },
        OUTPUTS,
    )
    description = {
        "Global": {"model_name": config.Arch.name},
        "PreProcess": {"transform_ops": infer.transforms},
        "PostProcess": {"label_list": names, "score_threshold": threshold},
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }
    return export_layer(
        export_form(reference),
        TARGETS[to],
        config.Global.save_inference_dir,
        signature,
        batches,
        description,
        reference=reference,
        compare=set_difference,
        **options,
    )


def _padded(image, size, name):
    missing = [wanted - side for wanted, side in zip(size, image.shape[2:])]
    if min(missing) < 0:
        raise ExportError(
            f"{name}: {image.shape[2]} x {image.shape[3]} pixels when transformed, more than the "
            f"{size[0]} x {size[1]} of "
            "the exported program"
        )
    return np.pad(image, [(0, 0), (0, 0), (0, missing[0]), (0, missing[1])])
