"""Shards: the images of files, in tar files of WebDataset's layout, with an index."""

import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest

from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data import SAMPLERS, build_loader
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.shards import INDEX, ShardFiles, ShardIndex, index_shards
from ppcls_nextvit.schema import ConfigError
from support import odd_images
from support.faults import COUNT, assert_one_line, generators
from support.paths import NUCLEI

RNG = np.random.default_rng(0)
IMAGES = NUCLEI / "images"
OPS = [
    {"DecodeImage": None},
    {"RandomResizedCrop": {"size": 16}},
    {"NormalizeImage": {"order": ""}},
]


def make(folder, *arguments):
    assert main(["shards", "make", str(folder), *map(str, arguments)]) == 0
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The nuclei, a class for each folder, in shards of two or three images. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppcls_nextvit.cli.shards.MEGABYTE", 30_000)
        folder = tmp_path_factory.mktemp("made") / "shards"
        return make(folder, "--image-root", IMAGES, "--megabytes", 1, "--shuffle", 3)


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


def section(dataset, root, workers=0, **sampler):
    return {
        "dataset": {"name": dataset, "image_root": str(root), "transform_ops": OPS},
        "sampler": {"batch_size": 3, **sampler},
        "loader": {"num_workers": workers},
    }


def tar(path, *members):
    """A tar file of (name, bytes)."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


PNG = odd_images.WITH_NOTES["png"](np.random.default_rng(0))


# The same images
# --------------------------------------------------------------------------------------


def test_the_same_images_and_labels(made):
    shards = build_loader(section("ImageShards", made), "Train", num_classes=2).dataset
    folder = build_loader(section("ImageFolder", IMAGES), "Train", num_classes=2).dataset
    files = {name.replace("\\", "/"): i for i, name in enumerate(folder.names)}
    assert shards.class_names == folder.class_names == ["training", "validation"]
    assert set(shards.names) == set(files) and list(shards.names) != list(files)
    for number, name in enumerate(shards.names):
        assert shards.read(number) == folder.read(files[name])
        assert shards.labels[number] == folder.labels[files[name]]
    assert len(list(made.glob("*.tar"))) > 3
    counts = shards.class_counts()
    assert counts.counts.tolist() == folder.class_counts().counts.tolist()


def test_the_same_bytes_again(made, tmp_path, monkeypatch):
    monkeypatch.setattr("ppcls_nextvit.cli.shards.MEGABYTE", 30_000)
    make(tmp_path / "a", "--image-root", IMAGES, "--megabytes", 1, "--shuffle", 3)
    files = sorted(path.relative_to(made) for path in made.rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "a") for path in tmp_path.rglob("*.*"))
    for file in files:
        assert (made / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def test_the_index_has_what_the_page_says(made):
    index = ShardIndex(str(made))
    arrays = [index.names.starts, index.names.lengths, *index.places, index.checksums, index.labels]
    assert sum(array.itemsize for array in arrays) == 40
    assert len(index.names.text) == sum(map(len, index.names))


def test_others_read_them(made):
    """As WebDataset does: neighbours of one key, the label as text."""
    with tarfile.open(made / "000000.tar") as archive:
        names = archive.getnames()
        for image, label in zip(names[::2], names[1::2], strict=True):
            assert label == image.removesuffix(".png") + ".cls"
            content = archive.extractfile(label).read()
            assert int(content) == (image.split("/")[0] == "validation")


@pytest.mark.slow
def test_batches_are_a_function_of_the_place(made):
    """With workers and without, from the beginning and from the middle."""
    sampler = {"name": "WindowSampler", "run": 2, "window": 6}

    def batches(workers, epoch, first=0):
        loader = build_loader(
            section("ImageShards", made, workers, **sampler), "Train", num_classes=2
        )
        return [batch["image"].numpy() for batch in loader.epoch(epoch, first)]

    whole = batches(0, 1)
    assert all(map(np.array_equal, whole, batches(2, 1)))
    assert all(map(np.array_equal, whole[2:], batches(2, 1, 2)))
    assert not all(map(np.array_equal, whole, batches(0, 2)))


def test_a_list_names_images_in_shards(made, tmp_path):
    (tmp_path / "list.txt").write_text("validation/0_2.png 7\ntraining/0_0.png 1\n")
    files = ShardFiles(str(made))
    names = [name for name in files.index.names if name.startswith("training")][:2]
    (tmp_path / "list.txt").write_text(f"{names[1]} 7\n{names[0]} 1\n")
    data = section("ImageNetDataset", made)
    data["dataset"]["cls_label_path"] = str(tmp_path / "list.txt")
    dataset = build_loader(data, "Train", num_classes=8).dataset
    assert dataset.read(0) == (IMAGES / names[1]).read_bytes()
    assert dataset.labels.tolist() == [7, 1]
    (tmp_path / "list.txt").write_text(f"{names[1]} 7\nnone.png 1\n")
    with pytest.raises(FileNotFoundError, match=r"none.png: not in the shards \(1 of 2"):
        build_loader(data, "Train", num_classes=8)


def test_detection_and_segmentation(tmp_path):
    """Their files keep their names: image_root is the folder of shards instead."""
    pytest.importorskip("pycocotools.mask", reason="needs the extra `det`")
    make(tmp_path / "coco", "--image-root", IMAGES / "training", "--unlabelled")
    make(tmp_path / "pairs", "--image-root", NUCLEI, "--unlabelled")

    def boxes(root):
        dataset = {
            "name": "COCODataset",
            "image_root": str(root),
            "annotation_path": str(NUCLEI / "instances_training.json"),
            "mode": "train",
        }
        loader = {"dataset": dataset, "sampler": {"batch_size": 1}}
        return build_loader(loader, "Train", num_classes=1).dataset.load(3, RNG)

    (tmp_path / "list.txt").write_text("images/training/0_0.png annotations/training/0_0.png\n" * 2)

    def pixels(root):
        dataset = {
            "name": "SegmentationDataset",
            "dataset_root": str(root),
            "list_path": str(tmp_path / "list.txt"),
            "mode": "train",
        }
        loader = {"dataset": dataset, "sampler": {"batch_size": 1}}
        return build_loader(loader, "Train", num_classes=2).dataset.load(0, RNG)

    for read, of_shards, of_files in (
        (boxes, tmp_path / "coco", IMAGES / "training"),
        (pixels, tmp_path / "pairs", NUCLEI),
    ):
        found, expected = read(of_shards), read(of_files)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_reads_stay_near_each_other():
    def order(epoch, **keys):
        keys = {"batch_size": 5, "run": 50, "window": 200, **keys}
        sampler = SAMPLERS.build("WindowSampler", keys, "here", range(1000), 0, 1, 0, True)
        return sampler.order(epoch)[0]

    first = order(0)
    assert sorted(first) == list(range(1000)) and not np.array_equal(first, order(1))
    # a window is four runs of fifty, anywhere, in no order
    runs = [set(part // 50) for part in first.reshape(5, 200)]
    assert all(len(found) == 4 for found in runs) and len(set().union(*runs)) == 20
    assert np.abs(np.diff(first[:200])).mean() > 30
    # a window of everything is a permutation; of one, runs alone
    assert len(set(order(0, window=1000)[:200] // 50)) > 15
    assert np.array_equal(order(0, window=1).reshape(20, 50) % 50, [range(50)] * 20)
    for keys in ({"run": 0}, {"window": -1}):
        with pytest.raises(ConfigError, match="run and window must be 1 or more"):
            order(0, **keys)
    with pytest.raises(ConfigError, match="WindowSampler is for training"):
        SAMPLERS.build("WindowSampler", {"batch_size": 1}, "here", range(9), 0, 1, 0, False)


# Made elsewhere
# --------------------------------------------------------------------------------------


def test_labels_of_webdataset(tmp_path):
    tar(
        tmp_path / "b.tar",
        ("x/1.PNG", PNG),
        ("x/1.cls", b"12\n"),
        ("x/2.json", b'{"label": 3, "from": "a camera"}'),
        ("x/2.jpg", PNG),
        ("x/2.txt", b"a dog"),
    )
    tar(tmp_path / "a.tar", ("3.cls", b"0"), ("3.png", PNG), ("3.json", b"[]"), ("._3.png", b"x"))
    assert main(["shards", "index", str(tmp_path)]) == 0
    index = ShardIndex(str(tmp_path))
    assert list(index.names) == ["3.png", "x/1.PNG", "x/2.jpg"]
    assert index.labels.tolist() == [0, 12, 3] and index.class_names is None
    assert ShardFiles(str(tmp_path)).read("x/1.PNG") == PNG


def test_class_names_stay(copied):
    assert main(["shards", "index", str(copied)]) == 0
    assert ShardIndex(str(copied)).class_names == ["training", "validation"]


@pytest.mark.parametrize(
    "members, message",
    [
        ([("1.png", PNG)], "sample 1: 0 labels; expected one"),
        ([("1.png", PNG), ("1.cls", b"1"), ("1.json", b'{"label": 1}')], "sample 1: 2 labels"),
        ([("1.png", PNG), ("1.jpg", PNG), ("1.cls", b"1")], "sample 1: 2 images; expected one"),
        ([("1.cls", b"1")], "sample 1: 0 images"),
        ([("1.png", PNG), ("1.cls", b"x")], "1.cls: the label must be a whole number"),
        (
            [("1.png", PNG), ("1.cls", b"-1")],
            "the label must be a whole number from 0 on, got b'-1'",
        ),
        ([("1.png", PNG), ("1.json", b'{"label": true}')], "must be a whole number .* got True"),
        ([("1.png", PNG), ("1.json", b"[" * 50_000)], "1.json: "),
        ([("1.png", PNG), ("1.cls", b"1"), ("1.png", PNG)], "1.png is in it twice"),
        ([("\x1b.png", PNG)], r"sample \\x1b: 0 labels"),
    ],
)
def test_samples_that_cannot_be(tmp_path, members, message):
    tar(tmp_path / "a.tar", *members)
    with pytest.raises(ConfigError, match=message) as error:
        index_shards(str(tmp_path))
    assert_one_line(error.value, str(tmp_path / "a.tar"))
    assert not (tmp_path / INDEX).exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.7])
def test_a_shard_that_is_cut_off(copied, share, capsys):
    path = copied / "000001.tar"
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    with pytest.raises(ConfigError, match="000001.tar: not a whole tar file"):
        index_shards(str(copied))
    with pytest.raises(ConfigError, match=f"000001.tar: .* bytes, {size} when it was indexed"):
        ShardFiles(str(copied))
    assert main(["shards", "check", str(copied)]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_shard_without_its_end(tmp_path):
    tar(tmp_path / "a.tar", ("1.png", PNG), ("1.cls", b"1"))
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.getmembers()
        end = archive.offset
    for damaged in (data[:end], data[:end] + b"x" * 512, data[: end - 700]):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(ConfigError, match="not a whole tar file"):
            index_shards(str(tmp_path))


def test_an_index_of_other_shards(copied, capsys):
    one, other = copied / "000000.tar", copied / "000001.tar"
    data = bytearray(one.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    one.write_bytes(data)
    files = ShardFiles(str(copied))
    with pytest.raises(ImageError, match="000000.tar: .*: not the bytes that were indexed"):
        files.read_number(0)
    assert main(["shards", "check", str(copied)]) == 1
    assert "images, 1 damaged" in capsys.readouterr().out
    other.unlink()
    with pytest.raises(FileNotFoundError, match="000001.tar: no such shard; the index names it"):
        ShardFiles(str(copied))


@pytest.mark.faults
def test_any_damage_to_an_index_is_noticed(copied, tmp_path):
    """Never a traceback, nor another image's bytes."""
    true = ShardFiles(str(copied))
    bytes_of = {name: true.read(name) for name in true.index.names}
    files = sorted((copied / INDEX).iterdir())
    refused = 0
    for rng in generators(4 * COUNT):
        file = files[rng.integers(len(files))]
        data = file.read_bytes()
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged[: len(data) if rng.integers(4) else rng.integers(len(data))])
        try:
            found = ShardFiles(str(copied))
            for number, name in enumerate(found.index.names):
                try:
                    assert found.read_number(number) in bytes_of.values(), name
                except ImageError as error:
                    assert_one_line(error)
        except (ConfigError, FileNotFoundError) as error:
            refused += 1
            assert_one_line(error)
        file.write_bytes(data)
    assert refused > COUNT


def test_an_index_that_says_where_to_read(copied, tmp_path):
    """It names files of its folder alone."""
    (tmp_path / "secret.tar").write_bytes(b"x" * 100_000)
    content = json.loads((copied / INDEX / "index.json").read_text())
    content["shards"][0].update(name="../secret.tar", bytes=100_000)
    (copied / INDEX / "index.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"secret.tar: no such shard"):
        ShardFiles(str(copied))


# Commands
# --------------------------------------------------------------------------------------


def failure(capsys, *arguments):
    assert main(["shards", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_what_the_commands_refuse(made, tmp_path, capsys):
    assert "not empty" in failure(capsys, "make", made, "--image-root", IMAGES)
    assert "no such folder" in failure(capsys, "index", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no shards, files *.tar" in failure(capsys, "index", tmp_path / "empty")
    assert "index.json: no such file" in failure(capsys, "check", tmp_path / "empty")
    root = ["--image-root", tmp_path / "empty"]
    assert "no images" in failure(capsys, "make", tmp_path / "a", *root, "--unlabelled")
    both = ["--unlabelled", "--list", tmp_path / "list.txt"]
    assert "leave --list out" in failure(capsys, "make", tmp_path / "a", *root, *both)
    for megabytes in (0, -1, 1 << 40):
        size = ["--image-root", IMAGES, "--megabytes", megabytes]
        assert "a shard must have 1 to" in failure(capsys, "make", tmp_path / "a", *size)
    assert not (tmp_path / "a").exists()


def test_two_images_of_one_key(tmp_path, capsys):
    (tmp_path / "c").mkdir()
    for name in ("a.b.png", "a_b.png"):
        (tmp_path / "c" / name).write_bytes(PNG)
    error = failure(capsys, "make", tmp_path / "shards", "--image-root", tmp_path)
    assert "c/a.b.png and c/a_b.png would both be c/a_b in the shards; rename one" in error


@pytest.mark.parametrize(
    "keys, class_num, message",
    [
        ({}, 1, r"label 1 is out of range; expected 0 to 0 \(the model has 1 classes\)"),
        ({"image_root": str(NUCLEI)}, 2, "no folder of shards with an index; run `nextvit shards"),
    ],
)
def test_datasets_that_cannot_be(made, keys, class_num, message):
    data = section("ImageShards", made)
    data["dataset"].update(keys)
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        build_loader(data, "Train", num_classes=class_num)


def test_shards_without_labels(tmp_path):
    make(tmp_path / "a", "--image-root", IMAGES, "--unlabelled")
    with pytest.raises(ConfigError, match="its index has no labels"):
        build_loader(section("ImageShards", tmp_path / "a"), "Train", num_classes=2)
