"""A trained model as it is looked at: images as it sees them, and what speaks for its answers."""

import copy
from dataclasses import replace
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from paddle import Tensor

from ..config import Config
from ..data.images import ImageError
from ..schema import ConfigError, nearest, shown
from .inputs import InputImage

__all__ = [
    "Evidence",
    "Subject",
    "View",
    "as_picture",
    "check_pixels",
    "class_indices",
    "with_transforms",
]

# of an image as the model sees it: what the memory is known for
MAX_PIXELS = 1024 * 1024


class View(NamedTuple):
    """One image as a model sees it. x: [1, C, H, W]. picture: uint8 [H, W, 3], the same before
    normalisation. shape: (height, width) before padding. scale: (y, x) factors of its resize.
    """

    x: Tensor
    picture: np.ndarray
    shape: Tuple[int, int]
    scale: Tuple[float, float] = (1.0, 1.0)


class Evidence(NamedTuple):
    """One answer. score: what speaks for it, a scalar with its graph. box: (x1, y1, x2, y2) in
    pixels of the picture; None for what is not at one place.
    """

    title: str
    class_id: int
    score: Tensor
    box: Optional[Tuple[float, float, float, float]] = None


class Subject(Protocol):
    """A trained model of some task. names: of its classes. backbone: of a classifier, itself."""

    model: Any
    backbone: Any
    names: Sequence[str]

    def view(self, image: InputImage) -> View:
        """An image as the model sees it. ImageError for one that it cannot take."""

    def evidence(self, view: View, classes: Optional[Sequence[int]] = None) -> List[Evidence]:
        """What the model says of a view, computed with gradients: of `classes`, or of what it finds
        best.
        """


def class_indices(names: Sequence[str], wanted: Sequence[Union[str, int]]) -> List[int]:
    """The indices of classes that are called by name or index. ConfigError for one that is not
    there.
    """
    return [_class_index(names, str(word)) for word in wanted]


def _class_index(names: Sequence[str], word: str) -> int:
    if word in names:
        return list(names).index(word)
    if word.isdecimal() and len(word) < 10 and int(word) < len(names):
        return int(word)
    hint, _, _ = nearest(word, names).partition(" Expected")
    raise ConfigError(
        f"no class {shown(word)}.{hint} Expected a name, such as {shown(names[0])}, or an index "
        f"from 0 to {len(names) - 1}"
    )


def check_pixels(size: Sequence[int], name: str) -> None:
    """ImageError for an image that is too large to be looked at."""
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{name}: {size[0]} x {size[1]} pixels when transformed, more than {MAX_PIXELS} "
            f"(1024 x 1024); give a smaller one, or resize it in Infer.transforms"
        )


def as_picture(array: np.ndarray) -> np.ndarray:
    """Values of 0 to 255, [3, H, W] -> uint8 [H, W, 3]."""
    return np.rint(array.transpose(1, 2, 0)).clip(0, 255).astype(np.uint8)


def with_transforms(
    config: Config, side: int, change: Callable[[List[Dict[str, Any]], float], List[Dict[str, Any]]]
) -> Config:
    """`config` for square images of `side` pixels: the transforms of evaluation and prediction as
    `change(transform_ops, factor)` makes them, the factor being that of Global.image_shape's
    height.
    """
    channels, height, _ = config.Global.image_shape
    factor = side / height
    loaders = copy.deepcopy(dict(config.DataLoader))
    if "Eval" in loaders:
        dataset = loaders["Eval"]["dataset"]
        dataset["transform_ops"] = change(dataset["transform_ops"], factor)
    infer = config.Infer
    if infer is not None:
        infer = replace(infer, transforms=change(copy.deepcopy(infer.transforms), factor))
    settings = replace(config.Global, image_shape=(channels, side, side))
    return replace(config, Global=settings, DataLoader=loaders, Infer=infer)
