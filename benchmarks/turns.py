"""Engines in processes of their own take turns, and what their times come to."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy
from timed_engines import ENGINES
from timed_engines.deployed import Gemm

PROGRAM = Path(__file__).with_name("worker.py")
STEP_IMAGES = {"detection": 1, "segmentation": 2}
GEMM = "gemm"
GEMM_FLOP = 2 * Gemm.SIDE**3
PAUSE_S = 0.3  # after it, OpenMP's idle threads of the engine before have stopped spinning


class Worker:
    """An engine in its process. ImportError if it is not installed, ValueError with its last words
    if it fails.
    """

    def __init__(self, name, variant, size, threads, folder, python, path=None):
        """path: folders that its process finds modules in, as PYTHONPATH has them."""
        self.name, self.log, self.memory_mb = name, tempfile.TemporaryFile("w+"), 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        if path:
            others = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([path, others] if others else [path])
        self.process = subprocess.Popen(
            [python, str(PROGRAM), name, variant, str(size), str(threads), folder],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        hello = self._answer()
        if "missing" in hello:
            self.close()
            raise ImportError(hello["missing"])
        self.version = hello["version"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise ValueError(f"the engine {self.name!r} ended: {self.log.read()[-600:]}")
        return json.loads(line)

    def measure(self, task, batch, runs):
        """(milliseconds by the clock, by the processor) of `runs` runs of `task` at one batch
        size.
        """
        time.sleep(PAUSE_S)
        answer = self._ask({"task": task, "batch": batch, "runs": runs})
        self.memory_mb = answer["memory_mb"]
        return answer["ms"], answer["cpu_ms"]

    def parts(self, task, size, train, batch, runs):
        """{part: milliseconds of `runs` runs} of a detector or segmentor; the last part is the
        whole.
        """
        answer = self._ask(
            {"task": task, "size": size, "train": train, "batch": batch, "runs": runs}
        )
        self.memory_mb = answer["memory_mb"]
        parts = answer["ms"]
        return (
            parts if train else {**parts, "inference": [sum(run) for run in zip(*parts.values())]}
        )

    def output(self):
        """Logits [1][classes] of an image that is the same for every engine."""
        return self._ask({"task": "output"})

    def _ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def summary(rounds, base):
    """What `rounds`, [(milliseconds, processor's milliseconds) of the runs of a round, ...], come
    to.

    Least, median and 95th percentile of all runs; and the median over the rounds of this engine's
    median over the base's.
    """
    runs, cpu = (sorted(ms for one in rounds for ms in one[kind]) for kind in (0, 1))
    ratio, cpu_ratio = (median_ratio(rounds, base, kind) for kind in (0, 1))
    return {
        "min_ms": runs[0],
        "median_ms": statistics.median(runs),
        "p95_ms": runs[min(len(runs) - 1, int(0.95 * len(runs)))],
        "ratio": ratio,
        "cpu_ms": cpu[0],
        "cpu_ratio": cpu_ratio,
    }


def median_ratio(rounds, base, key):
    """The median over the rounds of the median of this engine's runs over that of the base's."""
    return statistics.median(
        statistics.median(one[key]) / statistics.median(of_base[key])
        for one, of_base in zip(rounds, base)
    )


def turns(workers, rounds, measure):
    """{engine: what measure(worker) returned in each round}, of workers that take turns."""
    taken = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            taken[worker.name].append(measure(worker))
    return taken


def compare(task, workers, batch, rounds, runs):
    """{engine: summary} of the workers that took turns, ratios to the first of them."""
    taken = turns(workers, rounds, lambda worker: worker.measure(task, batch, runs))
    base = taken[workers[0].name]
    return {name: summary(measured, base) for name, measured in taken.items()}


def differences(workers):
    """{engine: largest difference of its logits from the first engine's, as a share of their
    scale}.
    """
    outputs = {worker.name: numpy.array(worker.output()) for worker in workers}
    expected = outputs[workers[0].name]
    return {
        name: float(numpy.abs(output - expected).max() / numpy.abs(expected).max())
        for name, output in outputs.items()
    }


def measure(task, workers, batch, args, multiply_adds):
    """One row of results per engine, as dicts, in the order of `workers`."""
    chosen = [worker for worker in workers if task in ENGINES[worker.name].tasks]
    machine = [worker for worker in workers if worker.name == GEMM] if task == "latency" else []
    off = differences(chosen) if task == "latency" else {}
    results = compare(task, chosen + machine, batch, args.rounds, args.runs)
    fastest = results.pop(GEMM)["cpu_ms"] if machine else None
    for worker in chosen:
        result = results[worker.name]
        row = {
            "task": task,
            "batch": batch,
            "engine": worker.name,
            "version": worker.version,
            **result,
            "images_per_s": 1e3 * batch / result["median_ms"],
            "memory_mb": worker.memory_mb,
        }
        if task == "latency":
            row |= {"difference": off[worker.name]}
        if fastest:
            rate = GEMM_FLOP / fastest  # per ms
            row |= {
                "of_gemm": 2 * multiply_adds * batch / result["cpu_ms"] / rate,
                "gemm_gflops": rate / 1e6,
            }
        yield row


def compare_parts(task, workers, size, train, rounds, runs):
    """One row per engine and part, as dicts; `share` is the part's of the whole, over all runs,
    `ratio` to the first engine's part.
    """
    batch = STEP_IMAGES[task] if train else 1
    taken = turns(workers, rounds, lambda worker: worker.parts(task, size, train, batch, runs))
    for worker in workers:
        total = {
            part: sum(sum(one[part]) for one in taken[worker.name])
            for part in taken[worker.name][0]
        }
        *_, whole = total.values()
        for part in total:
            ms = [value for one in taken[worker.name] for value in one[part]]
            yield {
                "task": task,
                "batch": batch,
                "engine": worker.name,
                "version": worker.version,
                "what": part,
                "min_ms": min(ms),
                "median_ms": statistics.median(ms),
                "share": total[part] / whole,
                "ratio": median_ratio(taken[worker.name], taken[workers[0].name], part),
                "memory_mb": worker.memory_mb,
            }
