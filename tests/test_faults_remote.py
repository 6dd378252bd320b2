"""Data on servers that lie, break off, answer something else or never end, and paths that are none:
the same batches as from a disk, or one line that names what was read.
"""

import gzip
import http.server
import os
import threading
import time
import tracemalloc
import zlib
from urllib.parse import unquote

import numpy as np
import pytest

pytest.importorskip("fsspec", reason="needs the extra `remote`")
pytest.importorskip("aiohttp", reason="needs the extra `remote`")

from ppcls_nextvit.cli.main import main  # noqa: E402
from ppcls_nextvit.data import build_loader  # noqa: E402
from ppcls_nextvit.data.images import ImageError  # noqa: E402
from ppcls_nextvit.data.remote import RemoteError, RemoteOptions, RemoteStore  # noqa: E402
from ppcls_nextvit.data.remote import files as files_module  # noqa: E402
from ppcls_nextvit.data.remote import store as store_module  # noqa: E402
from ppcls_nextvit.schema import ConfigError  # noqa: E402
from support import odd_images  # noqa: E402
from support.faults import assert_one_line, generators, many  # noqa: E402

REFUSED = (ConfigError, FileNotFoundError, ImageError)
OPS = [{"DecodeImage": None}, {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`images` with a list, and `shards` of the same. Not to be changed."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        (folder / "images" / f"{number}.png").write_bytes(odd_images.WITH_NOTES["png"](rng))
    (folder / "list.txt").write_text("".join(f"{n}.png {n % 2}\n" for n in range(4)))
    arguments = [str(folder / "shards"), "--image-root", str(folder / "images")]
    assert main(["shards", "make", *arguments, "--list", str(folder / "list.txt")]) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)


class OddServer(http.server.ThreadingHTTPServer):
    """A server of the folder `root` whose answers are odd in the share `odd` of requests, as `rng`
    draws.
    """

    daemon_threads = True

    def __init__(self, root, rng, odd):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.rng, self.odd = os.fspath(root), rng, odd
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()

    def handle_error(self, *_):
        """Say nothing."""


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *given):
        """Say nothing."""

    def do_HEAD(self):  # noqa: N802 (the base class's name)
        self.do_GET()

    def do_GET(self):  # noqa: N802 (the base class's name)
        rng = self.server.rng
        path = self.server.root + unquote(self.path)
        if not os.path.isfile(path):
            return self._send(404, b"")
        with open(path, "rb") as file:
            whole = file.read()
        first, last = 0, len(whole) - 1
        wanted = self.headers.get("Range", "").removeprefix("bytes=").split("-")
        if len(wanted) == 2 and all(wanted):
            first, last = int(wanted[0]), min(int(wanted[1]), last)
        body, status = whole[first : last + 1], 206 if len(wanted) == 2 else 200
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{len(whole)}"'}
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
        if rng.random() >= self.server.odd:
            return self._send(status, body, headers)
        statuses = [204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 410, 416, 429, 500, 503, 599]
        return [
            lambda: self._send(statuses[rng.integers(len(statuses))], b"", headers),
            lambda: self._send(302, b"", {"Location": LOCATIONS[rng.integers(len(LOCATIONS))]}),
            lambda: self._send(status, body[: rng.integers(len(body) + 1)], headers, len(body)),
            lambda: self._send(status, body[: rng.integers(len(body) + 1)], headers),
            lambda: self._send(status, body + bytes(rng.integers(1, 9000)), headers),
            lambda: self._send(200, whole, headers),
            lambda: self._send(
                status, gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
            ),
            lambda: self._send(status, body, {**headers, "Content-Encoding": "gzip"}),
            lambda: self._send(status, body, {**headers, "ETag": "\xff\x01", "X": "y" * 9000}),
            lambda: self._send(status, body, headers, [-1, "x", 10**30, 0][rng.integers(4)]),
            lambda: self._send(status, b"zz\r\n" + body, {"Transfer-Encoding": "chunked"}, None),
            lambda: self.wfile.write(rng.bytes(90)),
            lambda: None,
        ][rng.integers(13)]()

    def _send(self, status, body, headers=(), length=-1):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True


LOCATIONS = ["", "/", "//", "http://[::1/", "http://127.0.0.1:b/", "file:///etc/passwd", "?" * 99]
LOCATIONS += [
    "http://127.0.0.1:1/x",
    "http://" + "a" * 300 + "/",
    "ftp://127.0.0.1/",
    "\x01",
    "x y",
]


def section(root, tmp_path, kind, **more):
    dataset = {
        "listed": {
            "name": "ImageNetDataset",
            "image_root": f"{root}/images",
            "cls_label_path": f"{root}/list.txt",
        },
        "sharded": {"name": "ImageShards", "image_root": f"{root}/shards"},
    }[kind]
    if "://" in str(root):
        dataset["remote"] = {"cache": str(tmp_path / "cache"), "timeout_s": 2, **more}
    return {
        "dataset": {**dataset, "transform_ops": OPS},
        "sampler": {"batch_size": 1},
        "loader": {"num_workers": 0, "use_shared_memory": False},
    }


def batches(data):
    """(pixels, label) of each image."""
    loader = build_loader(data, "Train", num_classes=2)
    return sorted(
        (batch["image"].numpy().tobytes(), batch["label"].numpy().tolist())
        for batch in loader.epoch(0)
    )


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["listed", "sharded"])
def test_the_same_batches_or_one_line(kind, made, tmp_path):
    truth = batches(section(made, tmp_path, kind))
    whole = 0
    for number, rng in enumerate(generators(many(16))):
        with OddServer(made, rng, [0.02, 0.1, 0.6][number % 3]) as server:
            since = time.monotonic()
            try:
                found = batches(section(server.url, tmp_path / str(number), kind, patience_s=0.05))
            except REFUSED as error:
                assert_one_line(error)
                assert server.url in str(error)
            else:
                whole += 1
                # a list that a server cuts where a line ends is a list
                assert found == truth or (kind == "listed" and set(found) < set(truth))
            assert time.monotonic() - since < 20
    assert whole >= many(1)


def odd_path(rng):
    pieces = ["/", "..", "%00", "\0", "\n", "?", "#", "@", ":", "[", "]", " ", "猫", "\udcff", "*"]
    pieces += ["a" * 300, "::", "{x}", "~", "\\", "-", "99999", "%", "\u202e", "s"]
    starts = ["file://", "http://", "memory://", "local://", "nosuch://", "http://127.0.0.1:1/"]
    starts += ["data://", "zip://", "reference://", "http://[", "x+y://", "file:///"]
    start = starts[rng.integers(len(starts))]
    return start + "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(0, 5)))


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore")
def test_paths_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for rng in generators(many(60)):
        data = section(odd_path(rng), tmp_path, ["listed", "sharded"][rng.integers(2)])
        data["dataset"]["remote"]["patience_s"] = 0
        with pytest.raises((*REFUSED, ImportError)) as error:
            build_loader(data, "Train", num_classes=2)
        assert_one_line(error.value)


def test_pipes_and_devices_are_no_data(tmp_path):
    """Opening a pipe would wait for someone who writes."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes on this system")
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png 0\n")
    data = section(f"file://{tmp_path}", tmp_path, "listed")
    data["dataset"]["image_root"] = f"file://{tmp_path}"
    with pytest.raises(FileNotFoundError, match=r"a.png: not a regular file, and it is the first"):
        build_loader(data, "Train", num_classes=2)
    (tmp_path / "list.txt").unlink()
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="list.txt: not a regular file"):
        build_loader(data, "Train", num_classes=2)


class _Endless(_Handler):
    """Sends more than was asked for, plain or packed, until nobody takes it."""

    def do_GET(self):  # noqa: N802 (the base class's name)
        packed = self.path == "/packed"
        self.send_response(200)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        for _ in range(1 if packed else 200):
            self.wfile.write(PACKED if packed else ZEROS)


ZEROS = bytes(1 << 20)
packing = zlib.compressobj(wbits=31)
PACKED = b"".join(packing.compress(ZEROS) for _ in range(200)) + packing.flush()


@pytest.mark.parametrize("path", ["plain", "packed"])
@pytest.mark.parametrize("piece", [(), (3, 500)])
def test_a_server_that_sends_more_costs_no_memory(path, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "IMAGE_BYTES", 4 << 20)
    monkeypatch.setattr(_Handler, "do_GET", _Endless.do_GET)
    options = RemoteOptions(cache=str(tmp_path), patience_s=0, timeout_s=20)
    with OddServer(tmp_path, np.random.default_rng(0), 0) as server:
        store = RemoteStore(server.url, options)
        store.own.system  # noqa: B018 (aiohttp's own memory is not counted)
        tracemalloc.start()
        try:
            message = "where 500 were asked for" if piece else "more than the limit of 4194304"
            with pytest.raises(RemoteError, match=message):
                store.read(f"{server.url}/{path}", *piece)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("size", [-1, None, "5", 2.5])
def test_sizes_that_are_none(size, made, tmp_path, monkeypatch):
    index = files_module.RemoteIndex(f"file://{made}", RemoteOptions(cache=str(tmp_path)))
    monkeypatch.setattr(index.store, "info", lambda path: {"size": size})
    with pytest.raises(FileNotFoundError, match="list.txt: the server does not say how large"):
        index.copy(["list.txt"])
