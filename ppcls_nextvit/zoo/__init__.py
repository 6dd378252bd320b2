"""The zoo: every published file of weights as a record. A name stands for a file that is on this
disk; `hub` fetches those that are asked for.

What others *published* and what was *measured* here stand side by side; `measured` stays None until
a log of this project shows it.
"""

import difflib
import fnmatch
import os
import re
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Optional

from . import nextvit, transnext
from .records import Preprocessing, Weights

__all__ = [
    "FAMILIES",
    "PRETRAINING_IN_SHORT",
    "READ_IN",
    "WEIGHTS",
    "Preprocessing",
    "Weights",
    "cache_folder",
    "file_of",
    "get",
    "is_name",
    "list_weights",
    "record_of_file",
    "register",
]

DIRECTORY_VARIABLE = "PPCLS_NEXTVIT_WEIGHTS"
DEFAULT_DIRECTORY = "weights"
FILE_ENDINGS = (".pdparams", ".pth", ".pt", ".safetensors", ".npz")

FAMILIES = (nextvit, transnext)
# source: where its addresses were read
READ_IN = {source: place for family in FAMILIES for source, place in family.READ_IN.items()}
_NAME = re.compile(r"([a-z][a-z0-9]*)\w*\.\w+\.[a-z]+")  # group 1: the family
# pretraining of a record: a table's word for it
PRETRAINING_IN_SHORT = {
    pretraining: short
    for family in FAMILIES
    for pretraining, short in family.PRETRAINING_IN_SHORT.items()
}
_records: dict[str, Weights] = {}
WEIGHTS: Mapping[str, Weights] = MappingProxyType(_records)


def register(records: Iterable[Weights]) -> None:
    """Add the records of a family. ValueError for a name that is taken, or that is not written as
    `VARIANT.WHAT.SOURCE`, such as nextvit_small.in1k_224.official.
    """
    for record in records:
        if record.name in _records:
            raise ValueError(f"weights {record.name!r} are registered twice")
        if not _family_of(record.name):
            raise ValueError(
                f"weights {record.name!r}: expected a name such as nextvit_small.in1k_224.official"
            )
        _records[record.name] = record


def list_weights(pattern: str = "*") -> list[str]:
    """The names of the zoo that match `pattern` (fnmatch, e.g. '*small*224*'), in the order of the
    tables; `get(name)` is the record.
    """
    return [name for name in WEIGHTS if fnmatch.fnmatchcase(name, pattern)]


def get(name: str) -> Weights:
    """The record `name`. ValueError with the nearest names if there is none."""
    if name not in WEIGHTS:
        near = difflib.get_close_matches(name, WEIGHTS) or list(WEIGHTS)[:3]
        raise ValueError(
            f"unknown weights {name!r}; closest: {', '.join(near)}. All: "
            f"ppcls_nextvit.list_weights()"
        )
    return WEIGHTS[name]


def is_name(text: str) -> bool:
    """Whether `text` is written as a name of the zoo, e.g. 'nextvit_small.in1k_224.official', known
    or not: its first word is a family's, and it does not end as a file does.
    """
    family = _family_of(text)
    return (
        family is not None
        and not text.endswith(FILE_ENDINGS)
        and any(_family_of(name) == family for name in WEIGHTS)
    )


def _family_of(name: str) -> Optional[str]:
    """'nextvit' of 'nextvit_small.in1k_224.official'; None if it is not written as a name."""
    written = _NAME.fullmatch(name)
    return written[1] if written else None


def cache_folder() -> str:
    """Where fetched weights are kept: the folder that $PPCLS_NEXTVIT_WEIGHTS names, else one in the
    user's cache as the system has it.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return named
    home = os.path.expanduser("~")
    caches = {"darwin": os.path.join(home, "Library", "Caches")}
    if sys.platform == "win32":
        caches["win32"] = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    default = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return os.path.join(caches.get(sys.platform, default), "ppcls_nextvit", DEFAULT_DIRECTORY)


def record_of_file(file: str) -> Optional[Weights]:
    """The record of the published file of this name; None if there is none."""
    return next((record for record in WEIGHTS.values() if record.file == file), None)


def file_of(name: str) -> str:
    """The path of the weights `name` on this disk: in the folder that $PPCLS_NEXTVIT_WEIGHTS names;
    without one in ./weights, else in `cache_folder()`.

    FileNotFoundError if it is not there, saying how to get it; nothing is downloaded.
    """
    record = get(name)
    named = os.environ.get(DIRECTORY_VARIABLE)
    folders = [named] if named else [DEFAULT_DIRECTORY, cache_folder()]
    paths = [os.path.join(folder, record.file) for folder in folders]
    found = next((path for path in paths if os.path.isfile(path)), None)
    if found is None:
        ask = f"Run `nextvit weights get {name}`, or get it" if record.url else "Get it"
        raise FileNotFoundError(
            f"{name}: {paths[0]} is not there, and nothing is downloaded unasked. {ask} from "
            f"{record.source} ({record.where}) and save it under that name, or set "
            f"{DIRECTORY_VARIABLE} to the folder that has {record.file}"
        )
    return found


for _module in FAMILIES:
    register(_module.RECORDS)
