"""The benchmark: engines take turns, ratios are taken round by round, and an absent peer is named
and left out.
"""

import importlib
import json
import os
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.tasks.classification import quantize as int8
from support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    """`part(name)`: that module of benchmarks/."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    # the engines' processes find this project uninstalled, too
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return importlib.import_module


class Recorder:
    """A worker whose k-th measurement takes `milliseconds[k]`."""

    version, memory_mb = "1.0", 50.0

    def __init__(self, name, milliseconds, calls, logits=(1.0, -2.0)):
        self.name, self.milliseconds, self.calls, self.logits = (
            name,
            iter(milliseconds),
            calls,
            logits,
        )

    def measure(self, task, batch, runs):
        self.calls.append((self.name, task, batch))
        ms = next(self.milliseconds)
        # half of the time the processor served others
        return [ms] * runs, [ms / 2] * runs

    def output(self):
        return [self.logits]


def test_engines_take_turns_and_ratios_belong_to_a_round(part):
    """The machine is ten times slower in the second round; the ratio does not notice."""
    calls = []
    workers = [Recorder("a", [10, 100, 10], calls), Recorder("b", [20, 200, 21], calls)]
    result = part("turns").compare("latency", workers, batch=8, rounds=3, runs=2)
    assert calls == [(name, "latency", 8) for name in "ababab"]
    assert result["a"] == {
        "min_ms": 10,
        "median_ms": 10,
        "p95_ms": 100,
        "ratio": 1.0,
        "cpu_ms": 5,
        "cpu_ratio": 1.0,
    }
    assert result["b"] == {
        "min_ms": 20,
        "median_ms": 21,
        "p95_ms": 200,
        "ratio": 2.0,
        "cpu_ms": 10,
        "cpu_ratio": 2.0,
    }


def test_share_of_gemm_difference_and_rate(part):
    """An engine of 2e9 multiply-adds in 50 ms of the processor makes 80 GFLOP/s; a machine whose
    gemm makes 160 twice that.
    """
    calls = []
    gemm_ms = part("turns").GEMM_FLOP / 160e6
    workers = [
        Recorder("ours onnx", [100, 120], calls),
        Recorder("ours openvino", [50, 60], calls, (1.0, -1.8)),
        Recorder("gemm", [2 * gemm_ms, 3 * gemm_ms], calls),
    ]
    args = SimpleNamespace(rounds=2, runs=1)
    first, second = part("turns").measure("latency", workers, 1, args, multiply_adds=2_000_000_000)
    assert [call[0] for call in calls] == ["ours onnx", "ours openvino", "gemm"] * 2
    assert first["of_gemm"] == pytest.approx(0.5) and second["of_gemm"] == pytest.approx(1.0)
    assert first["gemm_gflops"] == pytest.approx(160)
    assert first["difference"] == 0 and second["difference"] == pytest.approx(0.1)
    assert first["images_per_s"] == pytest.approx(1000 / 110) and first["memory_mb"] == 50


def test_chart(part, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra train")
    ratios = {"ours onnx": 1.0, "ours openvino": 0.9, "timm eager": 1.3}
    rows = [
        {
            "task": "latency",
            "size": 224,
            "threads": threads,
            "batch": batch,
            "engine": engine,
            "ratio": ratio,
        }
        for threads in (1, 2)
        for batch in (1, 8)
        for engine, ratio in ratios.items()
    ]
    part("report").draw(rows, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.width > 600 and len(image.convert("RGB").getcolors(1 << 20)) > 3
    assert (tmp_path / "chart.png").stat().st_size < 200_000


def test_random_weights_make_logits_of_order_one(part):
    import paddle

    from ppcls_nextvit import create_model

    paddle.seed(0)
    model = create_model("NextViT_small", depths=(1, 1, 5, 1), num_classes=10)
    part("prepare").spread(model)
    with paddle.no_grad():
        logits = model(paddle.randn([4, 3, 64, 64])).numpy()
    assert 0.3 < abs(logits).max() < 30 and not model.training


def test_percentile(part):
    runs = [([float(n) for n in range(1, 101)], [2.0] * 100)]
    expected = {
        "min_ms": 1.0,
        "median_ms": 50.5,
        "p95_ms": 96.0,
        "ratio": 1.0,
        "cpu_ms": 2.0,
        "cpu_ratio": 1.0,
    }
    assert part("turns").summary(runs, runs) == expected


@pytest.mark.chain
def test_engines_in_their_processes(part, tmp_path, monkeypatch, capsys):
    (tmp_path / "timm.py").write_text("print('noise')\nraise ImportError('no timm here')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    out = tmp_path / "benchmark.json"
    status = part("compare").main(
        [
            "--engines",
            "ours eager",
            "ours paddle",
            "gemm",
            "timm eager",
            "--task",
            "latency",
            "train",
            "--size",
            "32",
            "--batch",
            "2",
            "--train-batch",
            "2",
            "--threads",
            "1",
            "--rounds",
            "1",
            "--runs",
            "2",
            "--json",
            str(out),
        ]
    )
    printed = capsys.readouterr().out
    assert status == 0 and "timm eager: left out (no timm here)" in printed
    rows = json.loads(out.read_text())
    assert [(r["task"], r["engine"]) for r in rows] == [
        ("latency", "ours eager"),
        ("latency", "ours paddle"),
        ("train", "ours eager"),
    ]
    for row in rows:
        assert row["p95_ms"] >= row["median_ms"] >= row["min_ms"] > 0 and row["memory_mb"] > 100
        assert row["images_per_s"] == pytest.approx(2000 / row["median_ms"])
        assert (
            f"| 32 | 1 | 2 | {row['engine']} | {row['min_ms']:.1f} | {row['median_ms']:.1f} |"
            in printed
        )
        if row["task"] == "latency":
            assert row["difference"] < 1e-4 and 0 < row["of_gemm"] < 1.5 and row["cpu_ms"] > 0


class DenseRecorder(Recorder):
    """A worker whose k-th measurement's preprocessing takes `milliseconds[k]`, and its network ten
    times that.
    """

    def parts(self, task, size, train, batch, runs):
        self.calls.append((self.name, task, size, train, batch))
        ms = next(self.milliseconds)
        return {
            "preprocessing": [ms] * runs,
            "network": [10 * ms] * runs,
            "inference": [11 * ms] * runs,
        }


def test_parts_of_dense_inference(part):
    calls = []
    workers = [DenseRecorder("a", [1, 10, 1], calls), DenseRecorder("b", [3, 30, 2], calls)]
    rows = list(
        part("turns").compare_parts("detection", workers, (64, 96), False, rounds=3, runs=2)
    )
    assert calls == [(name, "detection", (64, 96), False, 1) for name in "ababab"]
    assert [
        (row["engine"], row["what"], row["min_ms"], row["median_ms"], row["ratio"]) for row in rows
    ] == [
        ("a", "preprocessing", 1, 1, 1),
        ("a", "network", 10, 10, 1),
        ("a", "inference", 11, 11, 1),
        ("b", "preprocessing", 2, 3, 3),
        ("b", "network", 20, 30, 3),
        ("b", "inference", 22, 33, 3),
    ]
    assert [row["share"] for row in rows] == pytest.approx([1 / 11, 10 / 11, 1] * 2)


@pytest.mark.long
def test_dense_engines_in_their_processes(part, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2", reason="needs the extra `cv2`")
    (tmp_path / "paddleseg.py").write_text(
        "raise ModuleNotFoundError('no paddleseg here', name='paddleseg')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    out = tmp_path / "benchmark.json"
    status = part("compare").main(
        [
            "--task",
            "detection",
            "segmentation",
            "--engines",
            "ours mask_rcnn",
            "ours upernet",
            "paddleseg upernet",
            "--dense-size",
            "64",
            "96",
            "--threads",
            "1",
            "--rounds",
            "1",
            "--runs",
            "1",
            "--json",
            str(out),
        ]
    )
    printed = capsys.readouterr().out
    assert (
        status == 0
        and "paddleseg upernet: left out (PaddleSeg is not installed: pip install" in printed
    )
    rows, parts = (
        json.loads(out.read_text()),
        ["preprocessing", "network", "postprocessing", "inference", "step"],
    )
    assert [(row["task"], row["engine"], row["what"]) for row in rows] == [
        (task, engine, part)
        for task, engine in (("detection", "ours mask_rcnn"), ("segmentation", "ours upernet"))
        for part in parts
    ]
    for row in rows:
        assert (
            row["median_ms"] > 0
            and row["memory_mb"] > 100
            and row["size"] == "64x96"
            and row["ratio"] == 1
        )
        assert row["batch"] == (2 if (row["task"], row["what"]) == ("segmentation", "step") else 1)
        assert (
            f"| 64x96 | 1 | {row['batch']} | {row['engine']} | {row['what']} | "
            f"{row['min_ms']:.1f} | {row['median_ms']:.1f} |" in printed
        )
    for first in (0, 5):
        assert sum(row["share"] for row in rows[first : first + 3]) == pytest.approx(1)
        assert rows[first + 3]["share"] == rows[first + 4]["share"] == 1


@pytest.mark.chain
@pytest.mark.parametrize("engine, reduced", [("ours onnx", "int8"), ("ours paddle", "bf16")])
def test_what_is_too_far_from_the_model_leaves_out_itself_alone(
    part, tmp_path, monkeypatch, engine, reduced
):
    def export_pair(*arguments, **options):
        assert options["reduced"] == reduced and set(arguments[2]) == {"fp32", reduced}
        raise ExportError("too far")

    monkeypatch.setattr(int8, "export_pair", export_pair)
    args = (
        part("compare")
        .parser()
        .parse_args(["--engines", engine, f"{engine} {reduced}", "--size", "32"])
    )
    absent = {}
    part("prepare").prepare(args, 32, str(tmp_path), absent)
    assert absent == {f"{engine} {reduced}": "too far"} and args.engines == [engine]


def test_unknown_models_are_refused(part, capsys):
    assert (
        part("compare").main(
            ["--engines", "ours eager", "--model", "NextViT_tiny", "--threads", "1"]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "unknown model 'NextViT_tiny'" in error


def test_unknown_peers_are_refused(part, capsys):
    with pytest.raises(SystemExit):
        part("compare").main(["--peer-python", "keras=python"])
    expected = (
        "expected NAME=PATH with one of paddleclas, timm, transnext, paddledet, mmdet, "
        "paddleseg, mmseg, got 'keras=python'"
    )
    assert expected in " ".join(capsys.readouterr().err.split())


def test_a_peer_is_found_where_its_path_says(part, tmp_path):
    """What it imports first is the stand-in there."""
    (tmp_path / "timm.py").write_text("raise ImportError('the one in the checkout')\n")
    with pytest.raises(ImportError, match="the one in the checkout"):
        part("turns").Worker(
            "transnext eager", "TransNeXt_tiny", 32, 1, ".", sys.executable, str(tmp_path)
        )


def test_a_failing_engine_is_named_with_its_last_words(part, tmp_path):
    """Without weights in its folder an engine cannot start."""
    with pytest.raises(
        ValueError, match="(?s)the engine 'ours eager' ended: .*weights.pdparams: no such file"
    ):
        part("turns").Worker("ours eager", "NextViT_small", 32, 1, str(tmp_path), sys.executable)


def test_a_chart_needs_latencies(part, capsys):
    assert part("compare").main(["--task", "train", "--chart", "chart.png"]) == 1
    assert "--chart draws latencies, and --task is train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "found, said",
    [
        (("bf16", "it has A"), "bf16 is native here: it has A"),
        (("fp32", "B"), "is emulated here: B"),
    ],
)
def test_a_row_of_bf16_says_whether_it_is_native(found, said):
    deployed = importlib.import_module("timed_engines.deployed")
    assert said in deployed.said_of_bf16(SimpleNamespace(native_precision=lambda: found))
