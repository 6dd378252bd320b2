"""A list of transforms in PaddleClas's dialect as one function from an image file to the model's input."""

from typing import Any, Dict, List

import numpy as np

from ...schema import ConfigError, named_entries, yaml_parameters
from ..images import ImageError, as_array
from .evaluation import TRANSFORMS

__all__ = ["Pipeline", "Preprocess"]


class Pipeline:
    """A list of transforms in PaddleClas's dialect: `pipeline(source, rng, name)` -> float32 [3, H,
    W], contiguous.

    transform_ops: [{name: {key: value}}, ...]. source: a path or a file's bytes (a decoded image
    where the list has no DecodeImage).
    rng: numpy Generator for the random transforms. ConfigError, naming `where`, for an unknown name
    or key or a wrong value; on calling, ImageError for a bad image.
    """

    def __init__(self, transform_ops, where="transform_ops"):
        self.entries = [
            (
                name,
                TRANSFORMS.check(name, arguments, place),
                TRANSFORMS.build(name, arguments, place),
            )
            for name, arguments, place in named_entries(transform_ops, where)
        ]
        names = [name for name, _, _ in self.entries]
        self.channels_first = "ToCHWImage" in names
        if "DecodeImage" in names[1:]:
            raise ConfigError(f"{where}: DecodeImage must be the first transform")
        self.decodes = bool(names) and names[0] == "DecodeImage"

    def __call__(self, source, rng=None, name=None):
        image = source
        for i, (kind, _, transform) in enumerate(self.entries):
            try:
                image = (
                    transform(image, rng, name)
                    if i == 0 and self.decodes
                    else transform(image, rng)
                )
            except ImageError:
                raise
            except ValueError as error:
                raise ImageError(f"{name or 'image in memory'}: {kind}: {error}") from error
        pixels = as_array(image)
        return np.ascontiguousarray(
            pixels if self.channels_first else pixels.transpose(2, 0, 1), np.float32
        )

    def describe(self) -> List[Dict[str, Any]]:
        """The list with every default written out, in plain YAML types: another program can follow
        it without knowing ours.
        """
        described = []
        for name, arguments, _ in self.entries:
            defaults = {
                key: parameter.default
                for key, parameter in yaml_parameters(TRANSFORMS.get(name)).items()
            }
            described.append(
                {
                    name: {
                        key: list(value) if isinstance(value, tuple) else value
                        for key, value in {**defaults, **arguments}.items()
                        if value is not None
                    }
                }
            )
        return described


class Preprocess(Pipeline):
    """A pipeline without chance, for evaluation, prediction and deployment: `preprocess(path or
    bytes)` -> float32 [3, H, W].
    """

    DETERMINISTIC = ("DecodeImage", "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")

    def __init__(self, transform_ops, where="transform_ops"):
        for name, _, place in named_entries(transform_ops, where):
            if name not in self.DETERMINISTIC:
                TRANSFORMS.get(name, place)
                raise ConfigError(
                    f"{place}: not a transform of evaluation. Expected one of: "
                    f"{', '.join(self.DETERMINISTIC)}."
                )
        super().__init__(transform_ops, where)
