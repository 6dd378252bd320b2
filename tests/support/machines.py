"""Several machines for tests: network namespaces with an address each, joined by a wire that can be
cut; where the system has none (they need root), launchers side by side on 127.0.0.1.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from .paths import ROOT


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def have_wires():
    """Whether this system has network namespaces, and this user may make them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"nv{os.getpid()}t"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except subprocess.CalledProcessError:
        return False
    return True


class Machines:
    """Two machines. `launch` starts a launcher of Paddle's on one; `kill` ends a machine's
    processes as a power cut would, `cut` takes the wire away. A context manager: at its end all is
    gone.
    """

    def __init__(self, directory, wired):
        self.directory, self.wired = Path(directory), wired
        self.launchers = []
        self.hosts = ["10.77.0.1", "10.77.0.2"] if wired else ["127.0.0.1"] * 2
        self.names = [f"nv{os.getpid()}{letter}" for letter in "ab"]

    def __enter__(self):
        if self.wired:
            first, second = self.names
            for name in self.names:
                _ip("netns", "add", name)
            _ip("link", "add", first, "type", "veth", "peer", "name", second)
            for name, host in zip(self.names, self.hosts, strict=True):
                _ip("link", "set", name, "netns", name)
                _ip("-n", name, "addr", "add", f"{host}/24", "dev", name)
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", name, "up")
        return self

    def __exit__(self, *_):
        for launcher in self.launchers:
            self.kill(launcher)
        if self.wired:
            for name in self.names:
                with contextlib.suppress(subprocess.CalledProcessError):
                    _ip("netns", "del", name)

    def words(self, machine):
        """What a command on a machine begins with."""
        return ["ip", "netns", "exec", self.names[machine]] if self.wired else []

    def start(self, machine, command, log, environment=None):
        """A program on a machine; what it says goes to the file `log`."""
        with open(self.directory / log, "wb") as file:
            process = subprocess.Popen(
                [*self.words(machine), *command],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.directory)]),
                    "OMP_NUM_THREADS": "1",
                    **(environment or {}),
                },
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.launchers.append(process)
        return process

    def launch(self, path, *overrides, nnodes=2, processes=1, environment=None, words=()):
        """tools/train.py with the YAML on `nnodes` machines; returns their launchers. Their
        output is in machine0.txt and machine1.txt.
        """
        # the rendezvous, in loopback mode at a port that nobody else has
        port = 6170 if self.wired else _free_port()
        launchers = []
        for rank in range(nnodes):
            together = [f"--nnodes={nnodes}", f"--nproc_per_node={processes}", *words]
            if nnodes > 1:
                together += [f"--master={self.hosts[0]}:{port}", f"--rank={rank}"]
            launchers.append(self._launch(rank, together, path, overrides, environment))
        return launchers

    def _launch(self, machine, together, path, overrides, environment, words=()):
        """The launcher of one machine; together: how it finds the others, words: more of
        tools/train.py.
        """
        command = [sys.executable, "-m", "paddle.distributed.launch", *together]
        command += [f"--host={self.hosts[machine]}"]
        command += ["--log_dir", str(self.directory / f"log{machine}")]
        command += [str(ROOT / "tools" / "train.py"), "-c", str(path), *words]
        for override in overrides:
            command += ["-o", override]
        return self.start(machine, command, f"machine{machine}.txt", environment)

    def serve_etcd(self):
        """An etcd server on the first machine."""
        place = f"http://{self.hosts[0]}:2379"
        command = ["etcd", "--data-dir", str(self.directory / "etcd")]
        command += ["--listen-client-urls", place, "--advertise-client-urls", place]
        command += ["--listen-peer-urls", "http://127.0.0.1:0"]
        return self.start(0, command, "etcd.txt")

    def join(self, machine, path, *overrides, environment=None):
        """A launcher that finds the others by `serve_etcd`, one or two of them, as docs/training.md
        tells.
        """
        together = ["--nnodes=1:2", f"--master=etcd://{self.hosts[0]}:2379", "--job_id=test"]
        together += ["--elastic_level=1", "--max_restart=20"]
        environment = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", **(environment or {})}
        return self._launch(machine, together, path, overrides, environment, ["--continue"])

    def said(self, machine):
        """What the launcher and the first worker of a machine said."""
        return (self.directory / f"machine{machine}.txt").read_text(errors="replace")

    def cut(self):
        """Take the wire away: nothing arrives any more, and no connection is closed."""
        _ip("-n", self.names[0], "link", "set", self.names[0], "down")

    def mend(self):
        """The wire is there again."""
        _ip("-n", self.names[0], "link", "set", self.names[0], "up")

    def kill(self, launcher):
        """SIGKILL for a launcher and all that it started."""
        for pid in _family(launcher.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.wait()


def _family(pid):
    """A process and all below it, the youngest last."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            text = (folder / "stat").read_text()
            parents[int(folder.name)] = int(text.rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until(condition, seconds):
    """Until the condition holds; an AssertionError after so many seconds."""
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it took too long"
        time.sleep(0.1)
