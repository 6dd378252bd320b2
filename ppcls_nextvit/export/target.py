"""From a layer to files that were compared with it: what the targets share. A target is one
`Target` in one module of this folder.

    DIRECTORY/inference.*     the target's own files
    DIRECTORY/export.json     what a program needs to use them (preprocessing, class names), hashes,
                              versions, differences
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

import numpy as np
import paddle
import PIL

from .. import __version__
from ..weights.digest import sha256_of
from .parts import Parts
from .verify import (
    TOLERANCES,
    Batch,
    Compare,
    ExportError,
    Program,
    Report,
    Signature,
    eager,
    relative_difference,
    verify,
)

__all__ = [
    "DESCRIPTION",
    "STEM",
    "Exported",
    "Signature",
    "Target",
    "export",
    "reason_against",
]

STEM = "inference"
DESCRIPTION = "export.json"


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
    formats: what `write` takes as its option `format`, the default first.
    calibrates: its int8 computes in int8 and is calibrated on images (tools/quantize.py); else it
    only stores the weights so. int8_options: options of `write` without which it has no int8.
    int8_engine: of a target whose file is an ONNX one, for which kernels it is quantised (a name of
    quantize.ONNX_SCHEMES): there layers can be kept in float.
    described: write also takes `description`, what export.json shall hold beside what is measured.
    describe(folder, description): writes further descriptions, in another layout. next_step: a line
    for the user, with {directory}.
    """

    name: str
    precisions: Tuple[str, ...]
    write: Callable[..., int]
    load: Callable[..., Optional[Program]]
    packages: Tuple[str, ...] = ()
    dynamic_size: bool = False
    calibrates: bool = True
    described: bool = False
    describe: Optional[Callable[[Path, Dict[str, Any]], None]] = None
    next_step: str = ""
    formats: Tuple[str, ...] = ()
    int8_options: Mapping[str, Any] = field(default_factory=dict)
    int8_engine: Optional[str] = None


@dataclass
class Exported:
    """What `export` wrote: paths, Report (None if the engine cannot run here), number of
    operators.
    """

    files: List[Path]
    report: Optional[Report]
    nodes: int

    @property
    def size(self) -> int:
        """Bytes of the target's own files."""
        own = [path for path in self.files if path.name != DESCRIPTION]
        return sum(file.stat().st_size for path in own for file in _files(path))


def export(
    layer: Union[Callable, Parts],
    target: Target,
    directory: os.PathLike | str,
    signature: Signature,
    batches: Iterable[Batch],
    description: Dict[str, Any],
    precision: str = "fp32",
    reference: Optional[Callable] = None,
    compare: Compare = relative_difference,
    classes: Optional[str] = None,
    images: Sequence[np.ndarray] = (),
    any_rows: bool = False,
    **options: Any,
) -> Exported:
    """Write `layer` as `target`'s files into `directory`, after they gave what the model gives;
    returns Exported.

    layer: what is recorded (see models/forms.py), for a target that takes them in Parts. reference:
    the layer before it was reshaped, run eagerly; by default `layer` itself, which Parts are not.
    batches, compare, classes, any_rows: see `verify`. description: what export.json shall hold
    beside what is measured here.
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
    parent = _existing_parent(directory)
    older = _older(directory, target)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=parent))
    try:
        described = {"description": description} if target.described else {}
        nodes = target.write(layer, work, signature, precision, images, **options, **described)
        program = target.load(work, signature, precision)
        report = None
        if program:
            exact = eager(reference or layer, signature)  # type: ignore[arg-type]
            report = verify(
                program, exact, batches, TOLERANCES[precision], compare, classes, any_rows
            )
        made = {"target": target.name, "precision": precision, "nodes": nodes, **options}
        full = {
            **description,
            "Export": {
                **made,
                "inputs": {name: list(shape) for name, shape in signature.inputs.items()},
                "outputs": list(signature.outputs),
            },
            "Files": _hashes(work),
            "Check": _check(report, precision),
            "Versions": _versions(target.packages),
        }
        text = json.dumps(full, indent=1, ensure_ascii=False) + "\n"
        (work / DESCRIPTION).write_text(text, encoding="utf-8")
        if target.describe:
            target.describe(work, full)
        files = _move(work, directory, older)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(files, report, nodes)


def reason_against(name: str, layer: Callable) -> Optional[str]:
    """What the attribute `name` of a part of `layer` says against an export; None if nothing."""
    parts = layer.sublayers(include_self=True) if isinstance(layer, paddle.nn.Layer) else []
    return next((getattr(part, name) for part in parts if hasattr(part, name)), None)


def _move(work: Path, directory: Path, older: Set[str]) -> List[Path]:
    """Move what is in the folder `work` to `directory`, remove the files `older` that it does not
    replace; returns their new paths.
    """
    own = sorted(path.name for path in work.iterdir() if path.name != DESCRIPTION)
    # the description comes last: its hashes tell whether all belong together
    names = [*own, DESCRIPTION]
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        # a package, which no system call replaces while it has files
        if (directory / name).is_dir():
            os.replace(directory / name, work / f"older.{name}")
        os.replace(work / name, directory / name)
    for name in older - set(own):
        if name.startswith(f"{STEM}.") and (directory / name).is_dir():
            shutil.rmtree(directory / name)
        else:
            (directory / name).unlink(missing_ok=True)
    return [directory / name for name in names]


def _files(path: Path) -> List[Path]:
    """`path`, or all files in it: a package is a folder of them."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _hashes(folder: Path) -> Dict[str, Dict[str, Any]]:
    """{path below `folder`: its SHA-256 and size in bytes} of all files in it."""
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    return {
        name: {"sha256": sha256_of(found[name]), "bytes": found[name].stat().st_size}
        for name in sorted(found)
    }


def _versions(packages: Iterable[str]) -> Dict[str, str]:
    """Versions of this package, of what it needs, and of those `packages` that are installed."""
    installed = {name: next(iter(metadata.distributions(name=name)), None) for name in packages}
    return {
        "ppcls_nextvit": __version__,
        "paddle": paddle.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        **{name: package.version for name, package in installed.items() if package},
    }


def _check(report: Optional[Report], precision: str) -> Dict[str, Any]:
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


def _older(directory: Path, target: Target) -> Set[str]:
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
    packages = {name.partition("/")[0] for name in files if name.startswith(f"{STEM}.")}
    return packages | {name for name in files if Path(name).name == name}


def _existing_parent(directory: Path) -> Path:
    """The nearest folder above `directory` that exists: on the same disk, so that files can be
    moved, not copied.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory}: is a file; the exported files need a directory")
    return next(parent for parent in directory.absolute().parents if parent.is_dir())
