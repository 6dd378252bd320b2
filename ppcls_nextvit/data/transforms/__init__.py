"""Transforms: of evaluation, random ones, and those of an image with what is drawn on it. Importing
this fills their registries.
"""

from . import autoaugment, evaluation, joint, random  # noqa: F401
