"""A run goes on from a checkpoint set at the same share of its epochs, whatever their length; a set
that is damaged, another run's or another program's is one line; what is better is never lost.
"""

import math
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ppcls_nextvit.api.training import latest_overrides
from ppcls_nextvit.engine import train as loop
from ppcls_nextvit.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import RunLog, read_figures
from ppcls_nextvit.engine.progress import MOST_STEPS, Pace, Progress, StopSignal
from ppcls_nextvit.engine.resume import Plan, Saved, _continued, read_saved
from ppcls_nextvit.engine.saves import Saves
from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config, train
from ppcls_nextvit.tasks.classification.task import ClassificationTask
from support.faults import assert_one_line, generators, many
from support.tiny_run import write_config


@pytest.mark.parametrize(
    "progress, then, now, batch, update",
    [
        # between epochs: half of the run is half of the run
        ((5, 0, 16), (4, 1), (2, 1), 0, 8),
        ((5, 0, 16), (4, 1), (8, 1), 0, 32),
        ((5, 0, 16), (4, 1), (4, 2), 0, 8),
        # the end of an epoch stays the end, also of one whose last step has fewer batches
        ((2, 4, 8), (4, 1), (7, 2), 7, 8),
        # within an epoch: whole optimiser steps, rounded down
        ((2, 3, 7), (4, 1), (8, 1), 6, 14),
        ((2, 3, 7), (4, 1), (2, 1), 1, 3),
        ((2, 3, 7), (4, 1), (8, 4), 4, 3),
        ((2, 1, 5), (4, 1), (2, 1), 0, 2),
        ((1, 999, 999), (1000, 1), (3, 1), 2, 2),
        # and nothing moves where nothing changed
        ((3, 2, 5), (4, 2), (4, 2), 2, 5),
    ],
)
def test_progress_is_a_share_of_the_run(progress, then, now, batch, update):
    epoch, done, updates = progress
    moved = Progress(epoch, done, updates, best=0.5).moved(Pace(*then), Pace(*now))
    assert (moved.epoch, moved.batch, moved.update, moved.best) == (epoch, batch, update, 0.5)


@pytest.mark.parametrize(
    "batch, then, now, expected",
    [
        # 20 images: after the same ones, which is no share of the batches
        (2, (3, 1, 8), (5, 1, 4), 4),
        (2, (3, 1, 8), (5, 2, 4), 4),
        (3, (5, 1, 4), (3, 1, 8), 1),
        (4, (5, 1, 4), (3, 1, 8), 2),
        (2, (2, 1, 8), (5, 1, 4), 5),  # without the rest of 4 that drop_last left out
        # epochs of other images, such as those that count iterations: the share
        (2, (4, 1, 8), (8, 1, 8), 4),
        (2, (4, 1, 0), (8, 1, 4), 4),
    ],
)
def test_an_epoch_goes_on_after_the_same_images(batch, then, now, expected):
    assert Progress(2, batch, 9).moved(Pace(*then), Pace(*now)).batch == expected


def quick(directory, *overrides, **sections):
    return load_config(
        write_config(directory, train=16, test=10, **sections),
        ["Global.save_interval=1", "Global.eval_during_train=False", *overrides],
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of two epochs of two batches of 8, with averages, as a configuration."""
    config = quick(tmp_path_factory.mktemp("first"), EMA={"decay": 0.9})
    assert train(config) == 0
    return config


def resumed(first, directory, *overrides, name="epoch_1"):
    """A run that goes on from `first`'s set `name`, in an output folder of its own."""
    return load_config(
        first.path,
        [
            "Global.save_interval=0",
            "Global.eval_during_train=False",
            f"Global.checkpoints={first.output_dir / name}",
            f"Global.output_dir={directory}",
            *overrides,
        ],
    )


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize(
    "batch_size, update_freq",
    [(16, 1), (4, 2), *(pytest.param(*c, marks=pytest.mark.chain) for c in ((4, 1), (2, 4)))],
)
def test_the_schedule_goes_on_where_it_was_with_other_batches(
    first, tmp_path, batch_size, update_freq
):
    sizes = f"DataLoader.Train.sampler.batch_size={batch_size}", f"Global.update_freq={update_freq}"
    config = resumed(first, tmp_path, *sizes)
    assert train(config) == 0
    lines = read_figures(config.output_dir)
    steps = 16 // batch_size // update_freq
    schedule = build_schedule(config.Optimizer["lr"], 2, steps)
    assert [line["lr"] for line in lines] == [schedule.lr(steps + i) for i in range(steps)]
    assert [line["update"] for line in lines] == [steps + i + 1 for i in range(steps)]
    assert lines[-1]["position"] == 2


@pytest.mark.slow  # whole runs
def test_it_goes_on_within_an_epoch_too_but_not_in_another_order(first, tmp_path):
    parts = load_checkpoint(first.output_dir / "epoch_1")
    parts[".pdstates"].update(epoch=2, batch=1, update=3)
    other = "DataLoader.Train.sampler.batch_size=2"
    folder = resumed(first, tmp_path / "a").output_dir
    save_checkpoint(folder / "middle", parts)
    given = [f"Global.checkpoints={folder / 'middle'}"]
    config = resumed(first, tmp_path / "a", *given, other)
    log = RunLog(config.output_dir, Processes())
    for update in (3, 4):  # the latter's step was not saved
        log.figures("train", update=update, epoch=2, position=update / 2)
    log.close()
    assert train(config) == 0
    assert [line["update"] for line in read_figures(config.output_dir)] == [3, 13, 14, 15, 16]
    said = (config.output_dir / "train.log").read_text()
    differ = "batches 2 (now 8), batch_images 8 (now 2)"
    assert f"{differ}: the run goes on, but will not equal an uninterrupted one" in said
    assert "epoch 2 that is done, 1 of 2 batches, is taken for 4 of 8, after the same im" in said
    with pytest.raises(CheckpointError, match=r"middle of an epoch with seed 0 \(now 1\)"):
        train(resumed(first, tmp_path / "b", *given, "Global.seed=1"))


def test_continue_begins_or_goes_on(tmp_path):
    """Also where the only set is one whose renaming was interrupted."""
    config = quick(tmp_path)
    assert latest_overrides(config, may_begin=True) == []
    with pytest.raises(ConfigError, match="--resume: no .*latest.pdstates; this run has not"):
        latest_overrides(config)
    config.output_dir.mkdir(parents=True)
    for name in ("latest.pdstates", "latest.journal"):
        (config.output_dir / name).touch()
        expected = [f"Global.checkpoints={config.output_dir / 'latest'}"]
        assert latest_overrides(config, may_begin=True) == latest_overrides(config) == expected
        (config.output_dir / name).unlink()


class Second(Processes):
    """Process 1 of two in one: what process 0 says is given."""

    rank, many, is_main = 1, True, False

    def __init__(self, first):
        self.first = first

    def sum(self, values):
        return np.add(self.first, values)

    def any(self, flag):
        return flag


def test_machines_that_see_other_checkpoints_do_not_begin():
    """Each reads it from its own disk, which may be another one's copy, or have none."""
    saves = SimpleNamespace(last="out/latest", processes=Second([3, 0, 8]))
    Saves.check_same(saves, 3, 0, 8)
    with pytest.raises(CheckpointError, match="process 1 has out/latest.*on a disk that all mach"):
        Saves.check_same(saves, 2, 0, 4)
    saves.processes = Second([1])
    with pytest.raises(CheckpointError, match="not all processes have the same checkpoint"):
        Saves.check_same(saves, False)


ODD = ("2", None, [], {}, 1.5, True, -1, 10**30, math.nan, np.zeros(3))


def test_the_log_says_how_good_it_was_so_far():
    assert Progress(epoch=3).best_so_far == "not evaluated yet"
    found = Progress(epoch=3, best=0.5, best_epoch=2, best_weights="ema")
    assert found.best_so_far == "best 0.5000 at epoch 2 (ema weights)"


@pytest.mark.parametrize(
    "key", [*asdict(Progress()), *asdict(Plan(0, 1, 1, 1)), "weights", "schedule"]
)
def test_what_no_run_can_have_saved_is_one_line(tmp_path, key):
    """Every value of .pdstates, in every type and out of every range."""
    plan = Plan(seed=0, world_size=1, batches=2, update_freq=1)
    states = {**asdict(Progress()), **asdict(plan), "weights": "raw", "scaler": {}, "schedule": {}}
    save_checkpoint(tmp_path / "odd", {".pdparams": {}, ".pdopt": {}, ".pdstates": states})
    right, refused = type(states[key]), 0
    for value in ODD:
        paddle.save({**states, key: value}, str(tmp_path / "odd.pdstates"))
        try:
            saved = read_saved(str(tmp_path / "odd"), plan, with_ema=False)
            build_schedule({"learning_rate": 1.0}, 2, 2).load_state_dict(saved.schedule)
        except ValueError as error:
            assert str(tmp_path / "odd") in str(error) or key == "schedule"
            assert "\n" not in str(error)
            refused += 1
        else:  # what may stand there is of the right type, or of best a number
            assert type(value) is right or (key == "best" and isinstance(value, (int, float)))
    assert refused >= len(ODD) - 3


@pytest.fixture(scope="module")
def run(first, tmp_path_factory):
    """A run that has just begun, to resume into."""
    config = resumed(first, tmp_path_factory.mktemp("run"), "Global.checkpoints=null")
    log, stop = RunLog(config.output_dir, Processes()), StopSignal()
    yield loop.Run(config, ClassificationTask, Processes(), log, stop)
    stop.restore()
    log.close()


@pytest.fixture(scope="module")
def parts(first):
    """What the files of a whole set hold."""
    return load_checkpoint(first.output_dir / "latest")


def with_first(change):
    def changed(content):
        key = next(key for key in content if np.ndim(content[key]) > 1)
        return {**content, key: change(content[key])}

    return changed


CHANGES = {
    "a list": lambda content: [],
    "an empty mapping": lambda content: {},
    "a number": lambda content: 3,
    "a key that is a number": lambda content: {**content, 1: 2},
    "a shape": with_first(lambda value: np.zeros((2, 2), np.float32)),
    "a dtype": with_first(lambda value: np.asarray(value).astype("int64")),
    "not finite": with_first(lambda value: np.full_like(value, np.nan)),
    "no number": with_first(lambda value: "text"),
    "a ragged list": with_first(lambda value: [[1.0], [1.0, 2.0]]),
    "nothing": with_first(lambda value: None),
}


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize(
    "suffix, change",
    [(suffix, change) for suffix in (".pdparams", ".pdopt", ".pdema") for change in CHANGES]
    + [(".pdstates", change) for change in ("a list", "an empty mapping", "a number")],
)
def test_a_damaged_file_is_one_line_that_names_the_set(run, parts, tmp_path, suffix, change):
    prefix = tmp_path / "set"
    save_checkpoint(prefix, {**parts, suffix: {}})
    changed = pickle.dumps(CHANGES[change](parts[suffix]), 4)
    (tmp_path / f"set{suffix}").write_bytes(changed)
    with pytest.raises(ValueError, match=f"cannot resume from {prefix}: ") as caught:
        run.saves.resume(str(prefix), run.batches)
    assert "\n" not in str(caught.value)
    assert (tmp_path / f"set{suffix}").read_bytes() == changed


def changed(content, rng):
    """The bytes of a file with one to three of its values changed, or of its bytes."""
    content = dict(content)
    for _ in range(rng.integers(1, 4)):
        key = list(content)[rng.integers(len(content))] if content else "x"
        value = content.pop(key, None)
        if rng.random() < 0.8:
            content[key] = changed_value(value, rng)
        if rng.random() < 0.1:
            content[(1, None, "more", "epoch")[rng.integers(4)]] = value
    data = bytearray(pickle.dumps(content, 4))
    if rng.random() < 0.3:
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
    if rng.random() < 0.1:
        del data[rng.integers(1, len(data)) :]
    return bytes(data)


def changed_value(value, rng):
    array = np.asarray(value) if np.ndim(value) else np.zeros(1, np.float32)
    odd = (array[..., :1], array.T, array[None], array.astype("float64"), array.astype("int8"))
    odd += (array.astype("complex64"), np.full_like(array, 127), {"x": value}, [value], *ODD)
    return odd[rng.integers(len(odd))]


@pytest.mark.slow  # whole runs
@pytest.mark.faults
def test_any_damage_to_a_set_is_one_line(run, parts, tmp_path):
    prefix = tmp_path / "set"
    save_checkpoint(prefix, parts)
    refused = 0
    for rng in generators(many(10)):
        suffix = (".pdparams", ".pdopt", ".pdstates", ".pdema")[rng.integers(4)]
        path = tmp_path / f"set{suffix}"
        right = path.read_bytes()
        path.write_bytes(changed(parts[suffix], rng))
        try:
            run.saves.resume(str(prefix), run.batches)
        except ValueError as error:
            assert_one_line(error, f"cannot resume from {prefix}: ")
            refused += 1
        path.write_bytes(right)
    assert refused > many(10) // 3
    run.saves.resume(str(prefix), run.batches)


@pytest.mark.slow  # whole runs
def test_a_whole_set_is_resumed_from(run, parts, tmp_path):
    save_checkpoint(tmp_path / "set", parts)
    run.saves.resume(str(tmp_path / "set"), run.batches)
    assert (run.progress.epoch, run.progress.update) == (3, 4)


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize(
    "moment",
    ["best_model", *(pytest.param(m, marks=pytest.mark.chain) for m in ("epoch_1", "latest"))],
)
def test_each_evaluation_is_logged_once_after_a_kill(tmp_path, monkeypatch, moment):
    config = quick(tmp_path, "Global.eval_during_train=True", EMA={"decay": 0.5})
    save, saves = Saves.save, []

    def dying(of, name, *rest):
        saves.append(name)
        if name == moment and saves.count("latest") >= 1 + (moment == "latest"):
            raise Killed
        save(of, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Saves, "save", dying)
        with pytest.raises(Killed):
            train(config)
    assert [line["kind"] for line in read_figures(config.output_dir)][2:] == ["eval", "eval_ema"]
    more = "Global.eval_during_train=True", f"Global.checkpoints={config.output_dir / 'latest'}"
    assert train(load_config(config.path, more)) == 0
    lines = [(line["kind"], line["epoch"]) for line in read_figures(config.output_dir)]
    epoch = ["train", "train", "eval", "eval_ema"]
    assert lines == [(kind, number) for number in (1, 2) for kind in epoch]


def test_figures_of_a_part_that_is_done_again_are_dropped(tmp_path):
    """By their place in the run: `update` counts anew where the batches changed."""
    log = RunLog(tmp_path, Processes())
    for update, position in ((8, 0.5), (16, 1.0), (3, 1.5), (4, 2.0), (5, 2.5)):
        log.figures("train", update=update, position=position, epoch=math.ceil(position))
        if position == int(position):
            log.figures("eval", update=update, epoch=int(position))
    log.forget_after(epoch=2, position=1.5 + 0.25)
    log.close()
    kept = [(line["kind"], line["update"]) for line in read_figures(tmp_path)]
    assert kept == [("train", 8), ("train", 16), ("eval", 16), ("train", 3)]


def measured(monkeypatch, *values):
    """Evaluations that give these values of top1, one after the other."""
    left = list(values)

    def evaluate(task, **options):
        return {"top1": left.pop(0), "top5": 1.0, "loss": 1.0, "images": 10}

    monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)
    monkeypatch.setattr(ClassificationTask, "report", lambda task, directory: None)


@pytest.mark.slow  # whole runs
def test_a_tie_with_the_best_metric_keeps_the_earlier_weights(tmp_path, monkeypatch):
    measured(monkeypatch, 0.5, 0.5, 0.25)
    config = quick(tmp_path, "Global.eval_during_train=True", "Global.epochs=3")
    assert train(config) == 0
    parts = load_checkpoint(config.output_dir / "best_model")
    assert (parts[".pdstates"]["best"], parts[".pdstates"]["best_epoch"]) == (0.5, 1)
    after_one = load_checkpoint(config.output_dir / "epoch_1")
    for key, value in after_one[".pdparams"].items():
        np.testing.assert_array_equal(value, parts[".pdparams"][key])


@pytest.mark.slow  # whole runs
def test_raw_weights_win_a_tie_with_the_averaged_ones(tmp_path, monkeypatch):
    measured(monkeypatch, 0.5, 0.5)
    config = quick(tmp_path, "Global.eval_during_train=True", "Global.epochs=1", EMA={"decay": 0.5})
    assert train(config) == 0
    states = load_checkpoint(config.output_dir / "best_model")[".pdstates"]
    assert (states["best_weights"], states["weights"]) == ("raw", "raw")


@pytest.mark.chain
@pytest.mark.slow  # whole runs
def test_a_run_that_is_started_twice_sets_the_first_aside(tmp_path, monkeypatch):
    """The path that was given is the newest run's; the earlier ones stay whole, in folders of their
    own, and can be used from there.
    """
    given = "Global.eval_during_train=True", "Global.epochs=1"
    measured(monkeypatch, 0.75, 0.5, 0.25, 0.125)
    config = quick(tmp_path, *given)
    folder = config.output_dir
    assert train(config) == 0 and not list(folder.glob("earlier-*"))
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "notes.txt").write_text("mine")
    # one that begins with the earlier one's weights, which lie there
    again = [*given, f"Global.pretrained_model={folder / 'best_model'}"]
    assert train(quick(tmp_path, *again)) == 0
    earlier = folder / "earlier-1"
    kept = {path.name: path.read_bytes() for path in earlier.iterdir()}
    assert kept == {name: data for name, data in first.items() if name != "report.html"} | {
        "report.html": kept["report.html"]
    }
    assert load_checkpoint(folder / "best_model")[".pdstates"]["best"] == 0.5
    assert "had a run in it, which is now in" in (folder / "train.log").read_text()
    assert "weights from" in (folder / "train.log").read_text()
    assert [line["kind"] for line in read_figures(folder)] == ["train", "train", "eval"]
    # a run that goes on stays where it is; one that begins elsewhere's checkpoint does not mix
    on = [*given, "Global.epochs=2", f"Global.checkpoints={folder / 'latest'}"]
    assert train(quick(tmp_path, *on)) == 0
    assert len(list(folder.glob("earlier-*"))) == 1 and len(read_figures(folder)) == 6
    on = [*given, "Global.epochs=2", f"Global.checkpoints={earlier / 'latest'}"]
    assert train(quick(tmp_path, *on)) == 0
    assert load_checkpoint(folder / "latest")[".pdstates"]["best"] == 0.75
    assert (folder / "earlier-2" / "best_model.pdparams").is_file()
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.slow  # whole runs
def test_a_run_may_take_the_place_of_an_earlier_one(tmp_path, monkeypatch):
    measured(monkeypatch, 0.75, 0.5)
    config = quick(tmp_path, "Global.eval_during_train=True", "Global.epochs=1")
    assert train(config) == 0
    (config.output_dir / "epoch_7.pdparams").touch()
    assert train(config, overwrite=True) == 0
    assert not list(config.output_dir.glob("earlier-*"))
    assert not (config.output_dir / "epoch_7.pdparams").exists()
    assert len(read_figures(config.output_dir)) == 3


@pytest.mark.chain
@pytest.mark.slow  # whole runs
def test_a_better_best_model_stays_when_an_epoch_before_it_is_resumed(tmp_path, monkeypatch):
    given = "Global.eval_during_train=True", "Global.epochs=2"
    measured(monkeypatch, 0.5, 0.75, 0.625)
    config = quick(tmp_path, *given)
    assert train(config) == 0
    better = load_checkpoint(config.output_dir / "best_model")
    assert better[".pdstates"]["best"] == 0.75
    resumed = f"Global.checkpoints={config.output_dir / 'epoch_1'}"
    assert train(quick(tmp_path, *given, resumed)) == 0
    log = (config.output_dir / "train.log").read_text()
    assert "best_model is another run's and better (0.7500); it is kept as best_model-" in log
    (kept,) = config.output_dir.glob("best_model-*.pdparams")
    for name, best in ((kept.with_suffix(""), 0.75), (config.output_dir / "best_model", 0.625)):
        assert load_checkpoint(name)[".pdstates"]["best"] == best
    for key, value in load_checkpoint(kept.with_suffix(""))[".pdparams"].items():
        np.testing.assert_array_equal(value, better[".pdparams"][key])


@pytest.mark.slow  # whole runs
def test_a_best_model_that_is_not_ours_is_kept_too(tmp_path, monkeypatch):
    measured(monkeypatch, 0.5)
    config = quick(tmp_path, "Global.eval_during_train=True", "Global.epochs=1")
    config.output_dir.mkdir(parents=True)
    (config.output_dir / "best_model.pdparams").write_bytes(b"downloaded")
    assert train(config) == 0
    kept = config.output_dir / "earlier-1" / "best_model.pdparams"
    assert kept.read_bytes() == b"downloaded"


@pytest.mark.slow  # whole runs
def test_a_second_run_into_one_folder_is_refused_with_its_owner(tmp_path):
    config = quick(tmp_path, "Global.epochs=1", "Global.iter_per_epoch=1")
    program = (
        "import sys, time; from pathlib import Path;"
        "from ppcls_nextvit.engine.distributed import Processes;"
        "from ppcls_nextvit.engine.lock import own_folder\n"
        "with own_folder(Path(sys.argv[1]), Processes()): print('mine', flush=True); time.sleep(99)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(config.output_dir)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(
            ValueError, match=rf"another run writes there: process {owner.pid} on \S+, since 20"
        ):
            train(config)
        assert sorted(path.name for path in config.output_dir.iterdir()) == ["run.lock"]
    finally:
        owner.kill()
        owner.wait()
    # what a dead owner left is nobody's
    assert (config.output_dir / "run.lock").exists() and train(config) == 0
    assert not (config.output_dir / "run.lock").exists()


def test_another_seed_is_another_order_within_an_epoch_alone():
    then, now = Plan(1, 1, 10, 1), Plan(2, 1, 10, 1)
    between = Progress(epoch=3, batch=0, update=20)
    assert _continued("x", between, then, now) == between
    with pytest.raises(CheckpointError, match="in the middle of an epoch with seed 1 .now 2."):
        _continued("x", Progress(epoch=3, batch=4, update=24), then, now)


def test_a_set_is_read_as_it_was_saved(tmp_path):
    plan = Plan(seed=7, world_size=2, batches=4, update_freq=2, batch_images=8)
    at = Progress(epoch=3, batch=2, update=5, best=0.5, best_epoch=2, best_weights="raw")
    states = {**asdict(at), **asdict(plan), "schedule": {"last": 5}, "scaler": {"scale": 4.0}}
    parts = {".pdparams": {"w": 1.0}, ".pdopt": {"m": 2.0}, ".pdstates": states}
    prefix = str(tmp_path / "latest")
    save_checkpoint(prefix, parts)
    expected = Saved(at, 2.625, {"w": 1.0}, {"m": 2.0}, {"last": 5}, {"scale": 4.0}, None)
    assert read_saved(prefix, plan, with_ema=False) == expected
    with pytest.raises(CheckpointError, match="it has no EMA, the configuration has one"):
        read_saved(prefix, plan, with_ema=True)
    save_checkpoint(prefix, {**parts, ".pdema": {"w": 3.0}})
    assert read_saved(prefix, plan, with_ema=True) == replace(expected, ema={"w": 3.0})
    with pytest.raises(CheckpointError, match="it has an EMA, the configuration has none"):
        read_saved(prefix, plan, with_ema=False)
    # of runs before the images of a batch were saved
    del states["batch_images"]
    save_checkpoint(prefix, parts)
    assert read_saved(prefix, plan, with_ema=False) == expected
    for wrong in ([], {key: states[key] for key in states if key != "update"}):
        save_checkpoint(prefix, {**parts, ".pdstates": wrong})
        with pytest.raises(CheckpointError, match="was not written by this trainer"):
            read_saved(prefix, plan, with_ema=False)


@pytest.mark.parametrize(
    "then, now, done, expected",
    [
        # 2 of 5 batches of 8 images are 16 images, and 1 of 4 batches of 10 are 10
        (
            (5, 1, 8),
            (4, 1, 10),
            2,
            "2 of 5 batches, is taken for 1 of 4; the last 6 images come again",
        ),
        ((5, 1, 8), (10, 1, 4), 2, "2 of 5 batches, is taken for 4 of 10, after the same images"),
        (
            (5, 1, 8),
            (5, 2, 8),
            3,
            "3 of 5 batches, is taken for 2 of 5; the last 8 images come again",
        ),
        # epochs of other images
        ((4, 1, 8), (9, 1, 8), 2, "2 of 4 batches, is taken for 4 of 9"),
        # between epochs
        ((5, 1, 8), (4, 1, 10), 0, None),
        ((5, 1, 8), (4, 1, 10), 5, None),
    ],
)
def test_the_log_says_which_images_come_again(monkeypatch, then, now, done, expected):
    said = []
    logged = SimpleNamespace(warning=lambda form, *values: said.append(form % values))
    monkeypatch.setattr("ppcls_nextvit.engine.resume.logger", logged)
    _continued("x", Progress(epoch=3, batch=done), Plan(0, 1, *then), Plan(0, 1, *now))
    share = [f"the share of epoch 3 that is done, {expected}"] if expected else []
    assert said[0].startswith("resuming with ") and said[1:] == share


def test_states_that_a_run_can_have_said():
    whole = Progress(epoch=3, batch=0, update=MOST_STEPS - 1, best=0.5, best_epoch=2)
    assert Progress.from_states(asdict(whole)) == whole
    for name, value in (("update", MOST_STEPS), ("batch", -1), ("epoch", 1.0)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            Progress.from_states({**asdict(whole), name: value})
