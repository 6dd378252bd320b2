"""One engine of benchmarks/compare.py in a process of its own, so that its thread settings hold and
its libraries meet no others.

    python benchmarks/worker.py ENGINE VARIANT SIZE THREADS FOLDER

FOLDER is what benchmarks/compare.py prepared: the weights that all models share, in each project's
format, and the exports. Reads one JSON request per line, {"task": "latency" | "train" | "data",
"batch": B, "runs": R}, and answers each with {"ms": milliseconds of R runs, "cpu_ms": those of the
processor, "memory_mb": the most that this process has held}; a request of {"task": "output"} with
the logits of `probe`. {"task": "detection" | "segmentation", "size": [height, width], "train":
bool, "runs": R} is answered with {"ms": {part: milliseconds of R runs}, "memory_mb": ...}. The
interpreter may be a peer's, without this project, so only the standard library is imported at the
top, in timed_engines/ too.
"""

import json
import os
import sys
import time

from timed_engines import ENGINES
from timed_engines.memory import peak_memory

WARM_UP = 3  # runs before a batch size is timed for the first time
SETTLE = 1  # runs before every later round: other engines have had the caches


def probe(engine):
    """The engine's logits for a fixed image, as a list: engines with the same weights must
    agree.
    """
    import numpy

    engine.rng = numpy.random.default_rng(1)
    return numpy.asarray(engine.latency(1)(), "float64").tolist()


def serve(requests, replies, engine):
    """Answer requests until there are no more."""
    runs = {}
    for line in requests:
        request = json.loads(line)
        if request["task"] == "output":
            print(json.dumps(probe(engine)), file=replies, flush=True)
            continue
        if "size" in request:
            print(json.dumps(engine.parts(**request)), file=replies, flush=True)
            continue
        key = request["task"], request["batch"]
        warm_up = SETTLE if key in runs else WARM_UP
        if key not in runs:
            runs[key] = getattr(engine, request["task"])(request["batch"])
        for _ in range(warm_up):
            runs[key]()
        milliseconds, cpu_milliseconds = [], []
        for _ in range(request["runs"]):
            start, cpu_start = time.perf_counter(), time.process_time()
            runs[key]()
            milliseconds.append(1e3 * (time.perf_counter() - start))
            cpu_milliseconds.append(1e3 * (time.process_time() - cpu_start))
        print(
            json.dumps(
                {"ms": milliseconds, "cpu_ms": cpu_milliseconds, "memory_mb": peak_memory()}
            ),
            file=replies,
            flush=True,
        )


def main(name, variant, size, threads, folder):
    replies = os.fdopen(os.dup(1), "w")
    # what libraries print must not mix with the answers
    os.dup2(2, 1)
    chosen = ENGINES[name]
    try:
        engine = chosen.kind(chosen.made_by, variant, int(size), int(threads), folder)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"version": engine.version}), file=replies, flush=True)
    serve(sys.stdin, replies, engine)


if __name__ == "__main__":
    main(*sys.argv[1:])
