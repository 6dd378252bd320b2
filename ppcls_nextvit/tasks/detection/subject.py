"""A detector as it is looked at."""

from typing import Any, List, Optional, Sequence

import numpy as np
import paddle

from ...config import Config
from ..common import class_names, trained_model
from ..inputs import InputImage
from ..joint_subject import joint_view, scaled_joint
from ..results import Result
from ..subject import Evidence, Subject, View, with_transforms
from .predict import check_post_process

__all__ = ["DetectorSubject", "agreement", "resized"]

MOST_OBJECTS = 4  # that are looked at if nobody says of which classes
IOU = 0.5  # from which on two boxes are of one object


class DetectorSubject(Subject):
    """The detector of `config` with its weights. ConfigError without weights."""

    def __init__(self, config: Config) -> None:
        self.names = class_names(config)
        infer = config.section("Infer")
        self.transforms = infer.transforms
        self.threshold = check_post_process(infer.PostProcess)
        self.model, _ = trained_model(config)
        self.backbone = self.model.backbone

    def view(self, image: InputImage) -> View:
        """See Subject."""
        return joint_view(image, self.transforms, self.model)

    def evidence(self, view: View, classes: Optional[Sequence[int]] = None) -> List[Evidence]:
        """The scores of the best objects; or for each of `classes` the sum of its objects', of
        those that are shown.
        """
        shape = paddle.to_tensor([view.shape], dtype="float32")
        (found,) = self.model(view.x, shape, paddle.to_tensor([view.scale], dtype="float32"))
        scores, labels = found.scores.numpy(), found.labels.numpy()
        shown = [i for i in range(len(scores)) if scores[i] >= self.threshold]
        if classes is not None:
            return [self._of_class(c, [i for i in shown if labels[i] == c], found) for c in classes]
        y, x = view.scale
        boxes = found.boxes.numpy() * np.array([x, y, x, y], np.float32)
        return [
            Evidence(
                f"{self.names[labels[i]]} {scores[i]:.2f}",
                int(labels[i]),
                found.scores[i],
                tuple(boxes[i].tolist()),
            )
            for i in shown[:MOST_OBJECTS]
        ]

    def _of_class(self, c: int, objects: Sequence[int], found: Any) -> Evidence:
        title = f"{self.names[c]}, {len(objects)} object{'s' * (len(objects) != 1)}"
        index = paddle.to_tensor(list(objects), dtype="int64")
        # of no object: 0, with a graph
        score = found.scores[index].sum() if objects else found.scores.sum() * 0
        return Evidence(title, c, score)


def resized(config: Config, side: int) -> Config:
    """`config` for images of `side` x `side` pixels."""
    return with_transforms(config, side, lambda ops, factor: scaled_joint(ops, factor, side))


def agreement(one: Result, other: Result) -> float:
    """Twice the objects that two results share over the objects of both (1 where neither has any):
    same class and boxes that overlap by IOU, each counted once.
    """
    left, right = one.top(), other.top()  # type: ignore[attr-defined]
    if not left and not right:
        return 1.0
    taken, matched = set(), 0
    for a in left:
        fits = [
            (_overlap(a.box, b.box), -i)
            for i, b in enumerate(right)
            if i not in taken and a.class_id == b.class_id
        ]
        best, place = max(fits, default=(0.0, 0))
        if best >= IOU:
            taken.add(-place)
            matched += 1
    return 2 * matched / (len(left) + len(right))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / max(sum(areas) - both, 1e-12)
