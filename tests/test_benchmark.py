"""The benchmark: engines take turns, ratios are taken round by round, and an absent peer is named and left out."""
import json
import os
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setenv("PYTHONPATH", str(TOOLS.parent))                    # the engines' processes find this project uninstalled, too
    import benchmark
    return benchmark


class Recorder:
    """A worker whose k-th measurement takes `milliseconds[k]`."""

    def __init__(self, name, milliseconds, calls):
        self.name, self.milliseconds, self.calls = name, iter(milliseconds), calls

    def measure(self, task, batch, runs):
        self.calls.append((self.name, task, batch))
        return [next(self.milliseconds)] * runs


def test_engines_take_turns_and_ratios_belong_to_a_round(benchmark):
    """The machine is ten times slower in the second round; the ratio does not notice."""
    calls = []
    workers = [Recorder("a", [10, 100, 10], calls), Recorder("b", [20, 200, 21], calls)]
    result = benchmark.compare("latency", workers, batch=8, rounds=3, runs=2)
    assert calls == [(name, "latency", 8) for name in "ababab"]
    assert result["a"] == {"median_ms": 10, "p95_ms": 100, "ratio": 1.0}
    assert result["b"] == {"median_ms": 21, "p95_ms": 200, "ratio": 2.0}


def test_percentile(benchmark):
    runs = [[float(n) for n in range(1, 101)]]
    assert benchmark.summary(runs, runs) == {"median_ms": 50.5, "p95_ms": 96.0, "ratio": 1.0}


@pytest.mark.slow
def test_engines_in_their_processes(benchmark, tmp_path, monkeypatch, capsys):
    (tmp_path / "timm.py").write_text("print('noise')\nraise ImportError('no timm here')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(TOOLS.parent))))
    out = tmp_path / "benchmark.json"
    status = benchmark.main(["--engine", "ours eager", "ours inference", "timm eager", "--size", "32", "--batch", "2", "--train-batch", "2",
                             "--threads", "1", "--rounds", "1", "--runs", "2", "--json", str(out)])
    printed = capsys.readouterr().out
    assert status == 0 and "timm eager: left out (no timm here)" in printed
    rows = json.loads(out.read_text())
    assert [(r["task"], r["engine"]) for r in rows] == [("latency", "ours eager"), ("latency", "ours inference"), ("train", "ours eager")]
    for row in rows:
        assert row["p95_ms"] >= row["median_ms"] > 0
        assert row["images_per_s"] == pytest.approx(2000 / row["median_ms"])
        assert f"| 1 | 2 | {row['engine']} | {row['median_ms']:.1f} |" in printed


def test_a_failing_engine_is_named_with_its_last_words(benchmark, capsys):
    assert benchmark.main(["--engine", "ours eager", "--model", "NextViT_tiny", "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert "the engine 'ours eager' ended" in error and "unknown model 'NextViT_tiny'" in error


def test_unknown_peers_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--peer-python", "keras=python"])
    assert "expected paddleclas=PYTHON or timm=PYTHON, got 'keras=python'" in capsys.readouterr().err
