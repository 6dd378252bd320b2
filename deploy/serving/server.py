"""HTTP service for an exported Next-ViT, with dynamic batching: python server.py --model DIRECTORY

POST /predict   a picture, as multipart field `file`, as JSON {"image": "<base64>"}, or as the body itself -> its best classes, JSON
GET  /health    200 when every worker is ready; /metrics: Prometheus text; /info: model and limits; /: 200 while the process lives

Copy this file, classifier.py, requirements.txt and the exported folder; nothing else of the project
is needed.
LitServe supplies the HTTP process, the workers and their restart. What it lacks is here: an answer
for every request, also when the worker that had it died, errors for one picture instead of its
whole batch, limits, and a stop that lets accepted requests finish.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from multiprocessing.connection import wait
from queue import Empty
from typing import Annotated, Optional

import litserve
from classifier import (
    MAX_PIXELS,
    Classifier,
    ImageError,
    Preprocess,
    best,
    one_line,
    read_description,
)
from fastapi import Depends, HTTPException, Query, Request, Response
from litserve.loops.base import LitLoop
from litserve.utils import (
    LitAPIStatus,
    LoopResponseType,
    PickleableHTTPException,
    WorkerSetupStatus,
)
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

PATH = "/predict"
MAX_CONNECTIONS = 1000  # open ones, idle ones included; more get 503 at once
LOST_CHECK_SECONDS = 0.25
# a worker killed while it waits at the queue takes what comes within this along
IDLE_SECONDS = 0.25
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What /metrics shows. Each process writes files of its own in $PROMETHEUS_MULTIPROC_DIR, so
    that restarts lose nothing.
    """

    def __init__(self):
        # reads the variable when imported: not before main set it
        from prometheus_client import Counter, Gauge, Histogram

        self.requests = Counter(
            "nextvit_requests",
            "Requests to /predict, by HTTP status (499: the client hung up)",
            ["status"],
        )
        self.in_flight = Gauge(
            "nextvit_requests_in_flight",
            "Requests being received, waiting or run",
            multiprocess_mode="livesum",
        )
        self.seconds = Histogram(
            "nextvit_request_seconds",
            "From the first header to the last byte of the answer",
            buckets=SECONDS,
        )
        self.queued = Histogram(
            "nextvit_queue_seconds", "From the upload's end until a worker has it", buckets=SECONDS
        )
        self.batch_size = Histogram(
            "nextvit_batch_size",
            "Pictures run at once; _count is the number of batches",
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.preprocess_seconds = Histogram(
            "nextvit_preprocess_seconds", "Decoding and preprocessing one batch", buckets=SECONDS
        )
        self.predict_seconds = Histogram(
            "nextvit_predict_seconds", "The model, one batch", buckets=SECONDS
        )
        self.worker_starts = Counter(
            "nextvit_worker_starts", "Workers started; more than --workers: some were replaced"
        )


def metrics_text():
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        generate_latest,
        multiprocess,
    )

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


# In the HTTP process: admission and upload


class Admission:
    """ASGI middleware: counts requests and refuses those beyond `max_in_flight` with 503, so that
    memory stays bounded.
    """

    def __init__(self, app, metrics, max_in_flight):
        self.app, self.metrics, self.max_in_flight, self.in_flight = app, metrics, max_in_flight, 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        status, start, app = 499, time.monotonic(), self.app
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


async def read_upload(request: Request, topk: Annotated[Optional[int], Query(ge=1)] = None):
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


async def read_picture(request, max_bytes):
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


async def limited(request, max_bytes):
    """The chunks of a request's body; 413 as soon as it is known to be larger than `max_bytes`."""
    size, announced = 0, request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise HTTPException(
            413, f"the upload has {announced} bytes, more than the limit of {max_bytes}"
        )
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise HTTPException(413, f"the upload has more than the limit of {max_bytes} bytes")
        yield chunk


class Server(litserve.LitServer):
    """LitServer that answers requests whose worker died, stops in order, and ends when its HTTP
    process does.
    """

    failed = False

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        async with super().lifespan(app):
            task = asyncio.create_task(self.answer_lost_requests())
            try:
                yield
            finally:
                task.cancel()

    async def answer_lost_requests(self):
        """A worker that dies takes its requests along; LitServe replaces it, but the HTTP process
        would wait for them for ever.
        """
        since = {}
        while True:
            await asyncio.sleep(LOST_CHECK_SECONDS)
            now = time.monotonic()
            since = {uid: since.get(uid, now) for uid in self.response_buffer}
            ready = {
                key
                for key, status in self.workers_setup_status.items()
                if status == WorkerSetupStatus.READY
            }
            for uid, item in list(self.response_buffer.items()):
                if item.event.is_set():
                    continue
                if item.worker_id is not None and f"{PATH[1:]}_{item.worker_id}" not in ready:
                    item.response = HTTPException(
                        503,
                        "the worker that had this request died; try again",
                        {"Retry-After": "1"},
                    )
                elif now - since[uid] > self.timeout + 2 * LOST_CHECK_SECONDS:
                    item.response = HTTPException(504, f"no answer within {self.timeout:g} s")
                else:
                    continue
                item.response = item.response, LitAPIStatus.ERROR
                item.event.set()

    def _start_server(self, *args, **kwargs):
        processes = super()._start_server(*args, **kwargs)
        threading.Thread(target=self.watch, args=(list(processes.values()),), daemon=True).start()
        return processes

    def watch(self, processes):
        """Nothing replaces the HTTP process: without it this program ends with an error, and
        whoever started it starts it again.
        """
        wait([process.sentinel for process in processes])
        # a stop in order has closed the event's manager
        with contextlib.suppress(OSError, EOFError):
            self.failed = not self._shutdown_event.is_set()
        self.end()

    def end(self):
        with contextlib.suppress(OSError, EOFError):
            self._shutdown_event.set()

    def stop(self, signum, frame):
        """For SIGTERM and SIGINT: accept nothing new, finish what was accepted. Before there is
        anything to finish: end at once.
        """
        if self._shutdown_event is None:
            raise SystemExit(128 + signum)
        # not here: the main thread waits on its connection to the event
        threading.Thread(target=self.end).start()


# In the workers


class Batching(LitLoop):
    """Take what waits, up to max_batch_size and for at most batch_timeout after the first; answer
    each request by itself.

    LitServe's own loop asks the queue a thousand times a second, and an error in one picture fails
    its whole batch.
    """

    def run(
        self,
        lit_api,
        device,
        worker_id,
        request_queue,
        transport,
        workers_setup_status,
        callback_runner,
    ):
        def answer(request, data, status):
            self.put_response(
                transport, request[0], request[1], data, status, LoopResponseType.REGULAR
            )

        def refuse(request, status, reason):
            answer(request, PickleableHTTPException(status, reason), LitAPIStatus.ERROR)

        requests = self.collect(
            lit_api, request_queue, lambda request: answer(request, (), LitAPIStatus.START)
        )
        start, accepted, images = time.monotonic(), [], []
        for request in requests:
            waited = start - request[2]
            lit_api.metrics.queued.observe(waited)
            if waited > lit_api.request_timeout:
                refuse(
                    request,
                    504,
                    f"waited longer than {lit_api.request_timeout:g} s; the service is overloaded",
                )
                continue
            try:
                images.append(lit_api.decode_request(request[3]))
                accepted.append(request)
            except ImageError as error:
                refuse(request, error.status, str(error))
        lit_api.metrics.preprocess_seconds.observe(time.monotonic() - start)
        if not accepted:
            return
        try:
            rows = lit_api.predict(images)
        except Exception as error:
            # whatever the runtime raises: these requests fail, the service lives
            for request in accepted:
                refuse(request, 500, f"the model failed: {one_line(error)[:200]}")
            return
        for request, row in zip(accepted, rows):
            answer(request, lit_api.encode_response(row, request[3][1], len(rows)), LitAPIStatus.OK)

    @staticmethod
    def collect(lit_api, request_queue, taken):
        """Requests (HTTP process, id, time, upload), one or more, each passed to `taken` the moment
        it leaves the queue.
        """
        requests, end = [], None
        while len(requests) < lit_api.max_batch_size:
            try:
                requests.append(
                    request_queue.get(
                        timeout=max(end - time.monotonic(), 0) if requests else IDLE_SECONDS
                    )
                )
            except Empty:
                if requests:
                    break
                continue
            taken(requests[-1])
            end = end or time.monotonic() + lit_api.batch_timeout
        return requests


class Predict(litserve.LitAPI):
    """One worker. options: the command line's."""

    def __init__(self, options, description):
        super().__init__(
            max_batch_size=options.batch_size,
            batch_timeout=options.batch_ms / 1000,
            api_path=PATH,
            loop=Batching(),
        )
        self.options, self.description = options, description

    def setup(self, device):
        # Ctrl-C reaches the whole group; the main process ends its workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        model, topk = self.description["Model"], self.description["PostProcess"]["Topk"]
        self.names, self.topk = topk["label_list"], topk["topk"]
        self.preprocess = Preprocess(
            self.description["PreProcess"]["transform_ops"],
            self.options.max_pixels,
            model["input"].get("min_size", 1),
        )
        self.classifier = Classifier(
            self.options.model, self.description, self.options.device, self.options.threads
        )
        self.metrics = Metrics()
        self.metrics.worker_starts.inc()

    def decode_request(self, request: Annotated[tuple, Depends(read_upload)]):
        return self.preprocess(request[0])

    def predict(self, images):
        start = time.monotonic()
        rows = self.classifier(images)
        self.metrics.predict_seconds.observe(time.monotonic() - start)
        self.metrics.batch_size.observe(len(images))
        return rows

    def encode_response(self, row, topk, batch_size):
        return {"predictions": best(row, topk or self.topk, self.names), "batch_size": batch_size}


def number(kind, least):
    def parse(text):
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
        return value

    return parse


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="what tools/export_model.py wrote"
    )
    parser.add_argument(
        "--host",
        choices=("127.0.0.1", "0.0.0.0", "::"),
        default="127.0.0.1",
        help="0.0.0.0: reachable from elsewhere",
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--workers", type=number(int, 1), default=1, help="processes, each with the model"
    )
    parser.add_argument(
        "--threads", type=number(int, 1), default=1, help="of each worker, on a CPU"
    )
    parser.add_argument(
        "--batch-size", type=number(int, 1), default=16, help="pictures run at once, at most"
    )
    parser.add_argument(
        "--batch-ms",
        type=number(float, 0),
        default=2,
        help="how long a picture waits for others, at most",
    )
    parser.add_argument(
        "--timeout",
        type=number(float, 0.1),
        default=10,
        help="seconds from the upload's end to the answer (504)",
    )
    parser.add_argument(
        "--upload-timeout", type=number(float, 0.1), default=10, help="seconds for an upload (408)"
    )
    parser.add_argument(
        "--max-bytes", type=number(int, 1), default=10_000_000, help="of an upload (413)"
    )
    parser.add_argument(
        "--max-pixels", type=number(int, 1), default=MAX_PIXELS, help="of a picture (413)"
    )
    parser.add_argument(
        "--max-in-flight", type=number(int, 1), default=128, help="requests; those beyond get 503"
    )
    parser.add_argument(
        "--stop-timeout",
        type=number(int, 1),
        default=30,
        help="seconds for accepted requests after SIGTERM",
    )
    return parser.parse_args(argv)


def serve(options):
    """Run until SIGTERM or SIGINT; returns the exit status."""
    description = read_description(options.model)
    metadata = {
        "model": description.get("Global", {}).get("model_name"),
        "classes": len(description["PostProcess"]["Topk"]["label_list"]),
        "max_bytes": options.max_bytes,
        "max_pixels": options.max_pixels,
    }
    server = Server(
        Predict(options, description),
        accelerator="cpu",
        workers_per_device=options.workers,
        timeout=options.timeout,
        restart_workers=True,
        disable_openapi_url=True,
        model_metadata=metadata,
        middlewares=[(Admission, {"metrics": Metrics(), "max_in_flight": options.max_in_flight})],
    )
    server.uvicorn_graceful_timeout = options.stop_timeout
    server.app.state.limits = options
    server.app.get("/metrics")(metrics_text)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, server.stop)
    server.run(
        options.host,
        options.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
        limit_concurrency=MAX_CONNECTIONS,
    )
    return int(server.failed)


def main(argv=None) -> int:
    options = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="nextvit-metrics.") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            return serve(options)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            print("error:", one_line(error), file=sys.stderr)
            return 1
        finally:
            for process in multiprocessing.active_children():  # left by a start that failed
                process.kill()


if __name__ == "__main__":
    raise SystemExit(main())
