"""ImageNet and its robustness sets as they lie on users' disks: which images, which classes count
as right, which classes compete.

Class numbers are those of every published ImageNet-1K model: the 1000 WordNet ids (wnids,
`n01440764`), sorted. No list of them is part of this project; it is taken from the user's own data:
from a folder with one subfolder per class, or from a text file (`read_synsets`).
"""

import json
import os
import re
from dataclasses import dataclass, replace
from typing import List, Optional, Tuple

import numpy as np

from ..data.datasets.classification import LabelledFiles, read_list
from ..data.datasets.files import EXTENSIONS, FolderFiles
from ..schema import ConfigError

__all__ = ["SETS", "ImageSet", "SetKind", "open_set", "read_synsets"]

WNID = re.compile(r"n\d{8}")
VALIDATION_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SYNSETS_HELP = (
    "give synsets: the training or validation folder with one subfolder per class, or a text file "
    "whose lines begin with the "
    "WordNet ids (imagenet_synsets.txt, LOC_synset_mapping.txt, synset_words.txt)"
)
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class SetKind:
    """What is known of a set. metric: its key in the zoo. images: in the complete set; for real,
    those with a label.

    subset: number of class folders of a set that has a part of the classes, among which alone the
    model then chooses.
    """

    title: str
    metric: str
    images: int
    subset: Optional[int] = None


SETS = {
    "imagenet": SetKind("ImageNet-1K validation", "imagenet/top1", 50_000),
    "a": SetKind("ImageNet-A (Hendrycks et al. 2021)", "imagenet-a/top1", 7_500, subset=200),
    "r": SetKind("ImageNet-R (Hendrycks et al. 2021)", "imagenet-r/top1", 30_000, subset=200),
    "v2": SetKind("ImageNet-V2 (Recht et al. 2019)", "imagenet-v2/top1", 10_000),
    "sketch": SetKind("ImageNet-Sketch (Wang et al. 2019)", "imagenet-sketch/top1", 50_889),
    "c": SetKind("ImageNet-C (Hendrycks and Dietterich 2019)", "imagenet-c/mce", 15 * 5 * 50_000),
    "real": SetKind(
        "ImageNet validation with ReaL labels (Beyer et al. 2020)", "imagenet-real/top1", 46_837
    ),
}


@dataclass(frozen=True)
class ImageSet:
    """Images below `root` and their labels.

    names: paths relative to root. labels: per image the class numbers that are right (one, except
    for ReaL). classes: the class
    numbers that compete, None for all. groups: per image `corruption/severity` (set c only). notes:
    what a reader of the result should know.
    """

    kind: str
    root: str
    names: List[str]
    labels: List[Tuple[int, ...]]
    num_classes: int
    classes: Optional[List[int]] = None
    groups: Optional[List[str]] = None
    notes: Tuple[str, ...] = ()

    def __len__(self):
        return len(self.names)

    @property
    def complete(self):
        """Whether it has as many images as the published set."""
        return len(self) == SETS[self.kind].images

    def thinned(self, count):
        """`count` images at equal distances (the first would all be of one class), or the set if it
        has no more. ValueError below 1.
        """
        if count < 1:
            raise ValueError(f"limit: expected 1 or more images, got {count}")
        if count >= len(self):
            return self
        chosen = [index * len(self) // count for index in range(count)]
        names, labels, groups = (
            [items[index] for index in chosen] if items else items
            for items in (self.names, self.labels, self.groups)
        )
        return replace(
            self,
            names=names,
            labels=labels,
            groups=groups,
            notes=(*self.notes, f"{count} of {len(self)} images"),
        )

    def dataset(self, indices, transform_ops):
        """The images `indices` for the Loader; the `label` of an item is its index in this set."""
        return LabelledFiles(
            FolderFiles(self.root),
            [self.names[index] for index in indices],
            indices,
            transform_ops,
            None,
            None,
        )


def open_set(kind, root, num_classes=1000, labels=None, synsets=None, real=None):
    """The ImageSet `kind` (a key of SETS) below the folder `root`.

    labels (imagenet only): a list file with lines `path class`, paths relative to root; or the
    ILSVRC devkit's folder, or its
        validation ground truth file, for images named ILSVRC2012_val_00000001.JPEG, ... Without it,
        `root` has one folder per class (named by WordNet id, or by class number), or a
        `val_list.txt`.
    synsets: see `read_synsets`; needed where the folders do not show all classes (a, r, a part of
    another set). real (real only): the file real.json of the ReaL labels; the images may lie in any
    folders. Raises ConfigError or FileNotFoundError, saying what is expected, for a layout that
    would give wrong class numbers.
    """
    if kind not in SETS:
        raise ConfigError(f"unknown set {kind!r}. Expected one of: {', '.join(SETS)}.")
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"{root}: no such folder; expected the images of {SETS[kind].title}"
        )
    if (labels is not None and kind != "imagenet") or (real is not None) != (kind == "real"):
        raise ConfigError(
            f"set {kind}: labels belong to the set imagenet, and real.json to the set real, which "
            f"needs it; "
            f"got labels={labels}, real={real}"
        )
    root = os.fspath(root)
    synsets = None if synsets is None else read_synsets(synsets, num_classes)
    if kind == "real":
        return _real(root, real, num_classes)
    if kind == "c":
        return _corrupted(root, num_classes, synsets)
    if kind == "imagenet":
        if labels is None and os.path.isfile(os.path.join(root, "val_list.txt")):
            labels = os.path.join(root, "val_list.txt")
        if labels is not None:
            return _listed(root, labels, num_classes)
    return _folders(kind, root, num_classes, synsets)


def read_synsets(source, num_classes=1000):
    """The WordNet ids in the order of their class numbers, which is alphabetical in every published
    model, whatever the source's order.

    source: a folder with one subfolder per class, or a text file whose lines begin with the ids.
    ConfigError unless they are `num_classes` in number.
    """
    source = os.fspath(source)
    if os.path.isdir(source):
        found = [
            entry.name
            for entry in os.scandir(source)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    else:
        found = [
            line.split()[0].split(",")[0] for line in _text(source).splitlines() if line.strip()
        ]
    odd = [name for name in found if not WNID.fullmatch(name)]
    if odd:
        raise ConfigError(
            f"synsets {source}: expected WordNet ids such as n01440764, got {odd[0]!r}"
        )
    if len(set(found)) != len(found) or len(found) != num_classes:
        raise ConfigError(
            f"synsets {source}: expected {num_classes} different WordNet ids, got "
            f"{len(set(found))} in {len(found)} entries"
        )
    return sorted(found)


def _text(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8") from error
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None


def _subfolders(root):
    return sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(root, below="."):
    """The image files under root/below, at any depth, as paths relative to root, sorted by
    folder.
    """
    found = []
    for folder, folders, files in os.walk(os.path.join(root, below)):
        folders.sort()
        found += [
            os.path.normpath(os.path.join(os.path.relpath(folder, root), file))
            for file in sorted(files)
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        ]
    return found


def _class_numbers(root, num_classes, synsets):
    """{folder: class number} of the subfolders of root. Folder names decide, never their number in
    a listing of a part of the classes.
    """
    folders = _subfolders(root)
    if not folders:
        raise ConfigError(
            f"{root}: no class folders; for images in one folder give labels: a list file with "
            f"lines `path class`, "
            "or the ILSVRC devkit"
        )
    # their alphabetical order is 0, 1, 10, 100, ...: the name is the number
    if all(folder.isdecimal() for folder in folders):
        numbers = {folder: int(folder) for folder in folders}
        if sorted(numbers.values()) != list(range(num_classes)):
            raise ConfigError(
                f"{root}: {len(folders)} folders named by class number; expected 0 to "
                f"{num_classes - 1}, each once"
            )
        return numbers
    odd = [folder for folder in folders if not WNID.fullmatch(folder)]
    if odd:
        raise ConfigError(
            f"{root}: the folder {odd[0]!r} is neither a WordNet id (n01440764) nor a class "
            f"number; "
            f"is the folder with the class folders meant, one level deeper?"
        )
    if synsets is None:
        if len(folders) != num_classes:
            raise ConfigError(
                f"{root}: {len(folders)} class folders, the model has {num_classes} classes, so "
                f"their numbers cannot be "
                f"told; {SYNSETS_HELP}"
            )
        synsets = folders
    unknown = sorted(set(folders) - set(synsets))
    if unknown:
        raise ConfigError(
            f"{root}: {len(unknown)} class folders are not among the {len(synsets)} synsets, e.g. "
            f"{unknown[0]}"
        )
    return {folder: synsets.index(folder) for folder in folders}


def _folders(kind, root, num_classes, synsets):
    """One folder per class. A set with a part of the classes must have all of these: fewer rivals
    would make it easier.
    """
    subset = SETS[kind].subset
    numbers = _class_numbers(root, num_classes, synsets)
    if subset is not None and len(numbers) != subset:
        raise ConfigError(
            f"{root}: {len(numbers)} class folders; {SETS[kind].title} has {subset}, and the "
            f"model chooses among all of them"
        )
    names, labels = [], []
    for folder, number in sorted(numbers.items(), key=lambda item: item[1]):
        files = _images(root, folder)
        names += files
        labels += [(number,)] * len(files)
    if not names:
        raise ConfigError(
            f"{root}: no images in the class folders; expected files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    return ImageSet(
        kind, root, names, labels, num_classes, sorted(numbers.values()) if subset else None
    )


def _listed(root, labels, num_classes):
    """Images of one folder (or several), whose classes a list file or the ILSVRC devkit tells."""
    labels = os.fspath(labels)
    if os.path.isdir(labels) or os.path.basename(labels) == GROUND_TRUTH:
        numbers = _devkit_classes(labels, num_classes)
        names = _images(root)
        labels = [(numbers[index],) for index in _validation_indices(root, names, len(numbers))]
        return ImageSet("imagenet", root, names, labels, num_classes)
    names, numbers = read_list(labels, " ", num_classes, relabel=False)
    FolderFiles(root).check(names)
    if len(set(names)) != len(names):
        raise ConfigError(f"{labels}: {len(names) - len(set(names))} images are listed twice")
    return ImageSet("imagenet", root, names, [(number,) for number in numbers], num_classes)


def _validation_indices(root, names, count):
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


def _devkit_classes(source, num_classes):
    """Class numbers of the validation images in the order of their numbers; the devkit numbers
    classes in its own way, from 1.
    """
    folders = (
        [source, os.path.join(source, "data")]
        if os.path.isdir(source)
        else [os.path.dirname(source)]
    )
    folder = next(
        (folder for folder in folders if os.path.isfile(os.path.join(folder, GROUND_TRUTH))), None
    )
    if folder is None:
        raise FileNotFoundError(
            f"{source}: no {GROUND_TRUTH} in this folder or in its folder data; expected the "
            f"ILSVRC2012 devkit"
        )
    table, mat = os.path.join(folder, "map_clsloc.txt"), os.path.join(folder, "meta.mat")
    if os.path.isfile(table):
        wnids = _class_table(table)
    elif os.path.isfile(mat):
        wnids = _class_mat(mat)
    else:
        raise FileNotFoundError(
            f"{folder}: neither meta.mat nor map_clsloc.txt (lines `wnid id name`), which the "
            f"devkit has beside "
            f"{GROUND_TRUTH}; without one of them its class ids cannot be translated"
        )
    # above: groups of classes
    wnids = {identifier: wnid for identifier, wnid in wnids.items() if identifier <= num_classes}
    if sorted(wnids) != list(range(1, num_classes + 1)) or len(set(wnids.values())) != num_classes:
        raise ConfigError(
            f"{folder}: the devkit's table should name {num_classes} classes with the ids 1 to "
            f"{num_classes}; "
            f"it names {len(set(wnids.values()))}"
        )
    number = {wnid: index for index, wnid in enumerate(sorted(wnids.values()))}
    path = os.path.join(folder, GROUND_TRUTH)
    classes = []
    for line, text in enumerate(_text(path).split(), 1):
        if not text.isdecimal() or int(text) not in wnids:
            raise ConfigError(
                f"{path}:{line}: expected a class id from 1 to {num_classes}, got {text!r}"
            )
        classes.append(number[wnids[int(text)]])
    return classes


def _class_table(path):
    """{devkit id: wnid} of map_clsloc.txt."""
    found = {}
    for line, text in enumerate(_text(path).splitlines(), 1):
        words = text.split()
        if words and not (
            len(words) >= 2
            and WNID.fullmatch(words[0])
            and words[1].isdecimal()
            and int(words[1]) not in found
        ):
            raise ConfigError(f"{path}:{line}: expected `wnid id name` with a new id, got {text!r}")
        if words:
            found[int(words[1])] = words[0]
    return found


def _class_mat(path):
    """{devkit id: wnid} of meta.mat, a MATLAB file."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise ImportError(
            "reading the devkit's meta.mat needs scipy: pip install 'ppcls_nextvit[devkit]', or "
            "put the devkit's "
            "map_clsloc.txt beside it"
        ) from error
    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {
            int(identifier): str(wnid)
            for identifier, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])
        }
    except (
        MatReadError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise ConfigError(f"{path}: not the devkit's meta.mat: {error}") from error


def _corrupted(root, num_classes, synsets):
    """corruption/severity/wnid/image, or one folder above as the parts noise, blur, weather,
    digital unpack. All 15 x 5 must be there.
    """
    places = {}
    for folder in _subfolders(root):
        inner = (
            {}
            if folder in CORRUPTIONS
            else {name: f"{folder}/{name}" for name in _subfolders(os.path.join(root, folder))}
        )
        for name, place in {folder: folder, **inner}.items():
            if name in CORRUPTIONS and name in places:
                raise ConfigError(f"{root}: {name} is there twice, as {places[name]} and {place}")
            places[name] = place
    missing = [
        f"{corruption}/{severity}"
        for corruption in CORRUPTIONS
        for severity in SEVERITIES
        if corruption not in places
        or not os.path.isdir(os.path.join(root, places[corruption], severity))
    ]
    if missing:
        raise ConfigError(
            f"{root}: the mean corruption error needs 15 corruptions at 5 severities "
            f"(corruption/severity/wnid/image); "
            f"{len(missing)} are missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    names, labels, groups = [], [], []
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            place = f"{places[corruption]}/{severity}"
            part = _folders("c", os.path.join(root, place), num_classes, synsets)
            names += [f"{place}/{name}" for name in part.names]
            labels += part.labels
            groups += [f"{corruption}/{severity}"] * len(part)
    return ImageSet("c", root, names, labels, num_classes, groups=groups)


def _real(root, path, num_classes):
    """Validation images whose ReaL labels are not empty; `path`: a JSON list with one list of class
    numbers per validation image.
    """
    try:
        table = json.loads(_text(path))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    right = isinstance(table, list) and all(
        isinstance(entry, list) and all(type(c) is int and 0 <= c < num_classes for c in entry)
        for entry in table
    )
    if not right:
        raise ConfigError(
            f"{path}: expected a JSON list with, for each validation image, the list of its "
            f"classes 0 to {num_classes - 1}"
        )
    names = _images(root)
    indices = _validation_indices(root, names, len(table))
    order = np.argsort(indices)
    kept = [(names[i], tuple(table[indices[i]])) for i in order if table[indices[i]]]
    if not kept:
        raise ConfigError(f"{path}: no image below {root} has a label")
    skipped = len(names) - len(kept)
    return ImageSet(
        "real",
        root,
        [name for name, _ in kept],
        [labels for _, labels in kept],
        num_classes,
        notes=(f"{skipped} images without a ReaL label are left out",) if skipped else (),
    )
