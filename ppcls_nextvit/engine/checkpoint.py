"""Checkpoints: a set of files `<prefix>.pdparams / .pdopt / .pdstates / .pdema` that is replaced as
a whole or not at all.

Saving writes every file under a temporary name, then a journal that lists them, then renames them,
then removes the journal. Whatever moment the process dies at, the set is either the old one (no
journal: temporary files are leftovers) or the new one (journal present: the renames are carried to
their end before the set is used again). A full disk leaves the old set untouched.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Union

import paddle

from ..weights import WeightFileError, read_file

SUFFIXES = (".pdparams", ".pdopt", ".pdstates", ".pdema")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or resumed from. The message names the file."""


def save_checkpoint(prefix: Union[str, Path], parts: Dict[str, Any]) -> None:
    """Write `{suffix: object}` as `<prefix><suffix>`, all or nothing.

    Objects are (nested) dicts of numpy arrays, tensors, numbers and strings. Files of the set which
    `parts` lacks are removed. Raises CheckpointError when the disk is full or not writable; what
    was there before is intact then.
    """
    prefix = Path(prefix)
    temporary = {suffix: _beside(prefix, f"{suffix}.tmp") for suffix in parts}
    journal = _beside(prefix, ".journal")
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        recover(prefix)
        for suffix, content in parts.items():
            paddle.save(content, str(temporary[suffix]))
            _flush(temporary[suffix])
        draft = _beside(prefix, ".journal.tmp")
        draft.write_text(json.dumps(sorted(parts)), encoding="utf-8")
        _flush(draft)
        os.replace(draft, journal)
    except OSError as error:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise CheckpointError(
            f"{prefix}: the checkpoint could not be saved ({error}); the previous one is intact"
        ) from error
    recover(prefix)


def recover(prefix: Union[str, Path]) -> None:
    """Carry an interrupted save to its end, or do nothing. Whoever resumes or saves calls this
    first; of several processes, one alone.
    """
    prefix = _without_suffix(prefix)
    journal = _beside(prefix, ".journal")
    if not journal.exists():
        return
    suffixes = json.loads(journal.read_text(encoding="utf-8"))
    for suffix in SUFFIXES:
        temporary, final = _beside(prefix, f"{suffix}.tmp"), _beside(prefix, suffix)
        if suffix not in suffixes:
            final.unlink(missing_ok=True)
        elif temporary.exists():
            # else this rename was done before the interruption
            os.replace(temporary, final)
    journal.unlink()


def load_checkpoint(prefix: Union[str, Path]) -> Dict[str, Any]:
    """{suffix: content} of the set at `prefix` (as given in Global.checkpoints, without a suffix).
    CheckpointError names what is wrong.
    """
    prefix = _without_suffix(prefix)
    recover(prefix)
    missing = [
        f"{prefix}{suffix}" for suffix in SUFFIXES[:3] if not _beside(prefix, suffix).exists()
    ]
    if missing:
        raise CheckpointError(
            f"cannot resume from {prefix}: no {' and no '.join(missing)}. Global.checkpoints "
            f"takes the common prefix of "
            "the three files; to use weights alone, give Global.pretrained_model"
        )
    try:
        return {
            suffix: read_file(_beside(prefix, suffix))
            for suffix in SUFFIXES
            if _beside(prefix, suffix).exists()
        }
    except WeightFileError as error:
        raise CheckpointError(f"cannot resume from {prefix}: {error}") from error


def _without_suffix(prefix):
    """The common prefix, also where one of the set's files was given."""
    prefix = Path(prefix)
    return prefix.with_suffix("") if prefix.suffix in SUFFIXES else prefix


def _beside(prefix, ending):
    return prefix.with_name(prefix.name + ending)


def _flush(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
