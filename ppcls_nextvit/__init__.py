"""Next-ViT on PaddlePaddle: models, weights, training, export."""

import importlib
from typing import TYPE_CHECKING, Any

from . import startup

if TYPE_CHECKING:
    from .api import Model, evaluate, export_model, load, train
    from .hub import create_model
    from .models import fuse_bn, list_models
    from .weights import load_weights
    from .zoo import list_weights

startup.prepare()

__version__ = "0.2.0.dev0"
__all__ = [
    "Model",
    "__version__",
    "create_model",
    "evaluate",
    "export_model",
    "fuse_bn",
    "list_models",
    "list_weights",
    "load",
    "load_weights",
    "train",
]

# imported when they are asked for: `nextvit -h` needs no Paddle
_HOMES = {
    "Model": ".api",
    "evaluate": ".api",
    "export_model": ".api",
    "load": ".api",
    "train": ".api",
    "create_model": ".hub",
    "fuse_bn": ".models",
    "list_models": ".models",
    "list_weights": ".zoo",
    "load_weights": ".weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
