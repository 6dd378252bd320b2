"""Compiled operators for what Paddle's own are slow at on a CPU; everything works without them.

`nextvit build-ops` compiles them (building.py); who uses one asks `is_loaded` first.
"""

from .attention import aggregated_attention
from .building import BuildError, build
from .calling import takes
from .convolution import conv2d
from .cuda_building import build_cuda, cuda_library_path
from .deformable import deformable_attention
from .loading import is_loaded, status_line
from .onednn import (
    cpu_multiplies_bfloat16,
    has_onednn,
    multiplies_bfloat16,
    multiplying,
    takes_onednn,
)
from .passes import adamw_, residual, swap, takes_pass
from .position import position_bias
from .product import matmul

__all__ = [
    "BuildError",
    "adamw_",
    "aggregated_attention",
    "build",
    "build_cuda",
    "conv2d",
    "cpu_multiplies_bfloat16",
    "cuda_library_path",
    "deformable_attention",
    "has_onednn",
    "is_loaded",
    "matmul",
    "multiplies_bfloat16",
    "multiplying",
    "position_bias",
    "residual",
    "status_line",
    "swap",
    "takes",
    "takes_onednn",
    "takes_pass",
]
