"""In the HTTP process: which requests are admitted, and how a picture is read from them."""

import argparse
import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncGenerator
from typing import Optional

from connections import Connection, Connections
from decoding import one_line
from fastapi import HTTPException, Request
from metrics import Metrics
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/predict"
OPEN_PATHS = ("/", "/health")  # for probes, which send no key
FIELDS = 8  # of a form, beside the file


class Gate:
    """ASGI application around `app`: wants the key, if there is one, and counts what /predict gets.
    Those whose uploads are in are `admitted`, up to max_in_flight; slow uploads take no such place.
    """

    def __init__(
        self,
        app: ASGIApp,
        options: argparse.Namespace,
        key: str,
        metrics: Metrics,
        connections: Connections,
    ):
        self.app = app
        self.options = options
        self.key = key.encode()
        self.metrics = metrics
        self.connections = connections
        self.admitted = 0
        open_paths = OPEN_PATHS if options.close_metrics else (*OPEN_PATHS, "/metrics")
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        connection = self.connections.of(scope["client"])
        self.connections.begin(connection)
        try:
            noting = send if self.options.quiet else told(scope, send)
            if scope["path"] == PATH:
                await self.counted(scope, receive, noting, connection)
            else:
                await (self.refusal(scope) or self.app)(scope, receive, noting)
        finally:
            self.connections.end(connection)

    async def counted(
        self, scope: Scope, receive: Receive, send: Send, connection: Connection
    ) -> None:
        """A request to /predict, in the metrics."""
        status = 499
        start = time.monotonic()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope["state"] = {**scope.get("state", {}), "gate": self, "connection": connection}
        self.metrics.in_flight.inc()
        try:
            await (self.refusal(scope) or self.app)(scope, receive, noting)
        finally:
            self.admitted -= connection.admitted
            self.metrics.in_flight.dec()
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.monotonic() - start)

    def refusal(self, scope: Scope) -> Optional[ASGIApp]:
        """The answer to a request that is refused before its upload is read."""
        if self.key and scope["path"] not in self.open_paths:
            headers = dict(scope["headers"])
            bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
            if not hmac.compare_digest(headers.get(b"x-api-key", bearer), self.key):
                return JSONResponse(
                    {"detail": "the header X-API-Key is missing or wrong"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
        if scope["path"] == PATH and self.admitted >= self.options.max_in_flight:
            return JSONResponse({"detail": self.busy()}, 503, {"Retry-After": "1"})
        return None

    def busy(self) -> str:
        return f"busy: {self.admitted} requests are in flight"

    def admit(self, connection: Connection) -> None:
        """Count the request, whose upload is in. HTTPException 503 if there are enough."""
        if self.admitted >= self.options.max_in_flight:
            raise HTTPException(503, self.busy(), {"Retry-After": "1"})
        self.admitted += 1
        connection.admitted = True


def told(scope: Scope, send: Send) -> Send:
    """`send`, which prints a line with time, client, request, status and milliseconds when the
    answer begins; none of probes.
    """
    start = time.monotonic()

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            status, path = message["status"], scope["path"]
            if path not in (*OPEN_PATHS, "/metrics"):
                client = scope["client"][0] if scope["client"] else "-"
                ms = 1000 * (time.monotonic() - start)
                print(
                    f"{time.strftime('%Y-%m-%d %H:%M:%S')} {client} {scope['method']} "
                    f"{one_line(path, 200)} {status} {ms:.0f} ms",
                    flush=True,
                )
        await send(message)

    return noting


async def read_upload(request: Request) -> bytes:
    """The picture's bytes of a request, which is admitted from then on. HTTPException 400, 408,
    413, 415 or 503 with a reason.
    """
    gate = request.state.gate
    seconds = gate.options.upload_timeout
    try:
        with gate.metrics.uploads.track_inprogress():
            body = await asyncio.wait_for(read_body(request), seconds)
    except asyncio.TimeoutError:  # noqa: UP041 - another class than TimeoutError in Python 3.10
        raise HTTPException(
            408, f"the upload was not complete after {seconds:g} s", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise HTTPException(499, "the client hung up during the upload") from None
    gate.admit(request.state.connection)
    data = await picture_in(request, body)
    if not data:
        raise HTTPException(400, "the upload is empty (0 bytes)")
    return data


async def read_body(request: Request) -> bytes:
    """The body. HTTPException 413 as soon as it is known to be too large, 503 if uploads hold more
    memory than they may, and no other has taken longer.
    """
    gate, connection = request.state.gate, request.state.connection
    limit = gate.options.max_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise HTTPException(
            413, f"the upload has {announced} bytes, more than the limit of {limit}"
        )
    chunks = []
    async for chunk in request.stream():
        if not gate.connections.hold(connection, len(chunk)):
            raise HTTPException(
                503, "busy: unfinished uploads fill the memory", {"Retry-After": "1"}
            )
        if connection.held > limit:
            raise HTTPException(413, f"the upload has more than the limit of {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def picture_in(request: Request, body: bytes) -> bytes:
    """The picture's bytes in a body. HTTPException 400 or 415 with a reason."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await file_in(request, body)
    if kind == "application/json":
        try:
            # a data: URL is cut at its comma
            text = json.loads(body)["image"].rpartition(",")[2]
            return base64.b64decode("".join(text.split()), validate=True)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise HTTPException(
                400, f'expected JSON {{"image": "<base64>"}}: {one_line(error)}'
            ) from None
    if kind.startswith("image/") or kind == "application/octet-stream":
        return body
    raise HTTPException(
        415,
        f"Content-Type {kind!r}: expected multipart/form-data, application/json, image/* or "
        f"application/octet-stream",
    )


async def file_in(request: Request, body: bytes) -> bytes:
    """The field `file` of a form."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=FIELDS)
    parser.spool_max_size = len(body) + 1  # the bytes are in memory already, and need no file
    try:
        form = await parser.parse()
    except Exception as error:  # of the parser, on what the client sent
        raise HTTPException(400, f"malformed multipart body: {one_line(error)}") from None
    file = form.get("file")
    if file is None or isinstance(file, str):
        raise HTTPException(400, "no file in the multipart field `file`")
    return await file.read()
