"""Loading as it goes wrong: too little memory, errors in workers, workers that are lost."""

import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit.data import build_loader
from ppcls_nextvit.data.memory import stacked
from ppcls_nextvit.data.workers import Workers
from support.faults import COUNT, box_of, generators


@pytest.fixture(autouse=True)
def no_hanging():
    """What waits for ever ends here."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120 + COUNT)
    yield
    signal.alarm(0)


# Memory and workers
# --------------------------------------------------------------------------------------


OPS = [{"DecodeImage": None}, {"RandCropImage": {"size": 32, "backend": "pil"}}]


def classified(folder, transform_ops, count=32, workers=2, batch_size=4, **loader):
    Image.new("RGB", (300, 260), "gray").save(folder / "0.jpg")
    (folder / "list.txt").write_text("0.jpg 0\n" * count)
    return {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": transform_ops,
        },
        "sampler": {"batch_size": batch_size, "shuffle": True},
        "loader": {"num_workers": workers, **loader},
    }


def annotated(folder, objects, transform_ops, sizes=((80, 60), (60, 80))):
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": w, "height": h}
            for n, (w, h) in enumerate(sizes)
        ],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            box_of(100 * n + k, n, box=(k % 20, 2, 30, 30))
            for n in range(len(sizes))
            for k in range(objects)
        ],
    }
    for n, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{n}.png")
    (folder / "coco.json").write_text(json.dumps(content))
    return {
        "dataset": {
            "name": "COCODataset",
            "image_root": str(folder),
            "annotation_path": str(folder / "coco.json"),
            "mode": "train",
            "transform_ops": transform_ops,
        },
        "sampler": {"batch_size": 2},
        "loader": {"num_workers": 0},
    }


@pytest.mark.faults
def test_the_memory_of_a_sample_is_not_less_than_it_takes(tmp_path):
    pytest.importorskip("cv2", reason="needs the extra `cv2`")
    sections = [
        classified(tmp_path, [{"DecodeImage": None}, {"CropImage": {"size": size}}], workers=0)
        for size in (32, 224, 1024)
    ]
    for rng in generators(max(4, COUNT // 8)):
        sizes = [tuple(int(side) for side in rng.integers(40, 300, 2)) for _ in range(2)]
        scale = [int(rng.integers(100, 400)), int(rng.integers(60, 100))]
        ops = [[], [{"Resize": {"scale": scale}}]][rng.integers(2)] + [{"Normalize": {}}]
        sections.append(annotated(tmp_path, int(rng.integers(1, 60)), ops, sizes))
    for number, section in enumerate(sections):
        if number >= 3:  # its files were written over
            section = annotated(
                tmp_path, 17 * (number % 3) + 1, section["dataset"]["transform_ops"]
            )
        loader = build_loader(section, "Train", num_classes=1)
        batch = next(loader.epoch(0))
        real = sum(
            value.numpy().nbytes for key, value in batch.items() if key in ("image", "masks")
        )
        assert loader.dataset.sample_bytes * loader.batch_size >= real


def arrays(number, memory=None):
    """A batch of arrays small and large, one without elements, and what is no array."""
    rng = np.random.default_rng(number)
    return {
        "image": rng.random((4, 3, 40, 60), np.float32),
        "label": rng.integers(0, 9, 4),
        "masks": rng.integers(0, 2, (number % 3, 50, 60)).astype(bool),
        "bad": [number],
    }


def same(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[key], value)
        and np.asarray(found[key]).dtype == np.asarray(value).dtype
        for key, value in expected.items()
    )


# nothing shared, too little for any array, for the masks, enough
@pytest.mark.parametrize("size", [0, 1000, 120_000, 1 << 20])
@pytest.mark.parametrize("count, ahead", [(1, 1), (3, 2)])
def test_batches_come_as_they_were_made(size, count, ahead):
    for total in (0, 2, 11):
        workers = Workers(arrays, total, count, ahead, size)
        for number in range(total):
            assert same(workers.take(), arrays(number))
            if number % 2:
                workers.give_back()
        workers.end()


def in_place(number, memory):
    """`arrays` whose masks, or else images, stand at the beginning of the memory."""
    batch = arrays(number)
    key = "masks" if batch["masks"].size else "image"
    if batch[key].nbytes <= len(memory):
        place = memory[: batch[key].nbytes].view(batch[key].dtype).reshape(batch[key].shape)
        np.copyto(place, batch[key])
        batch[key] = place
    return batch


@pytest.mark.parametrize("size", [0, 1000, 120_000, 1 << 20])
def test_what_was_made_in_the_memory_stays_there(size):
    workers = Workers(in_place, 11, 2, 2, size)
    assert all(same(workers.take(), arrays(number)) for number in range(11))
    workers.end()


def test_images_that_stand_side_by_side_are_a_batch_already():
    rng = np.random.default_rng(0)
    rows = rng.random((4, 3, 5, 7), np.float32)
    batch = stacked(list(rows))
    assert np.shares_memory(batch, rows) and np.array_equal(batch, rows)
    batch += 1  # as mixing does
    assert np.array_equal(batch, rows)
    others = [
        list(rows[::-1]),
        list(rows[::2]),
        [*rows[:2], rows[2].copy()],
        [row.copy() for row in rows],
        list(rows.transpose(0, 1, 3, 2)),
        [rows[0], rows[1].astype(np.float64)],
    ]
    for images in others:
        batch = stacked(images)
        assert not np.shares_memory(batch, rows) and np.array_equal(batch, np.stack(images))
    with pytest.raises(ValueError):
        stacked([rows[0], rows[1, :, :4]])


def test_arrays_stay_until_they_are_given_back():
    workers = Workers(arrays, 9, 1, 2, 1 << 20)
    for number in range(9):
        batch = workers.take()
        time.sleep(0.02)  # in which the worker makes as many as it may
        assert same(batch, arrays(number))
    workers.end()


def test_memory_that_cannot_be_had_is_not_shared(caplog):
    workers = Workers(arrays, 3, 1, 2, 1 << 55)
    assert all(same(workers.take(), arrays(number)) for number in range(3))
    workers.end()
    assert "MB cannot be shared" in caplog.text and "through pipes instead" in caplog.text


class OddError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (
            FileNotFoundError("images: no such folder"),
            FileNotFoundError,
            "^images: no such folder$",
        ),
        (OddError(1, 2), RuntimeError, "^OddError: 1 and 2$"),
    ],
)
def test_an_error_in_a_worker_is_the_trainers(error, kind, text):
    def make(number, memory):
        raise error

    workers = Workers(make, 3, 2, 2, 0)
    with pytest.raises(kind, match=text) as found:
        workers.take()
    workers.end()
    assert "in make" in str(found.value.__cause__)


def test_workers_that_nobody_ends_are_ended():
    before = set(multiprocessing.active_children())
    workers = Workers(lambda number, memory: time.sleep(600), 3, 2, 2, 0)
    processes = set(multiprocessing.active_children()) - before
    assert len(processes) == 2
    del workers
    assert not processes & set(multiprocessing.active_children())


@pytest.mark.parametrize("loader", [{"num_workers": 0}, {"num_workers": 2}])
def test_what_the_reader_brings_to_a_device_is_the_same(tmp_path, monkeypatch, loader):
    section = classified(tmp_path, OPS)
    section["loader"] = loader
    found = build_loader(section, "Train", num_classes=1)
    batches = [batch["image"].numpy() for batch in found.epoch(0)]
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    read = [batch["image"].numpy() for batch in found.epoch(0)]
    assert len(read) == 8 and all(map(np.array_equal, batches, read))


def test_the_reader_brings_what_has_no_elements(tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason="needs the extra `cv2`")
    section = annotated(tmp_path, 0, [{"Normalize": {}}])
    section["dataset"]["filter_empty"] = False
    loader = build_loader(section, "Train", num_classes=1)
    (expected,) = loader.epoch(0)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    (found,) = loader.epoch(0)
    assert expected["boxes"].shape == [0, 4] and found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape and found[key].dtype == value.dtype
        assert np.array_equal(found[key].numpy(), value.numpy())


def test_the_reader_s_errors_and_end_are_the_loader_s(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    loader = build_loader(classified(tmp_path, OPS), "Train", num_classes=1)
    before = workers()
    batches = loader.epoch(0)
    next(batches)
    assert len(workers(before)) == 2
    batches.close()
    assert workers(before) == []
    load = loader.dataset.load

    def missing(index, rng):
        if rng.random() < 0.1:
            raise PermissionError("0.jpg: may not be read")
        return load(index, rng)

    loader.dataset.load = missing
    with pytest.raises(PermissionError, match="^0.jpg: may not be read$"):
        list(loader.epoch(0))
    assert workers(before) == []


def workers(before=()):
    """The worker processes of the epoch that has begun. before: those of other tests' loaders."""
    return [child.pid for child in multiprocessing.active_children() if child.pid not in before]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_lost_worker_changes_no_batch(tmp_path, number, caplog):
    section = classified(tmp_path, OPS, workers=0)
    whole = [
        batch["image"].numpy() for batch in build_loader(section, "Train", num_classes=1).epoch(0)
    ]
    section["loader"] = {"num_workers": 2}
    loader = build_loader(section, "Train", num_classes=1)
    here, load = os.getpid(), loader.dataset.load

    def load_slowly(*arguments):  # so that the worker is lost before its batches are made
        time.sleep(0.0 if os.getpid() == here else 0.1)
        return load(*arguments)

    loader.dataset.load = load_slowly
    before = workers()
    batches = loader.epoch(0)
    found = [next(batches)["image"].numpy()]
    os.kill(workers(before)[0], number)
    found += [batch["image"].numpy() for batch in batches]
    assert len(found) == len(whole) and all(map(np.array_equal, found, whole))
    assert f"was killed by signal {int(number)}" in loader.lost_worker
    assert "this process loads the rest of the epoch" in caplog.text
    assert workers(before) == []


def test_a_worker_that_is_lost_while_a_batch_is_waited_for(tmp_path):
    section = classified(tmp_path, OPS, workers=1, batch_size=2)
    loader = build_loader(section, "Train", num_classes=1)
    # loading takes for ever in a worker, and nothing here
    here = os.getpid()
    load = loader.dataset.load
    loader.dataset.load = lambda *a: load(*a) if os.getpid() == here else time.sleep(600)
    before = workers()
    batches = loader.epoch(0)
    killer = threading.Timer(2.0, lambda: os.kill(workers(before)[0], signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    assert len(list(batches)) == 16 and time.monotonic() - start < 30
    assert "killed by signal 9; out of memory?" in loader.lost_worker
