"""Detectors and their parts: importing this enters every detector into MODELS."""

from . import dino, mask_rcnn

__all__ = ["dino", "mask_rcnn"]
