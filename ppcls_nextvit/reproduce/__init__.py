"""Evaluation of published weights: ImageNet, its robustness sets, COCO and ADE20K as they lie on
disk, with a report.
"""

from .datasets import SETS, ImageSet, open_set, read_synsets
from .dense import DENSE_SETS
from .run import default_set, reproduce
from .scores import score

__all__ = [
    "DENSE_SETS",
    "SETS",
    "ImageSet",
    "default_set",
    "open_set",
    "read_synsets",
    "reproduce",
    "score",
]
