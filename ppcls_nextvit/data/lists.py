"""Text files beside the images: lists of images with their labels, and class names."""

import logging
import os
from typing import List, Literal, Optional, Tuple, Union

import numpy as np

from ..files import read_text
from ..schema import ConfigError, shown, shown_text

__all__ = ["read_class_names", "read_label_list", "read_multilabel_list", "read_pair_list"]

Path = Union[str, os.PathLike]

log = logging.getLogger(__name__)

# lists that configurations name as they lie in PaddleClas's checkout, and that lie here too
PACKAGED = ("imagenet1k_label_list.txt",)
MOST_CLASSES = 1 << 24  # labels are below, where the number of classes is not known


def numbered_lines(path: Path, called: Optional[str] = None) -> List[Tuple[int, str]]:
    """[(number, line), ...] of all lines that are not blank, numbered from 1. Arguments and errors
    are `read_text`'s.
    """
    # not splitlines, to which a name may have the end of a line in it
    lines = read_text(path, called).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_label_list(
    path: Path,
    class_num: Optional[int],
    delimiter: str = " ",
    relabel: bool = False,
    setting: str = "cls_label_path",
) -> Tuple[List[str], List[int]]:
    """(names, labels) of a list with lines `path<delimiter>label`; a path may have the delimiter in
    it. Blank lines are skipped.

    class_num: the labels are below it; None: any from 0 on. relabel: number the labels that occur
    anew from 0, in their order. setting: the key that names the file, for messages. ConfigError
    names file and line; FileNotFoundError for a file that cannot be read.
    """
    names: List[str] = []
    labels: List[int] = []
    lines = numbered_lines(path, f"{setting}: {path}")
    for number, line in lines:
        try:
            name, label = split_line(line, delimiter)
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
        names.append(name)
        labels.append(label)
    if not names:
        raise ConfigError(f"{path}: the list is empty; expected lines 'path{delimiter}label'")
    if relabel:
        order = {label: number for number, label in enumerate(sorted(set(labels)))}
        labels = [order[label] for label in labels]
    end = MOST_CLASSES if class_num is None else class_num
    for (number, _), label in zip(lines, labels):
        if not 0 <= label < end:
            why = "" if class_num is None else f" (the model has {class_num} classes)"
            raise ConfigError(
                f"{path}:{number}: label {shown(label)} is out of range; expected 0 to "
                f"{end - 1}{why}"
            )
    return names, labels


def split_line(line: str, delimiter: str) -> Tuple[str, int]:
    """(name, label) of a line `name<delimiter>label`. ValueError, which says what was expected."""
    name, found, text = line.strip().rpartition(delimiter)
    if not found or not name.strip():
        raise ValueError(f"expected 'path{delimiter}label', got {shown(line)}")
    try:
        if "_" in text:  # Python's own 1_000
            raise ValueError(text)
        return name.strip(), int(text)
    except ValueError:
        raise ValueError(f"the label must be an integer, got {shown(text)}") from None


def read_multilabel_list(
    path: Path,
    class_num: Optional[int],
    delimiter: str = "\t",
    label_format: Literal["vector", "classes"] = "vector",
) -> Tuple[List[str], np.ndarray]:
    """(names, labels as uint8 [N, classes], 1 for what is there) of a list with lines
    `path<delimiter>labels`. Blank lines are skipped.

    label_format: 'vector', for each class 0 or 1, or 'classes', the numbers of those that are
    there; with commas between. class_num: the number of classes; None: as many as the first line
    has, or as the largest number asks for. ConfigError names file and line; FileNotFoundError for
    a file that cannot be read.
    """
    names: List[str] = []
    rows: List[np.ndarray] = []
    for number, line in numbered_lines(path, f"cls_label_path: {path}"):
        name, found, text = line.rpartition(delimiter)
        try:
            if not found or not name.strip():
                raise ValueError(f"expected {shown(f'path{delimiter}labels')}, got {shown(line)}")
            if label_format == "classes":
                rows.append(_class_numbers(text, class_num))
            else:
                rows.append(_vector(text, class_num or len(rows[0] if rows else text.split(","))))
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
        names.append(name.strip())
    if not names:
        raise ConfigError(f"{path}: the list is empty; expected lines 'path{delimiter}labels'")
    if label_format == "vector":
        return names, np.stack(rows)
    largest = max((int(row.max()) for row in rows if row.size), default=0)
    labels = np.zeros((len(rows), class_num or 1 + largest), np.uint8)
    for index, row in enumerate(rows):
        labels[index, row] = 1
    return names, labels


def _vector(text: str, class_num: int) -> np.ndarray:
    """The labels of an image, for each class 0 or 1: uint8 [class_num]."""
    values = [value.strip() for value in text.split(",")]
    wrong = [value for value in values if value not in ("0", "1")]
    if len(values) != class_num or wrong:
        got = f"{len(values)} values" if len(values) != class_num else shown(wrong[0])
        raise ValueError(
            f"expected for each of {class_num} classes 0 or 1, with commas between, got {got}; "
            f"for numbers of classes set label_format: classes"
        )
    return np.array([value == "1" for value in values], np.uint8)


def _class_numbers(text: str, class_num: Optional[int]) -> np.ndarray:
    """The labels of an image, as numbers of classes: int32 [N]."""
    end = MOST_CLASSES if class_num is None else class_num
    values = [value.strip() for value in text.split(",")] if text.strip() else []
    for value in values:
        if not (value.isdecimal() and value.isascii() and len(value) < 10 and int(value) < end):
            raise ValueError(f"expected numbers of classes, 0 to {end - 1}, got {shown(value)}")
    if len({int(value) for value in values}) != len(values):
        raise ValueError(f"a class is named twice in {shown(text)}")
    return np.array([int(value) for value in values], np.int32)


def read_pair_list(path: Path, delimiter: Optional[str] = None) -> Tuple[List[str], List[str]]:
    """(names of images, names of label files) of a list with lines `image<delimiter>label`; None:
    any blanks. Blank lines are skipped.

    ConfigError names file and line; FileNotFoundError for a file that cannot be read.
    """
    expected = f"'image{delimiter or ' '}label'"
    images, labels = [], []
    for number, line in numbered_lines(path, f"list_path: {path}"):
        parts = [part.strip() for part in line.strip().split(delimiter)]
        if len(parts) != 2 or not all(parts):
            raise ConfigError(f"{path}:{number}: expected {expected}, got {shown(line)}")
        images.append(parts[0])
        labels.append(parts[1])
    if not images:
        raise ConfigError(f"{path}: the list is empty; expected lines {expected}")
    return images, labels


def packaged(path: Path) -> Path:
    """The file `path` or, where there is none, the list of that name in this package."""
    name = os.fspath(path).replace("\\", "/").rpartition("/")[2]
    if os.path.exists(path) or name not in PACKAGED:
        return path
    log.info("no %s here: the %s of this package stands for it", shown_text(path), name)
    return os.path.join(os.path.dirname(__file__), name)


def read_class_names(path: Path, num_classes: Optional[int] = None) -> List[str]:
    """Class names in the order of their numbers, from a map file as PaddleClas has them: one line
    per class, `id name, synonyms`. Of those that are PACKAGED the path in PaddleClas is enough.

    ConfigError for a line that is not `id name`, a repeated or missing id, or another number of
    classes than `num_classes`; FileNotFoundError for a file that cannot be read.
    """
    called = f"class_id_map_file {path}"
    names = {}
    for number, line in numbered_lines(packaged(path), called):
        index, _, name = line.strip().partition(" ")
        number_like = index.isdecimal() and len(index) < 10
        if not number_like or not name.strip() or int(index) in names:
            raise ConfigError(
                f"{called}, line {number}: expected a new `id name`, got {shown(line)}"
            )
        names[int(index)] = name.strip()
    if sorted(names) != list(range(len(names))):
        raise ConfigError(f"{called}: the ids must be 0 to {len(names) - 1} without gaps")
    if num_classes is not None and len(names) != num_classes:
        raise ConfigError(
            f"{called}: has {len(names)} classes, the model {num_classes}; give the names of the "
            f"model's classes, or null for none"
        )
    return [names[index] for index in range(len(names))]
