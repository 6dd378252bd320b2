"""Backbones, which are the classifiers: importing this enters every family into MODELS."""

from . import nextvit

__all__ = ["nextvit"]
