"""Mask2Former's matching and losses, both of masks at random points.

Cheng et al. 2022, arXiv:2112.01527, section 3.3; points as in PointRend (Kirillov et al. 2020,
arXiv:1912.08193). Reference: Mask2FormerHead of mmdetection 3. Points are (x, y) in [0, 1) of a
map's outer edges.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ..detectors.matching import assign, image_names, shared_average
from .mask_decoder import Predictions

__all__ = ["PointLosses", "Target", "right_classes", "sample_points", "targets_of"]

VOID = 255  # the label of pixels that are of no class
CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0  # of losses and of matching
NO_CLASS_WEIGHT = 0.1  # of queries that are matched to nothing
EPS = float(np.finfo(np.float32).eps)  # the reference adds it to what losses are divided by

Pairs = Sequence[Tuple[np.ndarray, np.ndarray]]  # of each image (queries, classes)


class Target(NamedTuple):
    """What is to be found in an image: the classes that are there, each with its mask."""

    labels: np.ndarray  # int64 [K], ascending
    masks: Tensor  # [K, H, W] of 0 and 1
    name: str  # what messages call the image


def targets_of(batch: Mapping[str, Any], num_classes: int) -> List[Target]:
    """A Target for each image of a training batch: `segmentation` [B, H, W], classes and 255.

    ValueError, which names the image, for a class that the model does not have.
    """
    targets, kind = [], paddle.get_default_dtype()
    labels = batch["segmentation"].astype("int64")
    for label, name in zip(labels, image_names(batch, len(labels))):
        present = np.unique(label.numpy())
        present = present[present != VOID]
        if len(present) and not 0 <= present[0] <= present[-1] < num_classes:
            raise ValueError(
                f"{name}: a pixel is labelled {present[present >= num_classes][0]}, but the model "
                f"has {num_classes} classes, from 0 on (255 is no class): set Arch.class_num, or "
                f"correct the labels"
            )
        masks = label.unsqueeze(0) == paddle.to_tensor(present).reshape([-1, 1, 1])
        targets.append(Target(present, masks.astype(kind), name))
    return targets


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """maps: [N, C, H, W], points: [N, P, 2] -> bilinear samples [N, C, P]; zero outside."""
    return F.grid_sample(maps, 2 * points.unsqueeze(1) - 1, align_corners=False).squeeze(2)


def matching_costs(logits: Tensor, masks: Tensor, labels: np.ndarray, truth: Tensor) -> np.ndarray:
    """[Q, K]: what matching each query to each class of an image costs: by the class's
    probability, the masks' binary cross entropy and their overlap.

    logits: [Q, classes + 1]; masks: [Q, P], logits at points; labels: int64 [K]; truth: [K, P].
    """
    number, p = truth.shape[1], F.sigmoid(masks)
    chance = F.softmax(logits, axis=-1).index_select(paddle.to_tensor(labels), axis=1)
    # -log of the probability that a point is inside, and that it is outside
    entropy = paddle.matmul(F.softplus(-masks), truth.T) + paddle.matmul(
        F.softplus(masks), (1 - truth).T
    )
    shared = 2 * paddle.matmul(p, truth.T) + 1
    apart = 1 - shared / (p.sum(-1, keepdim=True) + truth.sum(-1) + 1)
    costs = MASK_WEIGHT * entropy / number + DICE_WEIGHT * apart - CLASS_WEIGHT * chance
    return costs.numpy()


class PointLosses:
    """Matches queries to the classes of an image, and measures what is wrong with them.

    num_points: at which masks are compared. oversample_ratio: so many times more are drawn, of
    which the nearest to a mask's edge become `importance_ratio` of the points; the others are
    drawn anew.
    """

    def __init__(self, num_points: int, oversample_ratio: float, importance_ratio: float) -> None:
        if num_points < 1:
            raise ValueError(f"num_points must be 1 or more; got {num_points}")
        if oversample_ratio < 1:
            raise ValueError(f"oversample_ratio must be 1 or more; got {oversample_ratio}")
        if not 0 <= importance_ratio <= 1:
            raise ValueError(f"importance_ratio must be in [0, 1]; got {importance_ratio}")
        self.num_points = num_points
        self.oversampled = int(num_points * oversample_ratio)
        self.important = int(num_points * importance_ratio)

    def __call__(
        self, found: Predictions, targets: Sequence[Target]
    ) -> Tuple[Dict[str, Tensor], Pairs]:
        """({loss_cls, loss_mask, loss_dice}, the pairs) of one set of predictions. The losses are
        over the number of pairs, an average over the processes.

        FloatingPointError, which names the image, for costs of matching that are not finite.
        """
        kind = paddle.get_default_dtype()
        found = Predictions(found.logits.astype(kind), found.masks.astype(kind))
        pairs = self.matched(found, targets)
        number = shared_average(sum(len(queries) for queries, _ in pairs))
        mask, dice = self.mask_losses(found.masks, targets, pairs, number)
        cls = class_loss(found.logits, targets, pairs)
        return {"loss_cls": cls, "loss_mask": mask, "loss_dice": dice}, pairs

    @paddle.no_grad()
    def matched(self, found: Predictions, targets: Sequence[Target]) -> Pairs:
        """The pairs of queries and classes with the lowest total cost, of each image."""
        pairs = []
        for i, target in enumerate(targets):
            points = self.draw([1, self.num_points, 2])
            costs = np.zeros((found.masks.shape[1], 0), np.float32)
            if len(target.labels):
                masks = sample_points(found.masks[i : i + 1], points)[0]
                truth = sample_points(target.masks.unsqueeze(0), points)[0]
                costs = matching_costs(found.logits[i], masks, target.labels, truth)
            pairs.append(assign(costs, target.name))
        return pairs

    def mask_losses(
        self, masks: Tensor, targets: Sequence[Target], pairs: Pairs, number: float
    ) -> Tuple[Tensor, Tensor]:
        """(binary cross entropy, Dice loss) of the matched masks at points. masks: logits [B, Q, h,
        w].
        """
        queries = masks.shape[1]
        rows = np.concatenate([i * queries + own for i, (own, _) in enumerate(pairs)])
        if not len(rows):
            # nothing to find: of these only the gradient, which is 0, is wanted
            nothing = 0 * masks.sum()
            return nothing, nothing
        drawn = masks.flatten(0, 1).index_select(paddle.to_tensor(rows)).unsqueeze(1)
        true = paddle.concat(
            [
                target.masks.index_select(paddle.to_tensor(own))
                for target, (_, own) in zip(targets, pairs)
                if len(own)
            ]
        ).unsqueeze(1)
        points = self.points_near_edges(drawn)
        truth = sample_points(true, points).squeeze(1)
        logits = sample_points(drawn, points).squeeze(1)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum()
        p = F.sigmoid(logits)
        apart = 1 - (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + truth.sum(-1) + 1)
        mask = MASK_WEIGHT * entropy / (number * self.num_points + EPS)
        return mask, DICE_WEIGHT * apart.sum() / (number + EPS)

    @paddle.no_grad()
    def points_near_edges(self, masks: Tensor) -> Tensor:
        """[N, num_points, 2]: those of many random points at which masks, logits [N, 1, h, w], are
        the least sure, and random ones.
        """
        count = masks.shape[0]
        many = self.draw([count, self.oversampled, 2])
        doubt = -sample_points(masks, many).squeeze(1).abs()
        parts = []
        if self.important:
            _, best = paddle.topk(doubt, self.important, axis=1)
            parts.append(paddle.take_along_axis(many, best.unsqueeze(-1), axis=1))
        if self.num_points > self.important:
            parts.append(self.draw([count, self.num_points - self.important, 2]))
        return paddle.concat(parts, axis=1)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Random points of that shape, in [0, 1)."""
        return paddle.rand(shape)


def class_loss(logits: Tensor, targets: Sequence[Target], pairs: Pairs) -> Tensor:
    """Cross entropy of the queries' classes, those of the pairs or none: the weighted mean. logits:
    [B, Q, classes + 1].
    """
    batch, queries, classes = logits.shape
    label = np.full((batch, queries), classes - 1, np.int64)
    for i, (chosen, own) in enumerate(pairs):
        label[i, chosen] = targets[i].labels[own]
    weights = np.where(label == classes - 1, NO_CLASS_WEIGHT, 1.0)
    # by hand: Paddle's own cross entropy on a CPU cuts log-probabilities below -64 off
    own = paddle.take_along_axis(logits, paddle.to_tensor(label).unsqueeze(-1), axis=-1)
    entropy = paddle.logsumexp(logits, axis=-1) - own.squeeze(-1)
    weighted = entropy * paddle.to_tensor(weights.astype(np.float64)).astype(logits.dtype)
    return CLASS_WEIGHT * weighted.sum() / (float(weights.sum()) + EPS)


def right_classes(found: Predictions, targets: Sequence[Target], pairs: Pairs) -> Tuple[int, int]:
    """(matched queries whose best class is their own, matched queries)."""
    right, best = 0, found.logits.argmax(-1).numpy()
    for i, (queries, own) in enumerate(pairs):
        right += int((best[i, queries] == targets[i].labels[own]).sum())
    return right, sum(len(queries) for queries, _ in pairs)
