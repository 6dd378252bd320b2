"""Backbones, which are the classifiers: importing this enters every family into MODELS."""

from . import nextvit, transnext

__all__ = ["nextvit", "transnext"]
