"""One file from an address to this disk: whole and right, or not there.

A broken transfer goes on where it ended, also in another process; one process fetches, others that
want the same file wait. What came is held to the sizes and the hash that the server says (the
Hugging Face hub's is the SHA-256 of the file), and read by the safe reader before it has its name.
"""

import contextlib
import http.client
import json
import os
import queue
import re
import shutil
import string
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from ..engine.lock import FileLock, LockedError
from ..engine.logger import logger
from ..files import UnreadableError, described, read_file
from ..schema import shown_text
from ..weights import WeightFileError
from ..weights import read_file as read_weights
from ..weights.digest import sha256_of

__all__ = ["OFFLINE", "FetchError", "Fetched", "fetch", "is_offline", "recorded"]

OFFLINE = "PPCLS_NEXTVIT_OFFLINE"  # 1: nothing is fetched
OFFLINE_VARIABLES = (OFFLINE, "HF_HUB_OFFLINE")
ATTEMPTS = 5
FIRST_PAUSE_S = 1.0  # doubled at each attempt
TIMEOUT_S = 30.0  # without a byte
ANSWER_S = 120.0  # until the server's headers are there, redirects followed
SLOW_S = 120.0  # with fewer than SLOW_BYTES, before the transfer is given up
SLOW_BYTES = 1 << 14
WAIT_S = 6 * 3600.0  # for another process that fetches the same file
BLOCK = 1 << 18
MOST_BYTES = 16 << 30
RECORD_BYTES = 1 << 14
PASSING = (408, 425, 429, 500, 502, 503, 504)  # worth another attempt
SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
SLEEP: Callable[[float], None] = time.sleep


class FetchError(ValueError):
    """A file that could not be fetched. One line that says why, and how to get it by hand."""

    def __init__(self, message: Any = ""):
        super().__init__(shown_text(" ".join(str(message).split()), 4000))


class _Broken(Exception):
    """A transfer that ended early; another attempt may go on with it."""


@dataclass(frozen=True)
class Fetched:
    """What is known of a file in the cache, kept beside it as NAME.json."""

    url: str
    sha256: str
    bytes: int


@dataclass
class _Told:
    """What the server said of the file: its whole size, its SHA-256, and the version (ETag)."""

    size: Optional[int] = None
    sha256: Optional[str] = None
    version: str = ""


def is_offline() -> bool:
    """Whether the environment says that nothing may be fetched."""
    return any(
        os.environ.get(name, "0").lower() not in ("", "0", "false", "no")
        for name in OFFLINE_VARIABLES
    )


def fetch(url: str, path: Path, name: str, sha256: Optional[str] = None, hint: str = "") -> Path:
    """The file at the address `url` as `path`; at once if it is there already. Returns `path`.

    name: in messages. sha256: that it must have. hint: how to get it by hand. FetchError, and
    nothing at `path`, for whatever goes wrong.
    """
    if os.path.isfile(path):
        return path
    by_hand = f". By hand: {hint}" if hint else ""
    if is_offline():
        forbidden = " or ".join(("--offline", *OFFLINE_VARIABLES))
        raise FetchError(
            f"{name}: is not on this disk, and {forbidden} forbids fetching it{by_hand}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock"), WAIT_S):
            if not path.is_file():  # another process may have fetched it meanwhile
                _fetch(url, path, name, sha256)
    except LockedError as error:
        raise FetchError(f"{name}: {error} is fetching it and does not end") from None
    except (OSError, FetchError) as error:
        reason = shown_text(" ".join(str(error).split()), 600)
        raise FetchError(f"{name}: could not be fetched from {url}: {reason}{by_hand}") from None
    return path


def recorded(path: Path) -> Optional[Fetched]:
    """What was recorded of the fetched file `path`; None of one that was not fetched here."""
    try:
        told = json.loads(read_file(path.with_name(f"{path.name}.json"), RECORD_BYTES))
        return Fetched(str(told["url"]), str(told["sha256"]), int(told["bytes"]))
    except (UnreadableError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def _fetch(url: str, path: Path, name: str, sha256: Optional[str]) -> None:
    part = path.with_name(f"{path.name}.part")
    logger.info("fetching %s from %s into %s", *map(shown_text, (name, url, path)))
    told = _transferred(url, part)
    digest = sha256_of(part)
    for expected in (sha256, told.sha256):
        if expected is not None and digest != expected:
            _forget(part)
            raise FetchError(f"its SHA-256 is {digest}, not {expected}; what came was removed")
    try:
        read_weights(part)
    except WeightFileError as error:
        _forget(part)
        raise FetchError(f"what came is no file of weights ({error}); it was removed") from None
    record = Fetched(url, digest, part.stat().st_size)
    draft = path.with_name(f"{path.name}.json")
    draft.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    _forget(part)
    logger.info("%s: %.1f MB, SHA-256 %s", path, record.bytes / 1e6, digest)


def _transferred(url: str, part: Path) -> _Told:
    """The whole file in `part`, after as many attempts as it takes."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(url, part)
        except _Broken as error:
            if attempt == ATTEMPTS:
                raise FetchError(f"{error}, after {ATTEMPTS} attempts") from None
            pause = FIRST_PAUSE_S * 2 ** (attempt - 1)
            told = shown_text(error), attempt + 1, ATTEMPTS, pause
            logger.warning("%s; attempt %d of %d in %.0f s", *told)
            SLEEP(pause)
    raise AssertionError("the last attempt returns or raises")


def _attempt(url: str, part: Path) -> _Told:
    """Fetch what `part` does not have yet. _Broken where another attempt may help."""
    done, version = _begun(part)
    headers = {"User-Agent": "ppcls_nextvit", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version}
    told = _Told()
    opener = urllib.request.build_opener(_Redirects(told))
    try:
        request = urllib.request.Request(_quoted(url), headers=headers)
        with _within(ANSWER_S, lambda: opener.open(request, timeout=TIMEOUT_S)) as answer:
            start = done if answer.status == 206 else 0
            _read_headers(answer, told, start)
            _store(answer, part, start, told)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the file on the server is shorter than what is here
            _forget(part)
            raise _Broken("the server has another file than the one begun") from None
        if error.code in PASSING:
            raise _Broken(f"the server answers {error.code} {error.reason}") from None
        raise FetchError(f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Broken(f"no connection ({error.reason})") from None
    except (FetchError, http.client.InvalidURL) as error:
        raise FetchError(error) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Broken(f"the transfer broke off ({type(error).__name__} {error})") from None
    except (ValueError, OverflowError) as error:  # of hosts, ports and sizes that are none
        raise FetchError(f"an address or an answer that is none ({described(error)})") from None
    return told


def _quoted(url: str) -> str:
    """`url` with the letters of its path and query as HTTP has them."""
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host}{slash}{urllib.parse.quote(path, safe=string.punctuation)}"


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns. _Broken if that takes longer: the time of a connection counts from its
    last byte, so that one byte now and then would keep it for ever.
    """
    ended: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((call(), None))
        except Exception as error:  # raised below, in the thread that waits
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        found, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise _Broken(f"no whole answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return found


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, of which it keeps what the hub says of the file; never from https to
    something less safe.
    """

    def __init__(self, told: _Told) -> None:
        self.told = told

    def redirect_request(self, request: Any, *given: Any) -> Any:
        """See the base class; given: the answer, its status, reason and headers, the new
        address.
        """
        headers, address = given[3], given[4]
        scheme = address.partition(":")[0].lower()
        if scheme not in ("http", "https") or (
            request.full_url.startswith("https:") and scheme != "https"
        ):
            raise FetchError(f"it redirects to {shown_text(address, 200)}, which is not followed")
        _read_hub_headers(headers, self.told)
        return super().redirect_request(request, *given)


def _read_hub_headers(headers: Any, told: _Told) -> None:
    """The size and the SHA-256 that the hub tells of a file, wherever that lies."""
    match = SHA256.fullmatch(headers.get("X-Linked-Etag") or "")
    told.sha256 = match[1] if match else told.sha256
    size = _bytes(headers.get("X-Linked-Size"))
    told.size = told.size if size is None else size


def _bytes(text: Optional[str]) -> Optional[int]:
    """A number of bytes that a server says; None of what is none."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


def _read_headers(answer: Any, told: _Told, start: int) -> None:
    _read_hub_headers(answer.headers, told)
    told.version = answer.headers.get("ETag") or ""
    if answer.status == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range") or "")
        if not given or _bytes(given[1]) != start:
            raise _Broken("the server sent another part than the one asked for")
        size = _bytes(given[2])
    else:
        size = _bytes(answer.headers.get("Content-Length"))
    if size is not None and told.size is not None and size != told.size:
        raise FetchError(f"the server sends {size} bytes of a file of {told.size}")
    told.size = told.size if size is None else size


def _store(answer: Any, part: Path, start: int, told: _Told) -> None:
    """Write the body behind the first `start` bytes of `part`; _Broken if it ends early."""
    most = MOST_BYTES if told.size is None else told.size
    if most > MOST_BYTES:
        raise FetchError(f"{most} bytes are more than the limit of {MOST_BYTES}")
    free = shutil.disk_usage(part.parent).free
    if told.size is not None and told.size - start > free:
        raise FetchError(f"{told.size - start} bytes to come, but the disk has room for {free}")
    _version_file(part).write_text(told.version, encoding="utf-8")
    done = begun = start
    since = time.monotonic()
    with open(part, "r+b" if start else "wb") as file, _meter(told.size) as show:
        file.seek(start)
        file.truncate()
        while block := answer.read1(BLOCK):
            done += len(block)
            if done - begun >= SLOW_BYTES:
                begun, since = done, time.monotonic()
            elif time.monotonic() - since > SLOW_S:
                raise _Broken(f"fewer than {SLOW_BYTES} bytes came in {SLOW_S:g} s")
            if done > most:
                raise FetchError(f"more than the {most} bytes that were announced")
            file.write(block)
            show(done)
    if told.size is not None and done < told.size:
        raise _Broken(f"the transfer ended after {done} of {told.size} bytes")


def _begun(part: Path) -> Any:
    """(bytes that `part` has, the version that they are of); (0, '') where that cannot be told."""
    try:
        version = _version_file(part).read_text(encoding="utf-8")
        done = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    strong = (
        bool(version)
        and not version.startswith("W/")
        and version.isascii()
        and version.isprintable()
    )
    return (done, version) if strong else (0, "")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


@contextlib.contextmanager
def _meter(size: Optional[int]) -> Iterator[Callable[[int], None]]:
    """A function that shows on a terminal how many bytes are there."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    started, last = time.monotonic(), [0.0]

    def show(done: int) -> None:
        now = time.monotonic()
        if now - last[0] < 0.2 and done != size:
            return
        last[0] = now
        of = f" of {size / 1e6:.0f}" if size else ""
        rate = done / 1e6 / max(now - started, 1e-3)
        print(f"\r{done / 1e6:8.1f}{of} MB, {rate:.1f} MB/s ", end="", file=sys.stderr, flush=True)

    yield show
    print(file=sys.stderr)
