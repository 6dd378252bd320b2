"""In the HTTP process: who is connected, and which connections end for the sake of the others.

Strangers may open as many connections as they like and send nothing, or a byte a second. So one
that makes us wait longer than it may is closed; and where there are too many, or their unfinished
uploads hold too many bytes together, the one that has made us wait longest makes room. A request
whose upload is in is never ended.
"""

import asyncio
import time
from typing import Any, Optional

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MAX_CONNECTIONS = 900  # with a process's other files below 1024, the usual limit
HEADER_BYTES = 1 << 19  # more than one call brings
PIPELINED = 32  # requests that a client may send at once, without waiting for answers
WATCH_SECONDS = 0.5
Address = tuple[str, int]


class Connection:
    """One open connection. since: when it last began to make us wait. until: when that must end.
    admitted: an upload of it is in, and waits for a worker or has one. held: bytes of an upload.
    received: bytes since a request began, whose headers are in if has_headers.
    """

    def __init__(self, address: Optional[Address], transport: Optional[asyncio.Transport]):
        self.address = address
        self.transport = transport
        self.since = time.monotonic()
        self.until = float("inf")
        self.admitted = False
        self.held = 0
        self.received = 0
        self.has_headers = False


class Connections:
    """All open connections.

    idle_seconds: for a client that sends no request, or not all of its headers. request_seconds:
    from the headers to the end of the answer. max_held: bytes of all uploads together. max_body: of
    one, with what lies between its pieces, be it read or not.
    """

    def __init__(self, idle_seconds: float, request_seconds: float, max_held: int, max_body: int):
        self.idle_seconds = idle_seconds
        self.request_seconds = request_seconds
        self.max_held = max_held
        self.max_body = max_body
        self.held = 0
        self.open: dict[Address, Connection] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """For uvicorn: its own protocol, which also notes here what opens and closes, and limits
        what a client may send. on_...: what the parser httptools calls; h11 has limits of its own.
        """
        connections = self

        class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
            def connection_made(self, transport: Any) -> None:
                # what uvicorn puts into a request's scope["client"]
                host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
                self.noted = Connection((str(host), int(port)), transport)
                connections.add(self.noted)
                super().connection_made(transport)

            def connection_lost(self, error: Optional[Exception]) -> None:
                connections.forget(self.noted)
                super().connection_lost(error)

            def data_received(self, data: bytes) -> None:
                self.begun = 0
                super().data_received(data)
                self.noted.received += len(data)
                limit = connections.max_body if self.noted.has_headers else HEADER_BYTES
                if self.noted.received > limit:
                    connections.abort(self.noted)

            def on_message_begin(self) -> None:
                self.begun += 1
                if self.begun > PIPELINED:
                    raise ValueError("requests that nobody waits for")  # answered by 400
                self.noted.received = 0
                self.noted.has_headers = False
                super().on_message_begin()

            def on_headers_complete(self) -> None:
                self.noted.has_headers = True
                super().on_headers_complete()

            def on_message_complete(self) -> None:
                self.noted.received = 0
                self.noted.has_headers = False
                super().on_message_complete()

        return Protocol

    def add(self, connection: Connection) -> None:
        waiting = self.waiting() if len(self.open) >= MAX_CONNECTIONS else []
        if waiting:
            self.abort(min(waiting, key=began))
        connection.until = connection.since + self.idle_seconds
        self.open[connection.address] = connection

    def of(self, client: Optional[Address]) -> Connection:
        """The connection that a request came by. client: its scope["client"]."""
        return self.open.get(client) or Connection(client, None)

    def waiting(self) -> list[Connection]:
        """Those that make us wait."""
        return [connection for connection in self.open.values() if not connection.admitted]

    def begin(self, connection: Connection) -> None:
        """The headers of a request are in."""
        connection.since = time.monotonic()
        connection.until = connection.since + self.request_seconds

    def end(self, connection: Connection) -> None:
        """The request is answered, or its client gone."""
        self.release(connection)
        connection.admitted = False
        connection.since = time.monotonic()
        connection.until = connection.since + self.idle_seconds

    def hold(self, connection: Connection, count: int) -> bool:
        """Note `count` bytes more of an upload. False if there is no room for them, since no other
        upload has taken longer.
        """
        while self.held + count > self.max_held:
            uploads = [other for other in self.waiting() if other.held]
            longest = min(uploads, key=began, default=connection)
            if began(longest) >= began(connection):
                return False
            self.abort(longest)
        connection.held += count
        self.held += count
        return True

    def release(self, connection: Connection) -> None:
        self.held -= connection.held
        connection.held = 0

    def abort(self, connection: Connection) -> None:
        self.release(connection)
        self.forget(connection)
        connection.transport.abort()

    def forget(self, connection: Connection) -> None:
        if self.open.get(connection.address) is connection:
            del self.open[connection.address]

    async def watch(self) -> None:
        """Close what has made us wait too long, and for good what then does not close."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for connection in list(self.open.values()):
                if now > connection.until:
                    transport = connection.transport
                    transport.abort() if transport.is_closing() else transport.close()


def began(connection: Connection) -> float:
    return connection.since
