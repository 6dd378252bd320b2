"""The zoo: every published file of weights as a record. Nothing is downloaded; a name stands for a file
that the user has fetched.

What others *published* and what was *measured* here stand side by side; `measured` stays None until
a log of this project shows it.
"""

import difflib
import fnmatch
import os
import re
from types import MappingProxyType

from . import nextvit

__all__ = ["WEIGHTS", "file_of", "get", "is_name", "list_weights"]


DIRECTORY_VARIABLE = "PPCLS_NEXTVIT_WEIGHTS"
DEFAULT_DIRECTORY = "weights"
FILE_ENDINGS = (".pdparams", ".pth", ".pt", ".safetensors", ".npz")


FAMILIES = (nextvit,)
WEIGHTS = MappingProxyType(
    {record.name: record for family in FAMILIES for record in family.RECORDS}
)


def list_weights(pattern="*"):
    """The names of the zoo that match `pattern` (fnmatch, e.g. '*small*224*'), in the order of the
    tables; `get(name)` is the record.
    """
    return [name for name in WEIGHTS if fnmatch.fnmatchcase(name, pattern)]


def get(name):
    """The record `name`. ValueError with the nearest names if there is none."""
    if name not in WEIGHTS:
        near = difflib.get_close_matches(name, WEIGHTS) or list(WEIGHTS)[:3]
        raise ValueError(
            f"unknown weights {name!r}; closest: {', '.join(near)}. All: "
            f"ppcls_nextvit.list_weights()"
        )
    return WEIGHTS[name]


def is_name(text):
    """Whether `text` is written as a name of the zoo, e.g. 'nextvit_small.in1k_224.official', known
    or not.
    """
    return re.fullmatch(r"nextvit_[a-z]+\.\w+\.[a-z]+", text) is not None and not text.endswith(
        FILE_ENDINGS
    )


def file_of(name):
    """The path of the weights `name` on this disk: in the folder that $PPCLS_NEXTVIT_WEIGHTS names,
    else in ./weights.

    FileNotFoundError if it is not there, saying where to get it and where to put it; nothing is
    downloaded.
    """
    record = get(name)
    path = os.path.join(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY, record.file)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{name}: {path} is not there, and nothing is downloaded. Get it from {record.source} "
            f"({record.where}) and "
            f"save it under that name, or set {DIRECTORY_VARIABLE} to the folder that has "
            f"{record.file}"
        )
    return path
