"""The package in five lines of Python: load, predict, train, evaluate, export.

Everything here ends in the functions that the commands call (`tasks`); `ppcls_nextvit.load` and its
siblings are these.
"""

from .model import Model, evaluate, export_model, load
from .training import train

__all__ = ["Model", "evaluate", "export_model", "load", "train"]
