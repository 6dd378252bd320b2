"""Checkpoints: a set of files `<prefix>.pdparams / .pdopt / .pdstates / .pdema` that is replaced as
a whole or not at all.

Saving writes every file under a temporary name, then a journal that lists them, then renames them,
then removes the journal. Whatever moment the process dies at, the set is either the old one (no
journal: temporary files are leftovers) or the new one (journal present: the renames are carried to
their end before the set is used again). A full disk leaves the old set untouched. Of several
processes that save one set, one after the other does. Each file ends with its checksum, which
reading compares.
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple, Union

import paddle

from .. import files
from ..files import UnreadableError, parsing
from ..schema import shown
from ..weights import WeightFileError, read_file
from ..weights.formats.seal import seal
from .lock import FileLock, LockedError

SUFFIXES = (".pdparams", ".pdopt", ".pdstates", ".pdema")
NEEDED = SUFFIXES[:3]
JOURNAL_BYTES = 1 << 12
# how long to wait for another process that saves the same set, and how often to read one that is
# replaced meanwhile
WAIT_S = 30.0
READS = 5


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or resumed from. The message names the file."""


def save_checkpoint(prefix: Union[str, Path], parts: Dict[str, Any]) -> None:
    """Write `{suffix: object}` as `<prefix><suffix>`, all or nothing. `parts` has all that is
    NEEDED.

    Objects are (nested) dicts of numpy arrays, tensors, numbers and strings. Files of the set which
    `parts` lacks are removed. Raises CheckpointError when the disk is full or not writable; what
    was there before is intact then.
    """
    prefix = Path(prefix)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with _locked(prefix):
            _finish(prefix)
            _write(prefix, parts)
            _finish(prefix)
    except OSError as error:
        raise CheckpointError(
            f"{prefix}: the checkpoint could not be saved ({error}); the previous one is intact"
        ) from error


@contextlib.contextmanager
def _locked(prefix: Path) -> Iterator[None]:
    """Within the block no other process saves this set. CheckpointError where one goes on to."""
    lock = FileLock(_beside(prefix, ".lock"), WAIT_S)
    try:
        lock.acquire()
    except LockedError as error:
        raise CheckpointError(f"{prefix}: it is being saved by {error}") from None
    try:
        yield
    finally:
        lock.release()


def _write(prefix: Path, parts: Dict[str, Any]) -> None:
    """Every part under its temporary name, then the journal. OSError: nothing is left of them."""
    temporary = {suffix: _beside(prefix, f"{suffix}.tmp") for suffix in parts}
    try:
        for suffix, content in parts.items():
            paddle.save(content, str(temporary[suffix]))
            seal(temporary[suffix])
        draft = _beside(prefix, ".journal.tmp")
        draft.write_text(json.dumps(sorted(parts)), encoding="utf-8")
        _flush(draft)
        os.replace(draft, _beside(prefix, ".journal"))
    except OSError:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def recover(prefix: Union[str, Path]) -> None:
    """Carry an interrupted save to its end, or do nothing. Whoever resumes or saves calls this
    first. CheckpointError for a damaged journal: nothing is changed then.
    """
    prefix = _without_suffix(prefix)
    if _beside(prefix, ".journal").exists():
        with _locked(prefix):
            _finish(prefix)


def _finish(prefix: Path) -> None:
    """The renames of an interrupted save, if there are any to do."""
    journal = _beside(prefix, ".journal")
    if not journal.exists():
        return
    suffixes = _journalled(prefix, journal)
    for suffix in SUFFIXES:
        temporary, final = _beside(prefix, f"{suffix}.tmp"), _beside(prefix, suffix)
        if suffix not in suffixes:
            final.unlink(missing_ok=True)
        elif temporary.exists():
            # else this rename was done before the interruption
            os.replace(temporary, final)
    journal.unlink()


def _journalled(prefix: Path, journal: Path) -> List[str]:
    """The suffixes that a journal lists, each with its file. CheckpointError for any other."""
    what = f"{journal}: the journal of an interrupted save is damaged, and nothing was changed"
    hint = f"if {prefix}.* load as weights, remove the journal"
    try:
        text = files.read_file(journal, JOURNAL_BYTES)
    except UnreadableError as error:
        raise CheckpointError(f"{what} ({error}); {hint}") from error
    with parsing(what, CheckpointError):
        suffixes = json.loads(text.decode("utf-8"))
        if not isinstance(suffixes, list) or not set(NEEDED) <= set(suffixes) <= set(SUFFIXES):
            raise CheckpointError(f"{what} (it lists {shown(suffixes)}); {hint}")
    for suffix in suffixes:
        places = _beside(prefix, f"{suffix}.tmp"), _beside(prefix, suffix)
        if not any(place.exists() for place in places):
            raise CheckpointError(f"{what} (it lists {places[1]}, which is not there); {hint}")
    return suffixes


def load_checkpoint(prefix: Union[str, Path]) -> Dict[str, Any]:
    """{suffix: content} of the set at `prefix` (as given in Global.checkpoints, without a suffix).
    CheckpointError names what is wrong.
    """
    prefix = _without_suffix(prefix)
    for _ in range(READS):
        recover(prefix)
        before = _identity(prefix)
        try:
            parts = _read(prefix)
        except CheckpointError:
            if _identity(prefix) == before:
                raise
            continue
        if _identity(prefix) == before:
            return parts
    raise CheckpointError(f"cannot resume from {prefix}: it is being replaced again and again")


def _identity(prefix: Path) -> List[Tuple[str, int, int]]:
    """What tells a set from the one that replaces it, and from one that is being replaced."""
    found = []
    for suffix in (*SUFFIXES, ".journal"):
        with contextlib.suppress(FileNotFoundError):
            state = _beside(prefix, suffix).stat()
            found.append((suffix, state.st_ino, state.st_mtime_ns))
    return found


def _read(prefix: Path) -> Dict[str, Any]:
    """The content of a set's files."""
    missing = [f"{prefix}{suffix}" for suffix in NEEDED if not _beside(prefix, suffix).exists()]
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
    except (WeightFileError, OSError) as error:
        raise CheckpointError(f"cannot resume from {prefix}: {error}") from error


def _without_suffix(prefix: Union[str, Path]) -> Path:
    """The common prefix, also where one of the set's files was given."""
    prefix = Path(prefix)
    return prefix.with_suffix("") if prefix.suffix in SUFFIXES else prefix


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def set_aside(prefix: Union[str, Path]) -> Path:
    """Give the set at `prefix` a second name, `<prefix>-<time of its .pdparams>`, under which it
    stays when it is replaced; returns that. OSError where files can neither be linked nor copied.
    """
    prefix = _without_suffix(prefix)
    saved = time.localtime(_beside(prefix, ".pdparams").stat().st_mtime)
    name = time.strftime("-%Y%m%d-%H%M%S", saved)
    numbers = ("", *(f"-{number}" for number in range(2, 1000)))
    free = (_beside(prefix, name + number) for number in numbers)
    kept = next(one for one in free if not _beside(one, ".pdparams").exists())
    for suffix in SUFFIXES:
        source, target = _beside(prefix, suffix), _beside(kept, suffix)
        if source.exists():
            try:
                os.link(source, target)
            except OSError:  # a file system without links
                shutil.copy2(source, target)
    return kept
