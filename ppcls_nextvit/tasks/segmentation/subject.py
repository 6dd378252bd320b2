"""A segmentor as it is looked at."""

from typing import List, Optional, Sequence

import numpy as np

from ...config import Config
from ..common import class_names, trained_model
from ..inputs import InputImage
from ..joint_subject import joint_view, scaled_joint
from ..results import Result
from ..subject import Evidence, Subject, View, with_transforms

__all__ = ["SegmentorSubject", "agreement", "resized"]

MOST_CLASSES = 4  # that are looked at if nobody says which


class SegmentorSubject(Subject):
    """The segmentor of `config` with its weights, which sees images whole. ConfigError without
    weights.
    """

    def __init__(self, config: Config) -> None:
        self.names = class_names(config)
        self.transforms = config.section("Infer").transforms
        self.model, _ = trained_model(config)
        self.backbone = self.model.backbone

    def view(self, image: InputImage) -> View:
        """See Subject."""
        return joint_view(image, self.transforms, self.model)

    def evidence(self, view: View, classes: Optional[Sequence[int]] = None) -> List[Evidence]:
        """For each of `classes`, or of the largest in the image, the mean of its logits over the
        pixels that have the class; over all where none has.
        """
        height, width = view.shape
        logits = self.model(view.x)[0, :, :height, :width].flatten(1)  # [classes, N]
        labels = logits.argmax(axis=0)
        counts = np.bincount(labels.numpy(), minlength=len(self.names))
        largest = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
        chosen = [int(c) for c in largest if counts[c]] if classes is None else classes
        found = []
        for c in chosen:
            of_class = (labels == c).astype(logits.dtype)
            score = (logits[c] * of_class).sum() / counts[c] if counts[c] else logits[c].mean()
            share = 100 * counts[c] / labels.size
            found.append(Evidence(f"{self.names[c]} ({share:.0f} %)", c, score))
        return found


def resized(config: Config, side: int) -> Config:
    """`config` for images of `side` x `side` pixels."""
    return with_transforms(config, side, lambda ops, factor: scaled_joint(ops, factor, side))


def agreement(one: Result, other: Result) -> float:
    """The share of the pixels that two results give the same class."""
    return float((one.labels == other.labels).mean())  # type: ignore[attr-defined]
