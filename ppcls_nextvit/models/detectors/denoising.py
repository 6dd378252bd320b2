"""Contrastive denoising: in training, queries made of the true objects with noise, which the
decoder is to undo (near ones) or to reject (far ones).

Zhang et al. 2022 (arXiv:2203.03605), section 3.3; reference: CdnQueryGenerator of mmdetection 3,
whose parameter names these are. Queries stand group by group: the near ones of all objects, then
the far ones. Images with fewer objects than the batch's most leave places empty.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from .boxes import centres_of, inverse_sigmoid

__all__ = ["Denoising", "DenoisingQueries", "Noise"]

REFERENCE_EPS = 1e-3


class Noise(NamedTuple):
    """The random numbers for n objects, all of the batch in order, 2 * groups times over."""

    flip: Tensor  # float32 [n] in [0, 1): below half the label noise, the class changes
    label: Tensor  # int64 [n]: the class that it changes to
    sign: Tensor  # float32 [n, 4], -1 or 1: which way a corner's coordinate goes
    part: Tensor  # float32 [n, 4] in [0, 1): how far, in halves of the box's side


class DenoisingQueries(NamedTuple):
    """Queries [B, D, ...], and where the objects' near ones are."""

    content: Tensor  # [B, D, C]
    reference: Tensor  # [B, D, 4]: boxes (cx, cy, w, h) as logits
    blocked: Tensor  # bool [D + Q, D + Q]: what a query of all (row) must not see
    groups: int
    places: List[np.ndarray]  # of each image int64 [groups * objects]: in [0, D), group by group


class Denoising(nn.Layer):
    """queries: near ones for each image, about; they are shared out in groups.

    label_noise: twice the share of classes that change; box_noise: how far corners move, in halves
    of the box's sides.
    """

    def __init__(
        self, num_classes: int, channels: int, queries: int, label_noise: float, box_noise: float
    ) -> None:
        super().__init__()
        self.num_classes, self.queries = num_classes, queries
        self.label_noise, self.box_noise = label_noise, box_noise
        normal = nn.initializer.Normal(0.0, 1.0)
        self.label_embedding = nn.Embedding(num_classes, channels, weight_attr=normal)

    def draw(self, count: int) -> Noise:
        """New noise for `count` objects."""
        flip = paddle.rand([count])
        label = paddle.randint(0, self.num_classes, [count], "int64")
        sign = paddle.randint(0, 2, [count, 4]).astype("float32") * 2 - 1
        return Noise(flip, label, sign, paddle.rand([count, 4]))

    def forward(
        self, boxes: Sequence[Tensor], labels: Sequence[Tensor], sizes: Tensor, matching: int
    ) -> Optional[DenoisingQueries]:
        """The queries of a batch; None if it has no object.

        boxes: of each image [n, 4], (x1, y1, x2, y2) in pixels; labels: of each int64 [n]; sizes:
        [B, 4], the images' (w, h, w, h). matching: how many queries stand behind these.
        """
        counts = [len(of_image) for of_image in labels]
        if not sum(counts):
            return None
        most = max(counts)
        groups = max(1, self.queries // most)
        noise = self.draw(2 * groups * sum(counts))
        shares = paddle.concat(
            [of_image / size for of_image, size in zip(boxes, sizes) if len(of_image)]
        )
        noisy_labels = self._labels(paddle.concat([x for x in labels if len(x)]), groups, noise)
        noisy_boxes = self._boxes(shares, groups, noise)
        places = _places(counts, groups)
        total, channels = 2 * groups * most, self.label_embedding.weight.shape[1]
        batch = np.concatenate([np.full(count, i) for i, count in enumerate(counts)])
        flat = paddle.to_tensor((batch * total + places).reshape(-1))

        def placed(values: Tensor) -> Tensor:
            empty = paddle.zeros([len(counts) * total, values.shape[-1]], values.dtype)
            return paddle.scatter(empty, flat, values).reshape([len(counts), total, -1])

        near = places[0::2]  # [groups, objects]
        return DenoisingQueries(
            placed(self.label_embedding(noisy_labels)).reshape([len(counts), total, channels]),
            placed(noisy_boxes),
            _blocked(total, groups, matching),
            groups,
            [near[:, batch == i].reshape(-1) for i in range(len(counts))],
        )

    def _labels(self, labels, groups, noise):
        """int64 [2 * groups * objects]: some changed."""
        repeated = labels.tile([2 * groups])
        return paddle.where(noise.flip < self.label_noise * 0.5, noise.label, repeated)

    def _boxes(self, boxes, groups, noise):
        """[2 * groups * objects, 4] as logits: corners moved, by less than half a side (near) or by
        up to a whole one (far).

        boxes: [objects, 4], (x1, y1, x2, y2) as shares of their image.
        """
        count = len(boxes)
        far = paddle.arange(2 * groups * count) // count % 2
        part = (noise.part + far.unsqueeze(1).astype(noise.part.dtype)) * noise.sign
        boxes = boxes.tile([2 * groups, 1])
        half = (boxes[:, 2:] - boxes[:, :2]).tile([1, 2]) * 0.5
        noisy = paddle.clip(boxes + part.astype(boxes.dtype) * half * self.box_noise, 0, 1)
        return inverse_sigmoid(centres_of(noisy), REFERENCE_EPS)


def _places(counts, groups):
    """int64 [2 * groups, objects of all images]: the query, within its image, of each."""
    own = np.concatenate([np.arange(count) for count in counts])
    return own + max(counts) * np.arange(2 * groups)[:, None]


def _blocked(total, groups, matching):
    """bool [total + matching, total + matching]: the matched queries do not see these, nor does one
    group another; all see the matched ones.
    """
    group = np.append(np.arange(total) // (total // groups), np.full(matching, -1))
    return paddle.to_tensor((group[None] >= 0) & (group[:, None] != group[None]))
