"""What an export says of itself: preprocessing, class names, the hashes of its files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from decoding import one_line, read_regular
from fields import MAX_BYTES, TASKS, check_fields, names_of, task_of

# what both files of an export to Paddle say, and results depend on
DECIDING = ("PreProcess", "PostProcess", "Model", "Files")
# the entry of PostProcess of a classifier of several labels an image
SEVERAL_LABELS = "MultiLabelThreshOutput"


def description_path(folder: str | Path) -> Path:
    """inference.yml where the export has one, else export.json. An export to Paddle has both, with
    the same content; the oldest have inference.yml alone. FileNotFoundError if neither is there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such directory; expected the one that tools/export_model.py wrote"
        )
    for name in ("inference.yml", "export.json"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder / 'export.json'}: no such file; an exported model has one")


def parse_yaml(text):
    try:
        import yaml
    except ImportError:
        raise ModuleNotFoundError("inference.yml cannot be read: pip install PyYAML") from None
    return yaml.safe_load(text)


def check_other_file(path, description):
    """ValueError where export.json, which other programs read, says something else."""
    other = path.with_name("export.json")
    if other != path and other.is_file():
        theirs = json.loads(read_regular(other, MAX_BYTES).decode())
        differ = [key for key in DECIDING if theirs.get(key) != description.get(key)]
        if differ:
            raise ValueError(
                f"{differ[0]} is another in {other.name}; change both, or export again"
            )


def in_words_of_one_label(description):
    """The description of a classifier of several labels an image as if it were one of a single
    label, whose fields are checked; any other as it is. ValueError for a threshold that is none.
    """
    labels = description["PostProcess"].get(SEVERAL_LABELS)
    if labels is None or task_of(description) != TASKS[0]:
        return description
    threshold = labels["threshold"]
    if type(threshold) not in (int, float) or not 0 < threshold < 1:
        raise ValueError(f"{SEVERAL_LABELS}.threshold: expected a probability, got {threshold!r}")
    if description["Model"].get("sigmoid") is not True:
        raise ValueError(f"{SEVERAL_LABELS}: expected Model.sigmoid to be true")
    return {
        **description,
        "PostProcess": {"Topk": {"topk": 1, "label_list": labels["label_list"]}},
        "Model": {**description["Model"], "softmax": True},
    }


def parse_description(
    folder: str | Path, several_labels: bool = False, tasks: Sequence[str] = TASKS[:1]
) -> dict:
    """The description in `folder`, of which all that is needed is there; its files are not read.

    several_labels: that of a classifier of several labels an image is right, too. tasks: those that
    the program answers for; by default it classifies. FileNotFoundError or ValueError, one line.
    """
    path = description_path(folder)
    parse = parse_yaml if path.suffix == ".yml" else json.loads
    try:
        description = parse(read_regular(path, MAX_BYTES).decode())
        check_other_file(path, description)
        task = task_of(description)
        checked = in_words_of_one_label(description) if several_labels else description
        check_fields(checked)
        names = names_of(checked)
        classes = description["Model"]["class_num"] if task == TASKS[0] else len(names)
        classes = description.get("Model", {}).get("class_num", classes)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of the parsers: anything; a KeyError: no class_num
        told = one_line(error) or type(error).__name__
        wanted = "classifier" if tuple(tasks) == TASKS[:1] else "model"
        raise ValueError(f"{path}: not a description of an exported {wanted}: {told}") from None
    if task not in tasks:
        raise ValueError(
            f"{path}: an export for {task}; this program is for {' and '.join(tasks)}. "
            f"deploy/python/predict.py runs all"
        )
    if len(names) != classes:
        raise ValueError(
            f"{path}: {len(names)} class names for {classes} classes; export again with the right "
            f"label file"
        )
    return description


def read_description(
    folder: str | Path, several_labels: bool = False, tasks: Sequence[str] = TASKS[:1]
) -> dict:
    """`parse_description`, after the hashes of all files were compared, too. FileNotFoundError or
    ValueError, one line.
    """
    folder = Path(folder)
    description = parse_description(folder, several_labels, tasks)
    source = description_path(folder).name
    for name, entry in description["Files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; {source} names it")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{folder / name}: does not match {source}, so it is damaged or of another export; "
                f"export or copy again"
            )
    return description
