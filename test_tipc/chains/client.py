"""Start a server, ask it for every image of a folder, and stop it: client.py --server 'server.py
--model MODEL' --images DIR [--json FILE].

The standard library only. The exit status is 0 if every image was answered and the server ended
well when it was told to.
"""

import argparse
import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXTENSIONS = tuple(
    ".apng .avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif "
    ".tiff .webp".split()
)
START_SECONDS, STOP_SECONDS, ANSWER_SECONDS = 120, 60, 120


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def request(port, method, path, body=None):
    """(status, body) of an HTTP request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request(
            method, path, body, {"Content-Type": "application/octet-stream"} if body else {}
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_ready(server, port):
    """Return when /health says 200. RuntimeError if the server ends before, TimeoutError if it
    takes too long.
    """
    end = time.monotonic() + START_SECONDS
    while True:
        if server.poll() is not None:
            raise RuntimeError(
                f"the server ended with exit status {server.returncode} before it was ready"
            )
        try:
            if request(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass  # it does not listen yet
        if time.monotonic() > end:
            raise TimeoutError(f"the server is not ready after {START_SECONDS} s")
        time.sleep(0.2)


def ask(port, path, topk=None):
    """What is found in an image file, as the programs of deploy/ write it; of a classifier with the
    size of the batch that it ran in.
    """
    query = f"?topk={topk}" if topk else ""
    status, body = request(port, "POST", f"/predict{query}", path.read_bytes())
    if status != 200:
        raise RuntimeError(f"{path}: status {status}: {body.decode(errors='replace')}")
    answer = json.loads(body)
    if "predictions" not in answer:  # a detector's or a segmentor's
        return {"file_name": str(path), **answer}
    found = answer["predictions"]
    return {
        "file_name": str(path),
        "class_ids": [best["class_id"] for best in found],
        "scores": [best["score"] for best in found],
        "label_names": [best["label"] for best in found],
        "batch_size": answer["batch_size"],
    }


def shown(found):
    """The answer for an image in a line."""
    if "class_ids" in found:
        best = zip(found["label_names"], found["scores"], strict=True)
        return ", ".join(f"{name} {score:.4f}" for name, score in best)
    what = "objects" if "objects" in found else "classes"
    return f"{len(found[what])} {what}"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--server",
        required=True,
        metavar="COMMAND",
        help="a Python program and its arguments; --port is added",
    )
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--clients", type=int, default=1, help="requests at the same time")
    parser.add_argument("--topk", type=int, help="classes of an image, if not the server's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the predictions")
    args = parser.parse_args(argv)
    # the chain ends its command so; the server must end with it
    if argv is None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    files = sorted(path for path in args.images.iterdir() if path.suffix.lower() in EXTENSIONS)
    port = free_port()
    server = subprocess.Popen([sys.executable, *shlex.split(args.server), f"--port={port}"])
    try:
        wait_until_ready(server, port)
        with ThreadPoolExecutor(args.clients) as pool:
            predictions = list(pool.map(lambda path: ask(port, path, args.topk), files))
        server.send_signal(signal.SIGTERM)
        status = server.wait(STOP_SECONDS)
    except (OSError, RuntimeError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        print("error:", error, file=sys.stderr)
        return 1
    finally:
        server.kill()
        server.wait()
    for found in predictions:
        print(f"{found['file_name']}: {shown(found)}")
    print(
        f"{len(predictions)} answers, at most "
        f"{max((found.get('batch_size', 1) for found in predictions), default=0)} images at once; "
        f"the server ended with exit status {status}"
    )
    if args.json:
        args.json.write_text(json.dumps(predictions), encoding="utf-8")
    return int(status != 0 or not predictions)


if __name__ == "__main__":
    raise SystemExit(main())
