"""Evaluation of published weights: ImageNet, its robustness variants, COCO and ADE20K in the
layouts that they are published in, with a report.
"""

from .classes import read_synsets
from .datasets import PUBLISHED_DATASETS, LabelledImages
from .layouts import open_dataset
from .run import default_dataset, reproduce
from .scores import score

__all__ = [
    "PUBLISHED_DATASETS",
    "LabelledImages",
    "default_dataset",
    "open_dataset",
    "read_synsets",
    "reproduce",
    "score",
]
