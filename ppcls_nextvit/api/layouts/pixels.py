"""Folders of images and of PNGs with a label for every pixel, or PaddleSeg's lists of both."""

from pathlib import Path, PurePath
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from ...data.datasets.files import FolderFiles, is_image_name
from ...data.datasets.segmentation import decode_labels
from ...data.lists import numbered_lines, read_pair_list
from ...data.transforms.joint import IGNORE
from ...schema import ConfigError, shown_text
from ..own_data import (
    EVALUATION,
    HERE,
    TRAIN,
    OwnData,
    Search,
    class_names_in,
    evaluated,
    part_of,
)
from .lists import list_called

__all__ = ["find_pixels"]

# what the folders of label PNGs are called, beside or in place of one of images
LABELS = (
    "labels",
    "masks",
    "annotations",
    "annotation",
    "label",
    "mask",
    "gt",
    "ground_truth",
    "segmentationclass",
)
# what programs add to the name of an image for that of its labels
SUFFIXES = ("", "_mask", "_label", "_labels", "_seg", "_gt", "_labelids", "_segmentation")


class Pair(NamedTuple):
    """An image and its label PNG, relative to the root."""

    image: str
    label: str


def find_pixels(search: Search) -> Optional[OwnData]:
    """images/ and labels/ (or masks/, annotations/, ...) whose folders name the parts, or that are
    split; or train.txt and val.txt with lines `image label.png`.
    """
    found = _listed(search)
    notes: List[str] = []
    if found is None:
        pairs = _pairs(search, notes)
        if not pairs:
            return None
        found = _parted(search, pairs)
    train, held, split = found
    for what, part in (("train with", train), ("evaluate on", held)):
        if not part:
            raise ConfigError(f"{search.root}: no images with labels to {what}")
    values = [_values(search.root, part) for part in (train, held)]
    names = class_names_in(search.root)
    class_num = _class_num(values[0] | values[1], names, search.root)
    lists = {
        name: "".join(f"{pair.image}\t{pair.label}\n" for pair in part)
        for name, part in (("train_list.txt", train), ("val_list.txt", held))
    }
    sections = [
        {
            "name": "SegmentationDataset",
            "dataset_root": str(search.root),
            "list_path": f"{HERE}/{name}",
            "delimiter": "\t",
            "mode": mode,
        }
        for name, mode in zip(lists, ("train", "val"))
    ]
    return OwnData(
        search.root,
        "pixels",
        class_num,
        names,
        sections[0],
        sections[1],
        (len(train), len(held)),
        lists=lists,
        holds="pixels",
        split=split,
        notes=tuple(notes),
    )


def _listed(search: Search) -> Optional[Tuple[List[Pair], List[Pair], bool]]:
    """The pairs of PaddleSeg's lists; None without lists of that kind."""
    root = search.root
    paths = search.parts(*(list_called(root, words) for words in (TRAIN, EVALUATION)))
    parts = []
    for path in paths:
        lines = [] if path is None else numbered_lines(path)[:1]
        words = lines[0][1].split() if lines else []
        if path is None or len(words) != 2 or not all(is_image_name(word) for word in words):
            return None
        parts.append([Pair(*names) for names in zip(*read_pair_list(path))])
    files = FolderFiles(str(root))
    for part in parts:
        files.check([name for pair in part for name in pair])
    return parts[0], parts[1], False


def _pairs(search: Search, notes: List[str]) -> List[Pair]:
    """The images that have a label PNG, by the names of folders and files; none where no folder is
    one of LABELS. FileNotFoundError where images lack labels, ConfigError where one has two.
    notes gets a line of PNGs without an image.
    """
    labels: Dict[Tuple[str, ...], Dict[str, str]] = {}  # of the folders around: by stem
    images = []
    for name in search.files.images:
        folders = PurePath(name).parts[:-1]
        if any(folder.lower() in LABELS for folder in folders):
            if name.lower().endswith(".png"):
                found = labels.setdefault(_around(folders), {})
                other = found.setdefault(PurePath(name).stem.lower(), name)
                if other != name:
                    raise _two_labels(search.root, other, name)
        else:
            images.append(name)
    if not labels or not images:
        return []
    pairs, bare = [], []
    for name in images:
        path = PurePath(name)
        beside = labels.get(_around(path.parts[:-1]), {})
        stems = (f"{path.stem.lower()}{suffix}" for suffix in SUFFIXES)
        fitting = [beside[stem] for stem in stems if stem in beside]
        if len(fitting) > 1:
            raise _two_labels(search.root, *fitting[:2])
        if fitting:
            pairs.append(Pair(name, fitting[0]))
        else:
            bare.append(name)
    if pairs and bare:
        raise FileNotFoundError(
            f"{search.root / bare[0]}: has no label PNG; {len(bare)} of {len(images)} images have "
            f"none"
        )
    spare = {label for found in labels.values() for label in found.values()}
    spare -= {pair.label for pair in pairs}
    if pairs and spare:
        told = shown_text(min(spare))
        notes.append(f"left out: {len(spare)} label PNGs without an image, the first is {told}")
    return pairs


def _two_labels(root: Path, first: str, second: str) -> ConfigError:
    return ConfigError(
        f"{root}: {shown_text(first)} and {shown_text(second)} have the labels of one image; which "
        f"is meant? Leave one of them"
    )


def _around(folders: Tuple[str, ...]) -> Tuple[str, ...]:
    """The folders that an image and its labels have in common."""
    own = {*LABELS, "images", "image", "img", "imgs", "jpegimages"}
    return tuple(folder for folder in folders if folder.lower() not in own)


def _parted(search: Search, pairs: List[Pair]) -> Tuple[List[Pair], List[Pair], bool]:
    parts: Dict[Optional[str], List[Pair]] = {}
    for pair in pairs:
        parts.setdefault(part_of(pair.image), []).append(pair)
    held = next((word for word in EVALUATION if word in parts), None)
    if held is not None and TRAIN[0] in parts:
        return parts[TRAIN[0]], parts[held], False
    if search.whole:
        return pairs, pairs, True
    chosen = evaluated(len(pairs), 0, search)
    return (
        [pair for index, pair in enumerate(pairs) if index not in chosen],
        [pair for index, pair in enumerate(pairs) if index in chosen],
        True,
    )


def _values(root: Path, pairs: List[Pair]) -> Set[int]:
    """The labels that the PNGs have. ImageError for one that has no labels."""
    files = FolderFiles(str(root))
    seen = np.zeros(IGNORE + 1, bool)
    for pair in pairs:
        labels = decode_labels(files.read(pair.label), files.path(pair.label))
        seen |= np.bincount(labels.ravel(), minlength=IGNORE + 1) > 0
    return set(np.flatnonzero(seen).tolist())


def _class_num(values: Set[int], names: Optional[List[str]], root: Path) -> int:
    """How many classes there are: as many as names, else up to the largest label."""
    classes = values - {IGNORE}
    if values <= {0, IGNORE}:
        raise ConfigError(
            f"{root}: the label PNGs have the values {sorted(values)} alone, and {IGNORE} is "
            f"ignored, so there is one class; write 1 where the object is"
        )
    if names is not None and max(classes) >= len(names):
        raise ConfigError(
            f"{root}: a label PNG has the value {max(classes)}, but there are "
            f"{len(names)} names, of {shown_text(', '.join(names), 200)}"
        )
    return len(names) if names is not None else max(classes) + 1
