"""What the processes of a run know of each other, over real connections of this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ppcls_nextvit.engine import addresses, peers
from ppcls_nextvit.engine.peers import LostProcessError, Peers
from ppcls_nextvit.schema import ConfigError
from support.paths import ROOT

SILENT_S = 1.0


class Exchange:
    """Stands for the sum over the processes: what process 0 says, the others hear."""

    def __init__(self):
        self.told = threading.Event()

    def __call__(self, values):
        if values.any():
            self.value = values
            self.told.set()
        assert self.told.wait(10)
        return self.value


def joined(count, before=None):
    """The Peers of `count` processes of this machine, by rank."""
    exchange, found = Exchange(), {}

    def join(rank):
        found[rank] = Peers.join(rank, ["127.0.0.1:1"] * count, exchange, SILENT_S)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(count)]
    threads[0].start()
    assert exchange.told.wait(10)
    if before:
        before(int(exchange.value[0]))
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [found[rank] for rank in range(count)]


@pytest.fixture
def three():
    everyone = joined(3)
    yield everyone
    for one in everyone:
        one.end()


def meeting(one):
    """A thread in which `one` meets the others; its `came` is the time, or the error."""

    def meet():
        try:
            one.meet()
            thread.came = time.monotonic()
        except LostProcessError as error:
            thread.came = str(error)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    return thread


def freeze(one):
    """Its machine is off: it neither sends nor closes anything."""
    for peer in one.peers:
        peer.send = lambda text: None


def test_all_wait_for_the_last_however_late_it_is(three, monkeypatch, caplog):
    """Longer than a process may be silent: it is only late."""
    monkeypatch.setattr(peers, "LATE_S", 1.0)
    monkeypatch.setattr(peers.logger, "propagate", True)
    for _ in range(3):
        threads = [meeting(one) for one in three]
        for thread in threads:
            thread.join(10)
    early = [meeting(one) for one in three[:2]]
    time.sleep(2.5 * SILENT_S)
    assert all(thread.is_alive() for thread in early)
    assert "waiting for process 2 (on 127.0.0.1)" in caplog.text
    last = time.monotonic()
    early.append(meeting(three[2]))
    for thread in early:
        thread.join(10)
        assert thread.came >= last


@pytest.mark.parametrize("rank", [0, 2])
def test_a_closed_connection_is_a_loss_at_once(three, rank):
    """Of a process that was killed; the others hear it of process 0, whoever it was."""
    others = [one for one in three if one.rank != rank]
    threads = [meeting(one) for one in others]
    time.sleep(0.2)
    began = time.monotonic()
    freeze(three[rank])  # the killed one does not tell the others what it makes of its connections
    for peer in three[rank].peers:
        peer.connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(10)
        assert f"process {rank} (on 127.0.0.1) was lost: its connection was closed" in thread.came
    assert time.monotonic() - began < SILENT_S
    with pytest.raises(LostProcessError):  # from now on always
        others[0].meet()


def test_silence_is_a_loss_after_a_while(three):
    threads = [meeting(one) for one in three[:2]]
    began = time.monotonic()
    freeze(three[2])
    for thread in threads:
        thread.join(10)
        assert "process 2 (on 127.0.0.1) was lost: nothing was heard of it for 1 s" in thread.came
    assert time.monotonic() - began < 3 * SILENT_S


def test_who_ends_says_why(three):
    three[1].end("ImageError: broken.jpg: it is no image")
    thread = meeting(three[0])
    thread.join(10)
    expected = "process 1 (on 127.0.0.1) ended before the others: ImageError: broken.jpg: it is"
    assert expected in thread.came
    three[0].end(thread.came)
    last = meeting(three[2])
    last.join(10)
    assert "process 0 (on 127.0.0.1) ended before the others: process 1 (on" in last.came


def test_an_ordinary_end_is_no_loss(three):
    for one in three[1:]:
        one.end()
        for peer in one.peers:
            peer.connection.shutdown(socket.SHUT_RDWR)
    time.sleep(2 * SILENT_S)
    assert three[0].lost == ""


def test_an_operation_that_fails_is_told_apart(three):
    """What gloo and NCCL raise means that a process is lost, or that the exchange failed; anything
    else is an error of another kind.
    """
    assert three[0].after(RuntimeError("(InvalidArgument) axis 3")) is None
    gloo = RuntimeError("[/paddle/third_party/gloo/gloo/transport/tcp/pair.cc:576] Read error")
    for peer in three[1].peers:
        peer.connection.shutdown(socket.SHUT_RDWR)
    assert "process 1 (on 127.0.0.1) was lost" in str(three[2].after(gloo))
    other = joined(2)
    try:
        assert "the exchange between the processes failed: [/paddle" in str(other[0].after(gloo))
    finally:
        for one in other:
            one.end()


def test_the_others_wait_until_process_0_has_saved(three):
    began = time.monotonic()
    threading.Timer(0.5, three[0].end).start()
    three[1].let_first_end()
    assert 0.4 < time.monotonic() - began < 5


HANGS = """
import socket, sys, time
from ppcls_nextvit.engine import peers
from test_peers import joined

peers.NOTICE_S = 0.5
one, other = joined(2)
other.peers[0].connection.shutdown(socket.SHUT_RDWR)
time.sleep(60)
"""
# who has said its end goes on with what it likes, as a notebook does
GOES_ON = """
import socket, time
from ppcls_nextvit.engine import peers
from test_peers import joined, meeting

peers.NOTICE_S = peers.END_S = 0.5
one, other = joined(2)
other.peers[0].connection.shutdown(socket.SHUT_RDWR)
threads = [meeting(each) for each in (one, other)]
for thread in threads:
    thread.join(10)
    assert "was lost" in thread.came
for each in (one, other):
    each.end("lost")
time.sleep(3)
"""


def run_of(code):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=55,
    )


@pytest.mark.slow  # Paddle's import
def test_who_hangs_in_an_operation_is_ended():
    """A process that cannot notice the loss, as in a kernel that waits for ever."""
    done = run_of(HANGS)
    assert done.returncode == peers.LOST
    assert "error: process " in done.stderr and "did not end by itself" in done.stderr


@pytest.mark.slow  # Paddle's import
def test_who_has_ended_its_run_is_left_alone():
    done = run_of(GOES_ON)
    assert done.returncode == 0, done.stderr


def test_strangers_are_sent_away():
    """Whoever does not know the key, has a rank that is none, or says nothing that can be read."""
    strangers = []

    def come(port):
        for text in (
            b"GET / HTTP/1.0\r\n\r\n",
            json.dumps({"key": "guessed", "rank": 1}).encode() + b"\n",
            json.dumps([1]).encode() + b"\n",
            b"\xff\n",
            b"",
        ):
            stranger = socket.create_connection(("127.0.0.1", port))
            strangers.append(stranger)
            with contextlib.suppress(OSError):  # sent away before it has said all
                stranger.sendall(text)
                stranger.shutdown(socket.SHUT_WR)

    everyone = joined(2, come)
    threads = [meeting(one) for one in everyone]
    for thread in threads:
        thread.join(10)
        assert isinstance(thread.came, float)
    for stranger in strangers:
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        stranger.close()
    for one in everyone:
        one.end()


def test_who_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(peers, "JOIN_S", 0.5)
    with pytest.raises(LostProcessError, match="processes 1, 2 did not connect within 0 s"):
        Peers.join(0, ["127.0.0.1:1"] * 3, lambda told: told, SILENT_S)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LostProcessError, match=rf"process 0 \(on 127.0.0.1, port {port}\) cannot"):
        Peers.join(1, ["127.0.0.1:1"] * 3, lambda told: np.array([port, 1, 2, 3]), SILENT_S)


def test_gloo_takes_the_address_that_the_launcher_told(monkeypatch):
    """By the interface that has it; a name that stands for this machine alone is refused."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    told = {"PADDLE_CURRENT_ENDPOINT": "127.0.0.1:5", "PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:5"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    addresses.use_own_address()
    assert addresses.os.environ.get("GLOO_SOCKET_IFNAME") in (None, "lo")
    if addresses.fcntl and addresses.os.uname().sysname == "Linux":
        assert addresses.os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine0")
    addresses.use_own_address()
    assert addresses.os.environ["GLOO_SOCKET_IFNAME"] == "mine0"
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", "10.0.0.1:5,127.0.0.1:5")
    with pytest.raises(ConfigError, match="name stands for 127.0.0.1.*--host=ADDRESS"):
        addresses.use_own_address()
