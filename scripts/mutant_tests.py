"""Run tests of a copy of the repository in processes forked from one that has imported Paddle, and
know which functions each of them reaches.
"""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Iterator, Optional, Sequence

import pytest

ROOT = Path(__file__).resolve().parents[1]
HANGS_S = 120  # seconds of the processor after which a fast test hangs
WAITS_S = 1200  # of the clock, after which nobody knows: it may wait for others on a busy machine
CAUGHT, SURVIVED = 1, 0  # exit statuses of a run of tests
FAST = "not slow and not chain"
SLOW = "slow and not chain"  # with the fast ones, the default run

Place = tuple[str, int]  # of a function: its file, relative to the repository, and its first line


def copied(to: Path) -> None:
    """What git would take of the working tree, in `to`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def preload() -> None:
    """Import what every run of tests would: processes that are forked have it."""
    import paddle

    with suppress(ImportError):
        import cv2  # noqa: F401
        import matplotlib.pyplot  # noqa: F401
        import pycocotools.mask  # noqa: F401
        import scipy.optimize  # noqa: F401
    paddle.set_device("cpu")


# Which tests reach which functions
# --------------------------------------------------------------------------------------


@dataclass
class Reach:
    """known: the files of tests that it knows. seconds: {test: how long it took}. by_test: {function: tests that call it};
    by_file: {function: files of tests that call it in a fixture that tests share, or on import}.
    fails: {file of tests: why nothing is known of it}.
    """

    known: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    by_test: dict[Place, set[str]] = field(default_factory=dict)
    by_file: dict[Place, set[str]] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)

    def learn(self, copy: Path, file: str, limit_s: float) -> bool:
        """Run the fast tests of a file, if that was not done before; False where the limit was too
        short. RuntimeError where one fails.
        """
        if file in self.known:
            return True
        if file in self.fails:
            raise RuntimeError(self.fails[file])
        note = copy.parent / "reach"
        status, failed = run_tests(copy, [file], limit_s, Tracer(copy, note))
        if status is None:
            return False
        if status != SURVIVED:
            self.fails[file] = f"{failed or file} fails without a mutant"
            raise RuntimeError(self.fails[file])
        self.known.add(file)
        for test, (seconds, own, shared) in json.loads(note.read_text()).items():
            self.seconds[test] = seconds
            for path, line in own:
                self.by_test.setdefault((path, line), set()).add(test)
            for path, line in shared:
                self.by_file.setdefault((path, line), set()).add(file)
        return True

    def tests(self, among: Sequence[str], path: Path, text: str, line: int) -> list[str]:
        """The tests among these files that reach the function around a line of a source, or, where
        it is in none, any function of the source; the quickest first.
        """
        function = function_around(text, line)
        name = path.as_posix()
        wanted = [(name, function)] if function else [p for p in self._places() if p[0] == name]
        own = set().union(*(self.by_test.get(place, set()) for place in wanted))
        files = set().union(*(self.by_file.get(place, set()) for place in wanted))
        every = {test for test in self.seconds if test.partition("::")[0] in files}
        found = [test for test in own | every if test.partition("::")[0] in among]
        return sorted(found, key=lambda test: (self.seconds[test], test))

    def _places(self) -> Iterator[Place]:
        yield from {*self.by_test, *self.by_file}


def function_around(text: str, line: int) -> Optional[int]:
    """The first line, decorators included, of the innermost function that has this line."""
    found = None
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0) and first >= (found or 0):
                found = first
    return found


class Tracer:
    """pytest's plugin that writes {test: (seconds, functions it calls, functions that what it
    shares with others calls)} to `note`.
    """

    def __init__(self, copy: Path, note: Path):
        self.start, self.note = f"{copy}{os.sep}ppcls_nextvit{os.sep}", note
        self.cut = len(str(copy)) + 1
        self.own: set[Place] = set()
        self.shared: set[Place] = set()
        self.calls = self.shared  # on import
        self.found: dict[str, tuple[float, list[Place], list[Place]]] = {}
        self.begin = 0.0

    def trace(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call."""
        code = frame.f_code
        if code.co_filename.startswith(self.start):
            self.calls.add((code.co_filename[self.cut :], code.co_firstlineno))

    def pytest_sessionstart(self) -> None:
        sys.settrace(self.trace)

    def pytest_runtest_logstart(self) -> None:
        self.own = set()
        self.calls = self.own
        self.begin = time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        before = self.calls
        if fixturedef.scope != "function":
            self.calls = self.shared
        try:
            return (yield)
        finally:
            self.calls = before

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        seconds = time.monotonic() - self.begin
        self.found[nodeid] = (seconds, sorted(self.own), sorted(self.shared))
        self.calls = self.shared

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        self.note.write_text(json.dumps(self.found))


# Running them
# --------------------------------------------------------------------------------------


class Watch:
    """pytest's plugin that runs some tests of what is collected, in their order, writes down the
    first that fails, or hangs, and ends there.
    """

    def __init__(self, tests: Sequence[str], note: Path):
        self.order = {test: number for number, test in enumerate(tests)}
        self.note = note

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if any("::" in test for test in self.order):
            items[:] = [item for item in items if item.nodeid in self.order]
            items.sort(key=lambda item: self.order[item.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._end(f"{report.nodeid} (import)")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.note.write_text(f"{nodeid} (hangs)", encoding="utf-8")
        signal.setitimer(signal.ITIMER_PROF, HANGS_S)
        signal.alarm(WAITS_S)

    def pytest_runtest_logfinish(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        self.note.write_text("", encoding="utf-8")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            print(report.longreprtext, flush=True)
            self._end(report.nodeid)

    def _end(self, what: str) -> None:
        self.note.write_text(what, encoding="utf-8")
        os._exit(CAUGHT)  # -x would end the fixtures first


def run_tests(
    copy: Path, tests: Sequence[str], limit_s: float, *plugins: Any, marks: str = FAST
) -> tuple[Optional[int], str]:
    """SURVIVED, CAUGHT, or None where it took longer than the limit or than WAITS_S, of tests with
    these marks in `copy`, which are files or single ones; and the test that failed.
    """
    note = copy.parent / "failed"
    note.write_text("", encoding="utf-8")
    child = os.fork()
    if not child:
        _be_pytest(copy, tests, [Watch(tests, note), *plugins], marks)
    try:
        status = _status(child, time.monotonic() + limit_s)
    finally:
        for end in (os.kill, os.killpg):  # it may not lead a group yet
            with suppress(ProcessLookupError, PermissionError):
                end(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    if status in (None, -signal.SIGALRM):
        return None, ""
    return (CAUGHT if status else SURVIVED), note.read_text(encoding="utf-8")


def _status(child: int, end: float) -> Optional[int]:
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None


def _be_pytest(copy: Path, tests: Sequence[str], plugins: Sequence[Any], marks: str) -> None:
    """Be the process that runs the tests; does not return."""
    status = CAUGHT
    try:
        os.setsid()
        os.chdir(copy)
        sys.path[:0] = [str(copy), str(copy / "tests")]
        os.environ["PYTHONPATH"] = str(copy)  # of the programs that tests start
        with open(copy.parent / "log", "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        files = sorted({test.partition("::")[0] for test in tests})
        options = ["-m", marks, "-p", "no:cacheprovider", f"--basetemp={copy.parent / 'tmp'}"]
        status = int(pytest.main([*options, *files], plugins=list(plugins))) if files else SURVIVED
    finally:
        os._exit(SURVIVED if status in (0, 5) else CAUGHT)
