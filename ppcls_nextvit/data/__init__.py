"""Data: datasets, transforms, mixing, order, and the loader that joins them. `build_loader`
is the entry.
"""

from .datasets.registry import DATASETS
from .loader import Loader, build_loader, check_loader
from .mixing import BATCH_TRANSFORMS
from .samplers import SAMPLERS
from .transforms.registry import JOINT_TRANSFORMS, TRANSFORMS

__all__ = [
    "BATCH_TRANSFORMS",
    "DATASETS",
    "JOINT_TRANSFORMS",
    "SAMPLERS",
    "TRANSFORMS",
    "Loader",
    "build_loader",
    "check_loader",
]
