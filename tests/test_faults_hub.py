"""Weights by name when what is typed, or what a server says, is anything: a whole file or one line,
within a time, and never another file than the one that was announced.
"""

import contextlib
import io
import json
import socket
import threading
import time

import numpy as np
import pytest

from ppcls_nextvit.hub import FetchError, fetch, place_of, transfer
from ppcls_nextvit.hub.transfer import recorded
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.weights import read_file
from support.faults import assert_one_line, generators, many


def weights_file():
    """The bytes of a file that the safe reader reads."""
    stream = io.BytesIO()
    np.savez(stream, weight=WEIGHT)
    return stream.getvalue()


WEIGHT = np.arange(900.0)
BODY = weights_file()


class RawServer:
    """Sends `answers`, bytes each, whatever is asked, one for each connection and the last one ever
    after; a pause before each piece of an answer that is a list of them.
    """

    def __init__(self, answers, pause_s=0.0):
        self.answers, self.pause_s, self.asked = answers, pause_s, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/w.npz"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # it was closed
                return
            with connection, contextlib.suppress(OSError):
                self.asked.append(connection.recv(1 << 16))
                answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    time.sleep(self.pause_s)
                    connection.sendall(piece)


@contextlib.contextmanager
def answering(*answers, pause_s=0.0):
    server = RawServer(answers, pause_s)
    try:
        yield server
    finally:
        server.socket.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "SLEEP", lambda seconds: None)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    monkeypatch.setattr(transfer, "TIMEOUT_S", 3.0)
    for name in (*transfer.OFFLINE_VARIABLES, "HF_ENDPOINT", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path / "cache"))


def chunked(rng, data):
    """`data` in chunks, of which one may lie about its size."""
    parts, cut = [], int(rng.integers(len(data) + 1))
    for part in (data[:cut], data[cut:], b""):
        sizes = [b"%x" % len(part)] * 5 + [b"-5", b"zz", b"f" * 30, b"", b"%x;x=\xff" % len(part)]
        parts.append(sizes[rng.integers(len(sizes))] + b"\r\n" + part + b"\r\n")
    return b"".join(parts)


STATUSES = [b"200 OK"] * 6 + [b"206 Partial", b"204 No", b"302 Found", b"307 T", b"308 P", b"300 M"]
STATUSES += [
    b"404 \xff\x1b[2J",
    b"416 Range",
    b"500 X",
    b"503 Busy",
    b"999 Y",
    b"9x9",
    b"100 C",
    b"",
]
LOCATIONS = [b"", b"/", b"//", b"http://[::1/", b"http://[zz]/", b"http://127.0.0.1:b/", b"file:/x"]
LOCATIONS += [
    b"http://127.0.0.1:99999/",
    b"http://" + b"a" * 300 + b"/",
    b"http://..../",
    b"?" * 99,
]
LOCATIONS += [b"http://\xff/", b"ftp://127.0.0.1/", b"http://127.0.0.1:1/\x01 \xff", b"\xff" * 2000]


def odd_headers(rng, body):
    """Some lines of what a server may say of `body`, true or not."""
    size = len(body)
    sizes = [size] * 6 + [size - 1, size + 1, 0, -5, "x", "9" * 30, "\u0663", ""]
    digests = ['"%s"' % ("0" * 64), '"x"', "\xff" * 64, 'W/"\x00"', ""]
    ranges = [f"bytes 0-{size - 1}/{size}", "bytes 0-2/*", "x", f"bytes 5-{size - 1}/{size}"]
    options = [
        ("Content-Length", sizes),
        ("Content-Range", ranges),
        ("X-Linked-Size", sizes),
        ("X-Linked-Etag", digests),
        ("ETag", digests),
        ("Location", LOCATIONS),
        ("Content-Encoding", ["gzip", "x"]),
        ("X", ["y" * 70_000, "y"]),
        ("\xff", ["\x1b"]),
    ]
    kept = [one for one in options if rng.random() < (0.6 if one[0] == "Content-Length" else 0.2)]
    for name, values in kept:
        value = values[rng.integers(len(values))]
        value = value if isinstance(value, bytes) else str(value).encode("utf-8")
        yield name.encode("latin-1") + b": " + value


def odd_answer(rng):
    """What a server sends: now and then the file, as it should."""
    if rng.random() < 0.2:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    body = [BODY, BODY, BODY, BODY[: rng.integers(len(BODY))], rng.bytes(500), b""][rng.integers(6)]
    if rng.random() < 0.2:
        body = bytearray(body or b"x")
        body[rng.integers(len(body))] ^= 1 + int(rng.integers(255))
        body = bytes(body)
    lines = [b"HTTP/1.1 " + STATUSES[rng.integers(len(STATUSES))], *odd_headers(rng, body)]
    if rng.random() < 0.2:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(rng, body)
    answer = b"\r\n".join([*lines, b"", body])
    return rng.bytes(80) if rng.random() < 0.03 else answer


@pytest.mark.faults
def test_whatever_a_server_says_the_file_is_whole_or_not_there(tmp_path):
    fetched = 0
    for number, rng in enumerate(generators(many(100))):
        target = tmp_path / str(number) / "w.npz"
        with answering(*(odd_answer(rng) for _ in range(rng.integers(1, 4)))) as server:
            try:
                fetch(server.url, target, "my\nweights", hint="ask")
            except FetchError as error:
                assert_one_line(error, f"my weights: could not be fetched from {server.url}: ")
                assert str(error).endswith(". By hand: ask") and not target.exists()
            else:
                fetched += 1
                # a server told of no hash: the archive's own sums hold what is read from it
                ((_, weight),) = read_file(target).items()
                assert np.array_equal(weight, WEIGHT)
    assert many(10) <= fetched < many(90)


def odd_word(rng):
    """What may be typed, or read from a file, where weights are named."""
    pieces = ["hf:", "http://", "https://", "a", "/", "..", "@", ":", "[", "]", "99999", "ü", "猫"]
    pieces += ["\udcff", "\0", "\n", " ", "%", "?", "#", "in1k", "nextvit_small", ".", "_384", "\\"]
    pieces += ["x" * 300, "127.0.0.1", "\u202e", "²", "~", "*", "-", "\x1b[2J"]
    start = ["", "hf:a/b", "http://127.0.0.1:1/", "in", "http://"][rng.integers(5)]
    chosen = rng.integers(len(pieces), size=rng.integers(0, 6))
    return start + "".join(pieces[i] for i in chosen)


@pytest.mark.faults
def test_whatever_is_typed_is_a_place_or_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    monkeypatch.setattr(socket, "create_connection", refused_connection)
    for rng in generators(many(100)):
        word = odd_word(rng)
        try:
            place = place_of(word, "NextViT_small")
        except ConfigError as error:
            assert_one_line(error, "pretrained: ")
            continue
        if place.url is None:
            continue
        assert place.path.is_relative_to(tmp_path / "cache") and ".." not in place.path.parts
        with pytest.raises(FetchError) as error:
            fetch(place.url, place.path, place.name, hint=place.hint)
        assert_one_line(error.value)


def refused_connection(*_, **__):
    raise ConnectionRefusedError("nobody here")


@pytest.mark.parametrize(
    "answer, message",
    [
        (b"302 F\r\nLocation: http://[::1/x", r"an address .* that is none \(Invalid IPv6 URL\)"),
        (b"302 F\r\nLocation: http://" + b"a" * 300 + b"/", "label too long"),
        (b"302 F\r\nLocation: http://127.0.0.1:b/", "nonnumeric port: 'b'"),
        (b"302 F\r\nLocation: http://\xff\xfe/", "an address or an answer that is none"),
        (b"200 O\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc", "broke off|that is none"),
    ],
)
def test_answers_that_lead_nowhere(tmp_path, answer, message):
    with answering(b"HTTP/1.1 " + answer + b"\r\n\r\n") as server:
        with pytest.raises(FetchError, match=message) as error:
            fetch(server.url, tmp_path / "w.npz", "w")
    assert_one_line(error.value, f"w: could not be fetched from {server.url}: ")
    if "broke off" not in message:
        assert len(server.asked) == 1, "another attempt cannot help"


@pytest.mark.parametrize(
    "address, message",
    [
        ("http://[::1", "expected an address with http or https"),
        ("http://[zz]/x", "expected an address with http or https"),
        ("http://a:b/x", "expected an address with http or https"),
        ("http://a:99999/x", "expected an address with http or https"),
        ("http://a/\udcff", "expected an address with http or https"),
        ("http://a/\n", "expected an address with http or https"),
        ("http://me:secret@a/x", "a user's name or password"),
    ],
)
def test_addresses_that_are_none(address, message):
    with pytest.raises(ConfigError, match=message) as error:
        place_of(address, "NextViT_small")
    assert_one_line(error.value, "pretrained: ")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("word", ["hf:a/%s", "hf:a/b/%s", "hf:a/b@%s", "http://127.0.0.1:1/%s"])
@pytest.mark.parametrize("letter", ["x", "猫"])
def test_names_that_are_longer_than_a_file_s(word, letter, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", refused_connection)
    long = word % (300 * letter)
    place = place_of(long, "NextViT_small")
    assert len(place.path.name.encode()) < 160
    assert place.path != place_of(long + letter, "NextViT_small").path
    with pytest.raises(FetchError, match="no connection"):
        fetch(place.url, place.path, place.name)


def test_an_address_in_any_script(tmp_path):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    with answering(answer) as server:
        url = server.url.replace("w.npz", "é 猫/w%20.npz?q=ü&r=1")
        assert fetch(url, tmp_path / "w.npz", "w").read_bytes() == BODY
    first = server.asked[0].split(b"\r\n")[0]
    assert first == b"GET /%C3%A9%20%E7%8C%AB/w%20.npz?q=%C3%BC&r=1 HTTP/1.1"


@pytest.mark.parametrize("kept", ['"\xe9"', '"猫"', "\n", "x\0"])
def test_a_version_that_no_header_can_have(tmp_path, kept):
    """Of a transfer that broke off: it begins anew."""
    (tmp_path / "w.npz.part").write_bytes(b"some")
    (tmp_path / "w.npz.part.version").write_text(kept, encoding="utf-8")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    with answering(answer) as server:
        assert fetch(server.url, tmp_path / "w.npz", "w").read_bytes() == BODY
    assert b"Range" not in server.asked[0]


def test_a_server_that_sends_a_byte_now_and_then(tmp_path, monkeypatch):
    """Each byte comes in time, and the transfer would take for ever."""
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    monkeypatch.setattr(transfer, "ANSWER_S", 0.3)
    monkeypatch.setattr(transfer, "SLOW_S", 0.3)
    headers = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    for answer, message in (
        ([headers[i : i + 1] for i in range(30)], "no whole answer within 0.3 s"),
        ([headers, *[b"x"] * 100], "fewer than 16384 bytes came in 0.3 s"),
    ):
        with answering(answer, pause_s=0.05) as server:
            since = time.monotonic()
            with pytest.raises(FetchError, match=message):
                fetch(server.url, tmp_path / "w.npz", "w")
            assert time.monotonic() - since < 3


@pytest.mark.parametrize(
    "text",
    ['{"url": 1, "sha256": 2, "bytes": Infinity}', "[" * 9000, "[1]", "{}", "", '{"bytes": 1e999}'],
)
def test_damaged_records_are_none(tmp_path, text):
    (tmp_path / "w.json").write_text(text)
    assert recorded(tmp_path / "w") is None
    (tmp_path / "w.json").write_text(json.dumps({"url": "u", "sha256": "s", "bytes": 3}))
    assert recorded(tmp_path / "w").bytes == 3
