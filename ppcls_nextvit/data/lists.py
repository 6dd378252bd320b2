"""Text files beside the images: lists of images with their labels, and class names."""

import os
from typing import List, Optional, Tuple, Union

import numpy as np

from ..schema import ConfigError

__all__ = ["read_class_names", "read_label_list", "read_pair_list", "read_text"]

Path = Union[str, os.PathLike]


def read_text(path: Path, called: Optional[str] = None) -> str:
    """The text of the file `path`.

    called: what messages call the file, by default its path. FileNotFoundError for one that cannot
    be read, ConfigError for one that is not UTF-8.
    """
    called = called or os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{called}: not a text file in UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    except FileNotFoundError:
        raise FileNotFoundError(f"{called}: no such file") from None
    except OSError as error:
        raise FileNotFoundError(f"{called}: cannot be read: {error.strerror}") from error


def numbered_lines(path: Path, called: Optional[str] = None) -> List[Tuple[int, str]]:
    """[(number, line), ...] of all lines that are not blank, numbered from 1. Arguments and errors
    are `read_text`'s.
    """
    lines = read_text(path, called).splitlines()
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
        name, found, text = line.strip().rpartition(delimiter)
        if not found or not name.strip():
            raise ConfigError(f"{path}:{number}: expected 'path{delimiter}label', got {line!r}")
        try:
            labels.append(int(text))
        except ValueError:
            raise ConfigError(
                f"{path}:{number}: the label must be an integer, got {text!r}"
            ) from None
        names.append(name.strip())
    if not names:
        raise ConfigError(f"{path}: the list is empty; expected lines 'path{delimiter}label'")
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1].tolist()
    for (number, _), label in zip(lines, labels):
        if label < 0 or (class_num is not None and label >= class_num):
            upper = (
                " or more"
                if class_num is None
                else f" to {class_num - 1} (the model has {class_num} classes)"
            )
            raise ConfigError(f"{path}:{number}: label {label} is out of range; expected 0{upper}")
    return names, labels


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
            raise ConfigError(f"{path}:{number}: expected {expected}, got {line!r}")
        images.append(parts[0])
        labels.append(parts[1])
    if not images:
        raise ConfigError(f"{path}: the list is empty; expected lines {expected}")
    return images, labels


def read_class_names(path: Path, num_classes: Optional[int] = None) -> List[str]:
    """Class names in the order of their numbers, from a map file as PaddleClas has them: one line
    per class, `id name, synonyms`.

    ConfigError for a line that is not `id name`, a repeated or missing id, or another number of
    classes than `num_classes`; FileNotFoundError for a file that cannot be read.
    """
    called = f"class_id_map_file {path}"
    names = {}
    for number, line in numbered_lines(path, called):
        index, _, name = line.strip().partition(" ")
        if not index.isdigit() or not name.strip() or int(index) in names:
            raise ConfigError(f"{called}, line {number}: expected a new `id name`, got {line!r}")
        names[int(index)] = name.strip()
    if sorted(names) != list(range(len(names))):
        raise ConfigError(f"{called}: the ids must be 0 to {len(names) - 1} without gaps")
    if num_classes is not None and len(names) != num_classes:
        raise ConfigError(f"{called}: has {len(names)} classes, the model {num_classes}")
    return [names[index] for index in range(len(names))]
