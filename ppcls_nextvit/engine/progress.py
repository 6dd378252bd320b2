"""Where a run stands, what it measured since its last line, and whether it was asked to stop."""

import math
import signal
import time
from dataclasses import dataclass
from types import FrameType
from typing import Callable, Dict, Mapping, Optional

import numpy as np
import paddle

from .distributed import Processes

__all__ = ["LossWindow", "Progress", "StopSignal", "duration"]


@dataclass
class Progress:
    """Where a run stands: all that resuming needs besides weights and optimiser, since randomness
    is a function of place.
    """

    epoch: int = 1  # 1-based; the current epoch
    batch: int = 0  # batches of it that are done
    update: int = 0  # optimiser steps done since the beginning
    best: float = -math.inf  # best value of the task's best_metric
    best_epoch: int = 0
    best_weights: str = ""  # 'raw' or 'ema': which weights best_model holds

    @property
    def best_so_far(self) -> str:
        """The best metric, its epoch and kind of weights, as a text for the log."""
        if not self.best_epoch:
            return "not evaluated yet"
        return f"best {self.best:.4f} at epoch {self.best_epoch} ({self.best_weights} weights)"


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can save and leave between two optimiser steps.

    Launchers repeat their SIGTERM within a second, so only a second Ctrl-C ends the process at
    once.
    """

    def __init__(self):
        self.number = 0  # of the signal that came first; 0: none
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGINT and self.number:
            raise KeyboardInterrupt
        self.number = self.number or number

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class LossWindow:
    """Averages over all processes since the last printed line.

    train_figures: turns summed counts into figures, see tasks/base.py.
    """

    def __init__(self, train_figures: Callable[[Mapping[str, np.ndarray]], Dict[str, float]]):
        self.train_figures = train_figures
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.started = time.time()
        self.loss, self.batches, self.images = 0.0, 0, 0
        self.parts: Dict[str, float] = {}
        self.counts: Dict[str, np.ndarray] = {}

    def add(
        self,
        loss: float,
        parts: Mapping[str, paddle.Tensor],
        images: int,
        counts: Mapping[str, np.ndarray],
    ) -> None:
        """One batch: its loss, the loss's parts, its images and its counts by name."""
        self.loss += loss
        self.batches += 1
        self.images += images
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + np.asarray(count, dtype=np.int64)

    def close(self, processes: Processes, batches_left: int) -> Dict[str, float]:
        """The averages, images per second of all processes and seconds to go; the window begins
        anew.
        """
        seconds = max(time.time() - self.started, 1e-9)
        left = seconds / self.batches * batches_left
        loss, batches, images, *parts = processes.sum(
            [self.loss, self.batches, self.images, *self.parts.values()]
        )
        figures = {
            "loss": float(loss / batches),
            **self.train_figures({k: processes.sum(count) for k, count in self.counts.items()}),
            "images_per_s": round(float(images) / seconds, 2),
            "eta_s": round(left),
        }
        if len(parts) > 1:
            figures.update({name: float(part / batches) for name, part in zip(self.parts, parts)})
        self.clear()
        return figures


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
