"""deploy/web built and served from this machine, and a browser that uses it."""

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading

import pytest

from support.paths import ROOT

FOLDER = ROOT / "deploy" / "web"
NODE = shutil.which("node")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_node = pytest.mark.skipif(
    not NODE, reason="needs Node.js 20 or later (apt-get install nodejs)"
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Quiet; with `isolated` it sends the headers without which browsers allow no threads."""

    isolated = False

    def end_headers(self):
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *arguments):
        pass


def page_copy(tmp_path):
    """The page's sources in a folder of their own, to be built there."""
    if not (FOLDER / "node_modules").is_dir():
        pytest.skip("needs the page's packages: npm ci --prefix deploy/web")
    ignored = shutil.ignore_patterns("node_modules", "dist")
    copy = shutil.copytree(FOLDER, tmp_path / "web", ignore=ignored)
    (copy / "node_modules").symlink_to(FOLDER / "node_modules")
    return copy


@contextlib.contextmanager
def built_page(prepared, tmp_path):
    """(the page's URL, the folder it is built in) with the model of the folder `prepared`."""
    if not NODE or not CHROMIUM:
        pytest.skip("needs Node.js and Chromium (apt-get install nodejs npm chromium)")
    copy = page_copy(tmp_path)
    subprocess.run([NODE, "build.mjs"], cwd=copy, check=True)
    shutil.copytree(prepared, copy / "dist" / "model")
    handler = functools.partial(Handler, directory=str(copy / "dist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", copy
        server.shutdown()


def driven(page, driver, **task):
    """What the program `driver` of deploy/web/test saw of the page."""
    url, folder = page
    given = json.dumps({"chromium": CHROMIUM, "url": url, **task})
    done = subprocess.run(
        [NODE, f"test/{driver}", given], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
