"""How Paddle starts in our programs: on the cores that are there, and without the notices that it
prints to everybody.

By itself Paddle runs on one core unless OMP_NUM_THREADS is set before it is imported, and writes
`1` there, which programs started later take for the user's.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any, List, Optional

__all__ = ["cores", "is_chosen", "prepare", "threads", "threads_text"]

THREADS = "OMP_NUM_THREADS"
CHOSEN = "PPCLS_NEXTVIT_THREADS"  # what stands in THREADS because this module chose it
CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")
# Warnings of Python's, by their beginning: at import (a compiler cache for custom operators), at
# each first training step, and of an optimiser that has no state.
WARNINGS = (
    "No ccache found",
    "When training, we now always track global mean and variance",
    "The input state dict is empty, no need to save",
)
NOTICES = ("WARNING: OMP_NUM_THREADS set to ", "PLEASE USE OMP_NUM_THREADS WISELY.")


def cores() -> int:
    """Processor cores that this process may use: its affinity, and the limit of its container."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone has it
        usable = os.cpu_count() or 1
    return max(1, min([usable, *_limits()]))


def _limits() -> List[int]:
    """Whole cores that the control groups (version 2, else 1) leave to this process."""
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                own = CGROUPS / line[len("0::/") :]
                folders = [own, *own.parents]
                quotas = [_words(folder / "cpu.max") for folder in folders]
                break
        else:
            folder = CGROUPS / "cpu"
            quotas = [_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")]
        return [
            int(quota[0]) // int(quota[1])
            for quota in quotas
            if len(quota) == 2 and all(word.isdecimal() and int(word) for word in quota)
        ]
    return []


def _words(file: Path) -> List[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def threads(processes: int = 1) -> int:
    """With how many threads a process computes on a CPU: what OMP_NUM_THREADS says, else the cores
    of this machine by its `processes`.
    """
    if not _given() and not is_chosen():
        return max(1, cores() // processes)
    told = os.environ[THREADS].partition(",")[0].strip()
    return int(told) if told.isdecimal() and int(told) else 1


def is_chosen() -> bool:
    """Whether what stands in OMP_NUM_THREADS is our choice, not the user's."""
    return CHOSEN in os.environ and os.environ[CHOSEN] == os.environ.get(THREADS)


def threads_text() -> str:
    """`threads`, and where they come from, as programs say it."""
    origin = THREADS if _given() and not is_chosen() else "the cores that are there"
    return f"threads: {threads()} ({origin})"


def prepare(count: Optional[int] = None) -> None:
    """Choose OMP_NUM_THREADS (`count`, or by rule if the user did not), and let Paddle be imported
    without notices. Where Paddle is imported already, its threads stay as they are.
    """
    # what Paddle's C++ warns of, such as the compute capability of the GPU; errors are still said
    os.environ.setdefault("GLOG_minloglevel", "2")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if "paddle" in sys.modules:
        return
    if count or not _given():
        here = os.environ.get("PADDLE_LOCAL_SIZE", "")
        processes = int(here) if here.isdecimal() and int(here) else 1
        os.environ[THREADS] = os.environ[CHOSEN] = str(count or max(1, cores() // processes))
    if not any(isinstance(finder, _QuietPaddle) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietPaddle())


def _given() -> bool:
    """Whether the user set OMP_NUM_THREADS. Paddle's launcher imported Paddle, which set it for the
    processes that it started: there counts what the launcher itself was started with.
    """
    if not os.environ.get(THREADS):
        return False
    if is_chosen():  # by the program that started this one
        return "PADDLE_LOCAL_RANK" not in os.environ
    if "PADDLE_LOCAL_RANK" in os.environ and os.environ[THREADS] == "1":
        with contextlib.suppress(OSError):  # Linux alone has it
            started_with = (PROC / str(os.getppid()) / "environ").read_bytes().split(b"\0")
            return any(word.startswith(f"{THREADS}=".encode()) for word in started_with)
    return True


class _WithoutNotices:
    """A stream that leaves out Paddle's notices. Handlers of logs that Paddle makes while it is
    imported keep it, so that it passes on all else, at once and later.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ends_notice = False

    def write(self, text: str) -> int:
        """Write the text, unless it is a notice, or the end of the line that was one."""
        ends_notice, self._ends_notice = self._ends_notice, text.startswith(NOTICES)
        if self._ends_notice:
            self._ends_notice = not text.endswith("\n")
        elif not (ends_notice and text == "\n"):
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _QuietPaddle(importlib.abc.MetaPathFinder):
    """Finds Paddle, once, as the others do, and has it imported without its notices."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Optional[Any]:
        if name != "paddle":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def quietly(module: Any) -> None:
            with contextlib.redirect_stderr(_WithoutNotices(sys.stderr)):
                execute(module)

        spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec
