"""HTTP service for an exported model, with dynamic batching: python server.py --model DIRECTORY

POST /predict   a picture, as multipart field `file`, as JSON {"image": "<base64>"}, or as the body
                itself -> its best classes, objects or labels, JSON
GET  /docs      what may be asked, a page to try it
GET  /health    200 when every worker is ready
GET  /metrics   Prometheus text
GET  /info      model and limits
GET  /          200 while the process lives

Copy the programs of this folder (*.py), requirements.txt and the exported folder; nothing else of
the project is needed.

Three kinds of processes: this one, which starts the HTTP process and waits for its end; the HTTP
process (service.py), which receives uploads and starts the workers; and these (workers.py), each
with the model.
"""

import argparse
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Optional

try:
    import startup
    import uvicorn
    from classifier import read_description
    from decoding import one_line
    from fields import names_of, task_of
    from pictures import MAX_PIXELS
    from service import KEY, make_app
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {error}. server.py needs all of deploy/serving/*.py beside it, and pip install -r "
        f"requirements.txt"
    ) from None

STOPPING = (signal.SIGTERM, signal.SIGINT)
PARENT_SECONDS = 1  # how often the HTTP process looks whether the first process is there


class Server(uvicorn.Server):
    """uvicorn's server, which a signal, the end of its parent or a model that no worker can run
    stop in order: nothing new is accepted, what was accepted is answered.
    """

    failure: Optional[str] = None

    def handle_exit(self, number: int, frame: Any) -> None:
        self.should_exit = True

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.should_exit = True


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
        "--threads",
        type=at_least(int, 1),
        default=argparse.SUPPRESS,
        help="of each worker, on a CPU (default: OMP_NUM_THREADS, else the cores that are there, "
        "divided by the workers)",
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
        "--max-in-flight",
        type=at_least(int, 1),
        default=128,
        help="requests whose uploads are in; those beyond get 503",
    )
    parser.add_argument(
        "--idle-timeout",
        type=at_least(float, 0.1),
        default=10,
        help="seconds for a connection without a request, and for a request's headers",
    )
    parser.add_argument(
        "--close-metrics",
        action="store_true",
        help=f"/metrics wants the key, too, which the environment variable {KEY} sets",
    )
    parser.add_argument(
        "--stop-timeout",
        type=at_least(int, 1),
        default=30,
        help="seconds for accepted requests after SIGTERM",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no line with the address, and none for each request"
    )
    options = parser.parse_args(argv)
    if options.close_metrics and not os.environ.get(KEY):
        parser.error(f"--close-metrics: the environment variable {KEY} is not set")
    options.threads = getattr(options, "threads", startup.threads(options.workers))
    return options


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. OSError, which names the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"--port {port}: {os.strerror(error.errno)}") from None
    except OverflowError as error:
        raise OSError(f"--port {port}: {error}") from None


def address_of(listener: socket.socket) -> str:
    """The URL at which the socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(options: argparse.Namespace, description: dict, listener: socket.socket) -> int:
    """The whole of the HTTP process; returns the exit status."""
    parent = os.getppid()

    async def look_for_parent() -> None:
        if os.getppid() != parent:
            server.should_exit = True

    def ready() -> None:
        if not options.quiet:
            names, task = len(names_of(description)), task_of(description)
            print(
                f"{options.model} ({task}, {names} classes) is served at {address_of(listener)}: "
                f"POST /predict, see /docs; Ctrl-C ends it; {options.workers} worker(s) with "
                f"{options.threads} thread(s) each",
                flush=True,
            )

    app, connections = make_app(options, description, lambda reason: server.fail(reason), ready)
    config = uvicorn.Config(
        app,
        http=connections.protocol(),
        ws="none",
        log_level="error",
        access_log=False,
        proxy_headers=False,  # a request's client is who is connected
        timeout_keep_alive=options.idle_timeout,
        timeout_graceful_shutdown=options.stop_timeout,
        callback_notify=look_for_parent,
        timeout_notify=PARENT_SECONDS,
    )
    server = Server(config)
    for number in STOPPING:
        signal.signal(number, server.handle_exit)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    server.run([listener])
    if server.failure:
        print("error:", server.failure, file=sys.stderr)
    return int(server.failure is not None)


def supervise(serving: Callable[[], int], listener: socket.socket) -> int:
    """`serving()` in a process of its own; 0 if it returned so, and 1 if it ended in any other way.
    Signals are passed on to it.
    """
    # forked, not spawned: nothing else runs yet
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(serving()))
    # no signal is lost before both processes are ready for it
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    process.start()
    for number in STOPPING:
        signal.signal(number, lambda number, frame: process.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    listener.close()
    process.join()
    return int(process.exitcode != 0)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    try:
        description = read_description(options.model)
        if task_of(description) != "classification":
            options.batch_size = 1  # detectors and segmentors take one picture at a time
        listener = listen(options.host, options.port)
        if "fork" not in multiprocessing.get_all_start_methods():
            return serve(options, description, listener)
        return supervise(lambda: serve(options, description, listener), listener)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
