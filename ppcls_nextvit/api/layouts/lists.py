"""PaddleClas's lists of images."""

import re
from pathlib import Path
from typing import Optional

import numpy as np

from ...data.datasets.files import open_files
from ...data.lists import numbered_lines, read_label_list
from ...files import read_text
from ...schema import ConfigError, shown_text
from ..own_data import EVALUATION, TRAIN, OwnData, Search, class_names_in

__all__ = ["find_lists", "list_called", "place_of"]

LIST_ENDS = ("_list.txt", ".txt")


def find_lists(search: Search) -> Optional[OwnData]:
    """train_list.txt and val_list.txt with lines `path class`."""
    root = search.root
    train, evaluation = search.parts(*(list_called(root, words) for words in (TRAIN, EVALUATION)))
    if train is None or evaluation is None:
        return None
    names = class_names_in(root)
    delimiter = _delimiter(train)
    found = [
        read_label_list(path, None if names is None else len(names), delimiter)
        for path in (train, evaluation)
    ]
    class_num = len(names) if names else 1 + max(max(labels) for _, labels in found)
    image_root = place_of(root, found[0][0][0], train)
    sections = [
        {
            "name": "ImageNetDataset",
            "image_root": str(image_root),
            "cls_label_path": str(path),
            **({} if delimiter == " " else {"delimiter": delimiter}),
        }
        for path in (train, evaluation)
    ]
    counts = [np.bincount(labels, minlength=class_num).tolist() for _, labels in found]
    images = (len(found[0][0]), len(found[1][0]))
    return OwnData(
        root,
        "lists",
        class_num,
        names,
        sections[0],
        sections[1],
        images,
        (counts[0], counts[1]),
    )


def list_called(root: Path, words: tuple) -> Optional[Path]:
    """The list of a part, by the words for it: WORD_list.txt or WORD.txt in `root`, or None.
    ConfigError where both are there and differ.
    """
    for word in words:
        found = [path for end in LIST_ENDS if (path := root / f"{word}{end}").is_file()]
        if len(found) > 1 and read_text(found[0]) != read_text(found[1]):
            raise ConfigError(f"{found[0]} and {found[1]}: which is meant? Leave one of them")
        if found:
            return found[0]
    return None


def _delimiter(path: Path) -> str:
    """What stands between path and class in the first line of a list."""
    lines = numbered_lines(path)
    found = re.search(r"(\t|,| )\s*\d+\s*$", lines[0][1]) if lines else None
    return found[1] if found else " "


def place_of(root: Path, first: str, source: Path) -> Path:
    """What has the image `first` of the list `source`: the folder, a folder in it, or a zip file.
    ConfigError if nothing has.
    """
    for place in (root, root / "images", *sorted(root.glob("*.zip"))):
        if place.exists():
            files = open_files(str(place))
            try:
                files.check(files.named([first]))
            except (ValueError, OSError):
                continue
            return place
    raise ConfigError(
        f"{source}: its first image, {shown_text(first)}, is neither in {root} nor in "
        f"{root / 'images'} or a zip file there"
    )
