"""Transforms: of evaluation, random ones, and those of an image with what is drawn on it."""
