"""HTTP service for an exported model, with dynamic batching: python server.py --model DIRECTORY

POST /predict   a picture, as multipart field `file`, as JSON {"image": "<base64>"}, or as the body
                itself -> its best classes, JSON
GET  /health    200 when every worker is ready
GET  /metrics   Prometheus text
GET  /info      model and limits
GET  /          200 while the process lives

Copy the programs of this folder (*.py), requirements.txt and the exported folder; nothing else of
the project is needed.
LitServe supplies the HTTP process, the workers and their restart. What it lacks is here: an answer
for every request, also when the worker that had it died, errors for one picture instead of its
whole batch, limits, and a stop that lets accepted requests finish.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

try:
    import litserve
    from classifier import read_description
    from fastapi import HTTPException
    from litserve.utils import LitAPIStatus, WorkerSetupStatus
    from metrics import Metrics, metrics_text
    from pictures import MAX_PIXELS, one_line
    from uploads import PATH, Admission
    from workers import Predict
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. server.py needs all of deploy/serving/*.py beside it, and pip install -r "
        f"requirements.txt"
    ) from None

MAX_CONNECTIONS = 1000  # open ones, idle ones included; more get 503 at once
LOST_CHECK_SECONDS = 0.25


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
        since: dict[object, float] = {}
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

    def watch(self, processes: list) -> None:
        """Nothing replaces the HTTP process: without it this program ends with an error, and
        whoever started it starts it again.
        """
        wait([process.sentinel for process in processes])
        # a stop in order has closed the event's manager
        with contextlib.suppress(OSError, EOFError):
            self.failed = not self._shutdown_event.is_set()
        self.end()

    def end(self) -> None:
        """Stop in order: workers and HTTP process finish what was accepted."""
        with contextlib.suppress(OSError, EOFError):
            self._shutdown_event.set()

    def stop(self, signum: int, frame: object) -> None:
        """For SIGTERM and SIGINT: accept nothing new, finish what was accepted. Before there is
        anything to finish: end at once.
        """
        if self._shutdown_event is None:
            raise SystemExit(128 + signum)
        # not here: the main thread waits on its connection to the event
        threading.Thread(target=self.end).start()


def at_least(kind: Callable, least: float) -> Callable[[str], Any]:
    """A type of argparse: a number of `kind`, `least` or more."""

    def parse(text):
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
        return value

    return parse


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
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
        "--workers", type=at_least(int, 1), default=1, help="processes, each with the model"
    )
    parser.add_argument(
        "--threads", type=at_least(int, 1), default=1, help="of each worker, on a CPU"
    )
    parser.add_argument(
        "--batch-size", type=at_least(int, 1), default=16, help="pictures run at once, at most"
    )
    parser.add_argument(
        "--batch-ms",
        type=at_least(float, 0),
        default=2,
        help="how long a picture waits for others, at most",
    )
    parser.add_argument(
        "--timeout",
        type=at_least(float, 0.1),
        default=10,
        help="seconds from the upload's end to the answer (504)",
    )
    parser.add_argument(
        "--upload-timeout",
        type=at_least(float, 0.1),
        default=10,
        help="seconds for an upload (408)",
    )
    parser.add_argument(
        "--max-bytes", type=at_least(int, 1), default=10_000_000, help="of an upload (413)"
    )
    parser.add_argument(
        "--max-pixels", type=at_least(int, 1), default=MAX_PIXELS, help="of a picture (413)"
    )
    parser.add_argument(
        "--max-in-flight", type=at_least(int, 1), default=128, help="requests; those beyond get 503"
    )
    parser.add_argument(
        "--stop-timeout",
        type=at_least(int, 1),
        default=30,
        help="seconds for accepted requests after SIGTERM",
    )
    return parser.parse_args(argv)


def serve(options: argparse.Namespace) -> int:
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


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
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
