"""In the HTTP process: the paths, and what answers them."""

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Optional

from connections import Connections
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from metrics import Metrics
from pool import Pool
from starlette.types import ASGIApp
from uploads import PATH, Gate, read_upload

KEY = "LIT_SERVER_API_KEY"  # the environment variable with the key that clients must send


def make_app(
    options: argparse.Namespace,
    description: dict,
    on_refusal: Callable[[str], None],
) -> tuple[ASGIApp, Connections]:
    """The service as an ASGI application, and its connections, of which the server tells it.
    on_refusal: see Pool.
    """
    metrics = Metrics()
    connections = Connections(
        options.idle_timeout,
        options.upload_timeout + options.timeout + options.idle_timeout,
        options.max_in_flight * options.max_bytes,
        8 * options.max_bytes + (1 << 20),
    )
    metrics.connections.set_function(lambda: len(connections.open))
    pool = Pool(options, description, metrics, on_refusal)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(connections.watch())
        async with pool.running():
            yield
        watch.cancel()

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    @app.get("/")
    async def alive() -> Response:
        return PlainTextResponse("running")

    @app.get("/health")
    async def health() -> Response:
        healthy = pool.healthy()
        return PlainTextResponse("ok" if healthy else "not ready", 200 if healthy else 503)

    @app.get("/info")
    async def info() -> Response:
        return JSONResponse(about(options, description))

    @app.get("/metrics")
    async def metrics_text() -> Response:
        return metrics.response()

    @app.post(PATH)
    async def predict(
        request: Request, topk: Annotated[Optional[int], Query(ge=1)] = None
    ) -> Response:
        status, content = await pool.predict(await read_upload(request), topk)
        headers = {"Retry-After": "1"} if status == 503 else None
        return Response(content, status, headers, "application/json")

    return Gate(app, options, os.environ.get(KEY, ""), metrics, connections), connections


def about(options: argparse.Namespace, description: dict) -> dict:
    """What /info tells."""
    return {
        "model": {
            "model": description.get("Global", {}).get("model_name"),
            "classes": len(description["PostProcess"]["Topk"]["label_list"]),
            "max_bytes": options.max_bytes,
            "max_pixels": options.max_pixels,
        },
        "server": {
            "device": options.device,
            "workers": options.workers,
            "batch_size": options.batch_size,
            "timeout": options.timeout,
            "max_in_flight": options.max_in_flight,
        },
    }
