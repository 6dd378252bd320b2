"""Next-ViT on PaddlePaddle: models, weights, training, export."""
from .models import create_model, fuse_bn, list_models

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "fuse_bn", "list_models"]
