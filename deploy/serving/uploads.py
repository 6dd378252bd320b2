"""In the HTTP process: which requests are admitted, and how a picture is read from them."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Optional

from fastapi import HTTPException, Query, Request
from metrics import Metrics
from pictures import one_line
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/predict"


class Admission:
    """ASGI middleware: counts requests and refuses those beyond `max_in_flight` with 503, so that
    memory stays bounded.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, max_in_flight: int):
        self.app = app
        self.metrics = metrics
        self.max_in_flight = max_in_flight
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        status = 499
        start = time.monotonic()
        app = self.app
        if self.in_flight >= self.max_in_flight:
            app = JSONResponse(
                {"detail": f"busy: {self.in_flight} requests are in flight"},
                503,
                {"Retry-After": "1"},
            )

        async def noting(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            await app(scope, receive, noting)
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.monotonic() - start)


async def read_upload(
    request: Request, topk: Annotated[Optional[int], Query(ge=1)] = None
) -> tuple[bytes, Optional[int]]:
    """(the picture's bytes, topk) of a request. HTTPException 400, 408, 413 or 415 with a
    reason.
    """
    limits = request.app.state.limits
    try:
        data = await asyncio.wait_for(
            read_picture(request, limits.max_bytes), limits.upload_timeout
        )
    except asyncio.TimeoutError:  # noqa: UP041 - another class than TimeoutError in Python 3.10
        raise HTTPException(
            408,
            f"the upload was not complete after {limits.upload_timeout:g} s",
            {"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise HTTPException(499, "the client hung up during the upload") from None
    if not data:
        raise HTTPException(400, "the upload is empty (0 bytes)")
    return data, topk


async def read_picture(request: Request, max_bytes: int) -> bytes:
    """The picture's bytes. HTTPException 400, 413 or 415 with a reason."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            form = await MultiPartParser(
                request.headers, limited(request, max_bytes), max_files=1, max_fields=8
            ).parse()
        except MultiPartException as error:
            raise HTTPException(400, f"malformed multipart body: {error.message}") from None
        if "file" not in form or isinstance(form["file"], str):
            raise HTTPException(400, "no file in the multipart field `file`")
        return await form["file"].read()
    body = b"".join([chunk async for chunk in limited(request, max_bytes)])
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


async def limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The chunks of a request's body; 413 as soon as it is known to be larger than `max_bytes`."""
    size = 0
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise HTTPException(
            413, f"the upload has {announced} bytes, more than the limit of {max_bytes}"
        )
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise HTTPException(413, f"the upload has more than the limit of {max_bytes} bytes")
        yield chunk
