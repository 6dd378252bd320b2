"""scripts/prepare_fashion_mnist.py: layout, determinism, class balance, and damaged IDX files."""

import gzip
import struct
import zipfile

import numpy as np
import pytest

from ppcls_nextvit.data.images import decode_image
from support.programs import program_at

tool = program_at("scripts/prepare_fashion_mnist.py")


def idx(array):
    return gzip.compress(
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.fixture
def source(tmp_path):
    """30 training and 20 test images of 4x5 pixels; image i is of class i % 10."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 4, 5), dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            idx(np.arange(count, dtype=np.uint8) % 10)
        )
    return tmp_path


def test_complete_and_balanced_sets(source, capsys):
    assert tool.main([str(source), str(source / "all")]) == 0
    assert "30 train images, 20 test images" in capsys.readouterr().out
    assert (
        tool.main(
            [str(source), str(source / "some"), "--train-per-class", "2", "--test-per-class", "1"]
        )
        == 0
    )
    assert (source / "some" / "train_list.txt").read_text().splitlines() == [
        f"train/{i:05d}.png {i % 10}" for i in range(20)
    ]
    assert len((source / "some" / "test_list.txt").read_text().splitlines()) == 10
    assert (source / "some" / "labels.txt").read_text().splitlines()[9] == "9 Ankle boot"
    images = tool.read_idx(source / "train-images-idx3-ubyte.gz", 3)
    with zipfile.ZipFile(source / "all" / "images.zip") as archive:
        assert len(archive.namelist()) == 50
        assert np.array_equal(decode_image(archive.read("train/00029.png"))[:, :, 0], images[29])


def test_same_input_same_bytes(source):
    for name in ("a", "b"):
        assert tool.main([str(source), str(source / name)]) == 0
    assert (source / "a" / "images.zip").read_bytes() == (source / "b" / "images.zip").read_bytes()


@pytest.mark.parametrize(
    "file, damage, message",
    [
        ("train-images-idx3-ubyte.gz", None, "no such file"),
        ("train-images-idx3-ubyte.gz", lambda data: data[:-30], "cannot be unpacked"),
        ("train-labels-idx1-ubyte.gz", lambda data: b"", "not an IDX file"),
        ("train-labels-idx1-ubyte.gz", lambda data: b"plain text", "cannot be unpacked"),
        (
            "train-images-idx3-ubyte.gz",
            lambda data: gzip.compress(gzip.decompress(data)[:-1]),
            "promises (30, 4, 5) bytes, 599 follow",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda data: idx(np.zeros(19, np.uint8)),
            "20 images but 19 labels",
        ),
        ("t10k-labels-idx1-ubyte.gz", lambda data: idx(np.full(20, 10, np.uint8)), "label 10"),
        (
            "train-images-idx3-ubyte.gz",
            lambda data: idx(np.zeros(30, np.uint8)),
            "not an IDX file of unsigned bytes with 3 axes",
        ),
    ],
)
def test_damaged_sources(source, capsys, file, damage, message):
    path = source / file
    data = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(data))
    assert tool.main([str(source), str(source / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (source / "out").exists()


def test_too_few_images_of_a_class(source, capsys):
    assert tool.main([str(source), str(source / "out"), "--train-per-class", "4"]) == 1
    assert "T-shirt/top (3)" in capsys.readouterr().err
    assert tool.main([str(source), str(source / "out"), "--train-per-class", "0"]) == 1
    assert "must be 1 or more" in capsys.readouterr().err
