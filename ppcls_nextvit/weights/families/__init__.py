"""What is known of keys, one file a family: importing this registers those of the package."""

from . import mm_heads, nextvit, transnext
from .base import PLAIN_HEADS, Family, Format, Heads, Pairing, register_family, register_heads

__all__ = [
    "PLAIN_HEADS",
    "Family",
    "Format",
    "Heads",
    "Pairing",
    "mm_heads",
    "nextvit",
    "register_family",
    "register_heads",
    "transnext",
]
