"""What is in an image whose pixels have classes. Needs numpy; the same file lies in deploy/python
and deploy/serving.
"""

from typing import Sequence

import numpy as np
from objects import coco_counts


def class_areas(labels: np.ndarray, names: Sequence[str]) -> list[dict]:
    """[{class_id, label_name, pixels, share}, ...] of the classes in `labels`, largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(names))[: len(names)]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [
        {
            "class_id": i,
            "label_name": names[i],
            "pixels": int(counts[i]),
            "share": float(counts[i] / labels.size),
        }
        for i in order
    ]


def told_classes(labels: np.ndarray, names: Sequence[str], with_masks: bool = True) -> list[dict]:
    """`class_areas`, each with its mask {size, counts}, COCO's compressed run lengths, if any."""
    areas = class_areas(labels, names)
    if not with_masks:
        return areas
    height, width = labels.shape
    column = labels.T.reshape(-1)
    starts = np.append(0, np.flatnonzero(column[1:] != column[:-1]) + 1)
    ends = np.append(starts[1:], column.size)
    of_run = column[starts]
    for area in areas:
        mine = of_run == area["class_id"]
        counts = coco_counts(starts[mine], ends[mine], column.size)
        area["mask"] = {"size": [height, width], "counts": counts}
    return areas
