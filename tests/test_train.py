"""The loop: an interrupted run ends with the same weights, bit for bit; wrong input is one line;
what is written is complete.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest

from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.engine import train as loop
from ppcls_nextvit.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.engine.precision import float32_state
from ppcls_nextvit.engine.progress import LossWindow, StopSignal, duration
from ppcls_nextvit.tasks import evaluate, load_config, train
from support.paths import ROOT
from support.tiny_run import write_config

# everything random or stateful at once: drop path, dropout, mixing, erasing, EMA, accumulation over
# an epoch whose last group is short
EVERYTHING = {
    "Global": {"update_freq": 2, "seed": 3},
    "Arch": {"drop_path_rate": 0.2, "drop_rate": 0.1, "attn_drop_rate": 0.1},
    "EMA": {"decay": 0.9},
}


def everything(directory):
    path = write_config(
        directory, train=56, **{key: dict(value) for key, value in EVERYTHING.items()}
    )
    import yaml

    content = yaml.safe_load(path.read_text())
    content["DataLoader"]["Train"]["dataset"]["transform_ops"].append(
        {"RandomErasing": {"EPSILON": 0.5, "mode": "pixel"}}
    )
    content["DataLoader"]["Train"]["loader"]["num_workers"] = 2
    content["DataLoader"]["Train"]["dataset"]["batch_transform_ops"] = [
        {
            "OpSampler": {
                "MixupOperator": {"alpha": 0.8, "prob": 0.5},
                "CutmixOperator": {"alpha": 1.0, "prob": 0.5},
            }
        }
    ]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run_tool(*arguments, wait=True, **environment):
    """tools/train.py in its own process."""
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if wait:
        output = process.communicate(timeout=300)[0]
        return process.returncode, output
    return process


def wait_for(condition, process, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.time() < deadline, "the run did not get so far in time"
        time.sleep(0.02)


def assert_same_end(a, b):
    """Every tensor and every number of two checkpoint sets is the same, bit for bit."""
    a, b = load_checkpoint(a), load_checkpoint(b)
    assert a[".pdstates"] == b[".pdstates"]
    for suffix in (".pdparams", ".pdopt", ".pdema"):
        assert set(a[suffix]) == set(b[suffix])
        for key, value in a[suffix].items():
            np.testing.assert_array_equal(
                np.asarray(value), np.asarray(b[suffix][key]), err_msg=f"{suffix} {key}"
            )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = everything(tmp_path_factory.mktemp("uninterrupted"))
    status, output = run_tool("-c", path)
    assert status == 0, output
    return load_config(path).output_dir


@pytest.mark.slow
def test_a_run_leaves_what_the_readme_promises(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "train.log",
        "log.jsonl",
        "curves.png",
        "confusion_matrix.png",
        "predictions.png",
        "report.html",
        "results.csv",
        "class_names.txt",
    } <= names
    assert {
        f"{stem}{suffix}"
        for stem in ("latest", "best_model")
        for suffix in (".pdparams", ".pdopt", ".pdstates", ".pdema")
    } <= names
    given = load_config(uninterrupted.parents[1] / "tiny.yaml")
    assert dataclasses.replace(load_config(uninterrupted / "config.yaml"), path=given.path) == given
    figures = read_figures(uninterrupted)
    train_lines = [line for line in figures if line["kind"] == "train"]
    # 7 batches in groups of 2: 4 updates in each of 2 epochs
    assert [line["update"] for line in train_lines] == list(range(1, 9))
    assert {line["kind"] for line in figures} == {"train", "eval", "eval_ema"}
    assert all(line["images"] == 30 for line in figures if line["kind"].startswith("eval"))
    states = load_checkpoint(uninterrupted / "latest")[".pdstates"]
    assert states["best"] == max(
        line["top1"] for line in figures if line["kind"].startswith("eval")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, update",
    [
        (signal.SIGKILL, 6),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.chain),
        *(
            pytest.param(*case, marks=[pytest.mark.chain, pytest.mark.long])
            for case in ((signal.SIGTERM, 6), (signal.SIGKILL, 2))
        ),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(uninterrupted, tmp_path, number, update):
    """Stopped or killed in either epoch, then resumed. After a kill in epoch 1 there is nothing to
    resume from, so it starts anew.
    """
    path = everything(tmp_path)
    where = load_config(path).output_dir
    process = run_tool("-c", path, wait=False)
    wait_for(lambda: any(line.get("update", 0) >= update for line in read_figures(where)), process)
    # to the loader's workers too, as terminals and schedulers do
    os.killpg(process.pid, number)
    output = process.communicate(timeout=120)[0]
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM, output
        assert f"resume with -o Global.checkpoints={where / 'latest'}" in output
    resume = (
        ["-o", f"Global.checkpoints={where / 'latest'}"]
        if (where / "latest.pdstates").exists()
        else []
    )
    assert resume or (number == signal.SIGKILL and update == 2)
    status, output = run_tool("-c", path, *resume)
    assert status == 0, output
    assert_same_end(where / "latest", uninterrupted / "latest")
    assert_same_end(where / "best_model", uninterrupted / "best_model")
    lines = [line["update"] for line in read_figures(where) if line["kind"] == "train"][-8:]
    assert lines == list(range(1, 9)), "the log repeats or lacks a step"


@pytest.mark.slow
def test_evaluating_the_saved_model_gives_the_logged_figure(uninterrupted, tmp_path):
    config = load_config(
        uninterrupted / "config.yaml", [f"Global.pretrained_model={uninterrupted / 'best_model'}"]
    )
    logged = [
        line["top1"] for line in read_figures(uninterrupted) if line["kind"].startswith("eval")
    ]
    assert evaluate(config)["top1"] == max(logged)


def quick(tmp_path, *overrides, **sections):
    return load_config(
        write_config(tmp_path, train=16, test=10, **sections), ["Global.epochs=1", *overrides]
    )


def test_a_loss_that_is_not_finite_names_step_rate_and_last_checkpoint(tmp_path):
    config = quick(
        tmp_path,
        "Optimizer.lr.learning_rate=1e30",
        "Optimizer.lr.warmup_epoch=0",
        "Optimizer.clip_global_norm=null",
        "Global.eval_during_train=False",
    )
    config.output_dir.mkdir(parents=True)
    (config.output_dir / "latest.pdparams").touch()  # of another run in the same place
    with pytest.raises(
        FloatingPointError,
        match=r"epoch 1, batch 2 \(step 2, learning rate .*\); last good checkpoint: none yet",
    ):
        train(config)


@pytest.mark.slow
def test_a_run_without_loss_scaling_goes_on_with_it(tmp_path, monkeypatch):
    """As one of a CPU does on a GPU. A scaler that is on refuses the empty state of one that was
    off.
    """
    config = quick(tmp_path, "Global.iter_per_epoch=1", "Global.eval_during_train=False")
    assert train(config) == 0

    class Scaler(paddle.amp.GradScaler):
        def is_enable(self):
            return True

        def load_state_dict(self, state):
            assert state, "what Paddle calls a RuntimeError"

    real = loop.mixed_precision
    monkeypatch.setattr(
        loop,
        "mixed_precision",
        lambda *args: (*real(*args)[:2], Scaler(enable=False), real(*args)[3]),
    )
    more = [
        f"Global.checkpoints={config.output_dir / 'latest'}",
        "Global.iter_per_epoch=1",
        "Global.eval_during_train=False",
    ]
    assert train(load_config(config.path, more)) == 0
    assert [
        line["epoch"] for line in read_figures(config.output_dir) if line["kind"] == "train"
    ] == [1, 2]


def test_figures_are_read_before_the_backward_pass(tmp_path, monkeypatch):
    """On a GPU reading one later would wait for all of it, where the optimiser's step could be
    prepared meanwhile.
    """
    runs, begun, add = [], [], loop.LossWindow.add
    monkeypatch.setattr(loop.Run, "_check_finite", lambda run, *args: runs.append(run))
    monkeypatch.setattr(
        loop.LossWindow,
        "add",
        lambda *args: begun.append(any(p.grad is not None for p in runs[0].trained)) or add(*args),
    )
    assert train(quick(tmp_path, "Global.iter_per_epoch=1", "Global.eval_during_train=False")) == 0
    assert begun == [False] and runs[0].trained[0].grad is not None


def test_fine_tuning_to_other_classes_names_what_was_not_loaded(tmp_path, caplog):
    from ppcls_nextvit import create_model

    source = create_model("NextViT_small", num_classes=7, depths=(1, 1, 5, 1))
    paddle.save(source.state_dict(), str(tmp_path / "seven.pdparams"))
    from ppcls_nextvit.tasks.common import build_model

    with caplog.at_level("INFO", logger="ppcls_nextvit"):
        loop.logger.propagate = True
        model = build_model(
            quick(tmp_path, f"Global.pretrained_model={tmp_path / 'seven'}"), training=True
        )
    assert "proj_head.0.weight" in caplog.text
    np.testing.assert_array_equal(
        model.stem[0].conv.weight.numpy(), source.stem[0].conv.weight.numpy()
    )
    assert model.proj_head[0].weight.shape == [1024, 10]


def test_the_figures_of_a_line_are_averages_since_the_last(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ppcls_nextvit.engine.progress.time.time", lambda: clock[0])
    window = LossWindow(lambda counts: {"top1": counts["right"][0] / counts["right"][1]})
    for first in (1.0, 5.0):  # the second line knows nothing of the first
        window.add(first, {"a": paddle.to_tensor(first)}, 4, {"right": np.array([1, 4])})
        window.add(first + 2, {"a": paddle.to_tensor(first)}, 2, {"right": np.array([2, 2])})
        clock[0] += 4.0
        assert window.close(Processes(), batches_left=10) == {
            "loss": first + 1,
            "top1": 0.5,
            "images_per_s": 1.5,
            "eta_s": 20,
        }
    # with more than one part, each of them
    window.add(3.0, {"a": paddle.to_tensor(1.0), "b": paddle.to_tensor(2.0)}, 4, {"right": [1, 4]})
    window.add(5.0, {"a": paddle.to_tensor(2.0), "b": paddle.to_tensor(3.0)}, 4, {"right": [1, 4]})
    figures = window.close(Processes(), batches_left=0)
    assert (figures["loss"], figures["a"], figures["b"], figures["eta_s"]) == (4.0, 1.5, 2.5, 0)


def test_seconds_as_hours_minutes_and_seconds():
    assert [duration(seconds) for seconds in (0, 59.9, 61, 36_005)] == [
        "0:00:00",
        "0:00:59",
        "0:01:01",
        "10:00:05",
    ]


def test_evaluation_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Global.pretrained_model"):
        evaluate(quick(tmp_path))


def test_ema_follows_its_formula_and_gives_the_weights_back():
    from ppcls_nextvit.engine.ema import EMA

    layer = paddle.nn.BatchNorm2D(2)
    ema, expected = EMA(layer, 0.75), layer.weight.numpy().copy()
    for step, value, decay in ((1, 3.0, 2 / 11), (2, 5.0, 3 / 12), (40, 7.0, 0.75)):
        layer.weight.set_value(np.full(2, value, "float32"))
        ema.update(step)
        expected = decay * expected + (1 - decay) * value
    with ema.weights_in():
        np.testing.assert_allclose(layer.weight.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(layer.weight.numpy(), [7.0, 7.0])
    assert {"weight", "bias", "_mean", "_variance"} == set(ema.state())


@pytest.mark.chain
def test_to_static_trains_to_the_same_weights(tmp_path):
    ends = []
    for flag in ("False", "True"):
        config = quick(
            tmp_path / flag,
            f"Global.to_static={flag}",
            "Global.eval_during_train=False",
            "Arch.drop_path_rate=0.0",
        )
        assert train(config) == 0
        ends.append(
            json.loads((config.output_dir / "log.jsonl").read_text().splitlines()[-1])["loss"]
        )
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


@pytest.mark.slow
def test_averaged_weights_are_not_resumed_from(uninterrupted, tmp_path):
    parts = load_checkpoint(uninterrupted / "latest")
    assert parts[".pdstates"]["weights"] == "raw"
    # as best_model has it where the averages were better
    parts[".pdstates"]["weights"] = "ema"
    save_checkpoint(tmp_path / "best_model", parts)
    with pytest.raises(CheckpointError, match="averaged \\(EMA\\) weights.*resume from latest"):
        train(load_config(everything(tmp_path), [f"Global.checkpoints={tmp_path / 'best_model'}"]))


@pytest.mark.slow
def test_resuming_does_not_need_the_file_that_the_run_began_with(tmp_path):
    steps = ["Global.iter_per_epoch=1", "Global.eval_during_train=False"]
    config = quick(tmp_path, *steps)
    assert train(config) == 0
    assert (
        train(
            quick(
                tmp_path,
                *steps,
                "Global.epochs=2",
                f"Global.pretrained_model={tmp_path / 'gone.pdparams'}",
                f"Global.checkpoints={config.output_dir / 'latest'}",
            )
        )
        == 0
    )
    assert [
        line["update"] for line in read_figures(config.output_dir) if line["kind"] == "train"
    ] == [1, 2]


def test_a_launcher_that_repeats_its_sigterm_still_gets_a_checkpoint():
    before = signal.getsignal(signal.SIGTERM)  # of whoever runs the tests
    stop = StopSignal()
    try:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        stop.restore()
    assert signal.getsignal(signal.SIGTERM) == before != stop._note


def test_evaluating_a_checkpoint_prefix_loads_it_or_says_it_is_missing(tmp_path):
    with pytest.raises(ValueError, match="latest"):
        evaluate(quick(tmp_path, f"Global.checkpoints={tmp_path / 'latest'}"))


def test_a_shuffled_or_cut_epoch_does_what_it_says(tmp_path):
    config = quick(tmp_path, "Global.iter_per_epoch=1", "Global.eval_during_train=False")
    assert train(config) == 0
    assert [
        line["update"] for line in read_figures(config.output_dir) if line["kind"] == "train"
    ] == [1]
    # a new run in the same directory: its figures alone
    assert train(config) == 0
    assert [
        line["update"] for line in read_figures(config.output_dir) if line["kind"] == "train"
    ] == [1]
    assert (config.output_dir / "earlier-1" / "latest.pdparams").is_file()


def test_a_distilled_step_uses_the_teacher(tmp_path):
    from ppcls_nextvit import create_model
    from ppcls_nextvit.engine.distributed import Processes
    from ppcls_nextvit.tasks.classification.task import ClassificationTask

    teacher = create_model("NextViT_small", num_classes=10, depths=(1, 1, 5, 1))
    paddle.save(teacher.state_dict(), str(tmp_path / "teacher.pdparams"))
    arch = {
        "name": "NextViT_small",
        "depths": [1, 1, 5, 1],
        "pretrained": str(tmp_path / "teacher.pdparams"),
    }
    losses = {
        "Train": [
            {"CELoss": {"weight": 0.5}},
            {"DistillationLoss": {"teacher": arch, "weight": 2.0, "temperature": 1.0}},
        ]
    }
    task = ClassificationTask(
        quick(tmp_path, "Global.eval_during_train=False", Loss=losses), Processes()
    )
    task.model.eval()
    batch = next(task.train_loader.epoch(1))
    step = task.losses(batch)
    total, parts = step.loss, step.parts
    with paddle.no_grad():
        teacher.eval()
        p, q = (
            paddle.nn.functional.softmax(model(batch["image"]), axis=-1).numpy()
            for model in (teacher, task.model)
        )
    assert float(parts["DistillationLoss"]) == pytest.approx(
        2.0 * float((p * np.log(p / q)).sum(-1).mean()), rel=1e-3, abs=1e-6
    )
    assert float(total) == pytest.approx(
        float(parts["CELoss"]) + float(parts["DistillationLoss"]), rel=1e-6
    )
    assert all(parameter.stop_gradient for parameter in task.teacher.parameters())


def test_low_precision_weights_are_averaged_in_float32_and_saved_as_float32():
    """What AMP O2 makes of a model on a GPU, made by hand: float16 parameters beside float32
    statistics.
    """
    from ppcls_nextvit.engine.ema import EMA

    layer = paddle.nn.Linear(2, 2)
    layer.to(dtype="float16")
    ema = EMA(layer, 0.999)
    start = ema.state()["weight"]
    assert start.dtype == np.float32
    layer.weight.set_value(np.full([2, 2], 2.0, "float16"))
    ema.update(10**6)
    np.testing.assert_allclose(ema.state()["weight"], 0.999 * start + 0.001 * 2.0, rtol=1e-6)
    with ema.weights_in():
        assert layer.weight.dtype == paddle.float16
    assert float(layer.weight[0, 0].astype("float32")) == 2.0
    assert {value.dtype for value in float32_state(layer).values()} == {np.dtype("float32")}


@pytest.mark.chain
def test_the_official_recipe_takes_a_step_on_real_images(tmp_path):
    """configs/NextViT_small_224.yaml as it is, but for the data, the batch size and the length."""
    write_config(tmp_path, train=4, test=2)
    train_set = "DataLoader.Train.dataset"
    config = load_config(
        ROOT / "configs" / "NextViT_small_224.yaml",
        [
            "Global.epochs=3",
            "Arch.class_num=10",
            "Global.iter_per_epoch=1",
            "Global.eval_during_train=False",
            "Global.save_interval=0",
            f"Global.output_dir={tmp_path}",
            f"{train_set}.image_root={ROOT / 'dataset/fashion_mnist/images.zip'}",
            f"{train_set}.cls_label_path={tmp_path / 'train_list.txt'}",
            "DataLoader.Train.sampler.batch_size=2",
        ],
    )
    assert train(config) == 0
    lines = [line for line in read_figures(config.output_dir) if line["kind"] == "train"]
    assert [line["lr"] for line in lines] == pytest.approx([1e-6, 1e-6, 1.0095e-4])
    assert all(1.5 < line["loss"] < 4 for line in lines)
