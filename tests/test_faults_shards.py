"""Tar shards as other programs write them, and as damage leaves them: odd headers and names, links,
holes, parts that are missing, twice there or in another order, indexes of other shards.
"""

import io
import json
import os
import shutil
import tarfile
import time
import tracemalloc

import numpy as np
import pytest

from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data import build_loader
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.shards import INDEX, ShardFiles, ShardIndex, index_shards
from ppcls_nextvit.schema import ConfigError
from support import odd_images
from support.faults import assert_one_line, generators, many

PNG = odd_images.encoded("png")
REFUSED = (ConfigError, FileNotFoundError)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def member(name, data=b"", kind=tarfile.REGTYPE, target="", **pax):
    """A file of a tar file. pax: what its extended header says of it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers, info.size = kind, target, pax, len(data)
    return info, data


def tar(*members, form=tarfile.PAX_FORMAT, **options):
    """The bytes of a tar file of `member`s, or of pairs of name and bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, **options) as archive:
        for one in members:
            info, data = one if isinstance(one[0], tarfile.TarInfo) else member(*one)
            archive.addfile(info, io.BytesIO(data) if data else None)
    return stream.getvalue()


def indexed(folder, labelled=True):
    """{name: (bytes, label)} of the images of `folder`, indexed anew."""
    count = index_shards(str(folder), labelled)
    files = ShardFiles(str(folder))
    assert len(files.index) == count
    return {
        name: (files.read_number(number), int(files.index.labels[number]))
        for number, name in enumerate(files.index.names)
    }


def odd_name(rng, number):
    """A name as file systems have them: any script, bytes that are no UTF-8, signs, depths."""
    letters = ["a", "Ж", "猫", "\U0001f408", "\udcff", " ", "\n", "\x1b", "\u202e", "'", "%s", "\\"]
    word = "".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(0, 6)))
    folder = ["", "a/", "../", "/", "x" * 200 + "/", "./"][rng.integers(6)]
    return f"{folder}{number}{word}"


def odd_shard(rng):
    """(its bytes, {name: (bytes, label)} of its images)."""
    members, images = [], {}
    for number in range(rng.integers(1, 6)):
        name, label = odd_name(rng, number), int(rng.integers(1000))
        data = PNG[:33] + rng.bytes(rng.integers(0, 1200))
        more = [
            {},
            {"mtime": "-1e400"},
            {"comment": "x" * 3000},
            {"hdrcharset": "BINARY"},
            {"SCHILY.xattr.user": "\0"},
            {"uid": "x", "gname": "=\n="},
        ][rng.integers(6)]
        ending = ["png", "PNG", "jpeg"][rng.integers(3)]
        parts = [
            member(f"{name}.{ending}", data, **more),
            member(f"{name}.cls", b" %d\n" % label)
            if rng.integers(2)
            else member(f"{name}.json", json.dumps({"label": label, "x": [name]}).encode()),
        ]
        parts += [member(f"{name}.txt", rng.bytes(9))] * bool(rng.integers(2))
        parts = [parts[i] for i in rng.permutation(len(parts))]
        odd = member(f"._{number}", rng.bytes(5)), member("folder.png", kind=tarfile.DIRTYPE)
        members += [*parts, *(odd[: rng.integers(3)] if number == 0 else ())]
        images[f"{name}.{ending}"] = data, label
    return tar(*members, form=FORMATS[rng.integers(2)]), images


@pytest.mark.faults
def test_shards_with_odd_names_and_headers_are_read_whole(tmp_path):
    for rng in generators():
        data, images = odd_shard(rng)
        (tmp_path / "a.tar").write_bytes(data)
        assert indexed(tmp_path) == images
        assert indexed(tmp_path, False) == {
            name: (image, -1) for name, (image, _) in images.items()
        }


def damaged(rng, data):
    """A tar file that is cut off, or has blocks that are changed, lost, twice there or swapped."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    kind, (one, other) = rng.integers(6), rng.integers(len(blocks) // 2 + 1, size=2)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        del blocks[one]
    elif kind == 2:
        blocks.insert(one, blocks[other])
    elif kind == 3:
        blocks[one], blocks[other] = blocks[other], blocks[one]
    elif kind == 4:
        return data + data[rng.integers(2) * 10240 :]
    else:  # a header whose checksum is right again
        headers = [n for n, block in enumerate(blocks) if block[257:262] == b"ustar"]
        number = headers[rng.integers(len(headers))]
        header = bytearray(blocks[number])
        place, size = [(0, 100), (124, 12), (124, 12), (156, 1), (257, 255)][rng.integers(5)]
        sizes = [b"\xff" * 12, b"\x80" + rng.bytes(11), b"%011o\0" % (1 << rng.integers(33))]
        kinds = [bytes([code]) for code in b"0\x0012356xgLKSDXVz"]
        other = rng.bytes(size) if size > 12 else (sizes if size == 12 else kinds)
        header[place : place + size] = other if size > 12 else other[rng.integers(len(other))]
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        blocks[number] = bytes(header)
    return b"".join(blocks)


@pytest.mark.faults
def test_damaged_shards_are_one_line_or_read(tmp_path):
    refused = 0
    for rng in generators(many(200)):
        (tmp_path / "a.tar").write_bytes(damaged(rng, odd_shard(rng)[0]))
        began = time.process_time()
        for labelled in (True, False):
            try:
                indexed(tmp_path, labelled)
            except REFUSED as error:
                refused += 1
                assert_one_line(error, str(tmp_path))
        assert time.process_time() - began < 5
    assert refused > many(50)


@pytest.mark.faults
def test_an_index_never_gives_another_images_bytes(tmp_path):
    """Shards that changed places, or came from elsewhere, behind an index that was right."""
    for rng in generators():
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        truth = {}
        for name in "abc":
            images = {f"{name}{i}.png": rng.bytes(rng.integers(1, 900)) for i in range(3)}
            (tmp_path / f"{name}.tar").write_bytes(tar(*images.items()))
            truth |= images
        index_shards(str(tmp_path), False)
        one, other = (tmp_path / f"{name}.tar" for name in rng.choice(list("abc"), 2, False))
        data = one.read_bytes(), other.read_bytes()
        one.write_bytes(data[1])
        other.write_bytes(data[rng.integers(2)])
        try:
            files = ShardFiles(str(tmp_path))
        except REFUSED as error:
            assert_one_line(error, str(tmp_path))
            continue
        for number, name in enumerate(files.index.names):
            try:
                assert files.read_number(number) == truth[name]
            except ImageError as error:
                assert_one_line(error, str(tmp_path))


def behind(size):
    """A pax header that says that the file behind it has `size` bytes."""
    return {"size": str(size)}


@pytest.mark.parametrize(
    "data, message",
    [
        (tar(("1.png", PNG), member("2.png", b"", tarfile.LNKTYPE, "1.png")), "2.png: a link to 1"),
        (tar(member("2.png", b"", tarfile.SYMTYPE, "/etc/\x1b")), r"2.png: a link to /etc/\\x1b,"),
        (tar(member("1.png", PNG, **{"GNU.sparse.map": "0,1,9,9"})), "1.png: a sparse file"),
        (tar(("1.png", PNG)) + tar(("2.png", PNG)), "more behind its end at byte 1024"),
        # back to its own header, without end, as hidden files are left out
        (tar(member(".x", PNG, **behind(-1536))), ".x ends before it begins"),
        (tar(member("1.png", PNG, **behind(-1))), "1.png ends before it begins"),
        (tar(member("1.png", PNG, **behind(1 << 40))), "1.png: too large: 1099511627776 bytes"),
        (tar(member("1.png", PNG, **behind(1 << 20))), "unexpected end of data|1.png is cut off"),
        (tar(member("1.png", PNG, comment="x" * 20_000)), "a header of 20015 bytes; expected 0 to"),
        (tar(("x" * 20_000, PNG), form=tarfile.GNU_FORMAT), "a header of 20001 bytes; expected"),
    ],
)
def test_shards_that_cannot_be(tmp_path, data, message):
    (tmp_path / "a.tar").write_bytes(data)
    for labelled in (False, True):
        with pytest.raises(ConfigError, match=None if labelled else message) as error:
            index_shards(str(tmp_path), labelled)
        assert_one_line(error.value, str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    "label, message",
    [
        (("1.cls", b"1_0"), "1.cls: the label must be a whole number from 0 on, got b'1_0'"),
        (("1.cls", b"+1"), "1.cls: the label must be a whole number"),
        (("1.cls", b"1" + b" " * (1 << 16)), "1.cls: too large: 65537 bytes are more than"),
        (("1.json", b'{"label": 1, "x": "%s"}' % (b"x" * (1 << 16))), "1.json: too large"),
    ],
)
def test_labels_that_cannot_be(tmp_path, label, message):
    (tmp_path / "a.tar").write_bytes(tar(("1.png", PNG), label))
    with pytest.raises(ConfigError, match=message):
        index_shards(str(tmp_path))
    assert indexed(tmp_path, False) == {"1.png": (PNG, -1)}


def test_headers_for_all_files_cost_no_memory_for_each(tmp_path):
    """`tarfile` keeps a copy of them with each file that it has read."""
    headers = {f"k{i}": "" for i in range(900)}
    files = (member(f"{i}.txt") for i in range(400))
    (tmp_path / "a.tar").write_bytes(tar(("1.png", PNG), *files, pax_headers=headers))
    tracemalloc.start()
    try:
        index_shards(str(tmp_path), False)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_two_images_of_one_name(tmp_path, capsys):
    """By their numbers they are two; a list that names them means none of them."""
    for name, label in (("a", b"0"), ("b", b"1")):
        data = PNG + name.encode()
        (tmp_path / f"{name}.tar").write_bytes(tar(("x\n1.png", data), ("x\n1.cls", label)))
    assert index_shards(str(tmp_path)) == 2
    files = ShardFiles(str(tmp_path))
    assert [files.read_number(number) for number in (0, 1)] == [PNG + b"a", PNG + b"b"]
    with pytest.raises(ConfigError, match=r"x\\n1.png is in a.tar and in b.tar") as error:
        files.read("x\n1.png")
    assert_one_line(error.value, str(tmp_path))
    assert main(["shards", "check", str(tmp_path)]) == 0
    dataset = {
        "name": "ImageShards",
        "image_root": str(tmp_path),
        "transform_ops": [{"DecodeImage": None}],
    }
    loader = {"dataset": dataset, "sampler": {"batch_size": 1}}
    found = build_loader(loader, "Train", num_classes=2).dataset
    assert [found.read(number) for number in (0, 1)] == [PNG + b"a", PNG + b"b"]


@pytest.mark.parametrize(
    "names, message",
    [
        ("ab", "class_names must be a list of texts, got 'ab'"),
        ({"a": 1, "b": 2}, "class_names must be a list of texts, got {'a'"),
        (["a", 2], "class_names must be a list of texts"),
        (["a"], "label 1, but 1 class_names"),
        (["a", "b"], None),
        (None, None),
    ],
)
def test_class_names_and_labels_agree(tmp_path, names, message):
    (tmp_path / "a.tar").write_bytes(tar(("1.png", PNG), ("1.cls", b"1")))
    index_shards(str(tmp_path))
    path = tmp_path / INDEX / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": names}))
    if message is None:
        assert ShardIndex(str(tmp_path)).class_names == names
        return
    with pytest.raises(ConfigError, match=message) as error:
        ShardIndex(str(tmp_path))
    assert_one_line(error.value, os.path.join(str(tmp_path), INDEX))


def test_a_name_that_would_begin_behind_all_numbers(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar(("1.png", PNG)))
    index_shards(str(tmp_path), False)
    np.save(tmp_path / INDEX / "starts.npy", np.array([np.iinfo(np.int64).max]))
    with pytest.raises(ConfigError, match="names outside of their text"):
        ShardIndex(str(tmp_path))
