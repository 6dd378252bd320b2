"""A classification Next-ViT as exported files: its class scores, or its four maps for those who
build detectors on it.
"""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ...config import Config
from ...data.transforms.pipeline import Preprocess
from ...export import TARGETS
from ...export.target import Exported, Signature, Target
from ...export.target import export as export_layer
from ...export.verify import (
    Compare,
    image_batches,
    log_probability_difference,
    relative_difference,
)
from ...models.forms import export_form
from ...schema import ConfigError
from ...weights.digest import sha256_of
from ..base import ExportRequest
from ..common import class_names, compared_photos, trained_model
from .attending import (
    ATTENTION,
    WithAttention,
    check_target,
    compared_apart,
    describe_attention,
)
from .kind import MULTI_LABEL, is_multi_label
from .predict import preprocess_of

__all__ = [
    "Classifier",
    "Features",
    "describe_config",
    "export",
    "export_classifier",
    "export_features",
]

INPUT_NAME = "x"
STAGES = ("stage1", "stage2", "stage3", "stage4")
# run by the programs that know what several labels an image are: api/, deploy/python
MULTI_LABEL_TARGETS = ("paddle", "onnx", "openvino")


class Classifier(nn.Layer):
    """The export form of a classifier with a head: images [B, C, H, W] -> logits or, with `softmax`
    or, of each class by itself, `sigmoid`, probabilities, [B, num_classes].
    """

    def __init__(self, model: nn.Layer, softmax: bool = False, sigmoid: bool = False) -> None:
        super().__init__()
        if not model.num_classes:
            raise ValueError(
                "the model has no head, so there are no classes to export; export its feature "
                "maps (--features)"
            )
        self.body = export_form(model)
        self.softmax = softmax
        self.sigmoid = sigmoid
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, num_classes]."""
        logits = self.body.forward_head(self.body.forward_features(x))
        if self.sigmoid:
            # as a softmax, for Paddle's own sigmoid (3.3.1) is not recorded in a .pdmodel
            pair = paddle.stack([logits, 0 * logits], axis=-1)
            return F.softmax(pair, axis=-1)[..., 0]
        return F.softmax(logits, axis=-1) if self.softmax else logits


class Features(nn.Layer):
    """The export form of a classifier's or backbone's maps: images [B, C, H, W] -> four maps (see
    models.api.Backbone).
    """

    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.body = export_form(model)
        self.eval()

    def forward(self, x: Tensor) -> List[Tensor]:
        """x: [B, C, H, W] -> four maps [B, C_i, H / stride_i, W / stride_i]."""
        return self.body.forward_features(x)


def export(config: Config, request: ExportRequest) -> Exported:
    """The classifier of `config` with its weights, or with `request.features` its stages' maps,
    written into Global.save_inference_dir.

    ConfigError, ValueError, ExportError, ImageError, ImportError (a missing extra): nothing was
    written.
    """
    target, size = TARGETS[request.to], request.size
    if request.attention:
        check_target(request.to, request.features)
    several = is_multi_label(config) and not request.features
    if several and request.to not in MULTI_LABEL_TARGETS:
        raise ConfigError(
            f"{config.path}: a classifier of several labels an image goes to "
            f"{', '.join(MULTI_LABEL_TARGETS)}; the programs for {request.to} tell one"
        )
    if size is None and not request.any_size and not target.dynamic_size:
        size = config.Global.image_shape[1:]
    names, preprocess = class_names(config), preprocess_of(config)
    photos = [preprocess(str(path)) for path in compared_photos(request.photos)]
    model, weights = trained_model(config)
    options: Dict[str, Any] = {
        "precision": request.precision,
        "batch": request.batch,
        "size": size,
        "photos": photos,
        "image_size": config.Global.image_shape[1:],
        **({"format": request.format} if request.format else {}),
    }
    where = config.Global.save_inference_dir
    description = describe_config(config, preprocess, names, weights)
    if request.features:
        return export_features(model, target, where, description, **options)
    softmax = config.Arch.infer_add_softmax
    return export_classifier(
        model,
        target,
        where,
        description,
        softmax=softmax,
        sigmoid=several,
        attention=request.attention,
        **options,
    )


def describe_config(
    config: Config, preprocess: Preprocess, names: Sequence[str], weights: Union[str, Path]
) -> Dict[str, Any]:
    """What a description takes from a run: preprocess (Preprocess), names (one per class), weights
    (the path of their file). ConfigError for a model of grey pictures.
    """
    channels = config.Global.image_shape[0]
    if channels != 3:
        raise ConfigError(
            f"{config.path}: Global.image_shape: exports are given pictures of 3 channels by the "
            f"programs that run them; this model takes {channels}"
        )
    infer = config.section("Infer")
    post = {"Topk": {"topk": min(infer.topk, len(names)), "label_list": list(names)}}
    if is_multi_label(config):
        # by another name, so that a program which tells one label refuses it
        post = {MULTI_LABEL: {"threshold": infer.threshold, "label_list": list(names)}}
    return {
        "Global": {"model_name": config.Arch.name},
        "PreProcess": {"transform_ops": preprocess.describe()},
        "PostProcess": post,
        "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)},
    }


def export_classifier(
    model: nn.Layer,
    target: Target,
    directory: Union[str, Path],
    description: Dict[str, Any],
    image_size: Tuple[int, int] = (224, 224),
    softmax: bool = True,
    batch: Optional[int] = None,
    size: Optional[Tuple[int, int]] = None,
    photos: Sequence[np.ndarray] = (),
    sigmoid: bool = False,
    attention: bool = False,
    **options: Any,
) -> Exported:
    """`model`, a NextViT with its weights, as `target`'s files in `directory`; returns Exported.
    See `target.export` for the rest.

    The output is 'probabilities' or, without softmax, 'logits', both [B, num_classes]. sigmoid, in
    place of softmax: probabilities of each class by itself, of several labels an image. attention:
    a further output, see attending.WithAttention.
    description: what export.json shall hold beside what is known here (see describe_config).
    image_size: (height, width) meant for use. batch: a number, or None for any.
    size: (height, width), or None for any. photos: float32 [3, H, W], on which the files are
    checked and int8 is calibrated. `model` is left in eval mode. ValueError, ExportError,
    ImportError (a missing extra): nothing was written.
    """
    model.eval()
    output = "probabilities" if softmax or sigmoid else "logits"
    outputs = (output, ATTENTION) if attention else (output,)
    signature = _signature(model, batch, size, outputs)
    compare: Compare = log_probability_difference if softmax else relative_difference
    compare = logit_difference if sigmoid else compare
    layer: nn.Layer = Classifier(model, softmax, sigmoid)
    reference = model
    more = {}
    if attention:
        layer, reference = WithAttention(layer, layer.body), WithAttention(model, model)
        compare = compared_apart(compare)
        more = {"attention": describe_attention(model, size)}
    description = {
        **description,
        "Model": {
            "task": "classification",
            "class_num": model.num_classes,
            **({"sigmoid": True} if sigmoid else {"softmax": softmax}),
            "input": _input(model, signature, image_size),
            **more,
        },
    }
    return export_layer(
        layer,
        target,
        directory,
        signature,
        image_batches(signature, image_size, photos),
        description,
        reference=reference,
        compare=compare,
        classes=signature.outputs[0],
        images=photos,
        **options,
    )


def logit_difference(probabilities: np.ndarray, logits: np.ndarray) -> float:
    """max |logit of probabilities - logits| / max |logits|, both [B, classes], where float32 tells
    probabilities apart.
    """
    least = 1e-6  # of both ends
    found = np.clip(probabilities, least, 1 - least)
    expected = np.clip(logits, np.log(least), -np.log(least))
    difference = np.abs(np.log(found) - np.log1p(-found) - expected).max()
    return float(difference / max(np.abs(logits).max(), 1.0))


def export_features(
    model: nn.Layer,
    target: Target,
    directory: Union[str, Path],
    description: Dict[str, Any],
    image_size: Tuple[int, int] = (224, 224),
    batch: Optional[int] = None,
    size: Optional[Tuple[int, int]] = None,
    photos: Sequence[np.ndarray] = (),
    **options: Any,
) -> Exported:
    """As export_classifier, with four outputs, stage1 to stage4: maps of strides 4, 8, 16, 32."""
    model.eval()
    signature = _signature(model, batch, size, STAGES)
    description = {
        **description,
        "Model": {
            "task": "classification",
            "channels": list(model.stage_channels),
            "strides": list(model.stage_strides),
            "input": _input(model, signature, image_size),
        },
    }
    features = Features(model)
    return export_layer(
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
    if size and min(size) < model.min_size:
        raise ValueError(
            f"the size must be at least {model.min_size} x {model.min_size} pixels; got {size[0]} "
            f"x {size[1]}"
        )
    shape = (batch, model.in_channels, *(size or (None, None)))
    return Signature({INPUT_NAME: shape}, outputs, model.min_size)


def _input(model, signature, image_size):
    shape = list(signature.inputs[INPUT_NAME])
    return {
        "name": INPUT_NAME,
        "dtype": "float32",
        "shape": shape,
        "image_size": [*(shape[2:] if shape[2] else image_size)],
        "min_size": model.min_size,
    }
