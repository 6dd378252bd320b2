"""What a user's folder of data holds, whatever its layout, and what the layouts share: which of its
parts train and which evaluate, and splitting where the folder does not say.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Set, Tuple, TypeVar

import numpy as np

from ..data.datasets.files import FoundFiles, files_below
from ..data.lists import numbered_lines, read_class_names
from ..schema import ConfigError, shown_text

__all__ = [
    "EVALUATION",
    "HERE",
    "OwnData",
    "Search",
    "TRAIN",
    "check_classes",
    "class_names_in",
    "evaluated",
    "names_of",
    "other_names",
    "part_of",
    "parts_of_images",
]

# what folders and lists of each part are called; of several to evaluate on the first counts
TRAIN = ("train", "training")
EVALUATION = ("val", "valid", "validation", "test", "eval")
NAME_FILES = ("labels.txt", "label_list.txt", "class_names.txt", "classes.txt", "obj.names")
Part = TypeVar("Part")
HERE = "{here}"  # in a section: the folder of the configuration


@dataclass(frozen=True)
class OwnData:
    """What lies in the folder `root`. layout: a key of layouts.LAYOUTS. names: of the classes; None
    where nothing says them. train, evaluation: dataset sections without transforms. images: (to
    train with, to evaluate on). counts: (training, evaluation) images by class, where they are
    known. lists: {file name: text} to be written beside the configuration, whose folder stands as
    HERE in the sections. holds: what an image has: a class, objects with boxes, or labels of its
    pixels. masks: whether all objects have outlines. split: whether the parts were chosen here.
    notes: what a user should know of how the folder was read, a line each.
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
    holds: Literal["class", "objects", "pixels"] = "class"
    masks: bool = False
    split: bool = False
    notes: Tuple[str, ...] = ()

    def write_lists(self, folder: Path) -> None:
        """Write the lists into `folder`, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.lists.items():
            (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def placed(self, folder: Path) -> "OwnData":
        """The same data with sections that name `folder` as the place of its lists."""
        return replace(
            self, train=_placed(self.train, folder), evaluation=_placed(self.evaluation, folder)
        )


def _placed(section: Mapping[str, Any], folder: Path) -> Dict[str, Any]:
    return {
        key: value.replace(HERE, str(folder), 1)
        if isinstance(value, str) and value.startswith(HERE)
        else value
        for key, value in section.items()
    }


@dataclass(frozen=True)
class Search:
    """Where data are looked for, and how what the folder does not say is decided. val_share: of a
    class's images that evaluate; seed: by which they are chosen. whole: nothing is chosen and no
    part need be there; all images evaluate, and both parts of OwnData are the same.
    """

    root: Path
    val_share: float
    seed: int
    whole: bool = False

    @cached_property
    def files(self) -> FoundFiles:
        """All files below the root."""
        return files_below(self.root)

    def parts(self, train: Part, evaluation: Part) -> Tuple[Part, Part]:
        """What is there of both parts. Where all evaluates, either stands for one that is not."""
        return (train or evaluation, evaluation or train) if self.whole else (train, evaluation)

    def ending_in(self, *endings: str) -> List[str]:
        """The files that are no images and whose names end so, relative to the root."""
        return [name for name in self.files.others if name.lower().endswith(endings)]

    @cached_property
    def by_stem(self) -> Dict[str, List[str]]:
        """{name without folders and ending: images so called, relative to the root}."""
        found: Dict[str, List[str]] = {}
        for name in self.files.images:
            found.setdefault(PurePath(name).stem, []).append(name)
        return found

    def image_called(self, stem: str, label_file: str) -> Optional[str]:
        """The image `stem`.* that belongs to `label_file`: of several the one whose folders are
        most like the file's; None if there is none. ConfigError where two are alike.
        """
        own = PurePath(label_file).parts[:-1]
        likeness = {
            name: len(set(own) & set(PurePath(name).parts[:-1]))
            for name in self.by_stem.get(stem, ())
        }
        beside = [name for name in likeness if PurePath(name).parts[:-1] == own]
        if len(beside) == 1:
            return beside[0]
        best = [name for name, value in likeness.items() if value == max(likeness.values())]
        if len(best) > 1:
            raise ConfigError(
                f"{self.root / label_file}: belongs to {shown_text(best[0])} or to "
                f"{shown_text(best[1])}? Give images different names"
            )
        return best[0] if best else None


def part_of(name: str) -> Optional[str]:
    """Which part the folders of the path `name` say it belongs to: 'train', a word of EVALUATION,
    or None.
    """
    for folder in map(str.lower, PurePath(name).parts[:-1]):
        if folder in TRAIN:
            return TRAIN[0]
        if folder in EVALUATION:
            return folder
    return None


def parts_of_images(listed: Mapping[str, Sequence[str]], where: Path) -> Dict[str, str]:
    """{image: its part} of the images of each part. ConfigError for one that is both trained on and
    evaluated.
    """
    trained = set(listed.get(TRAIN[0], ()))
    held = next((word for word in EVALUATION if listed.get(word)), "")
    shared = [image for image in listed.get(held, ()) if image in trained]
    if shared:
        raise ConfigError(
            f"{where}: {len(shared)} images are both of {TRAIN[0]} and of {held}, the first is "
            f"{shown_text(shared[0])}; list each in one"
        )
    return {image: part for part in reversed(list(listed)) for image in listed[part]}


def evaluated(count: int, group: int, search: Search) -> Set[int]:
    """Which of the `count` images of a group evaluate: search.val_share of them, at least one where
    it has two, as a function of the seed and the group's number.
    """
    order = np.random.default_rng((search.seed, group)).permutation(count)
    held = max(round(count * search.val_share), 1) if count > 1 else 0
    return set(order[:held].tolist())


def check_classes(train: Set[str], evaluation: Set[str], where: Path) -> None:
    """ConfigError for classes that are evaluated and never trained: the parts name them
    differently.
    """
    alone = sorted(evaluation - train)
    if alone:
        raise ConfigError(
            f"{where}: of {shown_text(', '.join(alone[:5]), 200)} there is nothing to train with, "
            f"only to evaluate on; do both parts call their classes the same? To train with are "
            f"{shown_text(', '.join(sorted(train)[:5]), 200)}"
        )


def class_names_in(root: Path) -> Optional[List[str]]:
    """The names of the classes in one of NAME_FILES, with lines `number name` or, in their order,
    names alone; None without such a file. ConfigError as of read_class_names.
    """
    path = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    return None if path is None else names_of(path)


def other_names(root: Path, names: Optional[Sequence[str]]) -> List[str]:
    """A line for each of NAME_FILES in which the classes are others than `names`, which count, or
    have other numbers. Blanks do not matter.
    """
    said = []
    for path in (root / name for name in NAME_FILES if (root / name).is_file()):
        try:
            theirs = names_of(path)
        except ConfigError as error:
            said.append(f"{path.name} is not followed: {error}")
            continue
        pairs = list(zip(names or theirs, theirs))
        differ = next((i for i, (a, b) in enumerate(pairs) if a.split() != b.split()), len(pairs))
        if names is not None and differ < max(len(names), len(theirs)):
            ours, other = (
                shown_text(each[differ], 40) if differ < len(each) else "not there"
                for each in (names, theirs)
            )
            said.append(
                f"{path.name} is not followed: class {differ} is {ours} here, {other} there"
            )
    return said


def names_of(path: Path) -> List[str]:
    """See class_names_in."""
    lines = [text.strip() for _, text in numbered_lines(path)]
    if lines and not any(line.split()[0].isdecimal() for line in lines):
        return lines
    return read_class_names(path)
