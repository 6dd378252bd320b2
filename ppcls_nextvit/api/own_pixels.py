"""What is wrong with the label PNGs of data."""

from typing import Any, List, Tuple

import numpy as np

from ..data import DATASETS
from ..data.images import ImageError, image_size
from ..data.transforms.joint import IGNORE
from ..schema import shown_text
from .own_data import OwnData
from .own_objects import ClassTable, ObjectFindings, some

__all__ = ["examined_pixels"]


def examined_pixels(data: OwnData) -> ObjectFindings:
    """Everything about the labels of both parts: pixels of each class, label PNGs that cannot be
    read, that have another size than the image, or values that are no class.
    """
    found = ObjectFindings()
    counts = []
    for split, section in (("train", data.train), ("evaluation", data.evaluation)):
        arguments = {key: value for key, value in section.items() if key != "name"}
        dataset = DATASETS.build(section["name"], arguments, split, data.class_num)
        found.images.append((section["dataset_root"], list(dataset.names)))
        pixels, wrong, empty = _labels(dataset)
        counts.append(pixels)
        for message in wrong[:3]:
            found.errors.append(f"{split}: {shown_text(message)}")
        if len(wrong) > 3:
            found.errors.append(f"{split}: {len(wrong) - 3} more label PNGs are wrong")
        if empty:
            found.warnings.append(
                f"{split}: images without a labelled pixel: {len(empty)} ({some(empty)})"
            )
    names = data.names or [str(number) for number in range(data.class_num)]
    shares = [100 * part / max(part.sum(), 1) for part in counts]
    rows = [(name, float(one), float(other)) for name, one, other in zip(names, *shares)]
    found.counts = ClassTable("% of pixels", "% of pixels", rows)
    found.facts += found.counts.lines()
    for name, train, evaluation in rows:
        if not train:
            found.errors.append(f"no pixel of {shown_text(name)!r} to train with")
        elif not evaluation:
            found.warnings.append(f"no pixel of {shown_text(name)!r} to evaluate on")
    return found


def _labels(dataset: Any) -> Tuple[np.ndarray, List[str], List[str]]:
    """(pixels of each class, what is wrong with label PNGs, images of which nothing is labelled)
    of a dataset of data.datasets.segmentation.
    """
    pixels = np.zeros(IGNORE, np.int64)
    wrong, empty = [], []
    for index in range(len(dataset)):
        try:
            labels = dataset.label(index)
            width, height = image_size(dataset.name(index))
        except ImageError as error:
            wrong.append(str(error))
            continue
        if labels.shape != (height, width):
            wrong.append(
                f"{dataset.name(index)}: {width} x {height} pixels, but its labels are "
                f"{labels.shape[1]} x {labels.shape[0]}"
            )
            continue
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
        pixels += counts
        if not counts.any():
            empty.append(dataset.names[index])
    return pixels, wrong, empty
