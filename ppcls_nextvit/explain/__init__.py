"""Look at what a network sees: attention, evidence for classes, effective receptive fields,
frequencies, features, figures over sizes. `explain` makes arrays and Matplotlib figures of a
configuration's model, the other functions take any backbone.
"""

from .attention import BlockAttention, attention, attention_layers
from .cam import ClassMap, class_maps, eigen_cam, grad_cam, hires_cam
from .erf import Area, areas, receptive_fields
from .explanation import Explanation
from .features import Components, principal_components
from .fourier import Spectrum, block_maps, spectrum
from .kinds import KINDS, Settings, explain
from .multiscale import Curves, size_curves
from .run import OUT, run

__all__ = [
    "KINDS",
    "OUT",
    "Area",
    "BlockAttention",
    "ClassMap",
    "Components",
    "Curves",
    "Explanation",
    "Settings",
    "Spectrum",
    "areas",
    "attention",
    "attention_layers",
    "block_maps",
    "class_maps",
    "eigen_cam",
    "explain",
    "grad_cam",
    "hires_cam",
    "principal_components",
    "receptive_fields",
    "run",
    "size_curves",
    "spectrum",
]
