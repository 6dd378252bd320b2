"""Detectors and their parts: importing this enters every detector into MODELS."""

from . import mask_rcnn

__all__ = ["mask_rcnn"]
