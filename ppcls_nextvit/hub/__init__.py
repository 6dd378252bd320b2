"""Published weights by name: where each file is, fetched once into a cache when it is asked for.

Only `pretrained=`, Arch.pretrained and `nextvit weights get` fetch; a name given elsewhere means a
file that is on this disk.
"""

from .places import Place, place_of, pretrained_source
from .pretrained import create_model
from .transfer import OFFLINE, FetchError, fetch

__all__ = [
    "OFFLINE",
    "FetchError",
    "Place",
    "create_model",
    "fetch",
    "place_of",
    "pretrained_source",
]
