"""startup.py: with how many threads programs compute, and that Paddle says nothing of it."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings

import pytest

from ppcls_nextvit import startup
from support.paths import ROOT

# after Paddle's import: its threads by OpenMP, and what programs say of them
SAYS = """
import ctypes, json, os, sys
{first}
import ppcls_nextvit
import paddle
from ppcls_nextvit import startup
libraries = os.path.join(os.path.dirname(paddle.__file__), "libs", "libiomp5.so")
openmp = ctypes.CDLL(libraries)
print(json.dumps([openmp.omp_get_max_threads(), startup.threads(), startup.threads_text()]))
"""


@pytest.fixture
def quotas(tmp_path, monkeypatch):
    """A machine with 8 cores, whose /proc/self/cgroup and control groups are files of the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(startup, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(startup, "PROC", tmp_path / "proc")

    def write(groups, **files):
        for name, text in {"proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.mark.parametrize(
    "groups, files, cores",
    [
        ("0::/a/b\n", {}, 8),
        ("0::/a/b\n", {"cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"cgroup/a/b/cpu.max": "250000 100000\n"}, 2),
        ("0::/a/b\n", {"cgroup/a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cgroup/cpu.max": "400000 100000\n"}, 4),
        ("0::/a\n", {"cgroup/a/cpu.max": "many\n"}, 8),
        (
            "2:cpu:/\n1:name=systemd:/\n",
            {"cgroup/cpu/cpu.cfs_quota_us": "500000", "cgroup/cpu/cpu.cfs_period_us": "100000"},
            5,
        ),
        (
            "2:cpu:/\n",
            {"cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
        ),
    ],
)
def test_cores_are_those_of_the_container(quotas, groups, files, cores):
    quotas(groups, **files)
    assert startup.cores() == cores


def test_cores_are_those_of_the_affinity(quotas, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5})
    assert startup.cores() == 2  # and no file says of a limit
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert startup.cores() == 1


@pytest.fixture
def fresh(quotas, monkeypatch):
    """A process that has not imported Paddle."""
    monkeypatch.delitem(sys.modules, "paddle")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(warnings, "filters", list(warnings.filters))
    for name in (startup.THREADS, startup.CHOSEN, "PADDLE_LOCAL_RANK", "PADDLE_LOCAL_SIZE"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


def test_all_cores_are_the_default(fresh):
    assert startup.threads() == 8 and startup.threads(processes=3) == 2
    startup.prepare()
    assert os.environ[startup.THREADS] == "8" and startup.is_chosen()
    assert startup.threads_text() == "threads: 8 (the cores that are there)"
    startup.prepare()  # as a program that this one starts does
    assert startup.threads_text() == "threads: 8 (the cores that are there)"


def test_the_user_is_asked_first(fresh):
    fresh.setenv(startup.THREADS, "3")
    startup.prepare()
    assert os.environ[startup.THREADS] == "3" and not startup.is_chosen()
    assert startup.threads_text() == "threads: 3 (OMP_NUM_THREADS)"
    startup.prepare(5)  # --threads 5
    assert os.environ[startup.THREADS] == "5" and startup.threads() == 5


def test_processes_of_one_machine_share_its_cores(fresh, quotas):
    """The launcher has imported Paddle, which set OMP_NUM_THREADS for the processes."""
    fresh.setenv("PADDLE_LOCAL_RANK", "1")
    fresh.setenv("PADDLE_LOCAL_SIZE", "2")
    fresh.setenv(startup.THREADS, "1")
    launcher = f"proc/{os.getppid()}/environ"
    quotas("0::/\n", **{launcher: "HOME=/\0LANG=C\0"})
    startup.prepare()
    assert os.environ[startup.THREADS] == "4" and startup.is_chosen()
    fresh.setenv(startup.THREADS, "1")
    fresh.delenv(startup.CHOSEN)
    quotas("0::/\n", **{launcher: "HOME=/\0OMP_NUM_THREADS=1\0"})
    startup.prepare()
    assert os.environ[startup.THREADS] == "1" and not startup.is_chosen()


@pytest.mark.slow
@pytest.mark.parametrize(
    "first, told, expected",
    [
        ("", None, [startup.cores(), startup.cores(), "the cores that are there"]),
        ("", "3", [3, 3, "OMP_NUM_THREADS"]),
        ("import paddle", None, [1, 1, "OMP_NUM_THREADS"]),  # too late: as Paddle set it
    ],
)
def test_paddle_computes_so_and_says_nothing(first, told, expected):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    del environment["OMP_NUM_THREADS"]
    environment |= {"OMP_NUM_THREADS": told} if told else {}
    command = [sys.executable, "-c", SAYS.format(first=first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *numbers, text = json.loads(done.stdout)
    assert [*numbers, text.partition("(")[2].rstrip(")")] == expected
    if not first:
        assert done.stderr == ""


def test_a_notice_alone_is_left_out_at_import_and_later():
    """Log handlers that Paddle makes while it is imported keep the stream."""
    real = io.StringIO()
    stream = startup._WithoutNotices(real)
    print("WARNING: OMP_NUM_THREADS set to 2, not 1. It may", file=stream)
    print("PLEASE USE OMP_NUM_THREADS WISELY.", file=stream)
    print(file=stream)
    stream.write("PLEASE USE OMP_NUM_THREADS WISELY.\n")
    logging.StreamHandler(stream).emit(logging.makeLogRecord({"msg": "said"}))
    assert real.getvalue() == "\nsaid\n" and not stream.isatty()
