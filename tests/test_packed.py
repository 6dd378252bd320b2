"""Names and labels in arrays: what the plain reader of lists reads, in less time and memory."""

import io

import numpy as np
import pytest

from ppcls_nextvit.data import packed
from ppcls_nextvit.data.lists import read_label_list
from ppcls_nextvit.data.packed import BLOCK_BYTES, PackedNames, read_packed_list
from ppcls_nextvit.schema import ConfigError
from support.faults import COUNT, generators

NAMES = ["a.jpg", "train/ü/b c.png", "", "日本/1.jpg", "\udcff.jpg", "x" * 5000, "a\\b.jpg"]


def test_names_come_back():
    packed = PackedNames.of(NAMES)
    assert list(packed) == NAMES and packed == NAMES and len(packed) == len(NAMES)
    assert packed[-2] == NAMES[-2] and list(packed[1:4]) == NAMES[1:4]
    assert packed != NAMES[:-1] and packed != [*NAMES[:-1], "b"]
    assert PackedNames.of(packed) is packed and list(PackedNames.of([])) == []
    assert PackedNames.joined([packed, packed[2:4]]) == NAMES + NAMES[2:4]
    with pytest.raises(IndexError):
        packed[len(NAMES)]


def test_a_character_that_no_name_has():
    assert PackedNames.of(NAMES).may_hold("\\") and not PackedNames.of(NAMES[:-1]).may_hold("\\")


def test_blocks_are_whole_lines_and_a_line_is_no_book(monkeypatch):
    monkeypatch.setattr(packed, "BLOCK_BYTES", 8)

    def blocks(data):
        return list(packed._blocks(io.BytesIO(data)))

    assert blocks(b"a 0") == [b"a 0\n"]
    assert blocks(b"a 0\nbb 11\nc 2") == [b"a 0\n", b"bb 11\n", b"c 2\n"]
    assert blocks(b"x" * 13 + b" 1\n") == [b"x" * 13 + b" 1\n"]
    with pytest.raises(ValueError, match="a line as long as a book"):
        blocks(b"x" * 30 + b" 1\n")


def outcome(read, path, *arguments):
    """What `read` gives, as lists, or what it complains of."""
    try:
        names, labels = read(path, *arguments)
    except ConfigError as error:
        return str(error)
    return list(names), list(labels)


PIECES = ["a.jpg", "b/c d.png", " ", "  ", "0", "12", "7\n", "\n", "\r\n", "\r", "\t", "\ufeff"]
PIECES += [
    "é",
    "\\",
    "-1",
    "+3",
    "007",
    "1_0",
    ",",
    "\x0b",
    "\u3000",
    "\u2028",
    "٣",
    "9" * 9,
    "9" * 30,
]
WHOLE = ["a.jpg 1\n", "b/c.jpg 0\n", " d.jpg  12 \n", "é.jpg 3\r\n", "\n", "x,7\n", "y 1, 3\n"]
ARGUMENTS = [(None,), (10,), (10, ","), (None, " ", True), (20, "1"), (20, ", ")]


@pytest.mark.faults
def test_it_reads_what_the_plain_reader_reads(tmp_path):
    path = tmp_path / "list.txt"
    same = 0
    for rng in generators(20 * COUNT):
        pieces = WHOLE if rng.integers(3) else WHOLE + PIECES
        text = "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(12)))
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        for arguments in ARGUMENTS:
            expected = outcome(read_label_list, path, *arguments)
            assert outcome(read_packed_list, path, *arguments) == expected, repr(text)
            same += isinstance(expected, tuple)
    assert same > COUNT  # not complaints alone


def test_more_than_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr("ppcls_nextvit.data.packed.BLOCK_BYTES", 50)
    names = [f"folder {i % 7}/{i}.jpg" for i in range(100)] + ["café.jpg"]
    (tmp_path / "list.txt").write_text(
        "".join(f"{name} {i % 10}\n\n" for i, name in enumerate(names)), encoding="utf-8"
    )
    packed, labels = read_packed_list(tmp_path / "list.txt", 10)
    assert packed == names and labels.tolist() == [i % 10 for i in range(101)]
    assert labels.dtype == np.int32


def test_a_list_is_read_at_once(tmp_path, monkeypatch):
    """None of its lines passes through Python, and an image takes its name and 16 bytes."""
    monkeypatch.setattr("ppcls_nextvit.data.packed.split_line", None)
    monkeypatch.setattr("ppcls_nextvit.data.packed.read_label_list", None)
    lines = "".join(f"train/n{i:08d}.JPEG {i % 1000}\n" for i in range(20000))
    (tmp_path / "list.txt").write_text(lines)
    names, labels = read_packed_list(tmp_path / "list.txt", 1000)
    assert names[19999] == "train/n00019999.JPEG" and labels[19999] == 999
    assert names.nbytes + labels.nbytes <= len(lines) + 16 * 20000
    assert len(lines) < BLOCK_BYTES


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a.jpg 0\nb.jpg x\n", "list.txt:2: the label must be an integer, got 'x'"),
        (b"a.jpg 0\n\nb.jpg 3\n", "list.txt:3: label 3 is out of range; expected 0 to 2"),
        (b"a.jpg 0\n\xff.jpg 1\n", "not a text file in UTF-8"),
        (b"\n \n", "the list is empty"),
        (b"a.jpg 99999999999999999999\n", "label 99999999999999999999 is out of range"),
    ],
)
def test_complaints_are_the_plain_reader_s(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_packed_list(tmp_path / "list.txt", 3)


def test_a_list_too_long_to_be_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "LIST_BYTES", 20)
    path = tmp_path / "list.txt"
    path.write_text("one.jpg 0\n" * 3)
    assert read_packed_list(path, 1)[1].tolist() == [0, 0, 0]
    for text, classes in (("one.jpg 0\n" * 3 + "two.jpg\n", 1), ("one.jpg 1\n" * 3, 1)):
        path.write_text(text)
        with pytest.raises(ConfigError, match="some line is not .* is not searched for it"):
            read_packed_list(path, classes)
    monkeypatch.setattr(packed, "BLOCKWISE_LIST_BYTES", 20)
    path.write_text("one.jpg 0\n" * 3)
    with pytest.raises(ConfigError, match="is not read at all"):
        read_packed_list(path, 1)


def test_no_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cls_label_path: .*none.txt: no such file"):
        read_packed_list(tmp_path / "none.txt", 3)
