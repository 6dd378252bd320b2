"""kill -9 at moments drawn at random: what is on disk is whole, and whoever goes on from it ends
with the bits of a run that nobody disturbed.
"""

import time

import numpy as np
import pytest

from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.tasks import load_config
from support.faults import generators, many
from support.killed_run import started
from support.tiny_run import write_config

pytestmark = [pytest.mark.faults, pytest.mark.chain]

KILLS = 3  # of one run, at most


def config(folder):
    """Four epochs of three steps, evaluated and saved after each, raw and averaged weights."""
    return write_config(
        folder, train=24, test=10, Global={"epochs": 4, "save_interval": 1}, EMA={"decay": 0.5}
    )


def resumed(path):
    """A process that begins the run, or goes on from what there is."""
    latest = load_config(path).output_dir / "latest"
    there = any(latest.with_name(f"latest{end}").exists() for end in (".pdstates", ".journal"))
    return started(path, [f"Global.checkpoints={latest}"] if there else [])


def content(prefix):
    """{name: array} of all that a set holds, and its numbers."""
    parts = load_checkpoint(prefix)
    arrays = {
        f"{suffix} {key}": np.asarray(value)
        for suffix in (".pdparams", ".pdopt", ".pdema")
        for key, value in parts.get(suffix, {}).items()
    }
    return arrays, parts[".pdstates"]


def assert_same(prefix, other):
    (ours, states), (theirs, other_states) = content(prefix), content(other)
    assert states == other_states and set(ours) == set(theirs)
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(where a run that nobody disturbed ended, how many seconds it took)."""
    path = config(tmp_path_factory.mktemp("undisturbed"))
    started(path.with_name("warm.yaml")).join(300)  # the process that others are forked from
    begin = time.monotonic()
    process = started(path)
    process.join(600)
    assert process.exitcode == 0, (path.parent / "log").read_text()
    return load_config(path).output_dir, time.monotonic() - begin


def test_a_killed_run_ends_with_the_same_bits(undisturbed, tmp_path):
    where, seconds = undisturbed
    kills = early = 0
    for number, rng in enumerate(generators(many(1))):
        path = config(tmp_path / str(number))
        output = load_config(path).output_dir
        for _ in range(rng.integers(1, KILLS + 1)):
            process = resumed(path)
            process.join(rng.uniform(0, seconds))
            early += process.exitcode is not None
            process.kill()
            process.join()
            kills += 1
            for name in ("latest", "best_model"):
                if (output / f"{name}.pdstates").exists():
                    content(output / name)
        process = resumed(path)
        process.join(600)
        assert process.exitcode == 0, (path.parent / "log").read_text()
        for name in ("latest", "best_model"):
            assert_same(output / name, where / name)
    print(f"{kills} kills, {early} of which came after the end")
