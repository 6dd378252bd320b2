"""Training in Python and without a YAML: the run that `nextvit train` makes."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union

from ..config import Config
from ..config.overrides import apply_override
from ..config.recipes import located
from ..engine.distributed import start_processes
from ..schema import ConfigError
from ..startup import cores
from ..tasks import load_config
from ..tasks import train as train_config
from ..tasks.common import CLASS_NAMES, class_names_text
from ..tasks.runs import remove_run, run_with
from .choices import Choices
from .layouts import recognised
from .memory import free_memory
from .recipe import Plan, plan
from .sources import override_texts

__all__ = ["Prepared", "latest_overrides", "prepare", "train"]

RECIPE = "recipe.yaml"
OUTPUT = "output"
MOST_WORKERS = 4
# what `prepare` writes, which is no run yet
OWN = {RECIPE, CLASS_NAMES, "train_list.txt", "val_list.txt", "train.json", "val.json"}


@dataclass(frozen=True)
class Prepared:
    """A run on a user's data that can begin. folder: it writes below; recipe: its YAML there.
    replaced: the folder of the run whose place it takes, if there is one.
    """

    folder: Path
    recipe: Path
    plan: Plan
    replaced: Optional[Path] = None

    def make_room(self) -> None:
        """Remove the run that is replaced: the last thing before this one begins. LockedError
        while that one goes on.
        """
        if self.replaced is not None:
            remove_run(self.replaced)


def prepare(
    data: Union[str, "os.PathLike[str]"],
    model: str,
    *,
    output: Optional[str] = None,
    overwrite: bool = False,
    layout: Optional[str] = None,
    val_share: float = 0.2,
    seed: int = 0,
    device: str = "auto",
    command: str = "",
    overrides: Sequence[str] = (),
    **choices: Any,
) -> Prepared:
    """Recognise the folder `data` and write a YAML that trains `model` on it; nothing is trained.

    output: the folder of the run, by default output/NAME of the data; one that is taken is left as
    it is, and `output-2`, ... is used, unless `overwrite` is given: then `Prepared.make_room`
    empties it of its run. layout, val_share: see layouts.recognised. overrides: `-o` texts, which
    become part of the YAML. choices: of Choices. ConfigError, FileNotFoundError as they say.
    """
    root = Path(data)
    found = recognised(root, layout, val_share, seed)
    processes = start_processes(device)
    if processes.many:
        raise ConfigError(
            "--data is for one process: write the YAML with --dry-run, then launch several with -c"
        )
    wanted = Path(output) if output else Path(OUTPUT, root.resolve().name or "data")
    folder = wanted if overwrite else _free(wanted)
    workers = min(cores(), MOST_WORKERS)
    memory = free_memory(processes.device)
    decided = Choices(model, folder, device, memory, seed=seed, workers=workers, **choices)
    made = plan(found.placed(folder), decided)
    for override in overrides:
        apply_override(made.content, override)
    found.write_lists(folder)
    if found.names is not None:
        names = class_names_text(found.names)
        (folder / CLASS_NAMES).write_text(names, encoding="utf-8", errors="backslashreplace")
    recipe = folder / RECIPE
    recipe.write_text(made.text(command or _command(root, model, overrides)), encoding="utf-8")
    return Prepared(folder, recipe, made, run_with(wanted) if overwrite else None)


def _command(root: Path, model: str, overrides: Sequence[str]) -> str:
    changes = [word for override in overrides for word in ("-o", override)]
    return shlex.join(["nextvit", "train", "--data", str(root), "--model", model, *changes])


def _free(wanted: Path) -> Path:
    """`wanted`, or the first of wanted-2, wanted-3, ... that no run has written into: one that
    could not begin leaves empty files.
    """
    folder, number = wanted, 1
    while any(
        path.is_file() and path.stat().st_size
        for path in folder.rglob("*")
        if path.parent != folder or path.name not in OWN
    ):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def latest_overrides(config: Config, may_begin: bool = False) -> Sequence[str]:
    """The `-o` text by which the run that `config` describes goes on where it stopped. If it has
    saved nothing: nothing where it `may_begin`, else ConfigError.
    """
    latest = config.output_dir / "latest"
    if not any(latest.with_suffix(suffix).is_file() for suffix in (".pdstates", ".journal")):
        if may_begin:
            return []
        raise ConfigError(f"--resume: no {latest}.pdstates; this run has not been begun here")
    return [f"Global.checkpoints={latest}"]


def train(
    source: Union[str, "os.PathLike[str]"],
    data: Union[str, "os.PathLike[str]", None] = None,
    *,
    options: Optional[Mapping[str, Any]] = None,
    overwrite: bool = False,
    **choices: Any,
) -> Path:
    """Train; returns the folder of the run, which `load` takes.

    source: a YAML, or the name of a packaged one (`nextvit configs list`); or, with `data`, the
        name of a classifier.
    data: a folder of one's own, of one of the layouts.LAYOUTS. What is decided by rule is printed,
        and written as recipe.yaml.
    options: {'Global.epochs': 3}: values of the configuration, as of `-o`. overwrite: replace an
        earlier run; else with `data` the folder is numbered, and without it the earlier run is
        kept in the folder, as earlier-1, ... choices: with `data`: pretrained, epochs, batch_size,
        size, learning_rate, seed, device, output, layout, val_share; see `prepare`.
    Raises what `nextvit train` says on one line; KeyboardInterrupt for a run that was stopped and
    has saved `latest`.
    """
    texts = list(override_texts(options or {}))
    if data is not None:
        model = os.fspath(source)
        prepared = prepare(data, model, overwrite=overwrite, overrides=texts, **choices)
        print("\n".join([*prepared.plan.said, f"written as {prepared.recipe}"]))
        path, texts = str(prepared.recipe), []
    else:
        if choices:
            raise ConfigError(f"{next(iter(choices))}: is for training with data=FOLDER")
        path, overrides = located(os.fspath(source))
        texts = [*overrides, *texts]
    run = load_config(path, texts)
    if data is not None:
        prepared.make_room()
    if train_config(run, overwrite and data is None):
        raise KeyboardInterrupt(f"stopped; the run is in {run.output_dir}")
    return run.output_dir
