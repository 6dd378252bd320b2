"""A checkpoint set is replaced as a whole or not at all."""

import contextlib
import os
import subprocess
import sys
import zlib

import numpy as np
import paddle
import pytest

from ppcls_nextvit.engine import checkpoint
from ppcls_nextvit.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ppcls_nextvit.weights import WeightFileError, read_file


def content(value):
    return {
        ".pdparams": {"w": np.full([3, 2], value, "float32")},
        ".pdopt": {"w.moment1": np.full([3, 2], value, "float32")},
        ".pdstates": {"epoch": value, "best": value / 3, "name": "raw", "scaler": {}},
    }


def value_of(prefix):
    """The value all three files agree on."""
    parts = load_checkpoint(prefix)
    values = {
        float(parts[".pdparams"]["w"][0, 0]),
        float(parts[".pdopt"]["w.moment1"][0, 0]),
        float(parts[".pdstates"]["epoch"]),
    }
    assert len(values) == 1, f"a mixture of two checkpoints: {values}"
    return values.pop()


def test_round_trip_keeps_every_bit(tmp_path):
    parts = content(1)
    parts[".pdparams"]["w"] = np.random.default_rng(0).standard_normal([5, 4]).astype("float32")
    save_checkpoint(tmp_path / "latest", parts)
    loaded = load_checkpoint(tmp_path / "latest.pdparams")
    np.testing.assert_array_equal(loaded[".pdparams"]["w"], parts[".pdparams"]["w"])
    assert loaded[".pdstates"] == parts[".pdstates"]


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test catches it."""


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_any_moment_leaves_one_whole_checkpoint(tmp_path, monkeypatch, moment):
    prefix, count = tmp_path / "latest", 0
    save_checkpoint(prefix, {**content(1), ".pdema": {"w": np.zeros(2, "float32")}})

    def dying(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count > moment:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", dying(checkpoint.os.replace))
        patch.setattr(checkpoint.os, "fsync", dying(checkpoint.os.fsync))
        patch.setattr(checkpoint.paddle, "save", dying(checkpoint.paddle.save))
        patch.setattr(checkpoint.Path, "unlink", dying(checkpoint.Path.unlink))
        try:
            save_checkpoint(prefix, content(2))
            finished = True
        except Killed:
            finished = False
    value = value_of(prefix)
    assert value in (1.0, 2.0) and (value == 2.0 or not finished)
    assert finished == (moment >= 13), (
        "the number of steps changed: widen the range so that every step is tried"
    )
    save_checkpoint(prefix, content(3))
    assert value_of(prefix) == 3.0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest.pdopt",
        "latest.pdparams",
        "latest.pdstates",
    ]


def test_an_interrupted_save_ends_also_where_one_of_its_files_is_named(tmp_path, monkeypatch):
    """The trainer's first process does this before the others read; what it left undone, they would
    all do at once.
    """
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "recover", lambda prefix: None)
        save_checkpoint(tmp_path / "latest", content(1))  # up to the journal
    checkpoint.recover(tmp_path / "latest.pdparams")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest.pdopt",
        "latest.pdparams",
        "latest.pdstates",
    ]


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    program = """
import resource, signal, sys, numpy as np
from ppcls_nextvit.engine.checkpoint import CheckpointError, save_checkpoint
prefix = sys.argv[1]
small, large = np.zeros(10, 'float32'), np.zeros(100_000, 'float32')
save_checkpoint(prefix, {'.pdparams': {'w': small}, '.pdopt': {}, '.pdstates': {'epoch': 1}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(prefix, {'.pdparams': {'w': large}, '.pdopt': {}, '.pdstates': {'epoch': 2}})
except CheckpointError as error:
    print('REFUSED', error)
"""
    prefix = tmp_path / "latest"
    done = subprocess.run(
        [sys.executable, "-c", program, str(prefix)], capture_output=True, text=True, check=True
    )
    assert "REFUSED" in done.stdout and "the previous one is intact" in done.stdout
    assert load_checkpoint(prefix)[".pdstates"]["epoch"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest.pdopt",
        "latest.pdparams",
        "latest.pdstates",
    ]


def test_no_write_permission_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be saved.*previous one is intact"):
        save_checkpoint(tmp_path / "file" / "latest", content(1))


def test_missing_and_damaged_sets_are_named(tmp_path):
    prefix = tmp_path / "latest"
    with pytest.raises(
        CheckpointError,
        match=r"no .*latest\.pdparams and no .*latest\.pdopt and no "
        r".*latest\.pdstates.*pretrained_model",
    ):
        load_checkpoint(prefix)
    save_checkpoint(prefix, content(1))
    whole = (tmp_path / "latest.pdopt").read_bytes()
    (tmp_path / "latest.pdopt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="latest.pdopt"):
        load_checkpoint(prefix)


def interrupted(tmp_path, monkeypatch):
    """A set whose save was killed after the journal, over an older one; the files there."""
    save_checkpoint(tmp_path / "latest", content(1))
    with monkeypatch.context() as patch:
        renames = []

        def dying(source, target):
            renames.append(target)
            if len(renames) > 2:
                raise Killed
            return os.rename(source, target)

        patch.setattr(checkpoint.os, "replace", dying)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path / "latest", content(2))
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b"null",
        b"7",
        b'[".pdparams"]',
        b'[".pdopt", ".pdparams", ".pdstates", "/etc/passwd"]',
        b'[[".pdopt"], ".pdparams", ".pdstates"]',
        b'[".pdema", ".pdopt", ".pdparams", ".pdstates"]',  # there is no .pdema
        b"\xff\xfe[]",
        b"[" * 100_000,
        b" " * 10_000,
        None,  # a folder
    ],
)
def test_a_damaged_journal_names_itself_and_changes_nothing(tmp_path, monkeypatch, journal):
    before = interrupted(tmp_path, monkeypatch)
    path = tmp_path / "latest.journal"
    assert path.name in before
    path.unlink()
    if journal is None:
        path.mkdir()
    else:
        path.write_bytes(journal)
    del before[path.name]
    for action in (
        lambda: load_checkpoint(tmp_path / "latest"),
        lambda: save_checkpoint(tmp_path / "latest", content(3)),
        lambda: checkpoint.recover(tmp_path / "latest"),
    ):
        with pytest.raises(CheckpointError, match="latest.journal: the journal of an") as caught:
            action()
        assert "nothing was changed" in str(caught.value) and "\n" not in str(caught.value)
        there = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p != path}
        assert there == before
    # and without it the set is what it was, or what it was to become
    path.rmdir() if journal is None else path.unlink()
    with pytest.raises(AssertionError, match="mixture"):
        value_of(tmp_path / "latest")


@pytest.mark.slow
def test_of_two_that_save_one_set_at_once_each_saves_a_whole_one(tmp_path):
    """Forked processes, as many as a launcher or a second run may start."""
    prefix = tmp_path / "latest"
    for _ in range(20):
        children = []
        for value in (1, 2, 3):
            child = os.fork()
            if child == 0:
                status = 1
                with contextlib.suppress(Exception):
                    save_checkpoint(prefix, content(value))
                    status = 0
                os._exit(status)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert value_of(prefix) in (1.0, 2.0, 3.0)
        assert len(list(tmp_path.iterdir())) == 3


def test_a_set_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    prefix = tmp_path / "latest"
    save_checkpoint(prefix, content(1))
    read, reads = checkpoint.read_file, []

    def replacing(path):
        reads.append(path)
        if len(reads) == 2:  # in the middle of a set
            save_checkpoint(prefix, content(2))
        return read(path)

    monkeypatch.setattr(checkpoint, "read_file", replacing)
    assert value_of(prefix) == 2.0
    monkeypatch.setattr(
        checkpoint, "read_file", lambda path: save_checkpoint(prefix, content(3)) or read(path)
    )
    with pytest.raises(CheckpointError, match="replaced again and again"):
        load_checkpoint(prefix)


def test_a_set_that_is_half_another_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    """Files of two sets do not go together, which is an error only if the set stays so."""
    prefix = tmp_path / "latest"
    save_checkpoint(prefix, content(1))
    read = checkpoint._read

    def torn(prefix):
        monkeypatch.setattr(checkpoint, "_read", read)
        save_checkpoint(prefix, content(2))
        raise CheckpointError("files of two sets")

    monkeypatch.setattr(checkpoint, "_read", torn)
    assert value_of(prefix) == 2

    def wrong(prefix):
        raise CheckpointError("files of two sets")

    monkeypatch.setattr(checkpoint, "_read", wrong)
    with pytest.raises(CheckpointError, match="files of two sets"):
        load_checkpoint(prefix)


@pytest.mark.parametrize("links", [True, False])
def test_a_set_that_is_kept_stays_when_it_is_replaced(tmp_path, monkeypatch, links):
    """Also one of the same second as another."""
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", no_links)
    prefix, kept = tmp_path / "best_model", []
    for value in (1, 2, 3):
        save_checkpoint(prefix, content(value))
        os.utime(tmp_path / "best_model.pdparams", (0, 0))
        kept.append(checkpoint.set_aside(prefix))
    save_checkpoint(prefix, content(4))
    assert [value_of(one) for one in (*kept, prefix)] == [1.0, 2.0, 3.0, 4.0]
    ends = [one.name.removeprefix(kept[0].name) for one in kept]
    assert kept[0].name.startswith("best_model-19") and ends == ["", "-2", "-3"]


def no_links(source, target):
    raise OSError("a file system without links")


@pytest.mark.parametrize("suffix", [".pdparams", ".pdopt", ".pdstates"])
def test_a_flipped_bit_anywhere_in_a_file_is_noticed(tmp_path, suffix):
    save_checkpoint(tmp_path / "latest", content(1))
    path = tmp_path / f"latest{suffix}"
    right = path.read_bytes()
    for place in range(0, 8 * len(right), 7):  # every byte, each of its bits in turn
        wrong = bytearray(right)
        wrong[place // 8] ^= 1 << place % 8
        path.write_bytes(wrong)
        try:
            parts = load_checkpoint(tmp_path / "latest")
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            pytest.fail(f"bit {place} of {len(right)} bytes: read as {parts[suffix]}")


def test_the_checksum_is_the_end_of_each_file_and_other_readers_pass_over_it(tmp_path):
    save_checkpoint(tmp_path / "latest", content(1))
    for suffix in content(1):
        pickled, _, number = (
            (tmp_path / f"latest{suffix}")
            .read_bytes()
            .rpartition(b"\n# crc32 of all bytes before this line: ")
        )
        assert int(number, 16) == zlib.crc32(pickled)
    np.testing.assert_array_equal(
        paddle.load(str(tmp_path / "latest.pdparams"))["w"], content(1)[".pdparams"]["w"]
    )


def test_files_without_a_checksum_are_read(tmp_path):
    """Those of other programs, and of versions that wrote none."""
    for suffix, part in content(2).items():
        paddle.save(part, str(tmp_path / f"latest{suffix}"))
    assert value_of(tmp_path / "latest") == 2


def test_weights_alone_are_compared_with_their_checksum_too(tmp_path):
    save_checkpoint(tmp_path / "best_model", content(1))
    path = tmp_path / "best_model.pdparams"
    data = path.read_bytes()
    number = np.float32(1).tobytes()
    assert data.count(number) >= 6
    path.write_bytes(data.replace(number, np.float32(1.5).tobytes(), 1))
    with pytest.raises(WeightFileError, match="best_model.pdparams: damaged: its checksum"):
        read_file(path)
