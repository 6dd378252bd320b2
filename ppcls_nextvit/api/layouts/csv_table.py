"""Tables of images and their classes, as CSV."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from ...files import parsing, read_text
from ...schema import ConfigError, shown, shown_text
from ..own_data import EVALUATION, HERE, TRAIN, OwnData, Search, check_classes, evaluated
from .lists import place_of

__all__ = ["find_csv"]

# the titles of columns, in the order in which they are looked for
IMAGE = ("image", "filename", "file_name", "file", "path", "image_path", "filepath", "img")
LABEL = ("label", "class", "class_name", "category", "target")
PART = ("split", "subset", "part", "set")
DELIMITERS = ",;\t"
BOX = {
    "xmin",
    "x_min",
    "x1",
    "left",
    "bbox",
    "bbox_x",
}  # columns of tables with a row for an object


class Row(NamedTuple):
    """An image: its name, its class, and its part as the column of parts says ('' without)."""

    image: str
    label: str
    part: str


def find_csv(search: Search) -> Optional[OwnData]:
    """*train*.csv and *val*.csv, or one table, which has a column of parts or is split. The classes
    are the values of the label's column in order: numbers by their size, else by the alphabet.
    """
    notes: List[str] = []
    paths = sorted(search.root.glob("*.csv"))
    tables = {path: rows for path in paths if (rows := _rows(path, notes))}
    if not tables:
        return None
    train, evaluation, split = _parts(tables, search)
    source = next(iter(tables))
    if not train or not evaluation:
        raise ConfigError(f"{source}: no images to {'evaluate on' if train else 'train with'}")
    labels = {row.label for row in train}
    check_classes(labels, {row.label for row in evaluation}, source)
    names = sorted(labels, key=_order)
    numbers = {name: number for number, name in enumerate(names)}
    parts = {"train_list.txt": train, "val_list.txt": evaluation}
    lists = {
        name: "".join(f"{row.image}\t{numbers[row.label]}\n" for row in rows)
        for name, rows in parts.items()
    }
    image_root = place_of(search.root, train[0].image, source)
    sections = [
        {
            "name": "ImageNetDataset",
            "image_root": str(image_root),
            "cls_label_path": f"{HERE}/{name}",
            "delimiter": "\t",
        }
        for name in lists
    ]
    found = [Counter(row.label for row in rows) for rows in parts.values()]
    counts = [[each[name] for name in names] for each in found]
    return OwnData(
        search.root,
        "csv",
        len(names),
        names,
        sections[0],
        sections[1],
        (len(train), len(evaluation)),
        (counts[0], counts[1]),
        lists,
        split=split,
        notes=tuple(notes),
    )


def _rows(path: Path, notes: List[str]) -> Optional[List[Row]]:
    """The rows of a table; None for one without the two columns. notes gets a line where several
    columns could be meant. ConfigError names the line of a row that lacks a value.
    """
    text = read_text(path)
    if not text.strip():
        raise ConfigError(f"{path}: an empty table; expected a line of titles, such as image,label")
    head = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=head.count)
    rows: List[Row] = []
    with parsing(f"{path}: not a CSV file"):
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        titles = [title.strip().lower() for title in next(reader)]
        image, label, part = (_column(titles, words) for words in (IMAGE, LABEL, PART))
        if image is None or label is None:
            return None
        for words in (IMAGE, LABEL, PART):
            first, *others = [word for word in words if word in titles] or [""]
            if others:
                notes.append(f"{path.name}: column {first} is read, not {', '.join(others)}")
        boxes = sorted(BOX & set(titles))
        if boxes:
            raise ConfigError(
                f"{path}: has the column {boxes[0]}, so a row is an object; give objects as COCO's "
                f"json, or in VOC's or YOLO's files"
            )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(cells, (image, label, part), f"{path}:{reader.line_num}"))
    if not rows:
        raise ConfigError(f"{path}: a table without rows")
    return rows


def _column(titles: List[str], words: Tuple[str, ...]) -> Optional[int]:
    return next((titles.index(word) for word in words if word in titles), None)


def _row(cells: List[str], columns: Tuple[int, int, Optional[int]], where: str) -> Row:
    values = [
        "" if column is None or column >= len(cells) else cells[column].strip()
        for column in columns
    ]
    image, label, part = values
    if not image or not label or {"\n", "\r", "\t"} & set(image):
        raise ConfigError(f"{where}: expected an image and its class, got {shown(cells)}")
    return Row(image, label, part.lower())


def _parts(tables: Dict[Path, List[Row]], search: Search) -> Tuple[List[Row], List[Row], bool]:
    """(rows to train with, rows to evaluate on, whether they were chosen here)."""
    train, evaluation = (
        next((path for word in words for path in tables if word in path.stem.lower()), None)
        for words in (TRAIN, EVALUATION)
    )
    if train is not None and evaluation is not None:
        return tables[train], tables[evaluation], False
    if len(tables) > 1 and train is None:
        first, second, *_ = map(str, tables)
        raise ConfigError(f"{first} and {second}: which is meant? Call them train.csv and val.csv")
    path = train or next(iter(tables))
    rows = tables[path]
    if any(row.part for row in rows):
        return *search.parts(*_stated(rows, path)), False
    return *_split(rows, search), True


def _stated(rows: List[Row], path: Path) -> Tuple[List[Row], List[Row]]:
    """The rows by their column of parts."""
    parts = {row.part for row in rows}
    odd = sorted(parts - {*TRAIN, *EVALUATION})
    if odd:
        raise ConfigError(
            f"{path}: a row is of the part {shown_text(odd[0])!r}; expected train or val (or test)"
        )
    held = next((word for word in EVALUATION if word in parts), "")
    return [row for row in rows if row.part in TRAIN], [row for row in rows if row.part == held]


def _split(rows: List[Row], search: Search) -> Tuple[List[Row], List[Row]]:
    """Each class by itself."""
    if search.whole:
        return rows, rows
    of_label: Dict[str, List[Row]] = {}
    for row in rows:
        of_label.setdefault(row.label, []).append(row)
    train: List[Row] = []
    held: List[Row] = []
    for group, label in enumerate(sorted(of_label, key=_order)):
        chosen = evaluated(len(of_label[label]), group, search)
        for index, row in enumerate(of_label[label]):
            (held if index in chosen else train).append(row)
    return train, held


def _order(label: str) -> Tuple[bool, int, str]:
    number = label.isdecimal() and len(label) < 10
    return (not number, int(label) if number else 0, label)
