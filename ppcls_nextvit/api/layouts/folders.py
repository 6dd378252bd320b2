"""A folder for each class."""

from pathlib import Path
from typing import List, Optional, Tuple

from ...data.datasets.files import EXTENSIONS, files_below, is_image_name, subfolders
from ...schema import ConfigError, shown_text
from ..own_data import EVALUATION, HERE, TRAIN, OwnData, Search, evaluated

__all__ = ["find_folders"]


def find_folders(search: Search) -> Optional[OwnData]:
    """train/CLASS/... and val/CLASS/..., or CLASS/... alone, which is split; where all is evaluated
    also val/CLASS/... alone.
    """
    root = search.root
    inside = subfolders(root)
    trained = [root / name for name in inside if name.lower() in TRAIN]
    if len(trained) > 1:
        raise ConfigError(f"{trained[0]} and {trained[1]}: which is meant? Leave one of them")
    train = trained[0] if trained else None
    evaluation = next(
        (root / name for word in EVALUATION for name in inside if name.lower() == word), None
    )
    if train is None:
        alone = evaluation if search.whole and len(inside) == 1 else None
        return _split(search, alone or root)
    if evaluation is None:
        return _split(search, train)
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


def _split(search: Search, folder: Path) -> Optional[OwnData]:
    """A folder of classes alone: of each class a share of the images evaluates."""
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
        chosen = evaluated(len(images), label, search)
        for part, count, inside in zip(parts, counts, (False, True)):
            lines = [
                f"{image}\t{label}\n"
                for index, image in enumerate(images)
                if search.whole or (index in chosen) == inside
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
            "cls_label_path": f"{HERE}/{name}",
            "delimiter": "\t",
        }
        for name in lists
    ]
    return OwnData(
        search.root,
        "folders",
        len(names),
        names,
        sections[0],
        sections[1],
        (len(parts[0]), len(parts[1])),
        counts,
        lists,
        split=True,
    )
