"""Evaluation of published weights: ImageNet and its robustness sets as they lie on disk, scores, a resumable run with a report."""
from .reproduce import reproduce
from .scores import score
from .sets import SETS, ImageSet, open_set, read_synsets

__all__ = ["SETS", "ImageSet", "open_set", "read_synsets", "reproduce", "score"]
