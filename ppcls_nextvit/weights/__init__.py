"""Weights: a safe reader for every published format, rules that map its keys, and a strict
loader.
"""

from .convert import convert
from .load import LoadReport, load_weights
from .reader import WeightFileError, read_file
from .rules import LoadError, to_torch, translate

__all__ = [
    "LoadError",
    "LoadReport",
    "WeightFileError",
    "convert",
    "load_weights",
    "read_file",
    "to_torch",
    "translate",
]
