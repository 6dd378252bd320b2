"""Two processes equal one process with the doubled batch."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paddle import nn

from ppcls_nextvit import create_model
from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.engine.distributed import (
    SyncBatchNorm1D,
    SyncBatchNorm2D,
    synchronise_batch_norms,
)
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.models.layers import BATCH_NORMS
from ppcls_nextvit.tasks import evaluate, load_config
from support.paths import ROOT
from support.tiny_run import launch, write_config


def test_synchronising_changes_neither_weights_nor_keys():
    """New layers on the same tensors, in the same order and mode; the norm itself may be the
    model.
    """
    model = create_model("NextViT_small", num_classes=3, depths=(1, 1, 5, 1), frozen_stages=1)
    model.train()
    before = dict(model.named_parameters())
    modes = [layer.training for layer in model.sublayers()]
    norms = [name for name, layer in model.named_sublayers() if isinstance(layer, BATCH_NORMS)]
    synchronised = synchronise_batch_norms(model, "cpu")
    after = dict(synchronised.named_parameters())
    assert list(after) == list(before) and all(after[key] is before[key] for key in after)
    assert [layer.training for layer in synchronised.sublayers()] == modes and not all(modes)
    layers = dict(synchronised.named_sublayers())
    assert {type(layers[name]) for name in norms} == {SyncBatchNorm1D, SyncBatchNorm2D}
    lone = nn.BatchNorm2D(3)
    assert synchronise_batch_norms(lone, "cpu").weight is lone.weight


@pytest.mark.chain
def test_two_processes_train_like_one_with_the_doubled_batch(tmp_path):
    """Synchronised BatchNorm makes the mathematics equal; what is left is the order of float32
    sums.

    The optimiser is linear in the gradients: Adam's first steps are lr * sign(gradient) and would
    blow rounding up to the size of a step.
    """
    momentum = {
        "name": "Momentum",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip_global_norm": 5.0,
        "lr": {"learning_rate": 1e-3},
    }
    path = write_config(
        tmp_path,
        train=32,
        test=27,
        Arch={"use_sync_bn": True, "drop_path_rate": 0.0},
        Optimizer=momentum,
    )
    two = launch(
        path, 2, "DataLoader.Train.sampler.batch_size=8", f"Global.output_dir={tmp_path / 'two'}"
    )
    one = launch(
        path, 1, "DataLoader.Train.sampler.batch_size=16", f"Global.output_dir={tmp_path / 'one'}"
    )
    for ours, theirs in zip(read_figures(two), read_figures(one), strict=True):
        assert ours["kind"] == theirs["kind"] and ours["update"] == theirs["update"]
        # after three updates the sums' order shows: up to 1.2e-4 on the CPUs tried
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-4), ours
        assert ours["top1"] == theirs["top1"]
        assert ours.get("images", 27) == 27, (
            "every image counts once, also when the processes have unequal shares"
        )
    weights = [load_checkpoint(where / "latest")[".pdparams"] for where in (one, two)]
    assert list(weights[0]) == list(weights[1])
    for key in weights[0]:
        # running means of values around 0.1 were up to 6e-5 apart
        atol = 1e-4 if key.endswith("._mean") else 5e-5
        np.testing.assert_allclose(
            weights[0][key], weights[1][key], atol=atol, rtol=2e-3, err_msg=key
        )


@pytest.mark.chain
def test_the_saved_best_model_is_the_one_that_was_measured(tmp_path):
    """Without synchronised BatchNorm each process has statistics of its own; evaluation uses those
    that are saved, for EMA weights too.
    """
    path = write_config(
        tmp_path,
        train=32,
        test=27,
        EMA={"decay": 0.5},
        Optimizer={"name": "AdamW", "lr": {"learning_rate": 1e-3}},
    )
    where = launch(path, 2)
    logged = [line["top1"] for line in read_figures(where) if line["kind"].startswith("eval")]
    assert len(logged) == 4
    assert evaluate(load_config(path, [f"Global.pretrained_model={where / 'best_model'}"]))[
        "top1"
    ] == pytest.approx(max(logged), abs=1e-9)


LAUNCHED = """
import os, time
os.environ.update(PADDLE_LOCAL_RANK="0", PADDLE_TRAINERS_NUM="1")
from ppcls_nextvit.engine.distributed import start_processes
from ppcls_nextvit.engine.progress import StopSignal
start_processes("cpu")
stop = StopSignal()
print("started", flush=True)
while not stop.number:
    time.sleep(0.1)
print("stopped by", stop.number, flush=True)
"""


def test_a_process_notices_that_its_launcher_is_gone(tmp_path):
    """As a SIGTERM, so that it can save."""
    (tmp_path / "launched.py").write_text(LAUNCHED)
    (tmp_path / "launcher.py").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, 'launched.py'])"
    )
    launcher = subprocess.Popen(
        [sys.executable, "launcher.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = iter(launcher.stdout.readline, "")
    assert "started\n" in lines
    launcher.kill()
    launcher.wait()
    # it ends, and with it the pipe
    assert "stopped by 15\n" in list(lines)


def workers_of(path):
    """The process numbers of those that have the configuration on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(path).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.chain
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_stop_within_seconds_whatever_they_log(tmp_path, number):
    """Told by their launcher, or as it is gone; each epoch is a minute long and logs its end
    alone.
    """
    quiet = {"epochs": 40, "print_batch_step": 10**6, "eval_during_train": False}
    path = write_config(tmp_path, train=3000, test=8, batch_size=4, Global=quiet)
    where = load_config(path).output_dir
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
    command += ["--log_dir", str(tmp_path / "log"), str(ROOT / "tools" / "train.py")]
    launcher = subprocess.Popen(
        [*command, "-c", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (where / "environment.json").exists(), 200)
        time.sleep(3)
        launcher.send_signal(number)
        launcher.wait(timeout=60)
        wait_until(lambda: not workers_of(path), 25)
    finally:
        for pid in workers_of(path):
            os.kill(pid, signal.SIGKILL)
        launcher.wait()
    states = load_checkpoint(where / "latest")[".pdstates"]
    assert states["epoch"] == 1 and 0 < states["batch"] < states["batches"] == 375
    assert not (where / "run.lock").exists()


def wait_until(condition, seconds):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it took too long"
        time.sleep(0.1)
