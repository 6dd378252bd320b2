"""In the HTTP process: the paths, and what answers them."""

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Literal, Optional

from connections import Connections
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fields import names_of, task_of
from guide import guide
from metrics import Metrics
from pool import Pool
from scenes import unsuited
from starlette.types import ASGIApp
from uploads import PATH, Gate, read_upload

KEY = "LIT_SERVER_API_KEY"  # the environment variable with the key that clients must send


READY_SECONDS = 0.05  # between looks


def make_app(
    options: argparse.Namespace,
    description: dict,
    on_refusal: Callable[[str], None],
    on_ready: Callable[[], None],
) -> tuple[ASGIApp, Connections]:
    """The service as an ASGI application, and its connections, of which the server tells it.
    on_refusal: see Pool. on_ready: called once, when every worker has the model.
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

    async def wait_until_ready() -> None:
        while not pool.healthy():
            await asyncio.sleep(READY_SECONDS)
        on_ready()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watches = [
            asyncio.create_task(connections.watch()),
            asyncio.create_task(wait_until_ready()),
        ]
        async with pool.running():
            yield
        for watch in watches:
            watch.cancel()

    task = task_of(description)
    app = FastAPI(openapi_url=None, lifespan=lifespan)

    @app.get("/docs")
    async def docs(request: Request) -> Response:
        host = request.headers.get("host", f"127.0.0.1:{options.port}")
        return HTMLResponse(guide(about(options, description), host))

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
        request: Request,
        topk: Annotated[Optional[int], Query(ge=1)] = None,
        score_threshold: Annotated[Optional[float], Query(ge=0, le=1)] = None,
        mask_threshold: Annotated[Optional[float], Query(ge=0, le=1)] = None,
        masks: Optional[Literal["rle", "png", "none"]] = None,
    ) -> Response:
        asked = {
            "topk": topk,
            "score_threshold": score_threshold,
            "mask_threshold": mask_threshold,
            "masks": masks,
        }
        query = {name: value for name, value in asked.items() if value is not None}
        wrong = unsuited(task, query)
        if wrong:
            return JSONResponse({"detail": wrong}, 400)
        status, content = await pool.predict(await read_upload(request), query)
        headers = {"Retry-After": "1"} if status == 503 else None
        return Response(content, status, headers, "application/json")

    return Gate(app, options, os.environ.get(KEY, ""), metrics, connections), connections


def about(options: argparse.Namespace, description: dict) -> dict:
    """What /info tells."""
    return {
        "model": {
            "model": description.get("Global", {}).get("model_name"),
            "task": task_of(description),
            "classes": len(names_of(description)),
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
