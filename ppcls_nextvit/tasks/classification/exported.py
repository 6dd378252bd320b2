"""An exported classifier, ready to predict."""

from typing import Any

import numpy as np

from ...data.images import ImageError
from ...data.transforms.pipeline import Preprocess
from ...export.opened import Opened
from ...export.target import DESCRIPTION
from ...export.verify import ExportError
from ...files import parsing
from ..inputs import InputImage
from .kind import MULTI_LABEL
from .predict import ClassPredictor

__all__ = ["exported_predictor"]

BATCH_SIZE = 8


def exported_predictor(opened: Opened) -> ClassPredictor:
    """The program of an exported classifier with its preprocessing and names. ExportError for an
    export of maps (--features).
    """
    where, told = opened.folder / DESCRIPTION, opened.description
    if opened.signature.outputs[:1] not in (("probabilities",), ("logits",)):
        raise ExportError(
            f"{opened.folder}: gives {', '.join(opened.signature.outputs)}, not classes; export "
            f"without --features"
        )
    with parsing(str(where), ExportError):
        several = told["PostProcess"].get(MULTI_LABEL)
        post = told["PostProcess"]["Topk"] if several is None else several
        names, count = [str(name) for name in post["label_list"]], int(post.get("topk", 1))
        threshold = None if several is None else float(several["threshold"])
        least = int(told["Model"]["input"].get("min_size", 1))
        transforms = told["PreProcess"]["transform_ops"]
        ((_, shape),) = opened.signature.inputs.items()
        batch, _, height, width = shape
    preprocess = Preprocess(transforms, f"{where}: transform_ops")
    run = _probabilities(opened, batch)
    return _FixedSize((height, width), run, preprocess, names, count, least, BATCH_SIZE, threshold)


def _probabilities(opened: Opened, size: Any) -> Any:
    """float32 [B, 3, H, W] -> probabilities [B, classes]. size: the only batch that the program
    takes, or None for any.
    """
    # the scores come first, of an export with --attention too
    (name,), (output, *_) = opened.signature.inputs, opened.signature.outputs

    def run(images: np.ndarray) -> np.ndarray:
        step = size or len(images)
        filled = np.pad(images, [(0, -len(images) % step), (0, 0), (0, 0), (0, 0)])
        parts = [
            opened({name: filled[start : start + step]})[output]
            for start in range(0, len(filled), step)
        ]
        found = np.concatenate(parts)[: len(images)]
        return found if output == "probabilities" else _softmax(found)

    return run


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
