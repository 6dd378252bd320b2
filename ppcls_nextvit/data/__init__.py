"""Data: sets of images, transforms, mixing, order, and the loader that joins them. `build_loader`
is the entry.
"""

from ..preprocess import TRANSFORMS
from . import autoaugment, coco, segmentation, transforms  # noqa: F401  (they fill TRANSFORMS and DATASETS)
from .datasets import DATASETS
from .loader import Loader, build_loader, check_loader
from .mixing import BATCH_TRANSFORMS
from .samplers import SAMPLERS

__all__ = [
    "BATCH_TRANSFORMS",
    "DATASETS",
    "SAMPLERS",
    "TRANSFORMS",
    "Loader",
    "build_loader",
    "check_loader",
]
