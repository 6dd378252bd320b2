"""A run on several machines: the same images as on one, and what becomes of it when one dies."""

import importlib.util
import shutil
import signal
import sys
import time

import pytest
import yaml

from ppcls_nextvit.data.datasets.classification import ImageNetDataset
from ppcls_nextvit.data.shards import make_shards
from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.engine.peers import LOST
from support.machines import Machines, have_wires, wait_until
from support.tiny_run import write_config

WIRED = have_wires()
needs_wires = pytest.mark.skipif(not WIRED, reason="network namespaces need root and iproute2")
needs_etcd = pytest.mark.skipif(
    not (shutil.which("etcd") and importlib.util.find_spec("etcd3")),
    reason="no etcd; install etcd-server, and pip install etcd3==0.12.0 grpcio tenacity",
)

# Every image that a process loads, with the state of the generator that its augmentation draws
# from: a function of seed, epoch, image and occurrence.
RECORDER = """
import os, time
from ppcls_nextvit.data.datasets.classification import LabelledFiles

load = LabelledFiles.load

def recorded(self, index, rng):
    state = rng.bit_generator.state["state"]["state"]
    path = os.path.join(os.environ["RECORD"], os.environ.get("PADDLE_TRAINER_ID", "0"))
    with open(path, "a") as file:
        file.write(f"{len(self)} {self.name(index)} {state}\\n")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return load(self, index, rng)

LabelledFiles.load = recorded
"""
# linear in the gradients, without draws that depend on the rank: what is left is the order of sums
EXACT = {
    "Arch": {"use_sync_bn": True, "drop_path_rate": 0.0},
    "Optimizer": {
        "name": "Momentum",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip_global_norm": 5.0,
        "lr": {"learning_rate": 1e-4},
    },
}


def write(tmp_path, train, test, sections, shards=False, **given):
    """The YAML of a run of which every loaded image is recorded."""
    (tmp_path / "recorder.py").write_text(RECORDER)
    given = {"imports": ["recorder"], "lost_after_s": 6, **given}
    path = write_config(tmp_path, train, test, 4, Global=given, **sections)
    if shards:
        content = yaml.safe_load(path.read_text())
        for mode in ("Train", "Eval"):
            dataset = content["DataLoader"][mode]["dataset"]
            folder = tmp_path / f"shards_{mode}"
            root, names = dataset["image_root"], dataset.pop("cls_label_path")
            source = ImageNetDataset(10, image_root=root, cls_label_path=names)
            assert make_shards(source, range(len(source)), str(folder), 8192) > 1
            dataset.update(name="ImageShards", image_root=str(folder))
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def recorded(folder):
    """The lines of all processes, sorted."""
    return sorted(line for path in folder.iterdir() for line in path.read_text().splitlines())


class Job:
    """Runs of one YAML on machines, each recorded in a folder of its own."""

    def __init__(self, machines, path):
        self.machines, self.path = machines, path

    def begin(self, name, nnodes, *overrides, output="output", pause=0.0):
        """Launch; returns the launchers. As many images a step whatever `nnodes`."""
        record = self.path.parent / f"loaded_{name}"
        record.mkdir()
        return self.machines.launch(
            self.path,
            f"Global.output_dir={self.path.parent / output}",
            f"DataLoader.Train.sampler.batch_size={8 // nnodes}",
            *overrides,
            nnodes=nnodes,
            environment={"RECORD": str(record), "PAUSE": str(pause)},
        )

    def whole(self, name, nnodes, *overrides, output="output"):
        """To its end, with status 0."""
        for number, launcher in enumerate(self.begin(name, nnodes, *overrides, output=output)):
            assert launcher.wait(900) == 0, self.machines.said(number)[-3000:]
        return self.folder(output)

    def folder(self, output="output"):
        """Where the run writes."""
        return self.path.parent / output / "NextViT_small"

    def loaded(self, images, *names):
        """The lines of all processes of the runs, sorted, of the dataset of so many images."""
        files = [path for name in names for path in self.path.parent.glob(f"loaded_{name}/*")]
        lines = [line for path in files for line in path.read_text().splitlines()]
        return sorted(line for line in lines if line.startswith(f"{images} "))

    def reach(self, update, seconds=600):
        """Wait until the run has logged so many optimiser steps."""
        wait_until(lambda: self._updates() >= update, seconds)

    def _updates(self):
        lines = read_figures(self.folder()) if (self.folder() / "log.jsonl").exists() else []
        return max([line["update"] for line in lines], default=0)


def same_figures(where, other):
    """Those of two runs, as they are of two processes and one: see test_distributed.py."""
    for ours, theirs in zip(read_figures(where), read_figures(other), strict=True):
        assert ours["kind"] == theirs["kind"] and ours["update"] == theirs["update"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-4), ours
        assert ours["top1"] == theirs["top1"]


@pytest.mark.chain
@pytest.mark.parametrize(
    "shards", [pytest.param(False, marks=pytest.mark.long), True], ids=["files", "shards"]
)
def test_two_machines_see_what_one_sees(tmp_path, shards):
    """The same images with the same augmentations, each once an epoch; figures within the order of
    sums.
    """
    path = write(tmp_path, 32, 27, EXACT, shards, epochs=1)
    with Machines(tmp_path, WIRED) as machines:
        job = Job(machines, path)
        two = job.whole("two", 2, output="two")
        one = job.whole("one", 1, output="one")
    assert job.loaded(32, "two") == job.loaded(32, "one") and len(job.loaded(32, "one")) == 32
    evaluated = job.loaded(27, "two")
    # one process draws pictures of them, too
    assert evaluated == sorted(set(job.loaded(27, "one"))) and len(evaluated) == 27
    for rank in "01":
        assert (tmp_path / "loaded_two" / rank).read_text().count("\n") >= 16 + 13
    same_figures(two, one)


@pytest.mark.chain
def test_a_machine_dies_and_others_take_over(tmp_path):
    """Two machines, of which one is killed; one goes on, is told to stop; two end the run. It is as
    if one process had never stopped.
    """
    path = write(tmp_path, 32, 27, EXACT, epochs=3)
    latest = tmp_path / "output" / "NextViT_small" / "latest"
    resumed = f"Global.checkpoints={latest}"
    with Machines(tmp_path, WIRED) as machines:
        job = Job(machines, path)
        first, second = job.begin("a", 2, pause=0.1)
        job.reach(5)
        machines.kill(second)
        killed = time.time()
        assert first.wait(120) == LOST, machines.said(0)[-3000:]
        assert time.time() - killed < 60
        (told,) = [line for line in machines.said(0).splitlines() if "error:" in line][:1]
        assert f"process 1 (on {machines.hosts[1]}) was lost" in told and str(latest) in told
        states = load_checkpoint(latest)[".pdstates"]
        assert states["epoch"] == 2 and 5 <= states["update"] < 8

        (alone,) = job.begin("b", 1, resumed, pause=0.1)
        job.reach(9)
        alone.send_signal(signal.SIGTERM)
        alone.wait(120)
        states = load_checkpoint(latest)[".pdstates"]
        assert states["epoch"] == 3 and 9 <= states["update"] < 12
        where = job.whole("c", 2, resumed)
        never_stopped = job.whole("one", 1, output="one")
    same_figures(where, never_stopped)
    loaded, expected = job.loaded(32, "a", "b", "c"), job.loaded(32, "one")
    assert sorted(set(loaded)) == expected and len(expected) == 3 * 32
    # those of the step that was not finished come twice
    assert len(loaded) - len(expected) <= 8


LATE = """
import time
from ppcls_nextvit.engine.distributed import start_processes

processes = start_processes("cpu")
for wait_s in (0, 35):
    time.sleep(wait_s * processes.rank)
    processes.average_gradients([])
    assert processes.sum([processes.rank])[0] == 1
"""


@pytest.mark.long
def test_a_late_process_is_waited_for(tmp_path):
    """By itself gloo ends with an error after 30 s."""
    (tmp_path / "late.py").write_text(LATE)
    with Machines(tmp_path, False) as machines:
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node=2"]
        command += ["--log_dir", str(tmp_path / "log"), str(tmp_path / "late.py")]
        launcher = machines.start(0, command, "machine0.txt")
        assert launcher.wait(300) == 0, machines.said(0)[-3000:]


@needs_wires
@pytest.mark.long
def test_a_wire_is_cut(tmp_path):
    """Both machines end; the first has saved the last whole step, from which the run goes on to the
    same bits as one that was never cut, with everything that is drawn.
    """
    path = write(tmp_path, 48, 27, {"EMA": {"decay": 0.5}}, epochs=1)
    latest = tmp_path / "output" / "NextViT_small" / "latest"
    with Machines(tmp_path, True) as machines:
        job = Job(machines, path)
        launchers = job.begin("a", 2, pause=0.1)
        job.reach(2)
        machines.cut()
        cut = time.time()
        for number, launcher in enumerate(launchers):
            assert launcher.wait(120) == LOST, machines.said(number)[-3000:]
            said = machines.said(number)
            assert f"process {1 - number} (on {machines.hosts[1 - number]}) was lost" in said
        # gloo's own limit is 30 s
        assert time.time() - cut < 90
        states = load_checkpoint(latest)[".pdstates"]
        assert states["epoch"] == 1 and 2 <= states["update"] < 6
        machines.mend()
        job.whole("b", 2, f"Global.checkpoints={latest}")
        job.whole("c", 2, output="never")
    for suffix, content in load_checkpoint(latest).items():
        expected = load_checkpoint(job.folder("never") / "latest")[suffix]
        if suffix != ".pdstates":
            assert list(content) == list(expected)
            for key in content:
                assert (content[key] == expected[key]).all(), key


@needs_wires
@needs_etcd
@pytest.mark.long
def test_machines_come_and_go(tmp_path):
    """Paddle's elastic launch: a second machine joins a run of one and is lost again. No image is
    left out, and each is augmented as in a run that nothing disturbed.
    """
    path = write(tmp_path, 64, 27, EXACT, epochs=4)
    record = tmp_path / "loaded_elastic"
    record.mkdir()
    given = [f"Global.output_dir={tmp_path / 'output'}", "DataLoader.Train.sampler.batch_size=4"]
    environment = {"RECORD": str(record), "PAUSE": "0.3"}
    with Machines(tmp_path, True) as machines:
        job = Job(machines, path)
        machines.serve_etcd()
        first = machines.join(0, path, *given, environment=environment)
        job.reach(2)
        second = machines.join(1, path, *given, environment=environment)
        of_second = record / "1"
        wait_until(lambda: of_second.exists() and of_second.read_text().count("64 ") > 8, 180)
        machines.kill(second)
        assert first.wait(300) == 0, machines.said(0)[-3000:]
        never_disturbed = job.whole("one", 1, output="one")
    loaded, expected = job.loaded(64, "elastic"), job.loaded(64, "one")
    assert sorted(set(loaded)) == expected and len(expected) == 4 * 64
    # of two interruptions: a step that was not finished, and the way to the last whole new one
    assert len(loaded) - len(expected) <= 2 * (8 + 8)
    last = [read_figures(where)[-1] for where in (job.folder(), never_disturbed)]
    assert [line["epoch"] for line in last] == [4, 4]
