"""Long lists that processes share: what the plain reader reads, whatever lies in the folder."""

import errno
import json
import multiprocessing
import os

import numpy as np
import pytest

from ppcls_nextvit.data import build_loader, list_cache
from ppcls_nextvit.data.list_cache import COLUMNS, KEPT, read_shared_list
from ppcls_nextvit.data.lists import read_label_list
from ppcls_nextvit.schema import ConfigError
from support.faults import COUNT, generators
from support.paths import ROOT
from test_packed import ARGUMENTS, PIECES, WHOLE, outcome

LINES = "".join(f"train/{i % 7}/ü {i}.jpg {i % 10}\n" for i in range(500))


@pytest.fixture(autouse=True)
def short_lists(monkeypatch):
    """Lists of any length are shared, and read some bytes at a time."""
    monkeypatch.setattr(list_cache, "LEAST_BYTES", 1)
    monkeypatch.setattr("ppcls_nextvit.data.packed.BLOCK_BYTES", 300)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "list.txt").write_text(LINES, encoding="utf-8")
    return tmp_path / "list.txt"


def made(tmp_path):
    return sorted(p for p in (tmp_path / "cache" / "lists").iterdir() if p.is_dir())


def read(path, *arguments):
    return read_shared_list(path, str(path.parent / "cache"), *arguments)


def mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def test_names_and_labels_are_mapped(path, tmp_path, monkeypatch):
    for _ in range(2):
        names, labels = read(path, 10)
        assert (list(names), labels.tolist()) == read_label_list(path, 10)
        assert labels.dtype == np.int32
        assert all(map(mapped, (names.text, names.starts, names.lengths, labels)))
        monkeypatch.setattr(list_cache, "_make", None)  # once is enough
    assert len(made(tmp_path)) == 1
    size = sum(file.stat().st_size for file in made(tmp_path)[0].iterdir())
    assert size <= len(LINES.encode()) + 16 * 500 + 500


@pytest.mark.faults
def test_it_reads_what_the_plain_reader_reads(tmp_path):
    path = tmp_path / "list.txt"
    for rng in generators(3 * COUNT):
        pieces = WHOLE if rng.integers(3) else WHOLE + PIECES
        text = "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(12)))
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        for arguments in ARGUMENTS:
            expected = outcome(read_label_list, path, *arguments)
            assert outcome(read, path, *arguments) == expected, repr(text)


def test_another_list_of_the_same_size_and_time(path, tmp_path):
    before = path.stat()
    assert read(path, 10)[0][0] == "train/0/ü 0.jpg"
    path.write_text(LINES.replace("ü 0.jpg", "ü X.jpg", 1), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert read(path, 10)[0][0] == "train/0/ü X.jpg"
    assert len(made(tmp_path)) == 2
    # delimiters are another list, class numbers are not
    with pytest.raises(ConfigError, match="list.txt:10: label 9 is out of range; expected 0 to 8"):
        read(path, 9)
    assert len(made(tmp_path)) == 2


def damaged(place, kind):
    """Damage the files of a list in one way."""
    index = json.loads((place / "index.json").read_text())
    if kind in COLUMNS:
        content = bytearray((place / kind).read_bytes())
        content[len(content) // 2] ^= 1
        (place / kind).write_bytes(content)
    elif kind == "cut":
        os.truncate(place / "text", 100)
    elif kind == "gone":
        (place / "labels").unlink()
    elif kind == "no json":
        (place / "index.json").write_text("[1")
    else:
        index[kind] = {"list": "0" * 64, "images": 400, "checksums": {}, "bytes": -1}[kind]
        (place / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "kind", [*COLUMNS, "cut", "gone", "no json", "list", "images", "bytes", "checksums"]
)
def test_damage_is_made_anew(path, tmp_path, caplog, kind):
    expected = list(read(path, 10)[0])
    (place,) = made(tmp_path)
    damaged(place, kind)
    names, labels = read(path, 10)
    assert list(names) == expected and "damaged, and made anew" in caplog.text
    assert mapped(names.text) and labels.tolist() == [i % 10 for i in range(500)]
    caplog.clear()
    assert read(path, 10)[0] == expected and not caplog.text


def test_the_files_of_another_list(path, tmp_path, caplog):
    read(path, 10)
    (first,) = made(tmp_path)
    path.write_text(LINES[: len(LINES) // 2].rpartition("\n")[0], encoding="utf-8")
    expected = list(read(path, 10)[0])
    (second,) = set(made(tmp_path)) - {first}
    for name in [*COLUMNS, "index.json"]:
        (second / name).write_bytes((first / name).read_bytes())
    assert list(read(path, 10)[0]) == expected and "it is of another list" in caplog.text


def test_where_it_cannot_be_written(path, tmp_path, caplog, monkeypatch):
    expected = read_label_list(path, 10)[0]
    (tmp_path / "cache").write_text("a file")
    assert read(path, 10)[0] == expected
    assert "this process holds it by itself" in caplog.text
    (tmp_path / "cache").unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(list_cache, "_write", full)
    assert read(path, 10)[0] == expected
    assert "No space left on device" in caplog.text and not made(tmp_path)


def test_a_list_that_changes_while_it_is_read(path, tmp_path, monkeypatch):
    write = list_cache._write

    def changed(*given):
        path.write_text("a.jpg 1\n" * 3)
        return write(*given)

    monkeypatch.setattr(list_cache, "_write", changed)
    names, _ = read(path, 10)
    assert len(names) in (3, 500) and not made(tmp_path)


def test_so_many_are_kept(path, tmp_path):
    read(path, 10)
    (first,) = made(tmp_path)
    for number in range(KEPT + 1):
        path.write_text(f"{number}.jpg 0\n")
        read(path, 10)
        os.utime(first)  # another run opens it now and then
    assert first in made(tmp_path) and len(made(tmp_path)) == KEPT
    (tmp_path / "cache" / "lists" / "x.draft").mkdir()
    path.write_text("last.jpg 0\n")
    assert read(path, 10)[0] == ["last.jpg"]
    assert len(made(tmp_path)) == KEPT and not list(tmp_path.rglob("*.draft"))


def _open(path, results):
    names, labels = read(path, 10)
    results.put((len(names), int(labels.sum()), mapped(labels)))


@pytest.mark.slow
def test_processes_make_it_once(path, tmp_path, monkeypatch):
    make, log = list_cache._make, tmp_path / "made"

    def told(*given):
        with open(log, "a") as file:
            file.write("made\n")
        make(*given)

    monkeypatch.setattr(list_cache, "_make", told)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    users = [context.Process(target=_open, args=(path, results)) for _ in range(6)]
    for user in users:
        user.start()
    assert [results.get() for _ in users] == [(500, 2250, True)] * 6
    for user in users:
        user.join(60)
    assert log.read_text() == "made\n"


def test_batches_are_the_same(tmp_path, monkeypatch):
    fashion = ROOT / "dataset" / "fashion_mnist"
    lines = (fashion / "train_list.txt").read_text().splitlines(True)[:40]
    (tmp_path / "list.txt").write_text("".join(lines))
    dataset = {
        "name": "ImageNetDataset",
        "image_root": str(fashion / "images.zip"),
        "cls_label_path": str(tmp_path / "list.txt"),
        "transform_ops": [{"DecodeImage": None}, {"NormalizeImage": {"order": ""}}],
        "remote": {"cache": str(tmp_path / "cache")},
    }
    section = {"dataset": dataset, "sampler": {"batch_size": 8, "shuffle": True}, "loader": {}}
    found = []
    for least in (1, 1 << 30):
        monkeypatch.setattr(list_cache, "LEAST_BYTES", least)
        loader = build_loader(section, "Train", num_classes=10)
        assert mapped(loader.dataset.labels) == (least == 1)
        assert loader.dataset.class_counts().counts.sum() == 40
        found.append([batch["image"].numpy().tobytes() for batch in loader.epoch(0)])
    assert found[0] == found[1] and len(found[0]) == 5
