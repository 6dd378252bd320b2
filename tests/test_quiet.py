"""No program shows what libraries say to everybody: Paddle's search for a compiler cache, its
advice on OMP_NUM_THREADS, glog's lines of warnings and information, our lines in Paddle's form.
"""

import os
import re
import subprocess
import sys

import pytest

from ppcls_nextvit.cli.main import COMMANDS
from support.paths import ROOT
from support.pictures import clothes
from support.tiny_run import write_config

NOISE = re.compile(
    r"ccache|^[IWE]\d{4} [\d:.]+ |OMP_NUM_THREADS set to|WISELY|\w+Warning: |!!!!!"
    r"|^\[20\d\d-\d\d-\d\d [\d:,]+\] |are left out"
)
FOLDERS = ("benchmarks", "deploy", "scripts", "test_tipc", "tools", "weight_conversion")
# parts of other programs, which start them with arguments of their own
PARTS = {"benchmarks/worker.py", "test_tipc/chains/seeded.py"}


def programs():
    """The command lines of all programs, without arguments."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "node_modules" in name or name in PARTS:
                continue
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
                inside = folder == "test_tipc" and path.parent.name == "chains"
                yield ["-m", name[:-3].replace("/", ".")] if inside else [name]
    yield from (["-m", "ppcls_nextvit", command] for command in COMMANDS)


def run(*command):
    """A program in an environment that says nothing of threads and logs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("OMP_NUM_THREADS", "GLOG_minloglevel"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def noise(done):
    """The lines of a program's output that no user asked for."""
    return [line for line in (done.stdout + done.stderr).splitlines() if NOISE.search(line)]


def test_what_noise_is():
    said = [
        "/paddle/utils/cpp_extension/extension_utils.py:711: UserWarning: No ccache found.",
        "W1128 10:00:00.123456  8635 eager_utils.cc:1] !!!!! something",
        "I1129 08:06:31.540849  8635 pir_interpreter.cc:1606] New Executor is Running ...",
        "WARNING: OMP_NUM_THREADS set to 2, not 1. The computation speed will not be optimized",
        "PLEASE USE OMP_NUM_THREADS WISELY.",
        "[2026-11-29 12:27:35,490] [    INFO] common.py:87 - weights from best_model: 217 loaded",
    ]
    kept = ["threads: 2 (OMP_NUM_THREADS)", "2026-11-29 08:44:16 Coat  5  3", "error: no images"]
    done = subprocess.CompletedProcess(
        [], 0, "\n".join(said[:2]) + "\n", "\n".join(said[2:] + kept)
    )
    assert noise(done) == said


@pytest.mark.chain
@pytest.mark.parametrize("command", programs(), ids=" ".join)
def test_help_of_every_program(command):
    if command == ["benchmarks/gpu/harness.py"]:
        pytest.importorskip("torch", reason="needs the extra `torch`")
    done = run(*command, "--help")
    assert noise(done) == []
    if command[0] == "-m" and "chains" in command[1] and done.returncode == 2:
        # they take a file and a mode, as the suites' scripts do
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
        return
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("usage: ")


@pytest.mark.chain
def test_a_run_from_training_to_predictions(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    config = write_config(tmp_path, train=16, test=16, Global={"epochs": 1})
    model, exported = tmp_path / "output" / "NextViT_small", tmp_path / "exported"
    images = clothes(tmp_path / "clothes", 2)
    destination = f"Global.save_inference_dir={exported}"
    for command in (
        ["tools/train.py", "-c", config],
        ["-m", "ppcls_nextvit", "eval", "--model", model],
        ["tools/infer.py", "--model", model, "--images", images],
        ["tools/export_model.py", "--model", model, "-o", destination],
        ["deploy/python/predict.py", "--model", exported, "--images", images],
        ["tools/export_model.py", "--model", model, "--to", "onnx", "-o", f"{destination}_onnx"],
        ["deploy/python/predict.py", "--model", f"{exported}_onnx", "--images", images],
        ["-m", "ppcls_nextvit", "explain", "cam", "--model", model, "--images", images]
        + ["--out", tmp_path / "cam"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert noise(done) == [], command
        assert "threads: " in done.stderr  # said, whoever chose them


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports", ["import ppcls_nextvit, paddle", "import paddle, ppcls_nextvit"]
)
def test_both_orders_of_imports(imports):
    """Paddle's own import says what it says; what we then do says nothing more."""
    code = f"{imports}; ppcls_nextvit.fuse_bn; print(len(ppcls_nextvit.list_models()) > 0)"
    done = run("-W", "ignore:No ccache found", "-c", code)
    assert done.returncode == 0 and done.stdout == "True\n" and noise(done) == []
