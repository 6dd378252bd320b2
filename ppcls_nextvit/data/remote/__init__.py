"""Data on a server: read by ranges, tried again while it fails, kept in a bounded cache."""

from .files import RemoteFiles, RemoteIndex, address_of, local_copy
from .options import RemoteOptions, is_remote
from .store import RemoteError, RemoteStore

__all__ = [
    "RemoteError",
    "RemoteFiles",
    "RemoteIndex",
    "RemoteOptions",
    "RemoteStore",
    "address_of",
    "is_remote",
    "local_copy",
]
