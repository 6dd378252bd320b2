"""What a run needs is checked before its first step, a run that is done ends with status 0 whatever
becomes of its pictures, and one that is told to stop leaves within seconds.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppcls_nextvit.engine import curves, disk, pictures
from ppcls_nextvit.engine import train as loop
from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.engine.progress import StopCheck, Stopped, StopSignal
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config, train
from ppcls_nextvit.tasks.classification.task import ClassificationTask, _telling
from ppcls_nextvit.tasks.common import PHOTOS
from support.paths import ROOT
from support.programs import program_at
from support.tiny_run import DATA, write_config

pytestmark = pytest.mark.slow  # whole runs
LIST = "ppcls/utils/imagenet1k_label_list.txt"


def quick(directory, *overrides, **sections):
    """One epoch of one step."""
    path = write_config(directory, train=16, test=10, **sections)
    return load_config(path, ["Global.epochs=1", "Global.iter_per_epoch=1", *overrides])


def said(config):
    return (config.output_dir / "train.log").read_text()


# Before the first step.


@pytest.fixture
def no_steps(monkeypatch):
    """A test in which no step may be taken."""
    monkeypatch.setattr(
        ClassificationTask, "losses", lambda *_: pytest.fail("a step was taken", pytrace=False)
    )


@pytest.mark.parametrize("evaluates", [True, False])
def test_class_names_that_do_not_fit_show_before_the_first_step(tmp_path, no_steps, evaluates):
    given = f"Global.eval_during_train={evaluates}"
    (tmp_path / "three.txt").write_text("0 a\n1 b\n2 c\n")
    for path, message in (
        (tmp_path / "three.txt", "has 3 classes, the model 10; give the names of the model's"),
        (tmp_path / "none.txt", "none.txt: no such file"),
        (LIST, "has 1000 classes, the model 10"),
    ):
        with pytest.raises((ConfigError, FileNotFoundError), match=message):
            train(quick(tmp_path, given, f"Infer.PostProcess.class_id_map_file={path}"))


def test_a_folder_that_cannot_be_written_shows_before_the_first_step(tmp_path, no_steps):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        train(quick(tmp_path, f"Global.output_dir={tmp_path / 'file'}"))


def test_a_damaged_journal_shows_before_the_first_step(tmp_path, no_steps):
    config = quick(tmp_path)
    config.output_dir.mkdir(parents=True)
    (config.output_dir / "best_model.journal").touch()
    with pytest.raises(ValueError, match="best_model.journal: the journal of an interrupted save"):
        train(config)


@pytest.mark.parametrize("module", ["matplotlib", "tqdm"])
def test_a_missing_extra_shows_before_the_first_step(tmp_path, no_steps, monkeypatch, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=r"needs \w+: pip install 'ppcls_nextvit\[train\]'"):
        train(quick(tmp_path))


def test_a_full_disk_shows_before_the_first_step(tmp_path, no_steps, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: real._replace(free=10_000_000))
    with pytest.raises(ValueError, match="10 MB free, and latest, best_model need about 518 MB"):
        train(quick(tmp_path))


def test_what_the_checkpoints_need_is_what_they_take(tmp_path, monkeypatch, caplog):
    """For each optimiser, with averages and without; and a disk that has room for few of many."""
    from ppcls_nextvit.models import create_model

    for name, ema in (("AdamW", True), ("Momentum", False), ("SGD", False)):
        config = quick(
            tmp_path / name,
            "Global.eval_during_train=False",
            Optimizer={"name": name, "lr": {"learning_rate": 1e-3}},
            **({"EMA": {"decay": 0.9}} if ema else {}),
        )
        assert train(config) == 0
        model = create_model("NextViT_small", num_classes=10, depths=(1, 1, 5, 1))
        optimizer = loop.build_optimizer(config.Optimizer, model)
        sets = list(config.output_dir.glob("latest.pd*"))
        taken = sum(path.stat().st_size for path in sets)
        assert disk.set_bytes(model, optimizer, ema) == pytest.approx(taken, rel=0.02)
    free = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(disk.logger, "propagate", True)
    disk.check_disk(tmp_path, 1000, ["latest", "best_model"], 2)
    assert not caplog.records
    disk.check_disk(tmp_path, 1000, ["latest", "best_model"], 3)
    assert "the run's 5 checkpoints need about 0 MB" in caplog.text
    with pytest.raises(ValueError, match="latest, best_model need about"):
        disk.check_disk(tmp_path, 1667, ["latest", "best_model"], 0)
    (tmp_path / "latest.pdopt").write_bytes(bytes(1667))  # which the next one replaces
    disk.check_disk(tmp_path, 1667, ["latest", "best_model"], 0)


# PaddleClas's own configurations name their list of ImageNet's classes.


def test_imagenets_names_come_with_the_package():
    from ppcls_nextvit.data.lists import read_class_names

    for path in (LIST, f"./{LIST}", f"../{LIST}", f"/x/PaddleClas/{LIST}", LIST.replace("/", "\\")):
        names = read_class_names(path, 1000)
        assert names[0] == "tench, Tinca tinca" and names[999].startswith("toilet tissue")
    # those of the photos that exports are compared on, whose names end in them
    for label, name in ((22, "bald eagle"), (243, "bull mastiff"), (541, "drum"), (559, "folding")):
        assert names[label].startswith(name)
    with pytest.raises(FileNotFoundError, match="ppcls/utils/labels.txt: no such file"):
        read_class_names("ppcls/utils/labels.txt")


def test_a_list_of_that_name_that_is_there_is_the_one_that_is_read(tmp_path, monkeypatch):
    from ppcls_nextvit.data.lists import read_class_names

    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppcls" / "utils").mkdir(parents=True)
    (tmp_path / LIST).write_text("0 mine\n")
    assert read_class_names(LIST) == ["mine"]


@pytest.mark.chain
def test_a_run_that_names_paddleclas_list_trains_predicts_and_exports(tmp_path, monkeypatch):
    """To status 0, from anywhere, with the pictures."""
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path, train=16, test=10, Arch={"class_num": 1000})
    given = ["-c", str(path), "-o", f"Infer.PostProcess.class_id_map_file={LIST}"]
    for override in ("epochs=1", "iter_per_epoch=1", "print_batch_step=10"):
        given += ["-o", f"Global.{override}"]
    assert program_at("tools/train.py").main(given) == 0
    where = tmp_path / "output" / "NextViT_small"
    assert (where / "predictions.png").is_file() and (where / "curves.png").is_file()
    given += ["-o", f"Global.pretrained_model={where / 'best_model'}"]
    predict = ["-o", f"Infer.infer_imgs={PHOTOS}", "--json", "out.json"]
    assert program_at("tools/infer.py").main([*given, *predict]) == 0
    from ppcls_nextvit.data.lists import read_class_names

    names = read_class_names(LIST)
    for result in json.loads(Path("out.json").read_text()):
        assert result["label_names"] == [names[i] for i in result["class_ids"]]
    save = ["-o", f"Global.save_inference_dir={tmp_path / 'exported'}"]
    assert program_at("tools/export_model.py").main([*given, *save]) == 0
    description = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert description["PostProcess"]["Topk"]["label_list"] == names


# A run that is done.


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a name"),
        OSError(28, "No space left on device"),
        ImportError("no font"),
        MemoryError(),
        KeyError("top1"),
        ZeroDivisionError("division by zero"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch, error):
    def failing(*arguments):
        raise error

    monkeypatch.setattr(pictures, "draw_curves", failing)
    monkeypatch.setattr(ClassificationTask, "report", failing)
    config = quick(tmp_path)
    assert train(config) == 0
    text = said(config)
    assert "curves.png: could not be drawn: " in text
    assert "pictures of the evaluation: could not be drawn: " in text and "done in" in text
    # of a mistake of ours the place is told
    expected = isinstance(error, (ValueError, OSError, ImportError))
    assert ("Traceback" in text) == (not expected)
    assert load_checkpoint(config.output_dir / "latest")[".pdstates"]["epoch"] == 2


def test_one_picture_that_fails_costs_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "read_figures", lambda directory: [{"kind": "train"}])
    config = quick(tmp_path)
    assert train(config) == 0
    assert not (config.output_dir / "curves.png").exists()
    assert (config.output_dir / "predictions.png").exists()


def test_a_label_list_that_is_gone_at_the_end_is_a_warning(tmp_path, monkeypatch):
    path = shutil.copy(DATA / "labels.txt", tmp_path / "labels.txt")
    report = ClassificationTask.report

    def gone(task, directory):
        os.unlink(path)
        report(task, directory)

    monkeypatch.setattr(ClassificationTask, "report", gone)
    config = quick(tmp_path, f"Infer.PostProcess.class_id_map_file={path}")
    assert train(config) == 0
    assert "could not be drawn: class_id_map_file" in said(config)


# A run that is told to stop.


def killed(*arguments, number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0.1)
    pytest.fail("the signal was not heard")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_an_evaluation_leaves_it_at_once(tmp_path, monkeypatch, number):
    path = write_config(tmp_path, train=16, test=10, EMA={"decay": 0.5})
    config = load_config(path, ["Global.iter_per_epoch=1"])
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "evaluate", lambda task: killed(number=number))
        assert train(config) == 128 + number
    assert [line["kind"] for line in read_figures(config.output_dir)] == ["train"]
    given = f"Global.checkpoints={config.output_dir / 'latest'}"
    assert train(load_config(path, ["Global.iter_per_epoch=1", given])) == 0
    kinds = [line["kind"] for line in read_figures(config.output_dir)]
    assert kinds == ["train", "eval", "eval_ema"] * 2


def test_a_signal_among_the_last_pictures_leaves_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ClassificationTask, "report", killed)
    config = quick(tmp_path)
    assert train(config) == 0
    assert "pictures of the evaluation: not drawn, because of signal 15" in said(config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_at_once(number, capfd):
    stop = StopSignal()
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        assert "stopping: the run is saved after the current step" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGTERM)  # a launcher's, which comes again and again
        time.sleep(0.05)
        assert capfd.readouterr().err == "" and stop.number == number
    finally:
        stop.restore()


@pytest.mark.parametrize(
    "topk, class_num, expected",
    [([1, 5], 3, [1]), ([1, 5], 5, [1]), ([1, 5], 6, [1, 5]), ([5], 3, [5]), ([2, 3], 4, [2, 3])],
)
def test_figures_of_which_every_image_is_right_are_not_told(topk, class_num, expected):
    given = [{"TopkAcc": {"topk": topk}}]
    assert _telling(given, class_num) == [{"TopkAcc": {"topk": expected}}]
    assert _telling([{"TopkAcc": None}, {"X": None}], 3) == [
        {"TopkAcc": {"topk": [1]}},
        {"X": None},
    ]


FREED_STACK = """
import ctypes, mmap, os, signal, sys
from ppcls_nextvit.engine.progress import StopSignal, _SignalStack

libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
size, private = 1 << 16, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
place = libc.mmap(None, ctypes.c_size_t(size), 0, private, -1, ctypes.c_long(0))
stack = _SignalStack(place, 0, size)  # which nobody may write to
assert libc.sigaltstack(ctypes.byref(stack), None) == 0
if sys.argv[1] == "run":
    stop = StopSignal()
else:
    signal.signal(signal.SIGTERM, lambda *_: None)
os.kill(os.getpid(), signal.SIGTERM)
print("heard", stop.number)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's signal stacks")
@pytest.mark.parametrize("who, status", [("run", 0), ("python", -signal.SIGSEGV)])
def test_a_signal_is_heard_where_a_library_freed_the_signal_stack(who, status):
    """As OpenVINO's cores leave it, see StopSignal; Python alone dies of it."""
    command = [sys.executable, "-c", FREED_STACK, who]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("heard 15" in done.stdout) == (who == "run")


def test_one_signal_leaves_once():
    stop = StopSignal()
    try:
        with stop.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # noted, and nothing else
        with pytest.raises(Stopped):
            with stop.at_once():
                pytest.fail("it came before")
    finally:
        stop.restore()
    stop, tidied = StopSignal(), []
    try:
        with pytest.raises(Stopped):
            with stop.at_once():
                try:
                    killed()
                finally:  # what tidies up is not disturbed by a launcher that repeats its signal
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(0.1)
                    tidied.append(True)
        assert tidied
    finally:
        stop.restore()


class Two(Processes):
    """Two processes in one: what the other says is given."""

    many, world_size = True, 2

    def __init__(self, step_s):
        self.step_s, self.asked, self.others = step_s, [], 0.0

    def sum(self, values):
        self.asked.append(self.step)
        flag, seconds = values
        return np.array([flag + self.others, 2 * seconds])


@pytest.mark.parametrize(
    "step_s, every, first", [(0.01, 100, [2, 4]), (0.1, 10, [2, 4]), (0.6, 1, [1]), (3.0, 1, [1])]
)
def test_processes_ask_each_other_about_every_second(monkeypatch, step_s, every, first):
    clock = [0.0]
    monkeypatch.setattr("ppcls_nextvit.engine.progress.time.monotonic", lambda: clock[0])
    processes = object.__new__(Two)
    Two.__init__(processes, step_s)
    must_stop = [False]
    check = StopCheck(processes, lambda: must_stop[0])
    for processes.step in range(1000):
        clock[0] += step_s
        assert not check()
    steps = np.diff(processes.asked)
    assert every * 0.8 <= steps[-1] <= every
    assert processes.asked[0] == 0 and steps[: len(first)].tolist() == first
    # of one who must stop, or another, both hear within two seconds
    for own, others in ((True, 0.0), (False, 1.0)):
        must_stop[0], processes.others = own, others
        told = clock[0]
        while not check():
            processes.step += 1
            clock[0] += step_s
            assert clock[0] - told <= 2 + step_s
    # also of a run that grows slow
    must_stop[0], processes.others = False, 0.0
    for _ in range(2 * every):
        clock[0] += 1.0
        check()
    processes.others = 1.0
    assert any(check() for _ in range(4))


@pytest.mark.parametrize("name", ["ppcls_nextvit", "ppcls_nextvit.data.agreement"])
def test_messages_outside_of_a_run_have_its_form(name):
    """Paddle gives the root logger a handler with a form of its own."""
    code = (
        "from ppcls_nextvit.engine.distributed import start_processes; start_processes('cpu');"
        f"import logging, ppcls_nextvit.data; logging.getLogger({name!r}).warning('said')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d said\n", done.stderr), done.stderr
