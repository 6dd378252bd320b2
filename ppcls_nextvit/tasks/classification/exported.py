"""An exported classifier, ready to predict, and to be evaluated."""

from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ...data.images import ImageError
from ...data.transforms.pipeline import Preprocess
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError
from ...files import parsing
from ..exported import any_batch, description_of
from ..inputs import InputImage
from .kind import MULTI_LABEL
from .predict import ClassPredictor

__all__ = ["ExportedClassifier", "exported_predictor"]

BATCH_SIZE = 8
TINY = np.finfo(np.float32).tiny  # the least probability whose logarithm is taken
NEXT_TO_ONE = 1 - np.finfo(np.float32).epsneg


def exported_predictor(opened: Opened) -> ClassPredictor:
    """The program of an exported classifier with its preprocessing and names. ExportError for an
    export of maps (--features).
    """
    where, told = opened.folder / DESCRIPTION, description_of(opened)
    output = _scores(opened)
    with parsing(str(where), ExportError):
        count = int(told.post.get("topk", 1))
        threshold = float(told.post["threshold"]) if _is_multi_label(told.post) else None
        ((name, (_, _, *size)),) = opened.signature.inputs.items()
    preprocess = Preprocess(told.transforms, f"{where}: transform_ops")
    program = any_batch(opened)

    def run(images: np.ndarray) -> np.ndarray:
        found = program({name: images})[output]
        return found if output == "probabilities" else _softmax(found)

    least = told.min_size
    return _FixedSize(tuple(size), run, preprocess, told.names, count, least, BATCH_SIZE, threshold)


class ExportedClassifier:
    """An exported program in the place of the classifier that it came from."""

    def __init__(self, opened: Opened) -> None:
        self.output = _scores(opened)
        self.several = _is_multi_label(description_of(opened).post)
        (self.name,) = opened.signature.inputs
        self.program = any_batch(opened)

    def eval(self) -> None:
        """An export is in no other mode."""

    def __call__(self, images: Tensor) -> Tensor:
        """images: [B, C, H, W] -> logits [B, num_classes], of probabilities those that give
        them.
        """
        found = self.program({self.name: images.numpy()})[self.output].astype(np.float32)
        if self.output == "probabilities":
            kept = np.clip(found, TINY, NEXT_TO_ONE if self.several else None)
            found = np.log(kept) - (np.log1p(-kept) if self.several else 0)
        return paddle.to_tensor(found)


def _scores(opened: Opened) -> str:
    """The output with the scores, which come first, of an export with --attention too."""
    output = opened.signature.outputs[0]
    if output not in ("probabilities", "logits"):
        raise ExportError(
            f"{opened.folder}: gives {', '.join(opened.signature.outputs)}, not classes; export "
            f"without --features"
        )
    return output


def _is_multi_label(post: Any) -> bool:
    return post.get("name") == MULTI_LABEL


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


class _FixedSize(ClassPredictor):
    """A ClassPredictor whose program may take one size (height, width) alone; None: any."""

    def __init__(self, size: Any, *given: Any) -> None:
        super().__init__(*given)
        self.size = size

    def _input(self, image: InputImage) -> np.ndarray:
        array = super()._input(image)
        if self.size[0] is not None and array.shape[1:] != self.size:
            raise ImageError(
                f"{image.name}: {array.shape[1]} x {array.shape[2]} pixels after preprocessing; "
                f"the exported program takes {self.size[0]} x {self.size[1]}"
            )
        return array
