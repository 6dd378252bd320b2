"""Lists, folders, zip files, samplers and the loader: exact coverage, determinism, resuming, and
every kind of bad input.
"""

import copy
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import SAMPLERS, build_loader, check_loader
from ppcls_nextvit.data.datasets import classification, files
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.lists import read_class_names, read_label_list, read_pair_list
from ppcls_nextvit.schema import ConfigError

OPS = [
    {"DecodeImage": None},
    {"RandomResizedCrop": {"size": 8}},
    {"RandFlipImage": None},
    {"NormalizeImage": {"order": ""}},
    {"RandomErasing": {"EPSILON": 0.5, "mode": "pixel"}},
]
PLAIN = [
    {"DecodeImage": None},
    {"NormalizeImage": {"scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}},
]
MIX = [
    {
        "OpSampler": {
            "MixupOperator": {"alpha": 0.8, "prob": 0.5},
            "CutmixOperator": {"alpha": 1.0, "prob": 0.5},
        }
    }
]


@pytest.fixture
def images(tmp_path):
    """20 images 12x12, image i all of the value i, class i % 4; and their list."""
    for i in range(20):
        Image.new("RGB", (12, 12), (i, i, i)).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "list.txt").write_text("".join(f"{i:02d}.png {i % 4}\n" for i in range(20)))
    return tmp_path


def section(folder, transform_ops=OPS, sampler=None, loader=None, **dataset):
    return {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": transform_ops,
            **dataset,
        },
        "sampler": {
            "name": "DistributedBatchSampler",
            "batch_size": 6,
            "shuffle": True,
            **(sampler or {}),
        },
        "loader": {"num_workers": 0, **(loader or {})},
    }


def arrays(batches):
    return [{key: value.numpy() for key, value in batch.items()} for batch in batches]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(
            np.array_equal(x[key], y[key]) and x[key].dtype == y[key].dtype for key in x
        )


def values(batches):
    """The image numbers in batches of PLAIN images."""
    return [int(v) for batch in batches for v in batch["image"].numpy()[:, 0, 0, 0]]


def test_batches_of_a_list(images):
    loader = build_loader(section(images, PLAIN, {"shuffle": False}), "Train", num_classes=4)
    batches = arrays(loader.epoch(0))
    assert len(loader) == len(batches) == 4 and loader.num_images == 20 and loader.batch_size == 6
    assert [len(batch["label"]) for batch in batches] == [6, 6, 6, 2]
    assert (
        batches[0]["image"].shape == (6, 3, 12, 12)
        and batches[0]["image"].dtype == np.float32
        and batches[0]["label"].dtype == np.int64
    )
    assert (
        batches[1]["label"].tolist() == [2, 3, 0, 1, 2, 3] and (batches[1]["image"][5] == 11).all()
    )
    assert "lam" not in batches[0]


@pytest.mark.parametrize("class_num, expected", [(None, [10, 0, 10]), (5, [10, 0, 10, 0, 0])])
def test_the_images_of_each_class_are_counted(images, monkeypatch, class_num, expected):
    monkeypatch.setattr(classification, "COUNTED", 3)
    (images / "list.txt").write_text("".join(f"{i:02d}.png {i % 4 // 2 * 2}\n" for i in range(20)))
    counts = build_loader(section(images), "Train", num_classes=class_num).dataset.class_counts()
    assert counts.counts.tolist() == expected
    assert (counts.unit, counts.looked_at) == ("images", 20)


def test_number_of_workers_changes_nothing(images):
    runs = [
        arrays(
            build_loader(
                section(
                    images,
                    batch_transform_ops=MIX,
                    loader={"num_workers": n, "use_shared_memory": n != 3},
                ),
                "Train",
                num_classes=4,
                seed=5,
            ).epoch(2)
        )
        for n in (0, 1, 2, 3)
    ]
    assert (
        set(runs[0][0]) == {"image", "label", "label_b", "lam"}
        and runs[0][0]["lam"].dtype == np.float32
    )
    for run in runs[1:]:
        assert_same(runs[0], run)


def test_seed_and_epoch_matter(images):
    def first(seed, epoch):
        return arrays(
            build_loader(section(images), "Train", num_classes=4, seed=seed).epoch(epoch)
        )[0]["image"]

    assert np.array_equal(first(1, 1), first(1, 1))
    assert not np.array_equal(first(1, 1), first(1, 2)) and not np.array_equal(
        first(1, 1), first(2, 1)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch_loads_only_the_rest(images, workers):
    def build():
        return build_loader(
            section(images, batch_transform_ops=MIX, loader={"num_workers": workers}),
            "Train",
            num_classes=4,
        )

    whole = arrays(build().epoch(3))
    for i in build().sampler.order(3)[0][:12]:
        (images / f"{i:02d}.png").write_bytes(b"not to be read")
    assert_same(whole[2:], arrays(build().epoch(3, first_step=2)))
    assert list(build().epoch(3, first_step=4)) == []


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_sees_every_image_exactly_once(images, world):
    seen = []
    for rank in range(world):
        loader = build_loader(
            section(images, PLAIN, {"batch_size": 4}),
            "Eval",
            num_classes=4,
            rank=rank,
            world_size=world,
        )
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader)
        seen += values(batches)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("world", [2, 3])
def test_training_ranks_are_disjoint_but_for_the_padding(images, world):
    ranks = [
        values(
            build_loader(
                section(images, PLAIN), "Train", num_classes=4, rank=r, world_size=world
            ).epoch(1)
        )
        for r in range(world)
    ]
    assert {len(rank) for rank in ranks} == {-(-20 // world)}
    together = sum(ranks, [])
    assert set(together) == set(range(20)) and len(together) - 20 == -20 % world
    # no image twice on one process
    assert sum(len(set(rank)) for rank in ranks) == len(together)


def test_two_processes_see_the_batches_of_one_with_the_double_batch(images):
    one = list(
        build_loader(section(images, PLAIN, {"batch_size": 10}), "Train", num_classes=4).epoch(0)
    )
    two = [
        list(
            build_loader(
                section(images, PLAIN, {"batch_size": 5}),
                "Train",
                num_classes=4,
                rank=rank,
                world_size=2,
            ).epoch(0)
        )
        for rank in (0, 1)
    ]
    for step in range(2):
        assert sorted(values([one[step]])) == sorted(
            values([two[0][step]]) + values([two[1][step]])
        )


def sampler(name, count, rank=0, world=1, pad=True, **arguments):
    return SAMPLERS.build(
        name, {"batch_size": 4, **arguments}, "sampler", range(count), rank, world, 0, pad
    )


def test_repeated_augmentation():
    ranks = [sampler("RASampler", 600, rank, 3, shuffle=True).order(0) for rank in range(3)]
    assert [len(indices) for indices, _ in ranks] == [512 // 3] * 3
    # three repeats, three processes
    assert np.array_equal(ranks[0][0], ranks[1][0]) and np.array_equal(ranks[0][0], ranks[2][0])
    assert [set(occurrences) for _, occurrences in ranks] == [{0}, {1}, {2}]
    # below 256 nothing is rounded
    indices, occurrences = sampler("RASampler", 10, num_repeats=2).order(0)
    assert indices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and occurrences.tolist() == [0, 1] * 5
    with pytest.raises(ConfigError, match="RASampler is for training"):
        sampler("RASampler", 10, pad=False)


def test_repeats_are_augmented_differently(images):
    loader = build_loader(
        section(images, sampler={"name": "RASampler", "shuffle": False}), "Train", num_classes=4
    )
    image = next(loader.epoch(0))["image"].numpy()
    assert not np.array_equal(image[0], image[1]) and not np.array_equal(image[1], image[2])


def test_sampler_lengths_and_errors():
    assert (
        len(sampler("DistributedBatchSampler", 10)) == 3
        and len(sampler("DistributedBatchSampler", 10, drop_last=True)) == 2
    )
    with pytest.raises(ConfigError, match="3 images for 4 processes"):
        sampler("DistributedBatchSampler", 3, world=4)
    with pytest.raises(ConfigError, match="no whole batch: 3 images"):
        sampler("DistributedBatchSampler", 3, drop_last=True)
    with pytest.raises(ConfigError, match="leave images out"):
        sampler("DistributedBatchSampler", 10, pad=False, drop_last=True)
    with pytest.raises(ConfigError, match="batch_size must be 1"):
        sampler("DistributedBatchSampler", 10, batch_size=0)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_gives_what_the_folder_gives(images, method):
    with zipfile.ZipFile(images / "images.zip", "w", method) as archive:
        for path in sorted(images.glob("*.png")):
            archive.write(path, path.name)
    zipped = section(images, loader={"num_workers": 2})
    zipped["dataset"]["image_root"] = str(images / "images.zip")
    assert_same(
        arrays(build_loader(section(images), "Train", num_classes=4).epoch(0)),
        arrays(build_loader(zipped, "Train", num_classes=4).epoch(0)),
    )
    data = bytearray((images / "images.zip").read_bytes())
    # inside the first image
    data[60] ^= 255
    (images / "images.zip").write_bytes(data)
    with pytest.raises(ImageError, match="images.zip/00.png: the zip file is damaged here"):
        list(build_loader(zipped, "Train", num_classes=4).epoch(0))
    (images / "images.zip").write_bytes(data[:500])
    with pytest.raises(ValueError, match="not a whole zip file"):
        build_loader(zipped, "Train", num_classes=4)


def test_zip_without_a_listed_image(images):
    with zipfile.ZipFile(images / "images.zip", "w") as archive:
        archive.write(images / "00.png", "00.png")
    zipped = section(images)
    zipped["dataset"]["image_root"] = str(images / "images.zip")
    with pytest.raises(FileNotFoundError, match=r"01.png: no such file in the zip \(19 of 20"):
        build_loader(zipped, "Train", num_classes=4)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "list.txt: the list is empty"),
        ("00.png 0\n01.png\n", "list.txt:2: expected 'path label', got '01.png'"),
        ("00.png 0\n\n01.png x\n", "list.txt:3: the label must be an integer, got 'x'"),
        (
            "00.png 4\n",
            r"list.txt:1: label 4 is out of range; expected 0 to 3 \(the model has 4 classes",
        ),
        ("00.png -1\n", "label -1 is out of range"),
    ],
)
def test_wrong_lists(images, text, message):
    (images / "list.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        build_loader(section(images), "Train", num_classes=4)


@pytest.mark.parametrize(
    "read, called",
    [
        (lambda path: read_label_list(path, 4), "cls_label_path: "),
        (read_pair_list, "list_path: "),
        (read_class_names, "class_id_map_file "),
    ],
)
def test_text_files_that_cannot_be_read(tmp_path, read, called):
    path = tmp_path / "list.txt"
    with pytest.raises(FileNotFoundError) as error:
        read(path)
    assert str(error.value) == f"{called}{path}: no such file"
    path.write_bytes(b"0 caf\xe9\n")
    with pytest.raises(ConfigError) as undecodable:
        read(path)
    assert str(undecodable.value).startswith(f"{called}{path}: not a text file in UTF-8 (")
    with pytest.raises(FileNotFoundError, match=f"^{called}{tmp_path}: cannot be read: "):
        read(tmp_path)


def test_missing_list_root_and_first_image(images):
    with pytest.raises(FileNotFoundError, match="cls_label_path: .*none.txt"):
        build_loader(
            section(images, cls_label_path=str(images / "none.txt")), "Train", num_classes=4
        )
    with pytest.raises(FileNotFoundError, match="image_root: .*nowhere: no such folder or zip"):
        build_loader(section(images, image_root=str(images / "nowhere")), "Train", num_classes=4)
    (images / "00.png").unlink()
    with pytest.raises(FileNotFoundError, match="00.png: no such file, and it is the first"):
        build_loader(section(images), "Train", num_classes=4)


@pytest.mark.parametrize("mode", ["Train", "Eval"])
def test_any_missing_image_is_named_before_the_work(images, monkeypatch, mode):
    (images / "05.png").unlink()
    (images / "11.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"05.png: no such file \(2 of 20 are missing\)"):
        build_loader(section(images), mode, num_classes=4)
    monkeypatch.setattr(files, "LOOKED_AT", 19)  # of longer lists, the first
    build_loader(section(images), mode, num_classes=4)


def test_a_batch_larger_than_any_dataset_is_refused_by_the_data_alone(images):
    large = section(images, sampler={"batch_size": 4096, "drop_last": True})
    check_loader(large, "Train")
    with pytest.raises(ConfigError, match="4096"):
        build_loader(large, "Train", num_classes=4)


def test_delimiter_spaces_and_relabel(images):
    (images / "a b.png").write_bytes((images / "07.png").read_bytes())
    (images / "list.txt").write_text("a b.png,30\n01.png,10\n02.png,30\n")
    (batch,) = build_loader(
        section(images, PLAIN, {"shuffle": False}, delimiter=",", relabel=True),
        "Train",
        num_classes=2,
    ).epoch(0)
    assert batch["label"].tolist() == [1, 0, 1] and values([batch]) == [7, 1, 2]


def test_image_folder(images):
    for name, numbers in (("cat", (3, 4)), ("ant", (1,)), ("bee", ())):
        (images / "tree" / name / "deep").mkdir(parents=True)
        for i in numbers:
            (images / f"{i:02d}.png").rename(images / "tree" / name / "deep" / f"{i}.PNG")
    entry = section(images)
    entry["dataset"] = {
        "name": "ImageFolder",
        "image_root": str(images / "tree"),
        "transform_ops": PLAIN,
    }
    loader = build_loader(entry, "Eval", num_classes=3)
    assert loader.dataset.class_names == ["ant", "bee", "cat"]
    entry["sampler"]["shuffle"] = False
    (batch,) = build_loader(entry, "Eval", num_classes=3).epoch(0)
    assert values([batch]) == [1, 3, 4] and batch["label"].tolist() == [0, 2, 2]
    with pytest.raises(ConfigError, match="3 class folders, but the model has 4 classes"):
        build_loader(entry, "Eval", num_classes=4)
    entry["dataset"]["image_root"] = str(images / "tree" / "bee")
    with pytest.raises(ConfigError, match="no images"):
        build_loader(entry, "Eval", num_classes=None)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_stops_the_run_with_its_path(images, workers):
    (images / "05.png").write_bytes(b"")
    with pytest.raises(ImageError) as error:
        list(
            build_loader(
                section(images, loader={"num_workers": workers}), "Train", num_classes=4
            ).epoch(0)
        )
    assert str(error.value) == f"{images / '05.png'}: the file is empty (0 bytes)"


def test_bad_images_are_replaced_and_counted_up_to_the_limit(images):
    (images / "05.png").write_bytes(b"")
    (images / "06.png").unlink()

    def build(limit, workers=0):
        return build_loader(
            section(
                images,
                PLAIN,
                bad_images={"policy": "skip", "limit": limit},
                loader={"num_workers": workers},
            ),
            "Train",
            num_classes=4,
        )

    loader, other = build(2), build(2, workers=2)
    batches = arrays(loader.epoch(0))
    assert_same(batches, arrays(other.epoch(0)))
    seen = [
        (int(v), int(label))
        for batch in batches
        for v, label in zip(batch["image"][:, 0, 0, 0], batch["label"], strict=True)
    ]
    assert (
        len(seen) == 20
        and not {5, 6} & {v for v, _ in seen}
        and all(label == v % 4 for v, label in seen)
    )
    list(loader.epoch(1))
    # the same two in every epoch
    assert loader.bad_images == other.bad_images == 2
    with pytest.raises(
        ImageError, match=r"0[56].png: .*more than 1 bad images \(bad_images.limit\)"
    ):
        list(build(1).epoch(0))


def test_images_of_different_size(images):
    Image.new("RGB", (9, 9)).save(images / "03.png")
    with pytest.raises(ImageError, match="differ in shape"):
        list(build_loader(section(images, PLAIN), "Train", num_classes=4).epoch(0))


@pytest.mark.parametrize(
    "path, value, message",
    [
        (
            "dataset.cls_label_pat",
            "x",
            r"Train.dataset.cls_label_pat: unknown key. Did you mean 'cls_label_path'",
        ),
        (
            "dataset.name",
            "ImagenetDataset",
            r"Train.dataset: unknown dataset 'ImagenetDataset'. Did you mean 'ImageNetDataset'",
        ),
        (
            "dataset.transform_ops",
            [{"DecodeImag": None}],
            r"Train.dataset.transform_ops.0.DecodeImag: unknown transform",
        ),
        (
            "dataset.batch_transform_ops",
            [{"Mixup": None}],
            r"Train.dataset.batch_transform_ops.0.Mixup: unknown batch transform",
        ),
        (
            "dataset.bad_images",
            {"policy": "ignore"},
            r"Train.dataset.bad_images.policy: got 'ignore'",
        ),
        ("dataset.bad_images", {"policy": "skip"}, "needs a limit"),
        ("sampler.name", "PKSampler", "unknown sampler 'PKSampler'"),
        ("sampler.batch_siz", 3, "Did you mean 'batch_size'"),
        ("sampler.batch_size", "many", "Train.sampler.batch_size: expected int"),
        ("sampler.batch_size", 0, "1 or more"),
        ("loader.num_worker", 3, "Train.loader.num_worker: unknown key"),
        ("loader.num_workers", -1, "num_workers >= 0"),
        ("dataloader", {}, "Train.dataloader: unknown key"),
        ("dataset", None, "Train.dataset: expected a mapping"),
    ],
)
def test_check_needs_no_disk_and_names_the_key(images, path, value, message):
    entry = copy.deepcopy(section(images / "nowhere"))
    check_loader(entry, "Train")
    target, keys = entry, path.split(".")
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    with pytest.raises(ConfigError, match=message):
        check_loader(entry, "Train")


def test_evaluation_refuses_mixing_and_skipping(images):
    for key, value in (
        ("batch_transform_ops", MIX),
        ("bad_images", {"policy": "skip", "limit": 3}),
    ):
        with pytest.raises(
            ConfigError, match=f"DataLoader.Eval.dataset.{key}: evaluation counts every image once"
        ):
            check_loader(section(images, **{key: value}), "Eval")


def test_workers_die_with_their_parent(images):
    # an epoch so long that no worker has made its share of it when they are counted
    lines = (images / "list.txt").read_text()
    (images / "list.txt").write_text(lines * 100)
    program = f"""
import time
from ppcls_nextvit.data import build_loader
batches = build_loader({section(images, loader={"num_workers": 2})!r}, "Train", num_classes=4).epoch(0)
next(batches)
import multiprocessing
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(running(pid) for pid in workers):
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)


def running(pid):
    """Whether the process exists and is no zombie that waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_repositorys_fashion_mnist():
    root = os.path.join(os.path.dirname(__file__), "..", "dataset", "fashion_mnist")
    for mode, count in (("train", 5000), ("test", 1000)):
        entry = {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": f"{root}/images.zip",
                "cls_label_path": f"{root}/{mode}_list.txt",
                "transform_ops": PLAIN,
            },
            "sampler": {"batch_size": 32},
        }
        loader = build_loader(entry, "Train" if mode == "train" else "Eval", num_classes=10)
        assert (
            loader.num_images == count
            and np.bincount(loader.dataset.labels).tolist() == [count // 10] * 10
        )
        assert next(loader.epoch(0))["image"].shape == [32, 3, 28, 28]
