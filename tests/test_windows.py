"""Windows, as far as it can be tried without one: no program needs what only POSIX systems have.
What they lack is taken away, and programs train, evaluate, export and predict.
"""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from support.paths import ROOT
from support.pictures import clothes
from support.tiny_run import write_config
from support.without_posix import MODULES, OF_OS, OF_SIGNAL

RUNNER = ROOT / "tests" / "support" / "without_posix.py"
PROGRAMS = ("ppcls_nextvit", "tools", "deploy", "scripts", "weight_conversion")
# names that are POSIX's alone, of those that programs of this kind use
POSIX_OS = {
    *OF_OS,
    "fork",
    "forkpty",
    "getloadavg",
    "killpg",
    "nice",
    "posix_spawn",
    "setsid",
    "uname",
}
POSIX_OS |= {"O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "chown", "fchmod", "getpgid", "preadv"}
POSIX_OS |= {"sched_setaffinity", "sendfile", "sysconf", "sync", "wait", "waitid", "WNOHANG"}
POSIX_SIGNAL = {*OF_SIGNAL, "SIGKILL", "SIGQUIT", "SIGCHLD", "SIGPIPE", "SIGCONT", "SIGSTOP"}
POSIX_SIGNAL |= {"SIG_BLOCK", "SIG_UNBLOCK", "SIGTSTP", "pause", "sigwait"}
POSIX_MODULES = {*MODULES, "posix", "pty", "syslog", "tty"}
# {file: {name: why it does not matter}}
GUARDED = {
    "deploy/python/joint.py": {"os.sysconf": "an AttributeError is caught"},
    "deploy/serving/joint.py": {"os.sysconf": "an AttributeError is caught"},
    "deploy/serving/server.py": {
        "signal.SIG_BLOCK": "with processes that are forked alone",
        "signal.SIG_UNBLOCK": "where there is a mask",
        "signal.pthread_sigmask": "with processes that are forked alone, or where there is a mask",
    },
    "ppcls_nextvit/api/memory.py": {"os.sysconf": "an AttributeError is caught"},
    "ppcls_nextvit/data/parts.py": {"os.pread": "hasattr"},
    "ppcls_nextvit/data/remote/cache.py": {"fcntl": "an ImportError is caught"},
    "ppcls_nextvit/engine/addresses.py": {"fcntl": "an ImportError is caught"},
    "ppcls_nextvit/engine/lock.py": {"fcntl": "an ImportError is caught"},
    "ppcls_nextvit/engine/log.py": {"resource": "an ImportError is caught"},
    "deploy/python/startup.py": {"os.sched_getaffinity": "an AttributeError is caught"},
    "deploy/serving/startup.py": {"os.sched_getaffinity": "an AttributeError is caught"},
    "ppcls_nextvit/startup.py": {"os.sched_getaffinity": "an AttributeError is caught"},
    "scripts/mutant_tests.py": dict.fromkeys(
        (
            "os.WNOHANG",
            "os.fork",
            "os.killpg",
            "os.setsid",
            "signal.SIGALRM",
            "signal.SIGKILL",
            "signal.alarm",
            "signal.setitimer",
        ),
        "of the project's developers, on Linux and macOS",
    ),
}


def posix_names(path):
    """What a file uses that only POSIX systems have."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            known = {"os": POSIX_OS, "signal": POSIX_SIGNAL}.get(node.value.id, ())
            if node.attr in known:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & POSIX_MODULES
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            yield node.module


def test_what_posix_alone_has_is_guarded():
    found = {}
    for folder in PROGRAMS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts and (names := set(posix_names(path))):
                found[str(path.relative_to(ROOT))] = names
    assert found == {path: set(names) for path, names in GUARDED.items()}


def run(program, *arguments, status=0):
    """The finished program, with what Windows lacks taken away."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", RUNNER, ROOT / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration whose images are in a zip file, and its run's folder; one epoch."""
    folder = tmp_path_factory.mktemp("windows")
    config = write_config(folder, train=8, test=4, Global={"epochs": 1})
    assert "images.zip" in config.read_text()
    run("tools/train.py", "-c", config)
    (log,) = folder.rglob("log.jsonl")
    return config, log.parent


@pytest.mark.chain
def test_it_trains_without_a_figure_of_memory(trained):
    config, output = trained
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("split", line.get("kind")) == "train"] or lines
    assert steps and not any("memory_mb" in line for line in steps)
    assert not (output / "run.lock").exists()


@pytest.mark.chain
def test_it_resumes_evaluates_exports_and_predicts(trained, tmp_path):
    config, output = trained
    pictures = clothes(tmp_path / "clothes", 3)
    given = ("-c", config, "-o", f"Global.pretrained_model={output / 'latest'}")
    again = ("-o", f"Global.checkpoints={output / 'latest'}", "-o", "Global.epochs=2")
    run("tools/train.py", "-c", config, *again)
    assert re.search(r"top1", run("tools/eval.py", *given).stdout)
    model = tmp_path / "model"
    run("tools/export_model.py", *given, "-o", f"Global.save_inference_dir={model}")
    asked = run("tools/infer.py", *given, "-o", f"Infer.infer_imgs={pictures}").stdout
    exported = run("deploy/python/predict.py", "--model", model, "--images", pictures).stdout
    for output in (asked, exported):
        assert len(re.findall(r"0000[0-2]\.png: ", output)) == 3
