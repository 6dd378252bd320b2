"""A segmentor as exported files: the label of every pixel, and the class scores they come from."""

from pathlib import Path

from paddle import nn

from ...data.images import decode_image
from ...export import TARGETS
from ...models.forms import export_form
from ...export.target import Signature
from ...weights.digest import sha256_of
from ...export.target import export as export_layer
from ...export.verify import image_batches, relative_difference
from ...models.backbones.nextvit import MIN_INPUT_SIZE
from ...models.segmentors.heads import resize_like
from ...models.segmentors.inference import Inference
from ..common import class_names, trained_model
from .views import Views

__all__ = ["LabelMap", "export", "export_segmentor"]

INPUT_NAME = "x"
OUTPUTS = ("labels", "logits")


class LabelMap(nn.Layer):
    """image [B, C, H, W] -> labels int32 [B, H, W] and logits [B, num_classes, H / 4, W / 4], of
    the whole image, not mirrored.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image):
        """image: [B, C, H, W] -> labels int32 [B, H, W], logits [B, num_classes, H / 4, W / 4]."""
        logits = self.model.decode(image)
        return resize_like(logits, image).argmax(axis=1).astype("int32"), logits


def difference(output, expected):
    """Of labels [B, H, W] the share of pixels that differ, of logits their relative difference."""
    return (
        float((output != expected).mean())
        if expected.ndim == 3
        else relative_difference(output, expected)
    )


def export_segmentor(
    model,
    target,
    directory,
    description,
    image_size=(512, 512),
    batch=None,
    size=None,
    photos=(),
    **options,
):
    """`model`, a Segmentor with its weights, as `target`'s files in `directory`; returns Exported.
    See export.target.export for the rest.

    description: what export.json shall hold beside what is known here. image_size: (height, width)
    meant for use. batch: a number, or None
    for any. size: (height, width), or None for any. photos: float32 [3, H, W], on which the files
    are checked too. `model` is left in eval mode. ValueError, ExportError, ImportError (a missing
    extra): nothing was written.
    """
    if size and min(size) < MIN_INPUT_SIZE:
        raise ValueError(
            f"the size must be at least {MIN_INPUT_SIZE} x {MIN_INPUT_SIZE} pixels; got {size[0]} "
            f"x {size[1]}"
        )
    model.eval()
    signature = Signature(
        {INPUT_NAME: (batch, model.in_channels, *(size or (None, None)))}, OUTPUTS, MIN_INPUT_SIZE
    )
    description = {
        **description,
        "Model": {
            "class_num": model.num_classes,
            "input": {
                "name": INPUT_NAME,
                "dtype": "float32",
                "shape": list(signature.inputs[INPUT_NAME]),
                "image_size": list(size or image_size),
                "min_size": MIN_INPUT_SIZE,
            },
        },
    }
    batches = image_batches(signature, image_size, photos)
    return export_layer(
        LabelMap(export_form(model)),
        target,
        directory,
        signature,
        batches,
        description,
        reference=LabelMap(model),
        compare=difference,
        images=photos,
        **options,
    )


def export(config, to="paddle", batch=None, size=None, photos=(), **options):
    """The segmentor of `config` with its weights, written into Global.save_inference_dir; returns
    Exported.

    to: a name of export.TARGETS. photos: image files. Windows, scales and mirroring
    (Arch.inference) are left to the program that uses the files.
    """
    model, weights = trained_model(config)
    names, transforms = class_names(config), config.section("Infer").transforms
    views = Views(transforms, Inference(), "Infer.transforms")
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
    return export_segmentor(
        model,
        TARGETS[to],
        config.Global.save_inference_dir,
        description,
        config.Global.image_shape[1:],
        batch,
        size,
        prepared,
        **options,
    )
