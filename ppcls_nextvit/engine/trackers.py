"""Where a run's figures go besides its own files: VisualDL, TensorBoard, Weights & Biases. Each has
a key of Global, a folder in the run's, and an extra.
"""

import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence

__all__ = ["FOLDERS", "Trackers"]


class Tracker(Protocol):
    """A log of scalars over steps."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Note figures by their names, such as train/loss."""

    def close(self) -> None:
        """Write what is not written yet."""


class _VisualDL:
    def __init__(self, writer: Any, folder: Path) -> None:
        self.writer = writer(logdir=str(folder / "visualdl"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def visualdl() -> Callable[[Path], Tracker]:
    """What opens VisualDL's log in a run's folder. ImportError names the extra."""
    try:
        from visualdl import LogWriter
    except ImportError as error:
        raise ImportError(_lacking("use_visualdl", "VisualDL", "visualdl")) from error
    return lambda folder: _VisualDL(LogWriter, folder)


class _TensorBoard:
    """An event file, by the package `tensorboard` alone."""

    def __init__(self, writer: Any, event: Any, summary: Any, folder: Path) -> None:
        self.writer = writer(str(folder / "tensorboard"))
        self.event, self.summary = event, summary

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        noted = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = self.summary(value=noted)
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()  # by itself it waits for two minutes

    def close(self) -> None:
        self.writer.close()


def tensorboard() -> Callable[[Path], Tracker]:
    """What opens TensorBoard's log in a run's folder. ImportError names the extra."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ImportError(_lacking("use_tensorboard", "TensorBoard", "tensorboard")) from error
    return lambda folder: _TensorBoard(EventFileWriter, Event, Summary, folder)


class _WandB:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names (ppcls_nextvit). The other
    settings are its own, too: WANDB_MODE=offline sends nothing.
    """

    def __init__(self, module: Any, folder: Path) -> None:
        self.run = module.init(
            project=os.environ.get("WANDB_PROJECT", "ppcls_nextvit"),
            name=folder.name,
            dir=str(folder),
            settings=module.Settings(silent=True, console="off"),  # the run prints its own lines
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def wandb() -> Callable[[Path], Tracker]:
    """What begins a run of Weights & Biases. ImportError names the extra."""
    try:
        import wandb as module
    except ImportError as error:
        raise ImportError(_lacking("use_wandb", "Weights & Biases", "wandb")) from error
    return lambda folder: _WandB(module, folder)


def _lacking(key: str, name: str, extra: str) -> str:
    return f"Global.{key} needs {name}: pip install 'ppcls_nextvit[{extra}]'"


# By the key of Global, without use_; each writes into the folder of its name.
TRACKERS: Dict[str, Callable[[], Callable[[Path], Tracker]]] = {
    "visualdl": visualdl,
    "tensorboard": tensorboard,
    "wandb": wandb,
}
FOLDERS = tuple(TRACKERS)


class Trackers:
    """Those that a run was asked for; each is opened by its first figures, since a folder of an
    earlier run is set aside before them.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._openers = [TRACKERS[name]() for name in names]
        self._open: Optional[List[Tracker]] = None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Note figures in each of them."""
        if self._open is None:
            self._open = [opener(self.folder) for opener in self._openers]
        for tracker in self._open:
            tracker.scalars(values, step)

    def close(self) -> None:
        """Close those that are open."""
        for tracker in self._open or ():
            tracker.close()
