"""An exported folder read back: its description, and its program run by the target's own engine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional

import yaml

from ..files import JSON_BYTES, parsing, read_text
from ..schema import shown
from ..weights.digest import sha256_of
from . import TARGETS
from .agreement import check_outputs
from .target import DESCRIPTION
from .verify import Batch, ExportError, Program, Signature

__all__ = ["Opened", "is_export", "open_export"]

IN_YAML = "inference.yml"  # beside export.json of exports to paddle and lite, for other programs
# the outputs whose classes have names, unlike maps and attention
ANSWERS = ("probabilities", "logits", "objects", "masks", "labels")
# what both say, and results depend on
DECIDING = ("PreProcess", "PostProcess", "Model", "Files")


@dataclass(frozen=True)
class Opened:
    """What an export wrote. description: the content of export.json. run: {input name: array} ->
    {output name: array}.
    """

    folder: Path
    description: Dict[str, Any]
    signature: Signature
    run: Any  # a Program: mypy takes a field that is a function for a method

    @property
    def model_name(self) -> str:
        """The entry of MODELS that was exported."""
        return self.description["Global"]["model_name"]

    def __call__(self, batch: Batch) -> Dict[str, Any]:
        """The outputs by their names. ExportError where they are others than the description says,
        which someone may have edited.
        """
        outputs = self.run(batch)
        names = self.signature.outputs
        if names[0] in ANSWERS:
            with parsing(str(self.folder / DESCRIPTION), ExportError):
                check_outputs(
                    self.description, [outputs[name] for name in names if name in outputs]
                )
        return outputs


def is_export(directory: Path) -> bool:
    """Whether an export was written into the folder."""
    return (directory / DESCRIPTION).is_file()


def open_export(directory: Path, program: Optional[Program] = None) -> Opened:
    """The export in the folder. program: what runs it, in place of the target's own engine.
    ExportError where export.json is none, where files are missing, damaged or others than it lists,
    and where the engine of the target does not run here; ImportError for a missing extra.
    """
    path = directory / DESCRIPTION
    text = read_text(path, limit=JSON_BYTES)
    with parsing(f"{path}: not written by an export", ExportError):
        description = json.loads(text)
        made = description["Export"]
        signature = Signature(
            {name: tuple(shape) for name, shape in made["inputs"].items()}, tuple(made["outputs"])
        )
        name, precision = str(made["target"]), str(made["precision"])
        files = {name: str(told["sha256"]) for name, told in description["Files"].items()}
        str(description["Global"]["model_name"])
    if name not in TARGETS:
        raise ExportError(
            f"{path}: exported to {shown(name)}, which is no target here; expected one of: "
            f"{', '.join(TARGETS)}"
        )
    _compare_with_yaml(directory / IN_YAML, description)
    missing = [file for file in files if not (directory / file).exists()]
    if missing:
        raise ExportError(f"{directory}: {shown(missing[0])} is missing; export it anew")
    for file, expected in files.items():
        if sha256_of(directory / file) != expected:
            raise ExportError(
                f"{directory}: {shown(file)} is not what {DESCRIPTION} says was written (its "
                f"SHA-256 differs); export it anew"
            )
    program = program or TARGETS[name].load(directory, signature, precision)
    if program is None:
        raise ExportError(
            f"{directory}: the engine of {name} does not run on this machine; load the weights "
            f"instead, or an export to paddle or onnx"
        )
    return Opened(directory, description, signature, program)


def _compare_with_yaml(path: Path, description: Dict[str, Any]) -> None:
    """ExportError where there is an inference.yml that says something else than `description`."""
    if not path.is_file():
        return
    text = read_text(path, limit=JSON_BYTES)
    with parsing(f"{path}: not written by an export", ExportError):
        theirs = yaml.safe_load(text)
        differ = [key for key in DECIDING if theirs.get(key) != description.get(key)]
    if differ:
        raise ExportError(
            f"{path}: {differ[0]} is another than in {DESCRIPTION}; change both, or export anew"
        )
