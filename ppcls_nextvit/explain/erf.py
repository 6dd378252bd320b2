"""Effective receptive fields: which pixels the centre of a stage's map depends on, and how much.

Luo et al. 2016, arXiv:1701.04128; measured as in Ding et al. 2022 (RepLKNet), arXiv:2203.06717: the
positive part of the gradient of the centre's activations to the image, summed over channels and
images.
"""

from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ..models.api import Backbone
from .looking import held

__all__ = ["SHARES", "Area", "areas", "receptive_fields"]

SHARES = (0.2, 0.3, 0.5, 0.99)


class Area(NamedTuple):
    """How much of an image holds a `share` of a field. contour: the share of its pixels, the
    strongest. square: the share of it that the smallest square around its centre covers, what the
    papers' tables print. side: of that square, in pixels, before the image's border cuts it.
    centre: its middle, (row, column).
    """

    share: float
    contour: float
    square: float
    side: int
    centre: Tuple[int, int]


def receptive_fields(
    backbone: Backbone,
    images: Iterable[Tensor],
    told: Optional[Callable[[], Any]] = None,
) -> List[np.ndarray]:
    """For each stage float64 [H, W]: the mean over `images`, each [1, C, H, W] of one size, of what
    the centre of the stage's map (the cell at half its height and width) takes from each pixel.

    told: called after each image. ValueError where there is no image, or one of another size.
    """
    sums: List[Any] = []
    count, size = 0, None
    for image in images:
        if size is not None and list(image.shape[2:]) != size:
            raise ValueError(
                f"receptive fields are means over images of one size; got {size[0]} x {size[1]} "
                f"and {image.shape[2]} x {image.shape[3]} pixels"
            )
        size = list(image.shape[2:])
        fields = _fields(backbone, image)
        sums = fields if not sums else [a + b for a, b in zip(sums, fields)]
        count += 1
        if told:
            told()
    if not count:
        raise ValueError("receptive fields need one image or more")
    return [field / count for field in sums]


def _fields(backbone: Any, image: Tensor) -> List[np.ndarray]:
    x = image.detach().clone()
    x.stop_gradient = False
    with held(backbone, backbone):
        maps = backbone.forward_features(x)
        centres = [F.relu(m[:, :, m.shape[2] // 2, m.shape[3] // 2]).sum() for m in maps]
        gradients = [
            paddle.grad(centre, x, retain_graph=centre is not centres[-1], allow_unused=True)[0]
            for centre in centres
        ]
    return [
        np.zeros(x.shape[2:])
        if gradient is None
        else np.maximum(gradient[0].numpy().astype(np.float64), 0).sum(0)
        for gradient in gradients
    ]


def areas(field: np.ndarray, shares: Sequence[float] = SHARES) -> Dict[float, Area]:
    """{share: Area} of a field [H, W]. All 0 for a field that is.

    Squares stand around the image's centre, as in the papers, whose maps have an even number of
    cells a side: of an odd one the middle cell looks half a stride beside it.
    """
    total = field.sum()
    centre = (field.shape[0] // 2, field.shape[1] // 2)
    if not total > 0:
        return {share: Area(share, 0.0, 0.0, 0, centre) for share in shares}
    rising = np.cumsum(np.sort(field, axis=None)[::-1]) / total
    inside = _in_squares(field, centre) / total
    found = {}
    for share in shares:
        # what rounding takes from the last pixels is none
        needed = share * (1 - 1e-9)
        contour = (int(np.searchsorted(rising, needed)) + 1) / field.size
        reach = int(np.searchsorted(inside, needed))
        found[share] = Area(
            share, contour, _covered(field.shape, centre, reach), 2 * reach + 1, centre
        )
    return found


def _in_squares(field: np.ndarray, centre: Sequence[int]) -> np.ndarray:
    """Sums of the field within 0, 1, 2, ... pixels around the centre, in height and width."""
    rows, columns = (np.abs(np.arange(side) - c) for side, c in zip(field.shape, centre))
    distance = np.maximum(rows[:, None], columns[None, :])
    return np.cumsum(np.bincount(distance.ravel(), field.ravel()))


def _covered(size: Sequence[int], centre: Sequence[int], reach: int) -> float:
    """The share of an image of `size` within `reach` of the centre."""
    sides = [min(c + reach, side - 1) - max(c - reach, 0) + 1 for side, c in zip(size, centre)]
    return sides[0] * sides[1] / (size[0] * size[1])
