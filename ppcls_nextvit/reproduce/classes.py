"""Class numbers of ImageNet's images, from what users have on disk.

They are those of every published ImageNet-1K model: the 1000 WordNet ids (wnids, `n01440764`),
sorted. No list of them is part of this project; it is taken from the user's own data: from a folder
with one subfolder per class, from a text file (`read_synsets`), or from the ILSVRC devkit.
"""

import io
import os
import re
from typing import Dict, List, Optional

from ..data.datasets.files import subfolders
from ..files import UnreadableError, parsing, read_file, read_text
from ..schema import ConfigError, shown

__all__ = [
    "GROUND_TRUTH",
    "class_numbers",
    "devkit_classes",
    "read_synsets",
]

WNID = re.compile(r"n\d{8}")
MAT_BYTES = 1 << 20  # of meta.mat, which is compressed; the devkit's has less than a tenth
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SYNSETS_HELP = (
    "give synsets: the training or validation folder with one subfolder per class, or a text file "
    "whose lines begin with the WordNet ids (imagenet_synsets.txt, LOC_synset_mapping.txt, "
    "synset_words.txt)"
)


def read_synsets(source: os.PathLike | str, num_classes: int = 1000) -> List[str]:
    """The WordNet ids in the order of their class numbers, which is alphabetical in every published
    model, whatever the source's order.

    source: a folder with one subfolder per class, or a text file whose lines begin with the ids.
    ConfigError unless they are `num_classes` in number.
    """
    source = os.fspath(source)
    if os.path.isdir(source):
        found = subfolders(source)
    else:
        lines = [line for line in read_text(source).splitlines() if line.strip()]
        found = [line.split()[0].split(",")[0] for line in lines]
    odd = [name for name in found if not WNID.fullmatch(name)]
    if odd:
        raise ConfigError(
            f"synsets {source}: expected WordNet ids such as n01440764, got {shown(odd[0])}"
        )
    if len(set(found)) != len(found) or len(found) != num_classes:
        raise ConfigError(
            f"synsets {source}: expected {num_classes} different WordNet ids, got "
            f"{len(set(found))} in {len(found)} entries"
        )
    return sorted(found)


def class_numbers(root: str, num_classes: int, synsets: Optional[List[str]]) -> Dict[str, int]:
    """{folder: class number} of the subfolders of root. Folder names decide, never their number in
    a listing of a part of the classes.
    """
    folders = subfolders(root)
    if not folders:
        raise ConfigError(
            f"{root}: no class folders; for images in one folder give labels: a list file with "
            "lines `path class`, or the ILSVRC devkit"
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
            f"number; is the folder with the class folders meant, one level deeper?"
        )
    if synsets is None:
        if len(folders) != num_classes:
            raise ConfigError(
                f"{root}: {len(folders)} class folders, the model has {num_classes} classes, so "
                f"their numbers cannot be told; {SYNSETS_HELP}"
            )
        synsets = folders
    unknown = sorted(set(folders) - set(synsets))
    if unknown:
        raise ConfigError(
            f"{root}: {len(unknown)} class folders are not among the {len(synsets)} synsets, e.g. "
            f"{unknown[0]}"
        )
    return {folder: synsets.index(folder) for folder in folders}


def devkit_classes(source: str, num_classes: int) -> List[int]:
    """Class numbers of the validation images in the order of their numbers; the devkit numbers
    classes in its own way, from 1.
    """
    folder = _devkit_folder(source)
    table, mat = os.path.join(folder, "map_clsloc.txt"), os.path.join(folder, "meta.mat")
    if os.path.isfile(table):
        wnids = _class_table(table)
    elif os.path.isfile(mat):
        wnids = _class_mat(mat)
    else:
        raise FileNotFoundError(
            f"{folder}: neither meta.mat nor map_clsloc.txt (lines `wnid id name`), which the "
            f"devkit has beside {GROUND_TRUTH}; without one of them its class ids "
            f"cannot be translated"
        )
    # above: groups of classes
    wnids = {identifier: wnid for identifier, wnid in wnids.items() if identifier <= num_classes}
    if sorted(wnids) != list(range(1, num_classes + 1)) or len(set(wnids.values())) != num_classes:
        raise ConfigError(
            f"{folder}: the devkit's table should name {num_classes} classes with the ids 1 to "
            f"{num_classes}; it names {len(set(wnids.values()))}"
        )
    number = {wnid: index for index, wnid in enumerate(sorted(wnids.values()))}
    path = os.path.join(folder, GROUND_TRUTH)
    classes = []
    for line, text in enumerate(read_text(path).split(), 1):
        if not text.isdecimal() or len(text) > 9 or int(text) not in wnids:
            raise ConfigError(
                f"{path}:{line}: expected a class id from 1 to {num_classes}, got {shown(text)}"
            )
        classes.append(number[wnids[int(text)]])
    return classes


def _devkit_folder(source: str) -> str:
    """The folder of the ground truth file, given that file, its folder, or the one above."""
    folders = [os.path.dirname(source)]
    if os.path.isdir(source):
        folders = [source, os.path.join(source, "data")]
    for folder in folders:
        if os.path.isfile(os.path.join(folder, GROUND_TRUTH)):
            return folder
    raise FileNotFoundError(
        f"{source}: no {GROUND_TRUTH} in this folder or in its folder data; expected the "
        f"ILSVRC2012 devkit"
    )


def _class_table(path: str) -> Dict[int, str]:
    """{devkit id: wnid} of map_clsloc.txt."""
    found: Dict[int, str] = {}
    for line, text in enumerate(read_text(path).splitlines(), 1):
        words = text.split()
        if words and not (
            len(words) >= 2
            and WNID.fullmatch(words[0])
            and words[1].isdecimal()
            and len(words[1]) < 10
            and int(words[1]) not in found
        ):
            raise ConfigError(
                f"{path}:{line}: expected `wnid id name` with a new id, got {shown(text)}"
            )
        if words:
            found[int(words[1])] = words[0]
    return found


def _class_mat(path: str) -> Dict[int, str]:
    """{devkit id: wnid} of meta.mat, a MATLAB file."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            "reading the devkit's meta.mat needs scipy: pip install 'ppcls_nextvit[devkit]', or "
            "put the devkit's map_clsloc.txt beside it"
        ) from error
    try:
        data = read_file(path, MAT_BYTES)
    except UnreadableError as error:
        raise ConfigError(f"{path}: {error}") from error
    with parsing(f"{path}: not the devkit's meta.mat"):
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        return {
            int(identifier): str(wnid)
            for identifier, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])
        }
