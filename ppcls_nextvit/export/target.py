"""From a layer to files that were compared with it: what the targets share. A target is one
`Target` in one module of this folder.

    DIRECTORY/inference.*     the target's own files
    DIRECTORY/export.json     what a program needs to use them (preprocessing, class names), hashes, versions, differences
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import numpy as np
import paddle
import PIL

from .. import __version__
from .verify import TOLERANCES, ExportError, eager, relative_difference, verify

__all__ = ["DESCRIPTION", "STEM", "Exported", "Signature", "Target", "export", "sha256_of"]

STEM = "inference"
DESCRIPTION = "export.json"


@dataclass(frozen=True)
class Signature:
    """What a program takes and gives: {input name: shape}, all float32, None where any size goes;
    the outputs' names, in order.
    """

    inputs: Dict[str, tuple]
    outputs: Tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One kind of exported files.

    write(layer, folder, signature, precision, images, **options) -> number of operators: makes the
    files, named STEM.*, in `folder`;
    images: preprocessed float32 [C, H, W] to calibrate int8 with. ImportError that names the extra;
    ExportError if they cannot be made. load(folder, signature, precision) -> program (see
    verify.py), run by the target's own engine; None: it cannot run here.
    packages: whose versions the description records. dynamic_size: any height and width, if the
    user does not say.
    calibrates: its int8 computes in int8 and is calibrated on images (tools/quantize.py); else it
    only stores the weights so.
    described: write also takes `description`, what export.json shall hold beside what is measured.
    describe(folder, description): writes further descriptions, in another layout. next_step: a line
    for the user, with {directory}.
    """

    name: str
    precisions: Tuple[str, ...]
    write: Callable
    load: Callable
    packages: Tuple[str, ...] = ()
    dynamic_size: bool = False
    calibrates: bool = True
    described: bool = False
    describe: Optional[Callable] = None
    next_step: str = ""


@dataclass
class Exported:
    """What `export` wrote: paths, Report (None if the engine cannot run here), number of
    operators.
    """

    files: list
    report: object
    nodes: int

    @property
    def size(self):
        """Bytes of the target's own files."""
        return sum(
            file.stat().st_size
            for path in self.files
            if path.name != DESCRIPTION
            for file in _files(path)
        )


def export(
    layer,
    target,
    directory,
    signature,
    batches,
    description,
    precision="fp32",
    reference=None,
    compare=relative_difference,
    classes=None,
    images=(),
    **options,
):
    """Write `layer` as `target`'s files into `directory`, after they gave what the model gives;
    returns Exported.

    layer: what is recorded (see graph.py). reference: the layer before it was reshaped, run
    eagerly; by default `layer` itself.
    batches, compare, classes: see `verify`. description: what export.json shall hold beside what is
    measured here.
    images: float32 [C, H, W], to calibrate int8 with.
    directory: made if need be; other files in it stay, those of an older export there go.
    ExportError, or an OSError, leaves the directory as it was.
    """
    directory = Path(directory)
    if precision not in target.precisions:
        raise ValueError(
            f"--to {target.name} has no precision {precision!r}; expected one of: "
            f"{', '.join(target.precisions)}"
        )
    parent, older = _existing_parent(directory), _older(directory, target)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=parent))
    try:
        described = {"description": description} if target.described else {}
        nodes = target.write(layer, work, signature, precision, images, **options, **described)
        program, report = target.load(work, signature, precision), None
        if program:
            report = verify(
                program,
                eager(reference or layer, signature),
                batches,
                TOLERANCES[precision],
                compare,
                classes,
            )
        files = sorted(path.relative_to(work).as_posix() for path in _files(work))
        full = {
            **description,
            "Export": {
                "target": target.name,
                "precision": precision,
                "nodes": nodes,
                **options,
                "inputs": {name: list(shape) for name, shape in signature.inputs.items()},
                "outputs": list(signature.outputs),
            },
            "Files": {
                name: {"sha256": sha256_of(work / name), "bytes": (work / name).stat().st_size}
                for name in files
            },
            "Check": _check(report, precision),
            "Versions": {
                "ppcls_nextvit": __version__,
                "paddle": paddle.__version__,
                "numpy": np.__version__,
                "pillow": PIL.__version__,
                **_versions(target.packages),
            },
        }
        (work / DESCRIPTION).write_text(
            json.dumps(full, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if target.describe:
            target.describe(work, full)
        files = sorted(path.name for path in work.iterdir() if path.name != DESCRIPTION)
        directory.mkdir(parents=True, exist_ok=True)
        # the description comes last: its hashes tell whether all belong together
        for name in [*files, DESCRIPTION]:
            # a package, which no system call replaces while it has files
            if (directory / name).is_dir():
                os.replace(directory / name, work / f"older.{name}")
            os.replace(work / name, directory / name)
        for name in older - set(files):
            (directory / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported([directory / name for name in [*files, DESCRIPTION]], report, nodes)


def sha256_of(path):
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _files(path):
    """`path`, or all files in it: a package is a folder of them."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _versions(packages):
    installed = {name: next(metadata.distributions(name=name), None) for name in packages}
    return {name: package.version for name, package in installed.items() if package}


def _check(report, precision):
    if report is None:
        return {"ran": False}
    return {
        "ran": True,
        "difference": report.difference,
        "tolerance": TOLERANCES[precision],
        "same_top1": report.same_top1,
        "images": report.images,
        "shapes": report.shapes,
    }


def _older(directory, target):
    """The names of the files of an older export of the same target in `directory`; ExportError if
    it is of another.
    """
    try:
        older = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
        name, files = older["Export"]["target"], set(older["Files"])
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError):
        raise ExportError(
            f"{directory / DESCRIPTION}: not written by an export; give another directory"
        ) from None
    if name != target.name:
        raise ExportError(
            f"{directory}: holds an export to {name}; give {target.name} a directory of its own"
        )
    return {name for name in files if Path(name).name == name}


def _existing_parent(directory):
    """The nearest folder above `directory` that exists: on the same disk, so that files can be
    moved, not copied.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory}: is a file; the exported files need a directory")
    return next(parent for parent in directory.absolute().parents if parent.is_dir())
