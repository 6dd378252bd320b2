"""The SHA-256 by which reports and exported folders name the file of weights they are of."""

import hashlib
import os
from typing import Union

__all__ = ["sha256_of"]

BLOCK_BYTES = 1 << 20


def sha256_of(path: Union[str, "os.PathLike[str]"]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
