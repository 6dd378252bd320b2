"""deploy/serving: copied away and started as its README says, then tried by clients good and bad.
Needs the extra `serving`.
"""

import ast
import base64
import concurrent.futures
import http.client
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import zlib
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from paddle.nn import functional as F
from PIL import Image

from ppcls_nextvit.data.transforms.pipeline import Preprocess
from support import odd_images
from support.faults import SEED, lasting
from support.paths import ROOT
from support.pictures import varied_pictures
from support.programs import program_at
from support.random_models import random_model, random_weights
from support.tiny_run import write_config
from test_deploy_python import PIPELINES

pytest.importorskip("fastapi", reason="needs the extra `serving`")
pytest.importorskip("uvicorn", reason="needs the extra `serving`")
pytest.importorskip("prometheus_client", reason="needs the extra `serving`")
pytest.importorskip("python_multipart", reason="needs the extra `serving`")
pytestmark = [
    pytest.mark.slow,  # servers
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="processes are looked up in /proc (Linux)"
    ),
]

FOLDER = ROOT / "deploy" / "serving"
PHOTOS = sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))
PROGRAMS = sorted(FOLDER.glob("*.py"))
classifier = program_at("deploy/serving/classifier.py")
pictures = program_at("deploy/serving/pictures.py")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The tiny configuration, exported by the tool for Paddle Inference, which every installation
    has.
    """
    folder = tmp_path_factory.mktemp("exported")
    arguments = [
        "-c",
        str(write_config(folder)),
        "-o",
        f"Global.pretrained_model={random_weights(folder / 'w.pdparams')}",
    ]
    arguments += ["-o", f"Global.save_inference_dir={folder / 'model'}", "--size", "32"]
    assert program_at("tools/export_model.py").main(arguments) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The program, copied away."""
    folder = tmp_path_factory.mktemp("copied")
    for path in PROGRAMS:
        shutil.copy(path, folder)
    return folder


class Service:
    """A running server.py on a free port of the loopback."""

    def __init__(self, copy, model, *options, key=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = copy / f"{self.port}.log"
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"LIT_SERVER_API_KEY": key} if key else {}
        command = [
            sys.executable,
            "server.py",
            "--model",
            str(model),
            "--port",
            str(self.port),
            *map(str, options),
        ]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=copy, stdout=log, stderr=log, env=environment
            )
        self.wait_for(lambda: self.get("/health")[0] == 200, 60)

    def wait_for(self, condition, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def request(self, method, path, body=None, kind=None, timeout=30, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request(
            method, path, body, {**dict(headers), **({"Content-Type": kind} if kind else {})}
        )
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data

    def get(self, path):
        return self.request("GET", path)

    def predict(self, body, kind="application/octet-stream", query=""):
        status, data = self.request("POST", "/predict" + query, body, kind)
        return status, json.loads(data)

    def metrics(self):
        rows = (
            line.rpartition(" ")
            for line in self.get("/metrics")[1].decode().splitlines()
            if not line.startswith("#")
        )
        return {name: float(value) for name, _, value in rows}

    def send(self, data):
        """A connection on which `data` was sent and nothing was read."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection

    def children(self, mark):
        """Process ids below the server whose command line contains `mark`."""
        family, found = {self.process.pid}, []
        parents = {
            int(path.parent.name): parent_of(path) for path in Path("/proc").glob("[0-9]*/status")
        }
        for _ in range(3):
            family |= {pid for pid, parent in parents.items() if parent in family}
        for pid in sorted(family - {self.process.pid}):
            try:
                found += [pid] if mark in Path(f"/proc/{pid}/cmdline").read_text() else []
            except OSError:
                pass
        return found

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


def parent_of(status):
    try:
        return int(re.search(r"PPid:\s*(\d+)", status.read_text()).group(1))
    except (OSError, AttributeError):
        return 0


def post(body, announced=None):
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: "
        f"{announced or len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_response(connection):
    """(status, body) of the answer on a connection of `send`."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def multipart(data, field="file"):
    head = f'--limit\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'
    return head.encode() + data + b"\r\n--limit--\r\n", "multipart/form-data; boundary=limit"


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def service(copy, exported):
    service = Service(
        copy,
        exported,
        "--batch-ms",
        20,
        "--max-bytes",
        200_000,
        "--max-pixels",
        1_000_000,
        "--upload-timeout",
        2.5,
        "--max-in-flight",
        40,
    )
    yield service
    assert service.stop() == 0, service.log.read_text()
    assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def expected(exported):
    """For each photo the probabilities of the model that was exported, run eagerly, one photo at a
    time.
    """
    preprocess = Preprocess(
        json.loads((exported / "export.json").read_text())["PreProcess"]["transform_ops"]
    )
    model = random_model()
    with paddle.no_grad():
        return {
            photo: F.softmax(
                model(paddle.to_tensor(preprocess(str(photo))[None])), axis=-1
            ).numpy()[0]
            for photo in PHOTOS
        }


@pytest.mark.parametrize("name", PIPELINES)
def test_preprocessing_is_that_of_evaluation_bit_for_bit(tmp_path, name):
    if "OpenCV" in name:
        pytest.importorskip("cv2")
    ours = Preprocess(PIPELINES[name])
    theirs = pictures.Preprocess(json.loads(json.dumps(ours.describe())))
    files = [*sorted(varied_pictures(tmp_path).iterdir()), *PHOTOS]
    assert len(files) == 18
    for file in files:
        expected, got = ours(str(file)), theirs(file.read_bytes())
        assert (got.dtype, got.shape, got.flags.c_contiguous) == (
            np.float32,
            expected.shape,
            True,
        ), file.name
        assert got.tobytes() == expected.tobytes(), file.name


def test_four_ways_of_sending_a_photo(service, expected):
    for photo, row in expected.items():
        order = np.argsort(-row)[:3].tolist()
        data, text = photo.read_bytes(), base64.b64encode(photo.read_bytes()).decode()
        for body, kind in (
            (data, "image/jpeg"),
            multipart(data),
            (json.dumps({"image": text[:76] + "\n" + text[76:]}), "application/json"),
            (
                json.dumps({"image": "data:image/jpeg;base64," + text}),
                "application/json; charset=utf-8",
            ),
        ):
            status, answer = service.predict(body, kind)
            assert status == 200 and [found["class_id"] for found in answer["predictions"]] == order
            assert np.allclose(
                [found["score"] for found in answer["predictions"]], row[order], atol=1e-5
            )
            assert answer["predictions"][0]["label"] == service_labels()[order[0]]
    assert len({tuple(np.argsort(-row)[:3]) for row in expected.values()}) > 1, (
        "photos all alike would show nothing"
    )
    assert [
        len(service.predict(PHOTOS[0].read_bytes(), query=f"?topk={k}")[1]["predictions"])
        for k in (1, 7, 99)
    ] == [1, 7, 10]


def service_labels():
    return [
        line.partition(" ")[2]
        for line in (ROOT / "dataset/fashion_mnist/labels.txt").read_text().splitlines()
    ]


def bomb():
    """A PNG of 70 bytes that says it has 30,000 x 30,000 pixels."""
    header = b"IHDR" + (30000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + (13).to_bytes(4, "big")
        + header
        + zlib.crc32(header).to_bytes(4, "big")
        + b"\0\0\0\0IEND\xaeB`\x82"
    )


NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
JSON = "application/json"


@pytest.mark.parametrize(
    "body, kind, query, status, reason",
    [
        (b"", "image/png", "", 400, "empty"),
        (b"no image at all", "image/png", "", 415, "not an image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "image/png",
            "",
            415,
            "not an image",
        ),
        (PHOTOS[0].read_bytes()[:-9000], "image/jpeg", "", 422, "truncated"),
        (PHOTOS[0].read_bytes()[:200], "image/jpeg", "", 422, "damaged"),
        (encoded(Image.new("RGB", (90, 90)))[:-40], "image/png", "", 422, "truncated"),
        (encoded(Image.new("F", (9, 9)), "tiff"), "image/tiff", "", 415, "floating point"),
        (bomb(), "image/png", "", 413, "limit of 1000000: Image size (900000000 pixels)"),
        (encoded(Image.new("L", (1001, 1000))), "image/png", "", 413, "1001 x 1000"),
        (encoded(Image.fromarray(NOISE)), "image/png", "", 413, "200000"),
        (PHOTOS[0].read_bytes(), "text/plain", "", 415, "text/plain"),
        (PHOTOS[0].read_bytes(), "", "", 415, "Content-Type"),
        (b"{", JSON, "", 400, "expected JSON"),
        (b"[" * 50_000, JSON, "", 400, "expected JSON"),
        (b'{"picture": ""}', JSON, "", 400, "expected JSON"),
        (b'{"image": 3}', JSON, "", 400, "expected JSON"),
        (b'{"image": "a*b"}', JSON, "", 400, "expected JSON"),
        (b'{"image": ""}', JSON, "", 400, "empty"),
        (b"--limit", "multipart/form-data", "", 400, "boundary"),
        (b"nothing of the kind", "multipart/form-data; boundary=limit", "", 400, "multipart"),
        (multipart(b"data", "picture")[0], multipart(b"")[1], "", 400, "`file`"),
        (multipart(b"")[0], multipart(b"")[1], "", 400, "empty"),
        (PHOTOS[0].read_bytes(), "image/jpeg", "?topk=0", 422, "greater than or equal to 1"),
        (PHOTOS[0].read_bytes(), "image/jpeg", "?topk=many", 422, "integer"),
    ],
    ids=lambda value: value[:30].replace(" ", "-") if isinstance(value, str) else "",
)
def test_bad_uploads_get_a_reason(service, body, kind, query, status, reason):
    found, answer = service.predict(body, kind, query)
    assert (found, reason in json.dumps(answer["detail"])) == (status, True), answer


def test_a_strip_does_not_explode():
    """The resized picture is limited too: 1 x 50,000 pixels with their short side at 256 would be 3
    billion.
    """
    preprocess = pictures.Preprocess(
        [{"DecodeImage": {}}, {"ResizeImage": {"resize_short": 256, "backend": "pil"}}]
    )
    with pytest.raises(pictures.ImageError, match="the resized image has 256 x 12800000 pixels"):
        preprocess(encoded(Image.new("L", (1, 50_000))))


def test_oversized_without_an_announced_length(service):
    chunk = b"%x\r\n%s\r\n" % (50_000, bytes(50_000))
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: "
        b"chunked\r\n\r\n"
    )
    connection = service.send(head + chunk * 5)
    assert read_response(connection)[0] == 413
    connection.close()


def test_other_methods_and_paths(service):
    assert [
        service.get(path)[0]
        for path in ("/", "/health", "/info", "/metrics", "/predict", "/elsewhere")
    ] == [200] * 4 + [405, 404]
    assert json.loads(service.get("/info")[1])["model"] == {
        "model": "NextViT_small",
        "task": "classification",
        "classes": 10,
        "max_bytes": 200_000,
        "max_pixels": 1_000_000,
    }


def test_concurrent_requests_are_batched_and_a_bad_one_fails_alone(service, expected):
    """24 clients at once: fewer batches than pictures, and everybody gets the answer to their own
    picture.
    """
    before = service.metrics()
    photos = PHOTOS * 6

    def ask(index):
        return service.predict(b"bad" if index % 8 == 7 else photos[index].read_bytes())

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    for index, (status, answer) in enumerate(answers):
        assert status == (415 if index % 8 == 7 else 200)
        if status == 200:
            assert answer["predictions"][0]["class_id"] == int(np.argmax(expected[photos[index]]))
    after = service.metrics()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["nextvit_batch_size_sum"] == 21 and grown["nextvit_batch_size_count"] < 21
    assert max(answer.get("batch_size", 0) for _, answer in answers) >= 2
    assert (
        grown['nextvit_requests_total{status="200"}'],
        grown['nextvit_requests_total{status="415"}'],
    ) == (21, 3)


def test_slow_clients_do_not_hold_up_others_and_are_cut_off(service):
    slow = [service.send(post(b"half", announced=100)) for _ in range(3)]
    start = time.monotonic()
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200 and time.monotonic() - start < 2.4
    for connection in slow:
        status, answer = read_response(connection)
        assert status == 408 and b"not complete after 2.5 s" in answer
        assert connection.recv(1) == b"", "closed: nothing more is expected of that upload"


def test_clients_that_hang_up(service):
    before = service.metrics()
    for _ in range(5):
        # during the upload
        service.send(post(b"half", announced=100)).close()
        waiting = service.send(post(PHOTOS[0].read_bytes()))
        time.sleep(0.01)
        # before the answer, or during it
        waiting.close()
    service.wait_for(lambda: service.metrics()["nextvit_requests_in_flight"] == 0, 10)
    grown = {
        name: value - before.get(name, 0)
        for name, value in service.metrics().items()
        if name.startswith("nextvit_requests_total")
    }
    assert grown['nextvit_requests_total{status="499"}'] >= 5 and sum(grown.values()) == 10
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200


def test_requests_beyond_the_limit_are_refused_at_once(service):
    (worker,) = service.children("spawn_main")
    os.kill(worker, signal.SIGSTOP)
    try:
        held = [service.send(post(PHOTOS[0].read_bytes())) for _ in range(40)]
        service.wait_for(lambda: in_flight(service) == (40, 0), 5)
        status, answer = service.predict(PHOTOS[0].read_bytes())
        assert (status, answer) == (503, {"detail": "busy: 40 requests are in flight"})
    finally:
        os.kill(worker, signal.SIGCONT)
    assert [read_response(connection)[0] for connection in held] == [200] * 40
    service.wait_for(lambda: in_flight(service) == (0, 0), 10)
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200


def in_flight(service):
    """(requests, those of them whose upload is not in yet)."""
    metrics = service.metrics()
    return metrics["nextvit_requests_in_flight"], metrics["nextvit_uploads"]


def test_slow_uploads_take_nobody_s_place(service):
    """Many more than --max-in-flight: who sends all at once is answered all the same."""
    slow = [service.send(post(b"half", announced=100)) for _ in range(100)]
    service.wait_for(lambda: in_flight(service) == (100, 100), 5)
    statuses = [service.predict(PHOTOS[0].read_bytes())[0] for _ in range(10)]
    assert statuses == [200] * 10
    assert {read_response(connection)[0] for connection in slow} == {408}


def test_unfinished_uploads_do_not_fill_the_memory(service):
    """60 of 150 kB are more than 40 x --max-bytes: those that have taken longest are cut off."""
    slow = [service.send(post(bytes(150_000), announced=190_000)) for _ in range(60)]
    service.wait_for(lambda: in_flight(service)[0] < 60, 5)
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200
    statuses = []
    for connection in slow:
        try:
            statuses.append(read_response(connection)[0])
        except OSError:
            statuses.append("cut off")
    cut = statuses.count("cut off")
    assert statuses == ["cut off"] * cut + [408] * (60 - cut) and 7 <= cut <= 12, statuses


def test_idle_connections_make_room(service):
    """More than a process has files by default: good requests are answered all the same."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < 1300:
        pytest.skip("this test needs 1300 open files")
    idle = [service.send(b"POST /predict HTTP/1.1\r\n" * (i % 2)) for i in range(1100)]
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200
    assert service.metrics()["nextvit_connections"] <= 900
    for connection in idle:
        connection.close()
    service.wait_for(lambda: service.metrics()["nextvit_connections"] < 10, 10)


def endless(service, first, piece, limit):
    """How many bytes a client could send, up to `limit`."""
    connection = service.send(first)
    sent = 0
    try:
        while sent < limit:
            connection.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    finally:
        connection.close()
    return sent


def test_what_never_ends_is_cut_off(service):
    """A header, headers, empty lines, pieces of nothing, what follows a refused upload, requests
    whose answers nobody reads.
    """
    post_head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    chunked, announced = b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 900000000\r\n\r\n"
    for first, piece in (
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 50_000),
        (b"GET / HTTP/1.1\r\n", b"X: x\r\n" * 10_000),
        (b"", b"\r\n" * 20_000),
        (post_head + chunked, b"1\r\nx\r\n" * 10_000),
        (post_head + announced, bytes(50_000)),
        (b"", b"GET / HTTP/1.1\r\n\r\n" * 2_000),
    ):
        assert endless(service, first, piece, 60_000_000) < 30_000_000, (first, piece[:20])
        assert service.predict(PHOTOS[0].read_bytes())[0] == 200


def test_pipelined_requests_are_answered_in_their_order(service):
    connection = service.send(
        post(PHOTOS[0].read_bytes()) + post(b"bad") + b"GET / HTTP/1.1\r\n\r\n"
    )
    file = connection.makefile("rb")

    def answer():
        status = int(file.readline().split()[1])
        headers = dict(line.split(b": ", 1) for line in iter(file.readline, b"\r\n"))
        file.read(int(headers[b"content-length"]))
        return status

    assert [answer() for _ in range(3)] == [200, 415, 200]


@pytest.mark.chain
@pytest.mark.faults
def test_a_storm_of_bad_requests_costs_no_good_one(service):
    """Noise, damaged images, damaged forms and clients that hang up, for ten seconds, and until
    there were more than a hundred.
    """
    rng, end = np.random.default_rng(SEED), time.monotonic() + lasting(10)
    sent = []

    def goes_on():
        return time.monotonic() < end or (len(sent) <= 100 and time.monotonic() < end + 120)

    seeds = [int(seed) for seed in rng.integers(1 << 32, size=6)]
    photo = PHOTOS[0].read_bytes()

    def storm(seed):
        rng = np.random.default_rng(seed)
        while goes_on():
            kind = ("jpeg", "png", "tiff", "webp", "gif", "bmp")[rng.integers(6)]
            image = odd_images.damaged(rng, kind)
            form = bytearray(multipart(image)[0])
            for place in rng.integers(0, len(form), 5):
                form[place] = rng.integers(256)
            form_type = b"Content-Type: multipart/form-data; boundary=limit\r\n"
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
            data = (
                rng.bytes(rng.integers(1, 3000)),
                post(image),
                post(odd_images.WITH_NOTES["png"](rng)),
                post(image)[: rng.integers(1, len(post(image)))],
                head + form_type + b"Content-Length: %d\r\n\r\n" % len(form) + form,
                head
                + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
                + rng.bytes(9),
            )[rng.integers(6)]
            try:
                connection = service.send(data)
                if rng.random() < 0.7:
                    connection.settimeout(0.3)
                    connection.recv(1000)
                connection.close()
            except OSError:
                pass
            sent.append(kind)

    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        storms = [pool.submit(storm, seed) for seed in seeds]
        statuses = []
        while goes_on():
            statuses.append(service.predict(photo)[0])
        for each in storms:
            each.result()
    bad = len(sent)
    print(f"{bad} bad requests, {statuses.count(200)} of {len(statuses)} good ones answered")
    assert bad > 100
    assert set(statuses) == {200} and len(statuses) > 10
    assert service.metrics()["nextvit_worker_starts_total"] == 1


@pytest.fixture(scope="module")
def guarded(copy, exported):
    """A service with a key."""
    service = Service(
        copy, exported, "--close-metrics", "--idle-timeout", 1, "--timeout", 1, key="secret"
    )
    yield service
    service.stop()


def test_probes_need_no_key_and_all_else_does(guarded):
    """Service() waited for /health without one."""
    photo = PHOTOS[0].read_bytes()
    for path, status in (("/", 200), ("/health", 200), ("/info", 401), ("/metrics", 401)):
        assert guarded.get(path)[0] == status, path
    assert guarded.get("/elsewhere")[0] == guarded.request("POST", "/predict", photo)[0] == 401
    for headers in ({"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"Authorization": "secret2"}):
        status, body = guarded.request("POST", "/predict", photo, "image/jpeg", headers=headers)
        assert (status, json.loads(body)) == (
            401,
            {"detail": "the header X-API-Key is missing or wrong"},
        )
    for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
        assert json.loads(answer_of(guarded, photo, headers))["predictions"]
        status, body = guarded.request("GET", "/metrics", headers=headers)
        assert status == 200 and b'nextvit_requests_total{status="401"}' in body


def answer_of(guarded, photo, headers):
    """The answer to `photo`; again, for a minute, while the machine is too busy for the second that
    --timeout gives, and says so.
    """
    end = time.monotonic() + 60
    while True:
        status, body = guarded.request("POST", "/predict", photo, "image/jpeg", headers=headers)
        if status == 200:
            return body
        assert status in (503, 504) and time.monotonic() < end, (status, body)
        time.sleep(0.2)


def test_metrics_are_open_unless_closed():
    uploads = program_at("deploy/serving/uploads.py")

    def refusal(path, close):
        options = types.SimpleNamespace(close_metrics=close, max_in_flight=1)
        gate = uploads.Gate(None, options, "secret", None, None)
        return gate.refusal({"path": path, "headers": []})

    assert refusal("/metrics", False) is None and refusal("/metrics", True).status_code == 401
    assert refusal("/info", False).status_code == 401


def test_connections_without_a_request_are_closed(guarded):
    """One that sends nothing, one that sends half of its headers, one that trickles them, one that
    had an answer, and one that had an answer and begins another request.
    """
    silent, half, trickling = (guarded.send(data) for data in (b"", b"GET / HTTP/1.1\r\n", b"G"))
    answered, again = (guarded.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(2))
    for connection in (answered, again):
        assert read_response(connection)[0] == 200
    again.sendall(b"GET / HTTP/1.1\r\nX: ")
    start = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < start + 10:
            trickling.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - start < 6
    for connection in (silent, half, answered, again):
        connection.settimeout(6)
        assert connection.recv(1) == b""


@pytest.mark.chain
def test_a_hung_worker_is_replaced_and_all_ends_with_the_first_process(guarded):
    """Hung: five times the --timeout without an answer."""
    (worker,) = guarded.children("spawn_main")
    os.kill(worker, signal.SIGSTOP)
    photo, key = PHOTOS[0].read_bytes(), {"X-API-Key": "secret"}
    status, body = guarded.request("POST", "/predict", photo, "image/jpeg", headers=key)
    assert (status, json.loads(body)) == (504, {"detail": "no answer within 1 s"})
    guarded.wait_for(lambda: guarded.get("/health")[0] == 503, 20)
    guarded.wait_for(lambda: guarded.get("/health")[0] == 200, 60)
    assert worker not in guarded.children("spawn_main")
    assert json.loads(answer_of(guarded, photo, key))["predictions"]
    processes = guarded.children("")
    guarded.process.kill()
    assert_gone(processes)


class Transport:
    """Stands in for asyncio's."""

    aborted = False

    def abort(self):
        self.aborted = True


def test_who_makes_room():
    module = program_at("deploy/serving/connections.py")
    connections = module.Connections(idle_seconds=1, request_seconds=9, max_held=100, max_body=9)
    old, admitted, young = (module.Connection(("x", i), Transport()) for i in range(3))
    for age, connection in enumerate((old, admitted, young)):
        connections.add(connection)
        connections.begin(connection)
        connection.since = age
    admitted.admitted, old.since = True, 0.5
    assert connections.hold(admitted, 60) and connections.hold(old, 30)
    assert not connections.hold(old, 20), "no upload has taken longer than its own"
    assert connections.hold(young, 40) and old.transport.aborted and connections.held == 100
    assert not connections.hold(young, 1) and not admitted.transport.aborted
    connections.end(old)
    connections.end(young)
    assert connections.held == 60 and connections.of(("x", 2)) is young
    others = [module.Connection(("y", i), Transport()) for i in range(module.MAX_CONNECTIONS)]
    for connection in others:
        connections.add(connection)
    assert (
        young.transport.aborted and others[0].transport.aborted and not others[2].transport.aborted
    )
    assert not admitted.transport.aborted and len(connections.open) == module.MAX_CONNECTIONS


def test_a_picture_s_fault_is_its_own_answer_s(capfd):
    """Whatever is raised for one picture, the others of its batch are answered."""
    model = object.__new__(program_at("deploy/serving/workers.py").Model)
    model.names, model.topk = ["a", "b"], 1

    def preprocess(upload):
        if upload == b"bad":
            raise ZeroDivisionError("division by zero")
        return np.zeros((3, 2, 2), np.float32)

    model.preprocess = preprocess
    model.classifier = lambda images: [np.array([0.25, 0.75], np.float32)] * len(images)
    answers = model.run([b"", b"bad", b""], [{}, {}, {"topk": 2}])["answers"]
    assert [status for status, _ in answers] == [200, 500, 200]
    assert json.loads(answers[1][1]) == {"detail": "preprocessing failed: division by zero"}
    assert [len(json.loads(answers[i][1])["predictions"]) for i in (0, 2)] == [1, 2]
    assert json.loads(answers[0][1])["batch_size"] == 2

    def fail(images):
        raise RuntimeError("out of\nmemory")

    model.classifier = fail
    assert model.run([b"", b"bad"], [{"topk": 1}, {"topk": 1}])["answers"][0] == (
        500,
        json.dumps({"detail": "the model failed: out of memory"}),
    )
    assert capfd.readouterr().err.count("Traceback") == 3, "for whoever mends it"


@pytest.mark.chain
def test_a_killed_worker_is_replaced_and_a_killed_http_process_ends_all(copy, exported):
    service = Service(copy, exported, "--batch-ms", 800, "--timeout", 6)
    (worker,) = service.children("spawn_main")
    os.kill(worker, signal.SIGSTOP)  # hangs for a while
    assert service.predict(PHOTOS[0].read_bytes()) == (504, {"detail": "no answer within 6 s"})
    os.kill(worker, signal.SIGCONT)
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200
    waiting = [service.send(post(PHOTOS[0].read_bytes())) for _ in range(3)]
    service.wait_for(lambda: service.metrics()["nextvit_requests_in_flight"] == 3, 5)
    # the worker has them and waits for more
    time.sleep(0.3)
    os.kill(worker, signal.SIGKILL)
    for connection in waiting:
        status, answer = read_response(connection)
        assert (status, json.loads(answer)) == (
            503,
            {"detail": "the worker that had this request died; try again"},
        )
    service.wait_for(lambda: service.get("/health")[0] == 200, 60)
    assert service.predict(PHOTOS[0].read_bytes())[0] == 200
    assert service.metrics()["nextvit_worker_starts_total"] == 2 and service.children(
        "spawn_main"
    ) != [worker]

    processes = service.children("")
    (http_process,) = [pid for pid in service.children("server.py") if has_event_loop(pid)]
    os.kill(http_process, signal.SIGKILL)
    assert service.process.wait(30) == 1
    assert_gone(processes)


def has_event_loop(pid):
    return any("eventpoll" in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())


def assert_gone(processes):
    end = time.monotonic() + 20
    while left := [pid for pid in processes if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_sigterm_finishes_what_was_accepted(copy, exported, expected):
    service = Service(copy, exported, "--batch-ms", 700)
    statuses = []

    def ask_until_told_to_close():
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        while True:
            connection.request(
                "POST", "/predict", PHOTOS[0].read_bytes(), {"Content-Type": "image/jpeg"}
            )
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
            if response.will_close:
                return

    clients = [threading.Thread(target=ask_until_told_to_close) for _ in range(8)]
    for client in clients:
        client.start()
    accepted = [service.send(post(PHOTOS[index % 4].read_bytes())) for index in range(32)]
    upload = post(PHOTOS[0].read_bytes())
    half = service.send(upload[:-5000])
    service.wait_for(lambda: service.metrics()["nextvit_requests_in_flight"] > 20, 10)
    processes = service.children("")
    service.process.terminate()
    time.sleep(0.5)
    half.sendall(upload[-5000:])
    with pytest.raises(OSError):
        service.get("/health")
    for connection in [*accepted, half]:
        assert read_response(connection)[0] == 200
    for client in clients:
        client.join(30)
    assert len(statuses) >= 8 and set(statuses) == {200}, "no client was cut off without an answer"
    assert service.process.wait(30) == 0, service.log.read_text()
    assert_gone(processes)
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: shutil.rmtree(f), "export.json: no such file"),
        (lambda f: (f / "inference.pdiparams").unlink(), "inference.pdiparams: no such file"),
        (
            lambda f: os.truncate(f / "inference.pdiparams", 100),
            "inference.pdiparams: does not match export.json",
        ),
        (
            lambda f: (f / "export.json").write_text("{"),
            "not the description of an exported model",
        ),
        (
            lambda f: (f / "export.json").write_text("[]"),
            "not the description of an exported model",
        ),
        (
            lambda f: edit(f, lambda d: d["Export"].update(target="tensorrt")),
            "an export to tensorrt; this program runs onnx and paddle",
        ),
        (
            lambda f: edit(f, lambda d: d["Model"]["input"]["shape"].__setitem__(0, 4)),
            "the batch is fixed at 4",
        ),
    ],
)
def test_models_that_cannot_be_served(exported, tmp_path, change, message):
    model = shutil.copytree(exported, tmp_path / "model")
    change(model)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        classifier.read_description(model)


def edit(folder, change):
    description = json.loads((folder / "export.json").read_text())
    change(description)
    (folder / "export.json").write_text(json.dumps(description))


def test_a_start_that_fails_is_one_line(copy, tmp_path):
    done = subprocess.run(
        [sys.executable, "server.py", "--model", str(tmp_path)],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"error: {tmp_path}/export.json: no such file; expected a folder that "
        "tools/export_model.py wrote\n",
    )


def failing_start(copy, *arguments):
    done = subprocess.run(
        [sys.executable, "server.py", *map(str, arguments)],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_a_port_in_use_is_one_line(copy, exported):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port = used.getsockname()[1]
        assert failing_start(copy, "--model", exported, "--port", port) == [
            f"error: --port {port}: Address already in use"
        ]


def test_a_model_that_no_worker_can_run_is_one_line(copy, exported, tmp_path):
    model = shutil.copytree(exported, tmp_path / "model")
    edit(model, lambda d: d["PreProcess"]["transform_ops"].append({"Odd": None}))
    (line,) = failing_start(copy, "--model", model, "--port", 0)
    assert line.startswith("error: unknown transform 'Odd' in the description")


def test_closed_metrics_need_a_key(copy, exported):
    done = subprocess.run(
        [sys.executable, "server.py", "--model", str(exported), "--close-metrics"],
        cwd=copy,
        capture_output=True,
        text=True,
        env={**os.environ, "LIT_SERVER_API_KEY": ""},
    )
    assert done.returncode == 2 and "LIT_SERVER_API_KEY is not set" in done.stderr


def test_copied_alone_it_says_what_to_copy(tmp_path):
    shutil.copy(FOLDER / "server.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "server.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "server.py needs all of deploy/serving/*.py beside it" in done.stderr


def test_the_program_imports_only_what_its_requirements_name():
    found = set()
    for path in PROGRAMS:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        found |= {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
    roots -= {path.stem for path in PROGRAMS}
    assert roots == {
        "PIL",
        "cv2",
        "fastapi",
        "numpy",
        "onnxruntime",
        "paddle",
        "prometheus_client",
        "starlette",
        "uvicorn",
    }
    listed = {
        re.match(r"[\w-]+", line).group().lower()
        for line in (FOLDER / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert listed == {
        "fastapi",
        "starlette",
        "uvicorn",
        "httptools",
        "uvloop",
        "prometheus-client",
        "python-multipart",
        "numpy",
        "pillow",
        "onnxruntime",
    }


def test_load_test_program(service, monkeypatch, tmp_path, capsys):
    bench = program_at("deploy/serving/bench.py")
    arguments = [
        "--images",
        str(ROOT / "dataset/fashion_mnist/pictures"),
        "--port",
        str(service.port),
        "--requests",
        "300",
        "--pid",
        str(service.process.pid),
    ]
    assert bench.main(arguments) == 0
    single, many = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (single["clients"], single["requests"], single["pictures_a_batch"]) == (1, 30, 1)
    assert (many["clients"], many["statuses"]) == (32, {"200": 300}) and many[
        "pictures_a_batch"
    ] > 2
    assert 100 < many["memory_mb"] < 3000 and many["p50_ms"] <= many["p99_ms"] <= many["max_ms"]


def test_onnx_runtime_gives_the_same(exported, expected, tmp_path):
    for package in ("onnxruntime", "paddle2onnx", "onnxslim"):
        pytest.importorskip(package, reason="needs the extra `onnx`")
    config = str(write_config(tmp_path))
    weights = random_weights(tmp_path / "w.pdparams")
    assert (
        program_at("tools/export_model.py").main(
            [
                "-c",
                config,
                "-o",
                f"Global.pretrained_model={weights}",
                "--to",
                "onnx",
                "-o",
                f"Global.save_inference_dir={tmp_path / 'onnx'}",
            ]
        )
        == 0
    )
    description = classifier.read_description(tmp_path / "onnx")
    preprocess = pictures.Preprocess(description["PreProcess"]["transform_ops"])
    rows = classifier.Classifier(tmp_path / "onnx", description)(
        [preprocess(photo.read_bytes()) for photo in PHOTOS]
    )
    for photo, row in zip(PHOTOS, rows, strict=True):
        assert np.allclose(row, expected[photo], atol=1e-5)


def test_logits_and_pictures_of_several_sizes():
    several = object.__new__(classifier.Classifier)
    names = {"Topk": {"label_list": ["dark", "light"]}}
    several.description, seen = {"PostProcess": names, "Model": {"softmax": False}}, []
    several.run = lambda batch: (
        seen.append(batch.shape)
        or np.stack([batch.mean((1, 2, 3)), np.zeros(len(batch), np.float32)], axis=1)
    )
    images = [np.full((3, size, size), size, np.float32) for size in (2, 3, 2)]
    rows = several(images)
    assert seen == [(2, 3, 2, 2), (1, 3, 3, 3)]
    assert np.allclose([row[0] for row in rows], [1 / (1 + np.exp(-size)) for size in (2, 3, 2)])


# Triton and Kubernetes: what can be checked without them


@pytest.fixture
def repository(exported, tmp_path):
    """A repository of an export that says it is ONNX."""
    model = shutil.copytree(exported, tmp_path / "model")
    (model / "inference.onnx").write_bytes(b"graph")
    edit(model, lambda d: d["Export"].update(target="onnx", inputs={"x": [None, 3, 48, 32]}))
    edit(model, lambda d: d["Model"]["input"].update(image_size=[48, 32]))
    assert (
        program_at("deploy/serving/triton/make_repository.py").main(
            ["--model", str(model), "--out", str(tmp_path / "repository")]
        )
        == 0
    )
    return tmp_path / "repository"


def test_triton_repository(repository, exported, tmp_path, capsys):
    names = {
        path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()
    }
    assert names == {
        "nextvit/config.pbtxt",
        "nextvit/labels.txt",
        "nextvit_model/1/model.onnx",
        "nextvit_model/config.pbtxt",
        "nextvit_model/labels.txt",
        "nextvit_preprocess/1/pictures.py",
        "nextvit_preprocess/1/decoding.py",
        "nextvit_preprocess/1/notes.py",
        "nextvit_preprocess/1/export.json",
        "nextvit_preprocess/1/model.py",
        "nextvit_preprocess/config.pbtxt",
    }
    assert (repository / "nextvit" / "1").is_dir(), "Triton wants a version of an ensemble too"
    configs = {
        folder.name: " ".join((folder / "config.pbtxt").read_text().split())
        for folder in repository.iterdir()
    }
    assert not any("$" in text for text in configs.values())
    assert (
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 48, 32 ] } ]'
        in configs["nextvit_model"]
    )
    assert (
        'output [ { name: "PIXELS" data_type: TYPE_FP32 dims: [ 3, 48, 32 ] } ]'
        in configs["nextvit_preprocess"]
    )
    assert (
        'output_map { key: "probabilities" value: "PROBABILITIES" }' in configs["nextvit"]
        and "dims: [ 10 ]" in configs["nextvit"]
    )
    assert (repository / "nextvit" / "labels.txt").read_text().splitlines() == service_labels()
    make = program_at("deploy/serving/triton/make_repository.py")
    assert make.main(["--model", str(exported), "--out", str(tmp_path / "new")]) == 1
    assert "expected an export --to onnx" in capsys.readouterr().err
    assert (
        make.main(["--model", str(tmp_path / "model"), "--out", str(repository)]) == 1
        and "exists" in capsys.readouterr().err
    )
    path = tmp_path / "model" / "export.json"
    description = json.loads(path.read_text())
    for inputs in ({"x": []}, {"x": [None, 3]}, {"x": [1, 3, 4, 4], "y": [1, 3, 4, 4]}):
        description["Export"]["inputs"] = inputs
        path.write_text(json.dumps(description))
        assert make.main(["--model", str(path.parent), "--out", str(tmp_path / "none")]) == 1
        assert "Export.inputs: expected " in capsys.readouterr().err


def test_triton_configurations_are_what_triton_reads(repository):
    configuration = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]"
    )
    from google.protobuf import text_format

    paths = sorted(repository.glob("*/config.pbtxt"))
    models = ["nextvit", "nextvit_model", "nextvit_preprocess"]
    assert [path.parent.name for path in paths] == models
    for path in paths:
        parsed = text_format.Parse(path.read_text(), configuration.ModelConfig())
        assert parsed.name == path.parent.name and parsed.max_batch_size == 16


def test_triton_preprocessing(repository, monkeypatch):
    """model.py in place, between stand-ins for Triton's own classes."""
    backend = types.ModuleType("triton_python_backend_utils")
    backend.get_input_tensor_by_name = lambda request, name: request[name]
    backend.Tensor = lambda name, array: (name, array)
    backend.InferenceResponse = lambda tensors=(), error=None: {"tensors": tensors, "error": error}
    backend.TritonError = type("TritonError", (Exception,), {"INVALID_ARG": 3, "INTERNAL": 1})
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    monkeypatch.syspath_prepend(str(repository / "nextvit_preprocess" / "1"))
    monkeypatch.delitem(sys.modules, "pictures", raising=False)
    spec = importlib.util.spec_from_file_location(
        "triton_model", repository / "nextvit_preprocess" / "1" / "model.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize(
        {"model_config": json.dumps({"parameters": {"max_pixels": {"string_value": "1000000"}}})}
    )

    def request(*pictures):
        array = np.array([[picture] for picture in pictures], object)
        return {"IMAGE": types.SimpleNamespace(as_numpy=lambda: array)}

    good, bad = model.execute(
        [
            request(*(photo.read_bytes() for photo in PHOTOS)),
            request(PHOTOS[0].read_bytes(), b"bad"),
        ]
    )
    ((name, pixels),) = good["tensors"]
    ours = Preprocess(
        json.loads((repository / "nextvit_preprocess" / "1" / "export.json").read_text())[
            "PreProcess"
        ]["transform_ops"]
    )
    assert name == "PIXELS" and pixels.tobytes() == b"".join(
        ours(str(photo)).tobytes() for photo in PHOTOS
    )
    assert "not an image" in str(bad["error"]) and not bad["tensors"]
    model.preprocess = lambda data: 1 / 0
    (failed,) = model.execute([request(b"")])
    assert "preprocessing failed: division by zero" in str(failed["error"])


def test_paddle_servings_descriptions(exported, tmp_path, monkeypatch, capsys):
    """The bytes are those that Paddle Serving's own protobuf classes write for the same values."""
    convert = program_at("deploy/serving/paddle_serving/convert.py")
    model = shutil.copytree(exported, tmp_path / "model")
    assert (
        convert.main(["--model", str(model)]) == 1 and "--format pdmodel" in capsys.readouterr().err
    )
    (model / "inference.pdmodel").write_bytes(b"program")
    edit(
        model,
        lambda d: (
            d["Files"].update({"inference.pdmodel": {"sha256": ""}}),
            d["Model"].update(class_num=1000),
            d["Model"]["input"].update(image_size=[224, 224]),
            d["Export"].update(outputs=["prob"]),
        ),
    )
    monkeypatch.setattr(convert, "output_name", lambda model: "softmax_1.tmp_0")
    server, client = tmp_path / "server", tmp_path / "client"
    assert (
        convert.main(["--model", str(model), "--server", str(server), "--client", str(client)]) == 0
    )
    binary = bytes.fromhex(
        "0a120a017812017818002001280328e00128e001121e0a0f736f66746d61785f312e746d705f30120470726f621800200128e807"
    )
    for folder, name in ((server, "serving_server_conf"), (client, "serving_client_conf")):
        assert (folder / f"{name}.stream.prototxt").read_bytes() == binary
        lines = [
            line.strip() for line in (folder / f"{name}.prototxt").read_text().splitlines() if line
        ]
        assert lines == [
            "feed_var {",
            'name: "x"',
            'alias_name: "x"',
            "is_lod_tensor: false",
            "feed_type: 1",
            "shape: 3",
            "shape: 224",
            "shape: 224",
            "}",
            "fetch_var {",
            'name: "softmax_1.tmp_0"',
            'alias_name: "prob"',
            "is_lod_tensor: false",
            "fetch_type: 1",
            "shape: 1000",
            "}",
        ]
    assert (server / "inference.pdmodel").read_bytes() == b"program" and (
        server / "inference.pdiparams"
    ).is_file()


def test_manifests_name_what_the_server_has():
    deployment, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    template = deployment["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert (
        service["spec"]["selector"]
        == deployment["spec"]["selector"]["matchLabels"]
        == template["metadata"]["labels"]
    )
    assert {
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    } == {"/health", "/"}
    stop = int(container["args"][container["args"].index("--stop-timeout") + 1])
    assert pod["terminationGracePeriodSeconds"] >= stop + 5
    docker = (FOLDER / "Dockerfile").read_text()
    for name in re.findall(r"--[a-z-]+", " ".join(container["args"]) + docker.splitlines()[-1]):
        assert f'"{name}"' in (FOLDER / "server.py").read_text(), name
