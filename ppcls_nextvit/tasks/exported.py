"""What an export says of its model, in any task; and the configuration by which it is evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from ..config import Config
from ..config.sections import ArchSection, GlobalSection, InferSection
from ..data.images import ImageError
from ..export.opened import Opened
from ..export.target import DESCRIPTION
from ..export.verify import Batch, ExportError, Program
from ..files import parsing
from .common import CLASS_NAMES, class_names_text

__all__ = ["Description", "any_batch", "config_of_export", "description_of"]


@dataclass(frozen=True)
class Description:
    """From export.json. names: of the classes. post: what is done with the outputs, as
    Infer.PostProcess has it. transforms: the preprocessing. min_size: the smallest height and width
    that the model takes.
    """

    names: Sequence[str]
    post: Dict[str, Any]
    transforms: List[Any]
    min_size: int


def description_of(opened: Opened) -> Description:
    """The Description of an export; ExportError where its export.json does not give it."""
    told = opened.description
    with parsing(str(opened.folder / DESCRIPTION), ExportError):
        post = dict(told["PostProcess"])
        if "label_list" not in post:  # a classifier's, by its name
            ((name, settings),) = post.items()
            post = {"name": name, **settings}
        names = [str(name) for name in post.pop("label_list")]
        least = int(told.get("Model", {}).get("input", {}).get("min_size", 1))
        return Description(names, post, list(told["PreProcess"]["transform_ops"]), least)


def config_of_export(opened: Opened, folder: Path) -> Config:
    """The Config of an export, to evaluate it on data that are yet to be named. The names of its
    classes are written into `folder`.
    """
    told = description_of(opened)
    (folder / CLASS_NAMES).write_text(
        class_names_text(told.names), encoding="utf-8", errors="backslashreplace"
    )
    post = {**told.post, "class_id_map_file": str(folder / CLASS_NAMES)}
    return Config(
        str(opened.folder),
        GlobalSection(epochs=1, device="cpu"),
        ArchSection(opened.model_name, len(told.names)),
        Infer=InferSection(told.transforms, PostProcess=post),
    )


def any_batch(opened: Opened) -> Program:
    """The program of one input as one that takes any number of images, whatever it was exported
    for. ImageError for images of another size than it takes.
    """
    ((name, (size, _, *sides)),) = opened.signature.inputs.items()

    def program(batch: Batch) -> Dict[str, Any]:
        images = batch[name]
        if sides[0] is not None and tuple(images.shape[2:]) != tuple(sides):
            raise ImageError(
                f"{opened.folder}: takes images of {sides[0]} x {sides[1]} pixels, and these are "
                f"{images.shape[2]} x {images.shape[3]} after preprocessing; export it for that "
                f"size"
            )
        step = size or len(images)
        filled = np.pad(images, [(0, -len(images) % step), (0, 0), (0, 0), (0, 0)])
        parts = [
            opened({name: filled[start : start + step]}) for start in range(0, len(filled), step)
        ]
        return {
            key: np.concatenate([part[key] for part in parts])[: len(images)] for key in parts[0]
        }

    return program
