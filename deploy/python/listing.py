"""The images that a program is asked for: files, folders, patterns, lists, standard input."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from decoding import EXTENSIONS, read_regular, shown_text

LIST_BYTES = 1 << 30
LITTER = {"thumbs.db", "desktop.ini"}


def list_images(source: str | Path | Iterable[str | Path]) -> list[Path]:
    """The images that `source` names: a file; a folder, with all folders below it; a pattern such
    as `photos/*.png`; a text file, .txt, with a path in each line, relative to the working
    directory or to the file; `-`, standard input with such lines; or several of these. Sorted by
    folder and name, but those of a list as it names them. FileNotFoundError or ValueError where
    there is nothing.
    """
    if not isinstance(source, (str, Path)):
        return [path for part in source for path in list_images(part)]
    path = Path(source)
    if str(source) == "-":
        return _of_lines(sys.stdin.read(), "standard input", Path())
    if path.is_dir():
        return _images_among(list(_files_below(path)), path, "no images in this directory")
    if path.suffix.lower() == ".txt" and path.exists():
        text = read_regular(path, LIST_BYTES).decode("utf-8", "surrogateescape")
        return _of_lines(text.removeprefix("\ufeff"), str(path), path.parent)
    if path.exists() or path.is_symlink():
        return [path]
    if glob.has_magic(str(source)):
        found = sorted(map(Path, glob.iglob(str(source), recursive=True)))
        files = [file for file in found if not file.is_dir()]
        return _images_among(files, path, "no image is called so")
    raise FileNotFoundError(f"{source}: no such file or directory")


def _of_lines(text: str, where: str, folder: Path) -> list[Path]:
    lines = [Path(line.strip()) for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{where}: the list is empty; expected the path of an image in each line")
    return [line if line.exists() else folder / line for line in lines]


def _files_below(root: Path) -> Iterator[Path]:
    """All files, sorted by folder. Links to folders are followed, but none is read twice."""
    real = root.resolve()
    seen = {str(folder) for folder in (real, *real.parents)}

    def is_new(folder: str) -> bool:
        place = os.path.realpath(folder)
        new = place not in seen
        seen.add(place)
        return new

    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        folders[:] = [name for name in folders if is_new(os.path.join(folder, name))]
        yield from (Path(folder) / name for name in sorted(files))


def _images_among(files: list[Path], source: Path, nothing: str) -> list[Path]:
    """Those of `files` that are images by their names; stderr tells how many are left out."""
    hidden = {path for path in files if path.name.startswith(".") or path.name.lower() in LITTER}
    shown = [path for path in files if path not in hidden]
    found = [path for path in shown if path.suffix.lower() in EXTENSIONS]
    if not found:
        raise FileNotFoundError(
            f"{source}: {nothing}; expected files ending in {' '.join(EXTENSIONS)}"
        )
    others = [path for path in shown if path.suffix.lower() not in EXTENSIONS]
    if others:
        print(
            f"{shown_text(source)}: {len(others)} files are left out by their endings; the first "
            f"is {shown_text(others[0])}",
            file=sys.stderr,
        )
    return found
