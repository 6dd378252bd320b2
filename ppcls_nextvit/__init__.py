"""Next-ViT on PaddlePaddle: models, weights, training, export."""

import warnings

# Said by Paddle to everybody: at import (a compiler cache for custom operators), and at each first
# training step.
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings(
    "ignore", message="When training, we now always track global mean and variance"
)

from .models import create_model, fuse_bn, list_models  # noqa: E402
from .weights import load_weights  # noqa: E402
from .zoo import list_weights  # noqa: E402

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "create_model", "fuse_bn", "list_models", "list_weights", "load_weights"]
