"""Transforms: of evaluation, random ones, and joint ones (of an image with its annotations).
Importing this fills their registries.
"""

from . import autoaugment, evaluation, joint, random_geometry, random_pixels  # noqa: F401
