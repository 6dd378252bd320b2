"""A lock is its owner's alone, and no dead owner's."""

import contextlib
import errno
import multiprocessing
import os
import re
import signal
import time
from types import SimpleNamespace

import pytest

from ppcls_nextvit.engine import lock
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.lock import FileLock, LockedError, own_folder
from support.locks import held


@pytest.fixture
def holder(tmp_path):
    """`holder(seconds)`: another process that has the lock of tmp_path / 'lock' for so long."""
    with contextlib.ExitStack() as held_here:
        yield lambda seconds: held_here.enter_context(held(tmp_path / "lock", seconds))


def test_a_lock_says_whose_it_is(tmp_path, holder):
    owner = holder(99)
    with pytest.raises(LockedError, match=f"^process {owner.pid} on {os.uname().nodename}, since "):
        FileLock(tmp_path / "lock").acquire()
    owner.kill()
    owner.wait()
    with FileLock(tmp_path / "lock"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    assert not (tmp_path / "lock").exists()


def test_who_waits_gets_it(tmp_path, holder):
    holder(1)
    begun = time.monotonic()
    with FileLock(tmp_path / "lock", wait_s=60):
        assert time.monotonic() - begun > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff", b'{"since": 1e99}']
)
def test_an_owner_that_says_nothing_sensible(tmp_path, holder, content):
    holder(99)
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(LockedError, match="^another process$"):
        FileLock(tmp_path / "lock").acquire()


def test_forked_processes_do_not_keep_it(tmp_path):
    """Data workers outlive a killed trainer by a moment; the next run must not wait for them."""
    reader, writer = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        FileLock(tmp_path / "lock").acquire()
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(99,))
        worker.start()
        os.write(writer, str(worker.pid).encode())
        time.sleep(99)
    worker = int(os.read(reader, 20))
    try:
        with pytest.raises(LockedError, match=f"^process {trainer} on"):
            FileLock(tmp_path / "lock").acquire()
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)
        os.kill(worker, 0)  # it lives
        with FileLock(tmp_path / "lock"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(lock.logger, "propagate", True)
    monkeypatch.setattr(lock.fcntl, "lockf", no_locks)
    with FileLock(tmp_path / "lock"):
        assert "two runs in one folder are not noticed" in caplog.text


def test_one_that_is_given_back_while_another_opens_it(tmp_path, monkeypatch):
    """The file that the other opened is no more: it takes the one that is there."""
    locks, taken = lock._locks, []

    def slow(descriptor):
        if not taken:  # between opening and locking its owner removes the file
            taken.append(os.unlink(tmp_path / "lock"))
        return locks(descriptor)

    monkeypatch.setattr(lock, "_locks", slow)
    with FileLock(tmp_path / "lock"):
        assert re.match(rb'{"pid": \d+', (tmp_path / "lock").read_bytes())


def test_a_folder_that_is_gone_when_it_is_given_back(tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "lock"):
        os.unlink(tmp_path / "run" / "lock")
        (tmp_path / "run").rmdir()


def test_where_there_are_no_locks_every_process_has_them(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "fcntl", None)
    with open(tmp_path / "lock", "w") as file:
        assert lock._locks(file.fileno()) is True


def test_a_run_s_folder_is_refused_with_its_owner(tmp_path):
    folder = tmp_path / "runs" / "first"
    with own_folder(folder, Processes()):
        assert (folder / "run.lock").exists()
    assert not (folder / "run.lock").exists()
    with held(folder / "run.lock", 99) as owner:
        message = f"first: another run .*: process {owner.pid} on"
        with pytest.raises(LockedError, match=message), own_folder(folder, Processes()):
            pytest.fail("it is another's")
    # the other processes of a run hear it of the first, and take no lock of their own
    refused = SimpleNamespace(is_main=False, any=lambda flag: True)
    with pytest.raises(LockedError, match="see the first process"), own_folder(folder, refused):
        pytest.fail("it is another's")
    with own_folder(tmp_path / "none", SimpleNamespace(is_main=False, any=bool)):
        assert not (tmp_path / "none").exists()
