"""Where a run stands, what it measured since its last line, and whether it was asked to stop."""

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, fields, replace
from types import FrameType
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

import numpy as np
import paddle

from ..schema import shown
from .distributed import Processes

__all__ = ["LossWindow", "Pace", "Progress", "StopCheck", "StopSignal", "Stopped", "duration"]

MOST_STEPS = 1 << 40  # of a run
CHECK_S = 1.0  # from one time that the processes ask each other whether to stop to the next


@dataclass(frozen=True)
class Pace:
    """How long an epoch is. batches: of one process. update_freq: batches of an optimiser step, of
    which the last of an epoch may have fewer. batch_images: of a batch of all processes; 0: not
    known.
    """

    batches: int
    update_freq: int = 1
    batch_images: int = 0

    def has_images_of(self, other: "Pace") -> bool:
        """Whether an epoch of the other is one of the same images, but for the last batch."""
        if not (self.batch_images and other.batch_images):
            return False
        difference = self.batches * self.batch_images - other.batches * other.batch_images
        return abs(difference) < max(self.batch_images, other.batch_images)

    @property
    def updates(self) -> int:
        """Optimiser steps of an epoch."""
        return self.updates_of(self.batches)

    def updates_of(self, batches: int) -> int:
        """Optimiser steps of the first so many batches of an epoch."""
        return -(-batches // self.update_freq)


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

    @classmethod
    def from_states(cls, states: Mapping[str, Any]) -> "Progress":
        """What a checkpoint's `states` say. ValueError for what no run can have said."""
        values = {field.name: states[field.name] for field in fields(cls)}
        for name in ("epoch", "batch", "update", "best_epoch"):
            if type(values[name]) is not int or not 0 <= values[name] < MOST_STEPS:
                raise ValueError(f"{name} must be a whole number, got {shown(values[name])}")
        best = values["best"]
        if type(best) not in (int, float) or math.isnan(best):
            raise ValueError(f"best must be a number, got {shown(best)}")
        if values["best_weights"] not in ("", "raw", "ema"):
            raise ValueError(
                f"best_weights must be raw or ema, got {shown(values['best_weights'])}"
            )
        return cls(**values)

    def moved(self, then: Pace, now: Pace) -> "Progress":
        """The same place in the run where epochs have other batches: after the same images, or of
        an epoch of other images at the same share, with whole optimiser steps, rounded down.
        """
        batch = now.batches
        if self.batch < then.batches:
            if now.has_images_of(then):
                batches = self.batch * then.batch_images // now.batch_images
            else:
                batches = self.batch * now.batches // then.batches
            batch = min(batches // now.update_freq * now.update_freq, now.batches)
        update = (self.epoch - 1) * now.updates + now.updates_of(batch)
        return replace(self, batch=batch, update=update)

    @property
    def best_so_far(self) -> str:
        """The best metric, its epoch and kind of weights, as a text for the log."""
        if not self.best_epoch:
            return "not evaluated yet"
        return f"best {self.best:.4f} at epoch {self.best_epoch} ({self.best_weights} weights)"


# what a signal is answered with, at once: the step in work may take long
HEARD = b"\nstopping: the run is saved after the current step (Ctrl-C again: at once, unsaved)\n"
HEARD_TERM = b"\nstopping: the run is saved after the current step\n"
STDERR = 2


class Stopped(BaseException):
    """A signal came where the work is left at once; see StopSignal.at_once."""


class _SignalStack(ctypes.Structure):
    """stack_t of Linux's signal.h."""

    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


SS_DISABLE = 2


def _answer_signals_on_the_stack() -> None:
    """Signals of this thread are answered on its own stack, not on another that a library set.

    OpenVINO's processor plugin sets one for each of its cores. Two that do not end in the reverse
    of their order, such as NNCF's, leave the thread a freed one, and the next signal would end the
    process with a segmentation fault.
    """
    if sys.platform == "linux":
        none = _SignalStack(None, SS_DISABLE, 0)
        ctypes.CDLL(None).sigaltstack(ctypes.byref(none), None)


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can save and leave between two optimiser steps.

    Launchers repeat their SIGTERM within a second, so only a second Ctrl-C ends the process at
    once.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came first; 0: none
        self._leaves = False
        _answer_signals_on_the_stack()
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        if number == signal.SIGINT and self.number:
            raise KeyboardInterrupt
        if not self.number:
            # not by a logger, whose lock the interrupted code may have
            with contextlib.suppress(OSError):
                os.write(STDERR, HEARD if number == signal.SIGINT else HEARD_TERM)
        self.number = self.number or number
        if self._leaves:
            self._leaves = False  # what ends the work now is not disturbed by another
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, where nothing is to be saved, a signal raises Stopped; so does one that
        came before.
        """
        if self.number:
            raise Stopped
        self._leaves = True
        try:
            yield
        finally:
            self._leaves = False

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class StopCheck:
    """Whether to stop, asked after each optimiser step. Many processes must agree, which costs, so
    they ask each other about every CHECK_S seconds.

    must_stop: whether this process must.
    """

    def __init__(self, processes: Processes, must_stop: Callable[[], bool]):
        self.processes, self.must_stop = processes, must_stop
        self.steps, self.interval = 0, 1
        self.started = time.monotonic()

    def __call__(self) -> bool:
        """Whether any process must stop, as far as they know by now. All know it at the same
        step.
        """
        if not self.processes.many:
            return self.must_stop()
        self.steps += 1
        if self.steps < self.interval:
            return False
        seconds = time.monotonic() - self.started
        told, seconds = self.processes.sum([self.must_stop(), seconds])
        of_a_step = seconds / self.processes.world_size / self.steps
        # all compute it of the same sums; a run that grows slower soon asks more often
        self.interval = max(1, int(min(2 * self.interval, CHECK_S / max(of_a_step, 1e-6))))
        self.steps, self.started = 0, time.monotonic()
        return bool(told > 0)


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
