"""Layouts of a user's folder of data, a module each: what is found becomes the dataset sections of
a configuration.
"""

from dataclasses import replace
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Optional

from ...schema import ConfigError
from ..own_data import OwnData, Search, other_names
from .coco import find_coco
from .csv_table import find_csv
from .folders import find_folders
from .labelme import find_labelme
from .lists import find_lists
from .pixels import find_pixels
from .voc import find_voc
from .yolo import find_yolo

__all__ = ["LAYOUTS", "Layout", "recognised"]

EXPECTED = (
    "expected a folder for each class (train/CLASS/..., val/CLASS/..., or CLASS/... alone), "
    "train_list.txt and val_list.txt with lines `path class`, a CSV with columns image and label, "
    "COCO json files called *train*.json and *val*.json, VOC's XML, YOLO's or labelme's files, or "
    "folders of images and of label PNGs"
)


class Layout(NamedTuple):
    """find: the OwnData of a folder of this layout, None of another; ConfigError for one that it
    must be and that is wrong. described: what lies in it, in a sentence.
    """

    find: Callable[[Search], Optional[OwnData]]
    described: str


# by the name of --layout, in the order in which they are tried
LAYOUTS: Mapping[str, Layout] = {
    "coco": Layout(find_coco, "COCO json"),
    "voc": Layout(find_voc, "VOC's XML"),
    "yolo": Layout(find_yolo, "YOLO's label files"),
    "labelme": Layout(find_labelme, "labelme's json"),
    "csv": Layout(find_csv, "a table"),
    "pixels": Layout(find_pixels, "images and label PNGs"),
    "lists": Layout(find_lists, "lists"),
    "folders": Layout(find_folders, "folders of images"),
}


def recognised(
    root: Path,
    layout: Optional[str] = None,
    val_share: float = 0.2,
    seed: int = 0,
    whole: bool = False,
) -> OwnData:
    """The OwnData of the folder `root`. layout: a key of LAYOUTS; None: the first that fits.
    val_share: of a class's images that evaluate, where the folder does not say. whole: there all
    do, which nothing may be trained on.

    ConfigError, with what is expected, where none fits; FileNotFoundError for no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if not 0 < val_share < 1:
        raise ConfigError(f"the share of images to evaluate on must be in (0, 1), got {val_share}")
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    search = Search(root, val_share, seed, whole)
    for name, each in LAYOUTS.items():
        if layout in (None, name):
            found = each.find(search)
            if found is not None:
                said = other_names(root, found.names)
                return replace(found, notes=(*found.notes, *said))
    asked = f" {layout}" if layout else ""
    raise ConfigError(f"{root}: no data of a known layout{asked}; {EXPECTED}")
