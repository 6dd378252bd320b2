"""VisualDL, TensorBoard and Weights & Biases: what a run noted there, read from their own files."""

import json
import struct
import sys
import time

import pytest

from ppcls_nextvit.engine import train as loop
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import RunLog
from ppcls_nextvit.engine.run_folder import set_run_aside
from ppcls_nextvit.tasks import load_config
from support.tiny_run import write_config

NAMES = ("visualdl", "tensorboard", "wandb")


def read_visualdl(folder):
    reader = pytest.importorskip("visualdl").LogReader(file_path=str(*folder.glob("vdlrecords.*")))
    for tag in reader.get_tags()["scalar"]:
        for row in reader.get_data("scalar", tag):
            yield tag, row.id, row.value


def read_tensorboard(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder)).Reload()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            yield tag, event.step, event.value


def read_wandb(folder):
    """Of an offline run's file: seven bytes, then LevelDB's log format, a protobuf a record. A
    process of wandb's writes it, and may still do so when the run is finished.
    """
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    file, end = next(folder.glob("offline-run-*/run-*.wandb")), time.monotonic() + 60
    while b"train/loss" not in file.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    data = file.read_bytes()
    place, record = 7, b""
    while place + 7 <= len(data):
        if -place % 32768 in range(1, 7):  # no room for a head: the rest of the block is empty
            place += -place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            message = messages.Record.FromString(record)
            record = b""
            for item in message.history.item:
                name = "/".join(item.nested_key) or item.key
                if not name.startswith("_"):
                    yield name, message.history.step.num, json.loads(item.value_json)


READERS = {"visualdl": read_visualdl, "tensorboard": read_tensorboard, "wandb": read_wandb}


@pytest.mark.parametrize(
    "name", ["visualdl", "tensorboard", pytest.param("wandb", marks=pytest.mark.slow)]
)
def test_figures_are_in_the_tracker_s_own_files(tmp_path, monkeypatch, capfd, name):
    pytest.importorskip(name, reason=f"needs the extra `{name}`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = RunLog(tmp_path, Processes(), trackers=[name])
    assert not (tmp_path / name).exists()  # before figures there is nothing to keep apart
    log.figures("train", update=3, epoch=1, loss=1.5, note="not a number")
    log.figures("train", update=6, epoch=2, loss=0.25, note="")
    log.figures("eval", update=6, epoch=2, top1=0.5)
    log.close()
    assert sorted(READERS[name](tmp_path / name)) == [
        ("eval/epoch", 6, 2.0),
        ("eval/top1", 6, 0.5),
        ("train/epoch", 3, 1.0),
        ("train/epoch", 6, 2.0),
        ("train/loss", 3, 1.5),
        ("train/loss", 6, 0.25),
    ]
    assert (tmp_path / set_run_aside(tmp_path) / name).is_dir() and not (tmp_path / name).exists()
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_other_processes_note_nothing(tmp_path):
    log = RunLog(tmp_path, Processes(rank=1, world_size=2), trackers=["tensorboard"])
    log.figures("train", update=1, loss=1.0)
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_told_before_the_run(tmp_path, monkeypatch, name):
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        RunLog(tmp_path, Processes(), trackers=[name])
    assert f"Global.use_{name} needs " in str(caught.value)
    assert f"pip install 'ppcls_nextvit[{name}]'" in str(caught.value)


def test_keys_of_global_choose_the_trackers(tmp_path, monkeypatch):
    chosen = []

    def stop(directory, processes, log_ranks, trackers):
        chosen.append(trackers)
        raise InterruptedError

    monkeypatch.setattr(loop, "RunLog", stop)
    for keys in ({}, {"use_visualdl": True}, {"use_tensorboard": True, "use_wandb": True}):
        config = load_config(write_config(tmp_path, Global=keys))
        with pytest.raises(InterruptedError):
            loop.train(config, None)
    assert chosen == [[], ["visualdl"], ["tensorboard", "wandb"]]
