"""What a run says: a line per message, a JSON line per figure, a live bar; scalars for trackers."""

import json
import logging
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy
import paddle
import PIL

from .. import __version__, ops
from .distributed import Processes
from .logger import FORMAT, logger
from .run_folder import has_run, remove_run_files, set_run_aside
from .trackers import Trackers

ROW = 80  # columns of the bar

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None


def environment(processes: Processes) -> Dict[str, Any]:
    """Versions and hardware of a run, to be kept beside it."""
    return {
        "ppcls_nextvit": __version__,
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(),
        "device": processes.device,
        "processes": processes.world_size,
        "compiled_ops": ops.is_loaded(),
    }


def peak_memory_mb(device: str) -> Optional[float]:
    """Peak memory of this process in MB: the device's allocator on a GPU, the resident set on a
    CPU. None where the system does not tell (Windows).
    """
    if device == "gpu":
        return paddle.device.cuda.max_memory_allocated() / 2**20
    if resource is None:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)  # bytes, or kilobytes


def memory_text(memory_mb: Optional[float]) -> str:
    """What `peak_memory_mb` returned, for a line of text."""
    return "unknown" if memory_mb is None else f"{memory_mb:.0f} MB"


class RunLog:
    """Text to the terminal and `train.log`, figures to `log.jsonl`, scalars to `trackers`, which
    are names of trackers.TRACKERS. Other ranks print warnings and errors alone.
    """

    def __init__(
        self,
        directory: Union[str, Path],
        processes: Processes,
        log_ranks: Union[str, int] = "0",
        trackers: Sequence[str] = (),
    ):
        self.directory = Path(directory)
        self._figures: Any = None
        self._file: Optional[logging.FileHandler] = None
        self._begun = 0  # bytes of train.log that an earlier run wrote
        self.trackers = Trackers(trackers if processes.is_main else (), self.directory)
        self._prints = str(processes.rank) in [rank.strip() for rank in str(log_ranks).split(",")]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [_AboveTheBar(logging.INFO if self._prints else logging.WARNING)]
        if processes.is_main:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._open()
            self._begun = (self.directory / "train.log").stat().st_size
        for handler in logger.handlers:
            handler.setFormatter(FORMAT)

    def _open(self) -> None:
        self._file = logging.FileHandler(self.directory / "train.log", encoding="utf-8")
        self._file.setFormatter(FORMAT)
        logger.addHandler(self._file)
        self._figures = open(self.directory / "log.jsonl", "a", encoding="utf-8")

    def figures(self, kind: str, **values: Any) -> None:
        """Append one JSON line; numbers also become the trackers' scalars `<kind>/<name>`
        over `update`.
        """
        if self._figures:
            self._figures.write(
                json.dumps({"kind": kind, "time": round(time.time(), 3), **values}) + "\n"
            )
            self._figures.flush()
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and name != "update"
        }
        self.trackers.scalars(numbers, values.get("update", 0))

    def forget_after(self, epoch: int, position: float) -> None:
        """Drop the figures of a part of the run that is about to be done again: of training after
        `position`, in epochs, and of evaluation after `epoch` and later ones.
        """
        if not self._figures:
            return
        kept = [
            line
            for line in read_figures(self.directory)
            if (
                line["position"] <= position if "position" in line else line.get("epoch", 0) < epoch
            )
        ]
        self._figures.close()
        path = self.directory / "log.jsonl"
        draft = path.with_name("log.jsonl.tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(draft, path)
        self._figures = open(path, "a", encoding="utf-8")

    def start_anew(self, overwrite: bool = False) -> None:
        """Set an earlier run in this directory aside, see run_folder.set_run_aside, or, with
        `overwrite`, remove its files. What this run has said so far stays its own.
        """
        if not self._figures or not has_run(self.directory):
            return
        self._close_files()
        path = self.directory / "train.log"
        said = path.read_bytes()[self._begun :]
        os.truncate(path, self._begun)
        kept = None
        if overwrite:
            remove_run_files(self.directory)
        else:
            kept = set_run_aside(self.directory)
        path.write_bytes(said)
        self._open()
        if kept is not None:
            logger.info("%s had a run in it, which is now in %s", self.directory, kept)

    def bar(self, total: int, first: int, epoch: int, epochs: int) -> Any:
        """A live progress bar of at most ROW columns on a terminal; elsewhere a bar that prints
        nothing.
        """
        return _tqdm()(
            total=total,
            initial=first,
            desc=f"epoch {epoch}/{epochs}",
            unit="batch",
            file=sys.stderr,
            leave=False,
            ncols=min(ROW, shutil.get_terminal_size((ROW, 24)).columns - 1),
            bar_format="{desc} {percentage:3.0f}%{postfix} |{bar}|",
            disable=not (self._prints and sys.stderr.isatty()),
        )

    def _close_files(self) -> None:
        if self._file:
            logger.removeHandler(self._file)
            self._file.close()
        if self._figures:
            self._figures.close()

    def close(self) -> None:
        """Close the files; the logger keeps its other handlers."""
        self._close_files()
        self.trackers.close()


class _AboveTheBar(logging.Handler):
    """Lines to stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line."""
        _tqdm().write(self.format(record), file=sys.stderr)


def _tqdm():
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "the progress bar needs tqdm: pip install 'ppcls_nextvit[train]'"
        ) from error
    return tqdm


def read_figures(directory: Union[str, Path]) -> List[Dict[str, Any]]:
    """The JSON lines of a run; one that was cut by a kill is left out."""
    figures = []
    path = Path(directory) / "log.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(values, dict):
            figures.append(values)
    return figures
