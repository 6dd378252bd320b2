"""Load test of server.py on this machine: python bench.py --images DIRECTORY [--requests 10000]
[--clients 32]. Standard library only.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

HOST = "127.0.0.1"  # a load test is for one's own machine


async def call(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    body: bytes = b"",
    kind: str = "application/octet-stream",
) -> tuple[int, bytes]:
    """(status, body) of one request on an open connection."""
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: "
        f"{len(body)}\r\n\r\n".encode()
        + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(
        int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")
    )
    return int(lines[0].split()[1]), await reader.readexactly(length)


async def load(
    port: int, pictures: list[bytes], requests: int, clients: int, limit_seconds: float
) -> tuple[list[float], dict[int, int], float]:
    """Send `requests` requests over `clients` connections, each waiting for its answer; (seconds of
    each, statuses, seconds of all).
    """
    numbers = iter(range(requests))
    seconds: list[float] = []
    statuses: dict[int, int] = {}
    end = time.monotonic() + limit_seconds

    async def client():
        reader, writer = await asyncio.open_connection(HOST, port)
        for number in numbers:
            start = time.perf_counter()
            if time.monotonic() > end:
                break
            status, _ = await call(
                reader, writer, "POST", "/predict", pictures[number % len(pictures)]
            )
            seconds.append(time.perf_counter() - start)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return sorted(seconds), statuses, time.perf_counter() - start


async def metrics(port: int) -> dict[str, float]:
    """The samples of /metrics without labels, name -> value."""
    reader, writer = await asyncio.open_connection(HOST, port)
    _, text = await call(reader, writer, "GET", "/metrics")
    writer.close()
    rows = (
        line.split()
        for line in text.decode().splitlines()
        if not line.startswith("#") and "{" not in line
    )
    return {name: float(value) for name, value in rows}


def memory(pid: int) -> float:
    """Resident megabytes of a process and all below it (Linux)."""
    processes = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
        except OSError:  # it has ended
            continue
        processes[int(fields["Pid"])] = (
            int(fields["PPid"]),
            int(fields.get("VmRSS", "0 kB").split()[0]) / 1024,
        )
    family = {pid}
    while found := {child for child, (parent, _) in processes.items() if parent in family} - family:
        family |= found
    return sum(processes[member][1] for member in family if member in processes)


def measure(
    options: argparse.Namespace, clients: int, requests: int, pictures: list[bytes]
) -> dict:
    """Print and return what `requests` requests over `clients` connections gave."""
    before = asyncio.run(metrics(options.port))
    seconds, statuses, total = asyncio.run(
        load(options.port, pictures, requests, clients, options.limit_seconds)
    )
    after = asyncio.run(metrics(options.port))
    batches, images = (
        after[f"nextvit_batch_size_{key}"] - before[f"nextvit_batch_size_{key}"]
        for key in ("count", "sum")
    )
    row = {
        "clients": clients,
        "requests": len(seconds),
        "statuses": statuses,
        "per_second": round(len(seconds) / total, 1),
        "p50_ms": round(1000 * seconds[len(seconds) // 2], 1),
        "p99_ms": round(1000 * seconds[int(len(seconds) * 0.99)], 1),
        "max_ms": round(1000 * seconds[-1], 1),
        "pictures_a_batch": round(images / max(batches, 1), 2),
    }
    if options.pid:
        row["memory_mb"] = round(memory(options.pid))
    print(json.dumps(row), flush=True)
    return row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", required=True, metavar="DIR")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--limit-seconds", type=float, default=300, help="stop after this many")
    parser.add_argument("--pid", type=int, help="of server.py: print its memory too")
    options = parser.parse_args(argv)
    pictures = [
        path.read_bytes()
        for path in sorted(Path(options.images).iterdir())
        if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    ]
    # one request at a time, to compare with
    measure(options, 1, min(options.requests // 10, 1000), pictures)
    row = measure(options, options.clients, options.requests, pictures)
    return int(row["statuses"] != {200: options.requests})


if __name__ == "__main__":
    raise SystemExit(main())
