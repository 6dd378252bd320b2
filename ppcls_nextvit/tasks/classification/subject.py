"""A classifier as it is looked at."""

from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import paddle
from paddle.nn import functional as F

from ...config import Config
from ...data.transforms.pipeline import Preprocess
from ...schema import ConfigError
from ..common import class_names, trained_model
from ..inputs import InputImage
from ..joint import check_size
from ..results import Result
from ..subject import Evidence, Subject, View, as_picture, check_pixels, with_transforms
from .kind import is_multi_label
from .predict import preprocess_of

__all__ = ["ClassifierSubject", "agreement", "resized"]


class ClassifierSubject(Subject):
    """The classifier of `config` with its weights. ConfigError without weights."""

    def __init__(self, config: Config) -> None:
        self.names = class_names(config)
        self.preprocess = preprocess_of(config)
        transforms = config.section("Infer").transforms
        plain = [op for op in transforms if "NormalizeImage" not in op]
        self.plain = Preprocess(plain, "Infer.transforms")
        self.multi_label = is_multi_label(config)
        self.model, _ = trained_model(config)
        self.backbone = self.model

    def view(self, image: InputImage) -> View:
        """See Subject."""
        array = self.preprocess(image.picture(), name=image.name)
        size = array.shape[1:]
        check_size(size, self.model.min_size, image.name)
        check_pixels(size, image.name)
        picture = as_picture(self.plain(image.picture(), name=image.name))
        return View(paddle.to_tensor(array[None]), picture, (size[0], size[1]))

    def evidence(self, view: View, classes: Optional[Sequence[int]] = None) -> List[Evidence]:
        """The logits of `classes`, or of the best."""
        logits = self.model(view.x)[0]
        shares = (F.sigmoid(logits) if self.multi_label else F.softmax(logits)).numpy()
        chosen = [int(shares.argmax())] if classes is None else classes
        return [Evidence(f"{self.names[c]} {shares[c]:.2f}", c, logits[c]) for c in chosen]


def resized(config: Config, side: int) -> Config:
    """`config` for images of `side` x `side` pixels. ConfigError where no transform makes a
    size.
    """
    return with_transforms(config, side, _scaled)


def _scaled(transform_ops: List[Dict[str, Any]], factor: float) -> List[Dict[str, Any]]:
    """The transforms with the sizes of ResizeImage and CropImage multiplied."""
    sized = ("ResizeImage", "CropImage")
    if not any(name in op for op in transform_ops for name in sized):
        raise ConfigError(
            "transform_ops: no ResizeImage or CropImage, so images come as they are; add one to "
            "compare sizes"
        )
    return [
        {name: _times(arguments, factor) if name in sized else arguments}
        for op in transform_ops
        for name, arguments in op.items()
    ]


def _times(arguments: Dict[str, Any], factor: float) -> Dict[str, Any]:
    return {
        key: np.rint(np.multiply(value, factor)).astype(int).tolist()
        if key in ("size", "resize_short")
        else value
        for key, value in arguments.items()
    }


def agreement(one: Result, other: Result) -> float:
    """1 where two results have the same best class, else 0."""
    best = [result.top(1)[0].class_id for result in (one, other)]  # type: ignore[attr-defined]
    return float(best[0] == best[1])
