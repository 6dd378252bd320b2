"""Segmentors and their parts: importing this enters every segmentor into MODELS."""

from . import encoder_decoder, mask2former

__all__ = ["encoder_decoder", "mask2former"]
