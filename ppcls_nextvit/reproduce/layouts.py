"""ImageNet and its variants in their layouts on disk: which images, which classes count as right,
which classes compete.
"""

import json
import os
import re
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..data.datasets.files import EXTENSIONS, FolderFiles, image_names, subfolders
from ..data.lists import read_label_list
from ..files import parsing, read_text
from ..schema import ConfigError
from .classes import (
    GROUND_TRUTH,
    class_numbers,
    devkit_classes,
    read_synsets,
)
from .datasets import (
    CORRUPTIONS,
    PUBLISHED_DATASETS,
    SEVERITIES,
    ClassificationDataset,
    LabelledImages,
)

__all__ = ["open_dataset"]

VALIDATION_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.")


def open_dataset(
    kind: str,
    root: os.PathLike | str,
    num_classes: int = 1000,
    labels: os.PathLike | str | None = None,
    synsets: os.PathLike | str | None = None,
    real: os.PathLike | str | None = None,
) -> LabelledImages:
    """The images of ImageNet or of one of its variants below the folder `root`.

    kind: a key of PUBLISHED_DATASETS.
    labels (imagenet only): a list file with lines `path class`, paths relative to root; or the
        ILSVRC devkit's folder, or its validation ground truth file, for images named
        ILSVRC2012_val_00000001.JPEG, ... Without it, `root` has one folder per class (named by
        WordNet id, or by class number), or a `val_list.txt`.
    synsets: see `read_synsets`; needed where the folders do not show all classes (a, r, a part of
        another dataset).
    real (real only): the file real.json of the ReaL labels; the images may lie in any folders.
    Raises ConfigError or FileNotFoundError, saying what is expected, for a layout that would give
    wrong class numbers.
    """
    title = _known(kind).title
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root}: no such folder; expected the images of {title}")
    if (labels is not None and kind != "imagenet") or (real is not None) != (kind == "real"):
        raise ConfigError(
            f"set {kind}: labels belong to the set imagenet, and real.json to the set real, which "
            f"needs it; got labels={labels}, real={real}"
        )
    root = os.fspath(root)
    wnids = None if synsets is None else read_synsets(synsets, num_classes)
    if real is not None:
        return _real(root, real, num_classes)
    if kind == "c":
        return _corrupted(root, num_classes, wnids)
    listed = os.path.join(root, "val_list.txt")
    if labels is None and kind == "imagenet" and os.path.isfile(listed):
        labels = listed
    if labels is not None:
        return _listed(root, os.fspath(labels), num_classes)
    return _folders(kind, root, num_classes, wnids)


def _known(kind: str) -> ClassificationDataset:
    """What is known of the dataset `kind`; ConfigError if it is none of classified images."""
    dataset = PUBLISHED_DATASETS.get(kind)
    if not isinstance(dataset, ClassificationDataset):
        known = [
            name for name, d in PUBLISHED_DATASETS.items() if isinstance(d, ClassificationDataset)
        ]
        raise ConfigError(f"unknown set {kind!r}. Expected one of: {', '.join(known)}.")
    return dataset


def _folders(
    kind: str, root: str, num_classes: int, synsets: Optional[List[str]]
) -> LabelledImages:
    """One folder per class. A dataset with a part of the classes must have all of these: fewer
    rivals would make it easier.
    """
    known = _known(kind)
    numbers = class_numbers(root, num_classes, synsets)
    if known.subset is not None and len(numbers) != known.subset:
        raise ConfigError(
            f"{root}: {len(numbers)} class folders; {known.title} has {known.subset}, and the "
            f"model chooses among all of them"
        )
    names: List[str] = []
    labels: List[Tuple[int, ...]] = []
    for folder, number in sorted(numbers.items(), key=lambda item: item[1]):
        files = image_names(root, folder)
        names += files
        labels += [(number,)] * len(files)
    if not names:
        raise ConfigError(
            f"{root}: no images in the class folders; expected files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    rivals = sorted(numbers.values()) if known.subset else None
    return LabelledImages(kind, root, names, labels, num_classes, rivals)


def _listed(root: str, labels: str, num_classes: int) -> LabelledImages:
    """Images of one folder (or several), whose classes a list file or the ILSVRC devkit tells."""
    if os.path.isdir(labels) or os.path.basename(labels) == GROUND_TRUTH:
        classes = devkit_classes(labels, num_classes)
        names = image_names(root)
        numbers = [classes[index] for index in _validation_indices(root, names, len(classes))]
    else:
        names, numbers = read_label_list(labels, num_classes, setting="labels")
        FolderFiles(root).check(names)
        if len(set(names)) != len(names):
            raise ConfigError(f"{labels}: {len(names) - len(set(names))} images are listed twice")
    return LabelledImages("imagenet", root, names, [(number,) for number in numbers], num_classes)


def _validation_indices(root: str, names: Sequence[str], count: int) -> List[int]:
    """The positions 0, 1, ... that images named ILSVRC2012_val_00000001.JPEG, ... have among the
    validation images; no two the same.
    """
    if not names:
        raise ConfigError(f"{root}: no images; expected ILSVRC2012_val_00000001.JPEG, ...")
    indices = []
    for name in names:
        match = VALIDATION_NUMBER.search(os.path.basename(name))
        if not match or not 1 <= int(match[1]) <= count:
            raise ConfigError(
                f"{os.path.join(root, name)}: expected ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{count:08d}.JPEG, "
                "because the labels are in the order of these numbers"
            )
        indices.append(int(match[1]) - 1)
    if len(set(indices)) != len(indices):
        raise ConfigError(
            f"{root}: {len(indices) - len(set(indices))} validation numbers occur twice below "
            f"this folder"
        )
    return indices


def _corrupted(root: str, num_classes: int, synsets: Optional[List[str]]) -> LabelledImages:
    """corruption/severity/wnid/image, or one folder above as the parts noise, blur, weather,
    digital unpack. All 15 x 5 must be there.
    """
    places = _corruption_folders(root)
    every = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
    missing = [
        f"{corruption}/{severity}"
        for corruption, severity in every
        if corruption not in places
        or not os.path.isdir(os.path.join(root, places[corruption], severity))
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ConfigError(
            f"{root}: the mean corruption error needs 15 corruptions at 5 severities "
            f"(corruption/severity/wnid/image); {len(missing)} are missing: {shown}"
        )
    names: List[str] = []
    labels: List[Tuple[int, ...]] = []
    groups: List[str] = []
    for corruption, severity in every:
        place = f"{places[corruption]}/{severity}"
        part = _folders("c", os.path.join(root, place), num_classes, synsets)
        names += [f"{place}/{name}" for name in part.names]
        labels += part.labels
        groups += [f"{corruption}/{severity}"] * len(part)
    return LabelledImages("c", root, names, labels, num_classes, groups=groups)


def _corruption_folders(root: str) -> Dict[str, str]:
    """{folder's name: where it lies below root} of the folders in `root`, and of those in the ones
    that are no corruption. ConfigError for a corruption that is there twice.
    """
    places: Dict[str, str] = {}
    for folder in subfolders(root):
        found = {folder: folder}
        if folder not in CORRUPTIONS:
            inner = subfolders(os.path.join(root, folder))
            found.update({name: f"{folder}/{name}" for name in inner})
        for name, place in found.items():
            if name in CORRUPTIONS and name in places:
                raise ConfigError(f"{root}: {name} is there twice, as {places[name]} and {place}")
            places[name] = place
    return places


def _real(root: str, path: os.PathLike | str, num_classes: int) -> LabelledImages:
    """Validation images whose ReaL labels are not empty; `path`: a JSON list with one list of class
    numbers per validation image.
    """
    table = _real_labels(path, num_classes)
    found = image_names(root)
    indices = _validation_indices(root, found, len(table))
    order = [i for i in np.argsort(indices) if table[indices[i]]]
    if not order:
        raise ConfigError(f"{path}: no image below {root} has a label")
    names = [found[i] for i in order]
    labels = [tuple(table[indices[i]]) for i in order]
    skipped = len(found) - len(order)
    notes = (f"{skipped} images without a ReaL label are left out",) if skipped else ()
    return LabelledImages("real", root, names, labels, num_classes, notes=notes)


def _real_labels(path: os.PathLike | str, num_classes: int) -> List[List[int]]:
    """The class numbers of each validation image. ConfigError for a file that is not real.json."""
    text = read_text(path)
    with parsing(f"{path}: not JSON"):
        table = json.loads(text)
    right = isinstance(table, list) and all(
        isinstance(entry, list) and all(type(c) is int and 0 <= c < num_classes for c in entry)
        for entry in table
    )
    if not right:
        raise ConfigError(
            f"{path}: expected a JSON list with, for each validation image, the list of its "
            f"classes 0 to {num_classes - 1}"
        )
    return table
