"""A user's folder of data, recognised: folders of images, PaddleClas's lists, COCO json.

What is found becomes the dataset sections of a configuration. A folder without a validation part is
split, each class by itself, as a function of a seed.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..data.datasets.coco_json import read_coco
from ..data.datasets.files import EXTENSIONS, files_below, is_image_name, open_files, subfolders
from ..data.lists import numbered_lines, read_class_names, read_label_list
from ..schema import ConfigError, shown_text

__all__ = ["LAYOUTS", "OwnData", "recognised"]

TRAIN = ("train", "training")
EVALUATION = ("val", "valid", "validation", "test", "eval")
LIST_ENDS = ("_list.txt", ".txt")
NAME_FILES = ("labels.txt", "label_list.txt", "class_names.txt", "classes.txt")
OTHER_JSON = ("captions", "person_keypoints", "panoptic", "stuff")
EXPECTED = (
    "expected a folder for each class (train/CLASS/..., val/CLASS/..., or CLASS/... alone), "
    "train_list.txt and val_list.txt with lines `path class`, or COCO json files called "
    "*train*.json and *val*.json"
)


@dataclass(frozen=True)
class OwnData:
    """What lies in the folder `root`. layout: a key of LAYOUTS. names: of the classes; None where
    nothing says them. train, evaluation: dataset sections without transforms. images: (to train
    with, to evaluate on). counts: (training, evaluation) images by class, where they are known.
    lists: {file name: text} to be written beside the configuration, whose folder stands as {here}
    in the sections. objects: whether images have objects with boxes, else a class each; masks:
    whether the objects have outlines.
    """

    root: Path
    layout: str
    class_num: int
    names: Optional[Sequence[str]]
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    images: Tuple[int, int]
    counts: Tuple[Sequence[int], Sequence[int]] = ((), ())
    lists: Mapping[str, str] = field(default_factory=dict)
    objects: bool = False
    masks: bool = False


def recognised(
    root: Path, layout: Optional[str] = None, val_share: float = 0.2, seed: int = 0
) -> OwnData:
    """The OwnData of the folder `root`. layout: a key of LAYOUTS; None: the first that fits.
    val_share: of a class's images that evaluate, where the folder does not say.

    ConfigError, with what is expected, where none fits; FileNotFoundError for no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if not 0 < val_share < 1:
        raise ConfigError(f"the share of images to evaluate on must be in (0, 1), got {val_share}")
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    for name, find in LAYOUTS.items():
        if layout in (None, name):
            found = find(root, val_share, seed)
            if found is not None:
                return found
    raise ConfigError(f"{root}: no data of a known layout; {EXPECTED}")


# COCO json.


def _coco(root: Path, val_share: float, seed: int) -> Optional[OwnData]:
    files = [*root.glob("*.json"), *root.glob("annotations/*.json")]
    files = sorted(path for path in files if not path.name.startswith(OTHER_JSON))
    pair = [_called(files, words) for words in (TRAIN, EVALUATION)]
    train, evaluation = pair
    if train is None or evaluation is None:
        return None
    contents = [read_coco(str(path)) for path in (train, evaluation)]
    names, others = (
        [entry["name"] for entry in sorted(content["categories"], key=lambda each: each["id"])]
        for content in contents
    )
    if names != others:
        raise ConfigError(f"{train} and {evaluation} have other categories; give both the same")
    sections = [
        {
            "name": "COCODataset",
            "image_root": str(_images_of(root, path, content)),
            "annotation_path": str(path),
            "mode": mode,
        }
        for path, content, mode in zip((train, evaluation), contents, ("train", "val"))
    ]
    masks = any(entry.get("segmentation") for entry in contents[0]["annotations"])
    sizes = (len(contents[0]["images"]), len(contents[1]["images"]))
    return OwnData(
        root, "coco", len(names), names, sections[0], sections[1], sizes, objects=True, masks=masks
    )


def _called(files: Sequence[Path], words: Sequence[str]) -> Optional[Path]:
    """The only one of `files` whose name has one of the `words`; of several the instances'."""
    found = [path for path in files if any(word in path.stem.lower() for word in words)]
    instances = [path for path in found if path.name.startswith("instances")]
    found = instances if len(found) > 1 and instances else found
    if len(found) > 1:
        raise ConfigError(f"{found[0]} and {found[1]}: which is meant? Leave one of them")
    return found[0] if found else None


def _images_of(root: Path, path: Path, content: Dict[str, Any]) -> Path:
    """The folder that has the images of a COCO json."""
    first = content["images"][0]["file_name"]
    split = path.stem.rpartition("_")[2]
    places = [root / split, root / "images" / split, root / "images", root, path.parent]
    for place in places:
        if (place / first).is_file():
            return place
    raise ConfigError(
        f"{path}: its first image, {shown_text(first)}, is in none of "
        f"{', '.join(map(str, dict.fromkeys(places)))}"
    )


# PaddleClas's lists.


def _lists(root: Path, val_share: float, seed: int) -> Optional[OwnData]:
    train, evaluation = (
        next(
            (
                root / f"{word}{end}"
                for word in words
                for end in LIST_ENDS
                if (root / f"{word}{end}").is_file()
            ),
            None,
        )
        for words in (TRAIN, EVALUATION)
    )
    if train is None or evaluation is None:
        return None
    named = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    names = None if named is None else read_class_names(named)
    delimiter = _delimiter(train)
    found = [
        read_label_list(path, None if names is None else len(names), delimiter)
        for path in (train, evaluation)
    ]
    class_num = len(names) if names else 1 + max(max(labels) for _, labels in found)
    image_root = _root_of(root, found[0][0][0], train)
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


def _delimiter(path: Path) -> str:
    """What stands between path and class in the first line of a list."""
    lines = numbered_lines(path)
    found = re.search(r"(\t|,| )\s*\d+\s*$", lines[0][1]) if lines else None
    return found[1] if found else " "


def _root_of(root: Path, first: str, source: Path) -> Path:
    """What has the image `first` of a list: the folder, a folder in it, or a zip file."""
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


# A folder for each class.


def _folders(root: Path, val_share: float, seed: int) -> Optional[OwnData]:
    inside = subfolders(root)
    train = next((root / name for name in inside if name.lower() in TRAIN), None)
    evaluation = next(
        (root / name for word in EVALUATION for name in inside if name.lower() == word), None
    )
    if train is None:
        return _split(root, root, val_share, seed)
    if evaluation is None:
        return _split(root, train, val_share, seed)
    names = subfolders(train)
    if not names or any(is_image_name(path.name) for path in train.iterdir()):
        return None
    if subfolders(evaluation) != names:
        missing = sorted(set(names) ^ set(subfolders(evaluation)))
        raise ConfigError(
            f"{train} and {evaluation}: have other classes: {shown_text(', '.join(missing), 200)} "
            f"is in one alone; a folder may be empty"
        )
    counts = [
        [len(files_below(str(part), name).images) for name in names] for part in (train, evaluation)
    ]
    sections = [{"name": "ImageFolder", "image_root": str(part)} for part in (train, evaluation)]
    images = (sum(counts[0]), sum(counts[1]))
    if not all(images):
        raise ConfigError(f"{train if not images[0] else evaluation}: no images in its folders")
    return OwnData(
        root,
        "folders",
        len(names),
        names,
        sections[0],
        sections[1],
        images,
        (counts[0], counts[1]),
    )


def _split(root: Path, folder: Path, val_share: float, seed: int) -> Optional[OwnData]:
    """A folder of classes alone: of each class `val_share` of the images evaluate, at least one
    where it has two.
    """
    found = {name: files_below(str(folder), name).images for name in subfolders(folder)}
    names = [name for name, images in found.items() if images]
    if not names:
        return None
    parts: Tuple[List[str], List[str]] = ([], [])
    counts: Tuple[List[int], List[int]] = ([], [])
    for label, name in enumerate(names):
        images = found[name]
        broken = [image for image in images if "\n" in image or "\r" in image]
        if broken:
            raise ConfigError(f"{shown_text(broken[0])}: a name with a line break; rename it")
        order = np.random.default_rng((seed, label)).permutation(len(images))
        held = max(round(len(images) * val_share), 1) if len(images) > 1 else 0
        chosen = set(order[:held].tolist())
        for part, count, inside in zip(parts, counts, (False, True)):
            lines = [
                f"{image}\t{label}\n"
                for index, image in enumerate(images)
                if (index in chosen) == inside
            ]
            part += lines
            count.append(len(lines))
    if not parts[1]:
        raise ConfigError(
            f"{folder}: one image a class: none is left to evaluate on (images end in "
            f"{' '.join(EXTENSIONS)})"
        )
    lists = dict(zip(("train_list.txt", "val_list.txt"), map("".join, parts)))
    sections = [
        {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": f"{{here}}/{name}",
            "delimiter": "\t",
        }
        for name in lists
    ]
    return OwnData(
        root,
        "folders",
        len(names),
        names,
        sections[0],
        sections[1],
        (len(parts[0]), len(parts[1])),
        counts,
        lists,
    )


# by the name of --layout, in the order in which they are tried
LAYOUTS = {"coco": _coco, "lists": _lists, "folders": _folders}
