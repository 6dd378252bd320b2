"""How data on a server are read, as a YAML says it."""

import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

__all__ = ["CACHE", "RemoteOptions", "is_remote"]

CACHE = "PPCLS_NEXTVIT_DATA_CACHE"  # the folder of the cache, where the YAML names none
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_remote(path: str) -> bool:
    """Whether `path` is an address, PROTOCOL://..., not a path of this machine."""
    return ADDRESS.match(path) is not None


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """cache: folder of the local cache (default: $PPCLS_NEXTVIT_DATA_CACHE, or below the user's
    cache). cache_bytes: that it holds at most; 0: none. timeout_s: for a read of up to 1 MiB, more
    in proportion. patience_s: how long a server that fails is tried again before the run ends.
    connections: reads at a time of each process. options: for fsspec's file system of the protocol.
    """

    cache: Optional[str] = None
    cache_bytes: int = 10 << 30
    timeout_s: float = 30.0
    patience_s: float = 300.0
    connections: int = 16
    options: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cache_bytes < 0 or self.patience_s < 0:
            raise ValueError(
                f"expected cache_bytes >= 0 and patience_s >= 0, got {self.cache_bytes} and "
                f"{self.patience_s}"
            )
        if not self.timeout_s > 0 or not 1 <= self.connections <= 256:
            raise ValueError(
                f"expected timeout_s > 0 and connections from 1 to 256, got {self.timeout_s} and "
                f"{self.connections}"
            )

    @property
    def folder(self) -> str:
        """The folder of the cache."""
        told = self.cache or os.environ.get(CACHE)
        if told:
            return told
        users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return os.path.join(users, "ppcls_nextvit", "data")
