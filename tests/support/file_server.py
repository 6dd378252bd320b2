"""A file host on this machine that behaves as hosts do, well and badly: ranges, versions, the
headers of the Hugging Face hub, redirects, files that break off, lies about sizes and hashes.
"""

import contextlib
import hashlib
import http.server
import re
import threading
from dataclasses import dataclass, field


@dataclass
class Served:
    """What is at a path. body: the file; status: in place of 200, for the first `times` requests;
    cut: bytes after which the first `times` transfers end; headers: further ones; linked: what the
    hub says of the file, before it redirects to `location`.
    """

    body: bytes = b""
    status: int = 200
    times: int = 0
    cut: int = 0
    headers: dict = field(default_factory=dict)
    location: str = ""
    length: bool = True
    ranges: bool = True
    version: str = ""


class FileServer:
    """`server.files[path]` is a Served; `server.requests` is what came: (path, Range or '')."""

    def __init__(self):
        self.files, self.requests = {}, []
        handler = type("Handler", (_Handler,), {"host": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def hub(self, path, body, **linked):
        """A file as the hub has it: `path` redirects to where the bytes are."""
        blob = f"/blobs/{hashlib.sha256(body).hexdigest()}"
        self.files[blob] = Served(body)
        told = {
            "X-Linked-Etag": f'"{linked.get("sha256", hashlib.sha256(body).hexdigest())}"',
            "X-Linked-Size": str(linked.get("size", len(body))),
        }
        self.files[path] = Served(status=302, times=1 << 30, location=blob, headers=told)
        return self.url + path

    def put(self, path, body=b"", **served):
        self.files[path] = Served(body, **served)
        return self.url + path


class _Handler(http.server.BaseHTTPRequestHandler):
    host: FileServer

    def log_message(self, *given):
        """Say nothing."""

    def do_GET(self):  # noqa: N802 (the base class's name)
        wanted = self.headers.get("Range") or ""
        self.host.requests.append((self.path, wanted))
        served = self.host.files.get(self.path, Served(status=404, times=1 << 30))
        if served.status != 200 and served.times > 0:
            served.times -= 1
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            if served.location:
                self.send_header("Location", served.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(served, wanted)

    def _send(self, served, wanted):
        version = served.version or f'"{hashlib.md5(served.body).hexdigest()}"'
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        fresh = self.headers.get("If-Range") == version
        if match and served.ranges and fresh:
            start = int(match[1])
            if start >= len(served.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            last = len(served.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(served.body)}")
        else:
            self.send_response(200)
        body = served.body[start:]
        self.send_header("ETag", version)
        if served.length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in served.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if served.status == 200 and served.cut and served.times > 0:
            served.times -= 1
            body = body[: served.cut]
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@contextlib.contextmanager
def serving():
    """A FileServer within the block."""
    host = FileServer()
    thread = threading.Thread(target=host.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.server.shutdown()
        host.server.server_close()
        thread.join()
