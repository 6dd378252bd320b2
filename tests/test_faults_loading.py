"""Loading as it goes wrong: too little shared memory, workers that are lost."""

import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import build_loader
from ppcls_nextvit.data.workers import local_processes
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


def test_neighbours_share_the_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "4")
    assert local_processes(8) == 4 and local_processes(2) == 2
    for value in ("", "x", "0", "-1"):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", value)
        assert local_processes(8) == 8
    needed = []
    monkeypatch.setattr("ppcls_nextvit.data.loader.fits_shared_memory", needed.append)
    section = classified(tmp_path, [{"DecodeImage": None}], prefetch_factor=3)
    for world in (1, 8):
        build_loader(section, "Train", num_classes=1, world_size=world)
    # 2 workers with 3 batches of 4 each, one batch in use, one on its way
    assert needed == [n * 8 * 4 * 300 * 260 * 3 * 4 for n in (1, 8)]


def workers(before=()):
    """The worker processes of the epoch that has begun. before: those of other tests' loaders."""
    return [child.pid for child in multiprocessing.active_children() if child.pid not in before]


OPS = [{"DecodeImage": None}, {"RandCropImage": {"size": 32, "backend": "pil"}}]


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
    assert f"was killed by signal {int(number)}; " in loader.lost_worker
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
