"""Which of a run's processes are alive, on whatever machine: each has a connection to process 0,
on which both send a line every few seconds.

A collective operation cannot tell a process that is slow from one that is gone: gloo gives up
after 30 s either way, NCCL after half an hour. So the processes `meet` before they exchange: they
wait as long as all are heard, and a loss ends the wait.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
from typing import Callable, Dict, List, Optional

import numpy as np

from .logger import logger

__all__ = ["LOST", "LostProcessError", "Peers"]

LOST = 75  # exit status: another process was lost, and the run can be resumed (EX_TEMPFAIL)
BEAT_S = 2.0
JOIN_S = 60.0  # for all to connect, once each has started
LATE_S = 60.0  # from one message on a late process to the next
NOTICE_S = 60.0  # for the main thread to notice a loss
END_S = 600.0  # and then to save and end
MOST = 2000  # characters of a line


class LostProcessError(ConnectionError):
    """Another process of the run is gone; says which and how that was noticed."""


class _Peer:
    """The connection to one other process."""

    def __init__(self, rank: int, connection: socket.socket):
        self.rank = rank
        self.host = connection.getpeername()[0]
        self.connection = connection
        self.heard = time.monotonic()
        self.arrived = 0  # the last meeting that it came to, or of process 0: that all came to
        self.ended: Optional[str] = None  # what it said as it ended
        self.buffer = b""
        self._sending = threading.Lock()

    def __str__(self) -> str:
        return f"process {self.rank} (on {self.host})"

    def send(self, text: str) -> None:
        """A line; whether it arrives shows in what is heard."""
        try:
            with self._sending:
                self.connection.sendall(text[:MOST].encode() + b"\n")
        except OSError:
            pass

    def receive(self) -> List[str]:
        """The lines that are there. ConnectionError where there will be no more."""
        try:
            data = self.connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise ConnectionError("its connection was closed")
        self.heard = time.monotonic()
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


class Peers:
    """Process 0's connections to all others, or another's to process 0.

    peers: by rank. lost_after_s: a process that is not heard for so long is lost. One that is
    killed shows at once, since its system closes the connection.
    """

    def __init__(self, rank: int, peers: Dict[int, socket.socket], lost_after_s: float):
        self.rank, self.lost_after_s = rank, lost_after_s
        self.peers = [_Peer(number, connection) for number, connection in sorted(peers.items())]
        self.lost = ""
        self._meetings = 0
        self._ended = False
        self._must_end_by = float("inf")
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        for peer in self.peers:
            peer.connection.settimeout(lost_after_s)
            peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        if hasattr(os, "register_at_fork"):
            # a worker that outlives its trainer would hold its connections open
            os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._listen, daemon=True).start()

    @classmethod
    def join(
        cls,
        rank: int,
        endpoints: List[str],
        exchange: Callable[[np.ndarray], np.ndarray],
        lost_after_s: float,
    ) -> "Peers":
        """Connect this process, `rank` of as many as there are endpoints (HOST:PORT, of which only
        the host is used). exchange: sums a vector over the processes. LostProcessError where not
        all of them come.
        """
        server, told = None, np.zeros(4)
        if rank == 0:
            server = _server(endpoints[0].rpartition(":")[0])
            # strangers do not know the key
            told = np.array([server.getsockname()[1], *(secrets.randbits(48) for _ in range(3))])
        port, *numbers = (int(number) for number in exchange(told.astype(np.float64)))
        key = "-".join(f"{number:012x}" for number in numbers)
        if server is not None:
            with server:
                return cls(0, _greeted(server, key, len(endpoints)), lost_after_s)
        host = endpoints[0].rpartition(":")[0]
        try:
            connection = socket.create_connection((host, port), JOIN_S)
        except OSError as error:
            raise LostProcessError(
                f"process 0 (on {host}, port {port}) cannot be reached: {error.strerror or error}"
            ) from None
        connection.sendall(json.dumps({"key": key, "rank": rank}).encode() + b"\n")
        return cls(rank, {0: connection}, lost_after_s)

    def meet(self) -> None:
        """Wait until all processes are here. LostProcessError once one is lost, or has ended."""
        with self._changed:
            self._meetings += 1
        if self.rank == 0:
            self._wait_for(self.peers)
            for peer in self.peers:
                peer.send(f"at {self._meetings}")
        else:
            self.peers[0].send(f"at {self._meetings}")
            self._wait_for(self.peers)

    def _wait_for(self, peers: List[_Peer]) -> None:
        said = time.monotonic()
        with self._changed:
            while True:
                late = [peer for peer in peers if peer.arrived < self._meetings]
                ended = [peer for peer in late if peer.ended is not None]
                if self.lost or ended:
                    raise self.noticed()
                if not late:
                    return
                self._changed.wait(1.0)
                if self.rank == 0 and time.monotonic() - said > LATE_S:
                    said = time.monotonic()
                    logger.warning("waiting for %s", ", ".join(map(str, late)))

    def noticed(self) -> LostProcessError:
        """The loss, as an error to raise; from now on there is END_S to save and to `end`."""
        if not self._ended:
            self._must_end_by = time.monotonic() + END_S
        if not self.lost:
            ended = next(peer for peer in self.peers if peer.ended is not None)
            self.lost = f"{ended} ended before the others{f': {ended.ended}' * bool(ended.ended)}"
        return LostProcessError(self.lost)

    def after(self, error: RuntimeError) -> Optional[LostProcessError]:
        """What `error` of a collective operation means, once those have been heard that can be;
        None for an error of another kind.
        """
        text = " ".join(str(error).split())
        if "gloo" not in text and "nccl" not in text.lower():
            return None
        with self._changed:
            self._changed.wait_for(self._misses_one, self.lost_after_s + 2 * BEAT_S)
        if not self._misses_one():
            self.lost = f"the exchange between the processes failed: {text[-200:]}"
        return self.noticed()

    def _misses_one(self) -> bool:
        return bool(self.lost) or any(peer.ended is not None for peer in self.peers)

    def let_first_end(self) -> None:
        """Wait until process 0 has ended or is lost: the launcher of a machine kills all its
        processes seconds after the first has ended, and process 0 is saving.
        """
        if self.rank != 0:
            with self._changed:
                first = self.peers[0]
                self._changed.wait_for(lambda: first.ended is not None, END_S)

    def end(self, reason: str = "") -> None:
        """Tell the others that this process's run ends, and why if it is no ordinary end. What the
        process does afterwards, as a notebook may, is its own business.
        """
        if not self._ended:
            self._ended = True
            self._must_end_by = float("inf")
            for peer in self.peers:
                peer.send(f"end {' '.join(reason.split())}")

    def _forget(self) -> None:
        for peer in self.peers:
            os.close(peer.connection.detach())

    def _listen(self) -> None:
        beat_s = min(BEAT_S, self.lost_after_s / 4)
        next_beat = 0.0
        while True:
            for key, _ in self._selector.select(beat_s):
                self._hear(key.data)
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + beat_s
                for peer in self.peers:
                    peer.send("beat")
                self._look_for_silence()
            if now > self._must_end_by:
                logger.error("error: %s; this process did not end by itself", self.lost)
                os._exit(LOST)

    def _hear(self, peer: _Peer) -> None:
        try:
            lines = peer.receive()
        except ConnectionError as error:
            self._selector.unregister(peer.connection)
            if peer.ended is None:
                self._lose(peer, str(error))
            return
        with self._changed:
            for line in lines:
                word, _, text = line.partition(" ")
                if word == "at" and text.isdecimal():
                    peer.arrived = int(text)
                elif word == "end":
                    peer.ended = text
                elif word == "lost":
                    self._set_lost(text)
            self._changed.notify_all()

    def _look_for_silence(self) -> None:
        for peer in self.peers:
            silent = time.monotonic() - peer.heard
            if peer.ended is None and silent > self.lost_after_s:
                self._lose(peer, f"nothing was heard of it for {silent:.0f} s")

    def _lose(self, peer: _Peer, why: str) -> None:
        with self._changed:
            peer.ended = why
            self._set_lost(f"{peer} was lost: {why}")
            self._changed.notify_all()
        for other in self.peers:
            other.send(f"lost {self.lost}")

    def _set_lost(self, text: str) -> None:
        if not self.lost and not self._ended:  # else it no longer matters
            self.lost = text
            self._must_end_by = min(self._must_end_by, time.monotonic() + NOTICE_S)


def _server(host: str) -> socket.socket:
    """A server at a free port of this machine's address `host`; of all its addresses where that is
    not its own, as behind a translation of addresses.
    """
    try:
        return socket.create_server((host, 0), backlog=1024)
    except OSError:
        return socket.create_server(("", 0), backlog=1024)


def _greeted(server: socket.socket, key: str, world_size: int) -> Dict[int, socket.socket]:
    """The connection of every other process, once it has said the key and its rank."""
    found: Dict[int, socket.socket] = {}
    until = time.monotonic() + JOIN_S
    while len(found) < world_size - 1:
        server.settimeout(max(until - time.monotonic(), 0.01))
        try:
            connection, _ = server.accept()
        except OSError:
            missing = sorted(set(range(1, world_size)) - set(found))
            raise LostProcessError(
                f"processes {', '.join(map(str, missing[:8]))} did not connect within {JOIN_S:.0f}"
                f" s to {server.getsockname()[0]}, port {server.getsockname()[1]}"
            ) from None
        rank = _rank_of(connection, key, world_size)
        if rank is None or rank in found:
            connection.close()
        else:
            found[rank] = connection
    return found


def _rank_of(connection: socket.socket, key: str, world_size: int) -> Optional[int]:
    """The rank that the other side says after the key; None for a stranger."""
    connection.settimeout(5.0)
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < MOST:
            text += connection.recv(1) or b"\n"
        hello = json.loads(text)
        rank = hello["rank"] if hello["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rank if type(rank) is int and 0 < rank < world_size else None
