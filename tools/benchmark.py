"""Speed of this project's models beside PaddleClas's and timm's, interleaved in one run, as ratios.

    python tools/benchmark.py --peer-python timm=PYTHON --peer-python paddleclas=PYTHON --json benchmark.json

Every engine runs in a process of its own (tools/benchmark_worker.py), and all take turns, round after round, so that whatever else the
machine does meets all alike: the ratios then say more than the milliseconds. A peer that is not installed is left out.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark_worker import ENGINES

from ppcls_nextvit.cli import program

WORKER = Path(__file__).with_name("benchmark_worker.py")
HEADER = "| threads | batch | engine | median ms | p95 ms | images/s | time / first engine's |\n|---|---|---|---|---|---|---|"
PAUSE_S = 0.3           # after it, OpenMP's idle threads of the engine before have stopped spinning


class Worker:
    """An engine in its process. ImportError if it is not installed, ValueError with its last words if it fails."""

    def __init__(self, name, variant, size, threads, python):
        self.name, self.log = name, tempfile.TemporaryFile("w+")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([python, WORKER, name, variant, str(size), str(threads)], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
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
        """Milliseconds of `runs` runs of `task` at one batch size."""
        time.sleep(PAUSE_S)
        self.process.stdin.write(json.dumps({"task": task, "batch": batch, "runs": runs}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def summary(rounds, base):
    """Median and 95th percentile in ms of all runs; and the median over the rounds of this engine's median over the base's."""
    runs = sorted(ms for one in rounds for ms in one)
    ratios = [statistics.median(one) / statistics.median(of_base) for one, of_base in zip(rounds, base)]
    return {"median_ms": statistics.median(runs), "p95_ms": runs[min(len(runs) - 1, int(0.95 * len(runs)))],
            "ratio": statistics.median(ratios)}


def compare(task, workers, batch, rounds, runs):
    """{engine: summary} of the workers that took turns, ratios to the first of them."""
    taken = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            taken[worker.name].append(worker.measure(task, batch, runs))
    base = taken[workers[0].name]
    return {name: summary(measured, base) for name, measured in taken.items()}


def run_engines(args):
    """Rows of results as dicts, for the tasks whose engines are models."""
    rows, absent = [], {}
    for threads in args.threads:
        workers = []
        try:
            for name in args.engine:
                if not set(args.task) & set(ENGINES[name][2]):
                    continue
                try:
                    python = args.peer_python.get(name.split()[0], sys.executable)
                    workers.append(Worker(name, args.model, args.size, threads, python))
                except ImportError as error:
                    absent[name] = str(error)
            for task, batches in (("latency", args.batch), ("train", args.train_batch), ("data", args.train_batch)):
                chosen = [worker for worker in workers if task in ENGINES[worker.name][2]]
                for batch in batches if task in args.task and chosen else ():
                    for name, result in compare(task, chosen, batch, args.rounds, args.runs).items():
                        version = next(worker.version for worker in chosen if worker.name == name)
                        rows.append({"task": task, "threads": threads, "batch": batch, "engine": name, "version": version, **result,
                                     "images_per_s": 1e3 * batch / result["median_ms"]})
        finally:
            for worker in workers:
                worker.close()
    return rows, absent


def markdown(rows):
    """The rows as one table per task."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"**{task}**", "", HEADER]
        lines += [f"| {r['threads']} | {r['batch']} | {r['engine']} | {r['median_ms']:.1f} | {r['p95_ms']:.1f} | {r['images_per_s']:.1f} "
                  f"| {r['ratio']:.2f} |" for r in rows if r["task"] == task]
        lines.append("")
    return "\n".join(lines)


def peer(text):
    name, _, python = text.partition("=")
    if name not in {engine.split()[0] for engine in ENGINES} or not python:
        raise argparse.ArgumentTypeError(f"expected paddleclas=PYTHON or timm=PYTHON, got {text!r}")
    return name, python


def parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=("latency", "train", "data"), default=["latency", "train"],
                        help="data: the transforms of the 224 recipe on one core, images per second")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME",
                        help=f"the first is what the others are compared with; of {', '.join(ENGINES)}")
    parser.add_argument("--model", default="NextViT_small")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images per run (latency)")
    parser.add_argument("--train-batch", type=int, nargs="+", default=[8], help="images per step (train)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each engine in a round")
    parser.add_argument("--peer-python", type=peer, action="append", default=[], metavar="NAME=PYTHON",
                        help="the interpreter that has a peer (paddleclas or timm), if not this one; may be repeated")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows as JSON")
    return parser


@program
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    args.peer_python = dict(args.peer_python)
    rows, absent = run_engines(args)
    if not rows:
        raise ValueError(f"nothing was measured; not installed: {absent}")
    print(markdown(rows))
    print("\n".join(dict.fromkeys(f"{row['engine']}: {row['version']}" for row in rows)))
    for name, reason in absent.items():
        print(f"{name}: left out ({reason})")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
