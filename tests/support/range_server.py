"""A server of a folder on this machine that answers ranges, and that can be slow, fail, break off,
lie about sizes or be gone for a while.
"""

import contextlib
import http.server
import os
import re
import threading
import time
from urllib.parse import unquote


class RangeServer:
    """`server.url` is the address of the folder `root`. What it does wrong, changeable at any time:

    delay_s before each answer; fail: status of the next `times` answers; cut: bytes after which
    the next `times` bodies break off; ranges: whether it heeds them; lie: added to sizes in HEAD;
    garble: the next `times` bodies have a wrong byte. requests: (method, path, range) that came.
    """

    def __init__(self, root):
        self.root = os.fspath(root)
        self.delay_s, self.fail, self.cut, self.times, self.lie = 0.0, 0, None, 0, 0
        self.garble, self.ranges, self.etags = False, True, True
        self.requests = []
        self.server = None
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Answer, at the port of before if there was one."""
        handler = type("Handler", (_Handler,), {"host": self})
        self.server = _Server(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self):
        """Be gone: connections are refused."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(http.server.BaseHTTPRequestHandler):
    host: RangeServer

    def log_message(self, *given):
        """Say nothing."""

    def do_HEAD(self):  # noqa: N802 (the base class's name)
        self._answer("HEAD")

    def do_GET(self):  # noqa: N802 (the base class's name)
        self._answer("GET")

    def _answer(self, method):
        host, wanted = self.host, self.headers.get("Range") or ""
        host.requests.append((method, self.path, wanted))
        time.sleep(host.delay_s)
        if host.fail and host.times > 0:
            host.times -= 1
            return self._status(host.fail)
        try:
            with open(host.root + unquote(self.path), "rb") as file:
                body = file.read()
        except OSError:
            return self._status(404)
        whole = len(body)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        part = match and host.ranges
        if part:
            start, last = int(match[1]), min(int(match[2]), whole - 1)
            body = body[start : last + 1]
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{last}/{whole}")
        if host.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if host.etags:
            self.send_header("ETag", f'"{hash(body)}"')
        lie = host.lie if method == "HEAD" else 0
        self.send_header("Content-Length", str(len(body) + lie))
        self.end_headers()
        if method == "HEAD":
            return None
        if host.times > 0 and (host.cut is not None or host.garble):
            host.times -= 1
            body = body[: host.cut] if host.cut is not None else b"x" + body[1:]
        with contextlib.suppress(OSError):
            self.wfile.write(body)
        return None

    def _status(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def serving(root):
    """A RangeServer of the folder `root` within the block."""
    host = RangeServer(root)
    try:
        yield host
    finally:
        with contextlib.suppress(OSError):
            host.stop()
