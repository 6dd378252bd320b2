"""Which places speak for a class: Grad-CAM, HiResCAM and Eigen-CAM.

Selvaraju et al. 2017, arXiv:1610.02391; Draelos and Carin 2020, arXiv:2011.08891; Muhammad and
Yeasin 2020, arXiv:2008.00299. Of a segmentor the score is the mean over the pixels of the class
(Vinogradova et al. 2020, arXiv:2002.11434), of a detector an object's. That hangs on the features
of one place, which Grad-CAM's channel weights, means over all places, do not tell: HiResCAM does.
"""

from typing import Any, Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle

from ..tasks.subject import Evidence, Subject, View
from .explanation import rounded
from .looking import held, watched_maps

__all__ = ["METHODS", "ClassMap", "class_maps", "eigen_cam", "grad_cam", "hires_cam"]

METHODS = ("grad", "hires", "eigen")
# the coarsest map of so many cells a side is looked at; that of a classifier of 224 pixels has as
# many in its last stage
CELLS = 7


class ClassMap(NamedTuple):
    """evidence: of what; None for Eigen-CAM, which knows no class. values: float32 [h, w], 0 or
    more. stage: whose map this is, from 1.
    """

    evidence: Optional[Evidence]
    values: np.ndarray
    stage: int

    def numbers(self) -> Dict[str, Any]:
        """What JSON says."""
        told: Dict[str, Any] = {"stage": self.stage, "map": rounded(self.values)}
        if self.evidence is not None:
            one = self.evidence
            told |= {
                "class_id": one.class_id,
                "title": one.title,
                "score": rounded(one.score.item()),
            }
            if one.box is not None:
                told["box"] = rounded(one.box)
        return told


def grad_cam(features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """features, gradient of a score to them: [C, h, w] -> [h, w], 0 or more: channels weighted by
    their mean gradients.
    """
    weights = gradient.mean((1, 2))
    return np.maximum(np.tensordot(weights, features, 1), 0)


def hires_cam(features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """features, gradient of a score to them: [C, h, w] -> [h, w], 0 or more: each value times its
    own gradient, summed over channels.
    """
    return np.maximum((gradient * features).sum(0), 0)


def eigen_cam(features: np.ndarray) -> np.ndarray:
    """[C, h, w] -> [h, w], 0 or more: the tokens' shares of their first right singular vector, not
    centred; of its two signs the one in which more is positive.
    """
    tokens = features.reshape(len(features), -1).T.astype(np.float64)
    _, vectors = np.linalg.eigh(tokens.T @ tokens)
    projected = tokens @ vectors[:, -1]
    if projected.sum() < 0:
        projected = -projected
    return np.maximum(projected, 0).reshape(features.shape[1:]).astype(np.float32)


def chosen_stage(sizes: Sequence[Tuple[int, int]], stage: Optional[int]) -> int:
    """The stage, from 1, whose map is looked at: the one asked for, else the last of CELLS a side
    or more, else the first. ValueError for one that is not there.
    """
    if stage is not None and not 1 <= stage <= len(sizes):
        raise ValueError(f"stage: must be from 1 to {len(sizes)}, got {stage}")
    if stage is not None:
        return stage
    fine = [i for i, size in enumerate(sizes, 1) if min(size) >= CELLS]
    return fine[-1] if fine else 1


def class_maps(
    subject: Subject,
    view: View,
    classes: Optional[Sequence[int]] = None,
    method: Optional[Literal["grad", "hires", "eigen"]] = None,
    stage: Optional[int] = None,
) -> List[ClassMap]:
    """The maps of what a model says of a view: of `classes`, or of those (of a detector, the
    objects) that it finds. method: None is 'hires' for an object, else 'grad'. Of 'eigen' one map
    of all. stage: see chosen_stage.

    Eigen-CAM needs no gradient; for the others memory is that of the heads and of one block.
    """
    if method not in (None, *METHODS):
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    backbone: Any = subject.backbone
    if method == "eigen":
        with paddle.no_grad():
            maps = backbone.forward_features(view.x)
        place = chosen_stage([tuple(m.shape[2:]) for m in maps], stage)
        return [ClassMap(None, eigen_cam(maps[place - 1][0].numpy()), place)]
    x = view.x.detach().clone()
    x.stop_gradient = False
    with held(subject.model, backbone), watched_maps(backbone) as maps:
        found = subject.evidence(view._replace(x=x), classes)
        place = chosen_stage([tuple(m.shape[2:]) for m in maps], stage)
        features = maps[place - 1]
        gradients = [
            paddle.grad(one.score, features, retain_graph=True, allow_unused=True)[0]
            for one in found
        ]
    array = features[0].numpy()
    none = np.zeros_like(array)
    arrays = [none if gradient is None else gradient[0].numpy() for gradient in gradients]
    return [
        ClassMap(one, _formula(method, one)(array, gradient), place)
        for one, gradient in zip(found, arrays)
    ]


def _formula(method: Optional[str], one: Evidence) -> Any:
    """What makes a map of features and gradient."""
    chosen = method or ("grad" if one.box is None else "hires")
    return hires_cam if chosen == "hires" else grad_cam
