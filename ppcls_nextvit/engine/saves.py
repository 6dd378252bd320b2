"""The checkpoint sets of a training run: what they hold, writing them, going on from one."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import numpy as np
from paddle import nn

from ..files import parsing
from ..weights import load_weights, read_file
from .checkpoint import CheckpointError, recover, save_checkpoint, set_aside
from .disk import check_disk, set_bytes
from .distributed import Processes, statistics_of
from .ema import EMA
from .logger import logger
from .optim import load_optimizer_state, optimizer_state
from .precision import float32_state
from .progress import Progress
from .resume import Plan, read_saved

__all__ = ["Saves", "State"]

LATEST, BEST = "latest", "best_model"


@dataclass
class State:
    """What training changes, and what it must stay true to: all that a set holds."""

    model: nn.Layer
    optimizer: Any
    scaler: Any
    schedule: Any
    ema: Optional[EMA]
    progress: Progress
    plan: Plan

    def parts(self, weights: Optional[Mapping[str, Any]] = None, kind: str = "raw") -> Dict:
        """The files of a set by their suffix; `weights` may stand for the model's own, being of
        `kind` 'raw' or 'ema'.
        """
        states = {
            **asdict(self.progress),
            **asdict(self.plan),
            "weights": kind,
            "scaler": self.scaler.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        parts = {
            ".pdparams": weights or float32_state(self.model),
            ".pdopt": optimizer_state(self.optimizer, self.model),
            ".pdstates": states,
        }
        return {**parts, ".pdema": self.ema.state()} if self.ema else parts

    def load(self, prefix: Union[str, Path]) -> float:
        """Go on from a set; returns where the run that saved it was, in epochs. CheckpointError for
        another run's or another format's set.
        """
        saved = read_saved(str(prefix), self.plan, self.ema is not None)
        with parsing(f"cannot resume from {prefix}", CheckpointError):
            load_weights(self.model, saved.weights)
            load_optimizer_state(self.optimizer, self.model, saved.optimizer)
            self.schedule.load_state_dict(saved.schedule)
            # empty: the run had none so far, as on a CPU
            if self.scaler.is_enable() and saved.scaler:
                self.scaler.load_state_dict(saved.scaler)
            if self.ema:
                self.ema.load_state(saved.ema)
        self.progress = saved.progress
        return saved.position


class Saves:
    """The sets that the run with this State writes into its folder."""

    def __init__(self, directory: Path, processes: Processes, state: State) -> None:
        self.directory, self.processes, self.state = directory, processes, state
        # to resume from: of this run, as an older one may have left its own here
        self.last: Union[str, Path, None] = None
        self._at = self._place()
        self._has_best = False  # of this run
        self._statistics = statistics_of(state.model) if processes.many else []
        self.after_step()

    def check_folder(self, best: bool, numbered: int, replaces: bool) -> None:
        """CheckpointError before the first step for a damaged journal, which would end the run at
        its first save, and for a disk without room. best: whether there will be best_model.
        numbered: how many sets of epochs there will be. replaces: whether what is there gives way.
        """
        for journal in self.directory.glob("*.journal"):
            recover(journal.with_suffix(""))
        size = set_bytes(self.state.model, self.state.optimizer, self.state.ema is not None)
        check_disk(self.directory, size, [LATEST] + [BEST] * best, numbered, replaces)

    def check_same(self, *place: int) -> None:
        """CheckpointError unless all processes begin at the same place: each reads the checkpoint
        from its own machine's disk.
        """
        first = self.processes.sum(np.array(place) * self.processes.is_main)
        if self.processes.any(list(first) != list(place)):
            raise CheckpointError(
                f"not all processes have the same checkpoint to go on from (process "
                f"{self.processes.rank} has {self.last}); let Global.output_dir be on a disk that "
                f"all machines share, or copy it to all of them"
            )

    def resume(self, prefix: str, batches: int) -> float:
        """Load the set at `prefix` into everything; see State.load. batches: of an epoch."""
        if self.processes.is_main:
            # one process alone may finish an interrupted save
            recover(prefix)
        self.processes.barrier()
        position = self.state.load(prefix)
        progress = self.state.progress
        self.check_same(*self._place(), progress.update)
        logger.info(
            "resumed from %s: epoch %d, batch %d of %d, %s",
            prefix,
            progress.epoch,
            progress.batch,
            batches,
            progress.best_so_far,
        )
        self._at = self._place()
        self.after_step()
        return position

    def save(
        self, name: str, weights: Optional[Mapping[str, Any]] = None, kind: str = "raw"
    ) -> None:
        """Write a set, for which all processes wait; see State.parts."""
        self._write(name, weights, kind)
        self.processes.barrier()

    def after_step(self) -> None:
        """Keep BatchNorm's statistics: the next step changes them before its gradients are there,
        and ends in between if a process is lost.
        """
        self._kept_statistics = [tensor.clone() for tensor in self._statistics]

    def save_alone(self) -> None:
        """After another process was lost: write the last whole step as `latest`, unless it is."""
        if self._at != self._place():
            for tensor, kept in zip(self._statistics, self._kept_statistics):
                tensor.set_value(kept)
            self._write(LATEST)

    def _place(self) -> Tuple[int, int]:
        return self.state.progress.epoch, self.state.progress.batch

    def _write(
        self, name: str, weights: Optional[Mapping[str, Any]] = None, kind: str = "raw"
    ) -> None:
        if self.processes.is_main:
            if name == BEST:
                self._keep_a_better_one(self.directory / name)
            save_checkpoint(self.directory / name, self.state.parts(weights, kind))
        if name == LATEST:
            self.last = self.directory / name
            self._at = self._place()

    def _keep_a_better_one(self, prefix: Path) -> None:
        """Before this run's first best_model: one that is there and better stays, under another
        name.
        """
        if self._has_best or not prefix.with_suffix(".pdparams").exists():
            self._has_best = True
            return
        try:
            best = Progress.from_states(read_file(prefix.with_suffix(".pdstates"))).best
        except (ValueError, KeyError, TypeError, OSError):  # it is not a set of ours
            best = math.inf
        if best > self.state.progress.best:
            told = "" if best == math.inf else f" and better ({best:.4f})"
            kept = set_aside(prefix)
            logger.warning(
                "%s is another run's%s; it is kept as %s, before this run's (%.4f) replaces it",
                prefix,
                told,
                kept.name,
                self.state.progress.best,
            )
        self._has_best = True
