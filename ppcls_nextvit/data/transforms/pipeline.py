"""A list of transforms in PaddleClas's dialect as one function from an image file to the model's
input.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Union

import numpy as np

from ...schema import ConfigError, named_entries, yaml_parameters
from ..images import ImageError, Picture, Source, as_array
from .registry import TRANSFORMS

__all__ = ["Pipeline", "Preprocess", "channels_of"]


def channels_of(transform_ops: Any) -> int:
    """How many channels come of a list of transforms: 3, or 1 if NormalizeImage has one `mean`."""
    for name, arguments, _ in named_entries(transform_ops, "transform_ops"):
        mean = (arguments or {}).get("mean")
        if name == "NormalizeImage" and isinstance(mean, (list, tuple)):
            return len(mean)
    return 3


class Step(NamedTuple):
    """One transform of a list. arguments: what the user gave for it, typed."""

    name: str
    arguments: Dict[str, Any]
    transform: Any  # a Transform; DecodeImage takes the file's name as well


class Pipeline:
    """A list of transforms in PaddleClas's dialect: `pipeline(source, rng, name)` -> float32
    [channels, H, W], contiguous; three channels, or one where NormalizeImage says so.

    transform_ops: [{name: {key: value}}, ...]. source: a path or a file's bytes (a decoded image
    where the list has no DecodeImage). rng: for the random transforms. name: of the image, for
    messages. ConfigError, naming `where`, for an unknown name or key or a wrong value; on calling,
    ImageError for a bad image.
    """

    def __init__(self, transform_ops: Any, where: str = "transform_ops"):
        self.steps = [
            Step(
                name,
                TRANSFORMS.check(name, arguments, place),
                TRANSFORMS.build(name, arguments, place),
            )
            for name, arguments, place in named_entries(transform_ops, where)
        ]
        names = [step.name for step in self.steps]
        self.channels_first = "ToCHWImage" in names
        _check_channels(self.steps, where)
        if "DecodeImage" in names[1:]:
            raise ConfigError(f"{where}: DecodeImage must be the first transform")
        self.decodes = bool(names) and names[0] == "DecodeImage"
        self.scaled = self.decodes and self.steps[0].transform.scaled
        if self.scaled:
            resizer = getattr(self.steps[1].transform, "resizer", None) if names[1:] else None
            if not getattr(resizer, "takes_scaled", False):
                raise ConfigError(
                    f"{where}: after DecodeImage with `scaled: True` comes RandomResizedCrop, "
                    f"RandCropImage or ResizeImage with `backend: pil`"
                )

    def __call__(
        self,
        source: Union[Source, Picture],
        rng: Optional[np.random.Generator] = None,
        name: Optional[str] = None,
    ) -> np.ndarray:
        image: Any = source
        for position, step in enumerate(self.steps):
            more = (name,) if self.decodes and position == 0 else ()
            try:
                image = step.transform(image, rng, *more)
            except ImageError:
                raise
            except ValueError as error:
                raise ImageError(f"{name or 'image in memory'}: {step.name}: {error}") from error
        pixels = as_array(image)
        return np.ascontiguousarray(
            pixels if self.channels_first else pixels.transpose(2, 0, 1), np.float32
        )

    def describe(self) -> List[Dict[str, Any]]:
        """The list with every default written out, in plain YAML types: another program can follow
        it without knowing ours.
        """
        return [{step.name: _all_arguments(step)} for step in self.steps]


def _check_channels(steps: List[Step], where: str) -> None:
    """ConfigError unless the transforms say the same of where the channels are."""
    first = False
    for step in steps:
        if step.name == "NormalizeImage" and step.transform.channels_first != first:
            order, place = ("''", "before") if step.transform.channels_first else ("chw", "after")
            raise ConfigError(f"{where}: NormalizeImage: order must be {order} {place} ToCHWImage")
        if first and step.name != "NormalizeImage":
            raise ConfigError(f"{where}: {step.name} must stand before ToCHWImage")
        first = first or step.name == "ToCHWImage"


def _all_arguments(step: Step) -> Dict[str, Any]:
    """The arguments of `step`, given or default, but for those that are None; tuples as lists."""
    parameters = yaml_parameters(TRANSFORMS.get(step.name))
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in {**defaults, **step.arguments}.items()
        if value is not None
    }


class Preprocess(Pipeline):
    """A pipeline without chance, for evaluation, prediction and deployment: `preprocess(path or
    bytes)` -> float32 [channels, H, W].
    """

    DETERMINISTIC = ("DecodeImage", "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")

    def __init__(self, transform_ops: Any, where: str = "transform_ops"):
        for name, _, place in named_entries(transform_ops, where):
            if name not in self.DETERMINISTIC:
                TRANSFORMS.get(name, place)
                raise ConfigError(
                    f"{place}: not a transform of evaluation. Expected one of: "
                    f"{', '.join(self.DETERMINISTIC)}."
                )
        super().__init__(transform_ops, where)
        if self.scaled:
            raise ConfigError(f"{where}: DecodeImage.scaled: True is for training")
