"""A classification Next-ViT as exported files: its class scores, or its four maps for those who
build detectors on it.
"""

from pathlib import Path

from ...export.graph import Classifier, Features
from ...export.target import Signature, export, sha256_of
from ...export.verify import image_batches, log_probability_difference, relative_difference
from ...models.backbones.nextvit import MIN_INPUT_SIZE

__all__ = ["describe_config", "export_classifier", "export_features"]

INPUT_NAME = "x"
STAGES = ("stage1", "stage2", "stage3", "stage4")


def describe_config(config, preprocess, names, weights):
    """What a description takes from a run: preprocess (Preprocess), names (one per class), weights
    (the path of their file).
    """
    return {
        "Global": {"model_name": config.Arch.name},
        "PreProcess": {"transform_ops": preprocess.describe()},
        "PostProcess": {
            "Topk": {"topk": min(config.Infer.topk, len(names)), "label_list": list(names)}
        },
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }


def export_classifier(
    model,
    target,
    directory,
    description,
    image_size=(224, 224),
    softmax=True,
    batch=None,
    size=None,
    photos=(),
    **options,
):
    """`model`, a NextViT with its weights, as `target`'s files in `directory`; returns Exported.
    See `target.export` for the rest.

    The output is 'probabilities' or, without softmax, 'logits', both [B, num_classes]. description:
    what export.json shall hold beside what is known here (see describe_config). image_size:
    (height, width) meant for use. batch: a number, or None for any.
    size: (height, width), or None for any. photos: float32 [3, H, W], on which the files are
    checked and int8 is calibrated. `model` is left in eval mode. ValueError, ExportError,
    ImportError (a missing extra): nothing was written.
    """
    model.eval()
    signature = _signature(model, batch, size, ("probabilities" if softmax else "logits",))
    description = {
        **description,
        "Model": {
            "class_num": model.num_classes,
            "softmax": softmax,
            "input": _input(signature, image_size),
        },
    }
    return export(
        Classifier(model, softmax),
        target,
        directory,
        signature,
        image_batches(signature, image_size, photos),
        description,
        reference=model,
        compare=log_probability_difference if softmax else relative_difference,
        classes=signature.outputs[0],
        images=photos,
        **options,
    )


def export_features(
    model,
    target,
    directory,
    description,
    image_size=(224, 224),
    batch=None,
    size=None,
    photos=(),
    **options,
):
    """As export_classifier, with four outputs, stage1 to stage4: maps of strides 4, 8, 16, 32."""
    model.eval()
    signature = _signature(model, batch, size, STAGES)
    description = {
        **description,
        "Model": {
            "channels": list(model.stage_channels),
            "strides": list(model.stage_strides),
            "input": _input(signature, image_size),
        },
    }
    features = Features(model)
    return export(
        features,
        target,
        directory,
        signature,
        image_batches(signature, image_size, photos),
        description,
        reference=model.forward_features,
        images=photos,
        **options,
    )


def _signature(model, batch, size, outputs):
    if size and min(size) < MIN_INPUT_SIZE:
        raise ValueError(
            f"the size must be at least {MIN_INPUT_SIZE} x {MIN_INPUT_SIZE} pixels; got {size[0]} "
            f"x {size[1]}"
        )
    return Signature({INPUT_NAME: (batch, model.in_channels, *(size or (None, None)))}, outputs)


def _input(signature, image_size):
    shape = list(signature.inputs[INPUT_NAME])
    return {
        "name": INPUT_NAME,
        "dtype": "float32",
        "shape": shape,
        "image_size": [*(shape[2:] if shape[2] else image_size)],
        "min_size": MIN_INPUT_SIZE,
    }
