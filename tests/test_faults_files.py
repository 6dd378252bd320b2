"""Files as they come: pipes and devices, zips that promise more than they hold, lists from other
systems, folders with more than images in them.
"""

import io
import json
import os
import signal
import struct
import zipfile

import pytest
from PIL import Image

from ppcls_nextvit.data.datasets.files import EXTENSIONS, files_below, open_files, subfolders
from ppcls_nextvit.data.images import ImageError, decode_image
from ppcls_nextvit.data.lists import read_class_names, read_label_list, read_pair_list
from ppcls_nextvit.files import IMAGE_BYTES, UnreadableError, read_file
from ppcls_nextvit.schema import ConfigError
from support import odd_images
from support.faults import COUNT, RNG, assert_one_line, coco, coco_content, dataset, generators
from support.paths import ROOT
from support.programs import program_at

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_hanging():
    """What waits for ever ends here."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120 + COUNT)
    yield
    signal.alarm(0)


@pytest.fixture
def deployed():
    """deploy/python/decoding.py, of which deploy/serving has a copy."""
    return program_at("deploy/python/decoding.py")


# What is no file of images
# --------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path, deployed):
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "folder").mkdir()
    places = [tmp_path / "x.jpg", "/dev/zero", tmp_path / "folder", tmp_path / "none", "a\0b"]
    places += ["x" * 300, tmp_path / "x.jpg" / "below"]
    for place in places:
        with pytest.raises(UnreadableError):
            read_file(place, 100)
        with pytest.raises(ImageError):
            decode_image(place)
        with pytest.raises((deployed.DecodeError, ValueError)):
            deployed.read_regular(place)
        for read in (lambda path: read_label_list(path, 3), read_pair_list, read_class_names):
            with pytest.raises((FileNotFoundError, ConfigError)):
                read(place)
        with pytest.raises((FileNotFoundError, ConfigError)):
            coco(tmp_path, place)
    with pytest.raises(FileNotFoundError, match="no such folder or zip file"):
        open_files(str(tmp_path / "x.jpg"))
    with pytest.raises(ImageError, match="x.jpg: not a regular file"):
        open_files(str(tmp_path)).read("x.jpg")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", IMAGE_BYTES + 1)  # a hole
    with pytest.raises(ImageError, match="are more than the limit of 1073741824 bytes"):
        open_files(str(tmp_path)).read("large")


def zip_of(content, declared=None, method=zipfile.ZIP_DEFLATED):
    """A zip whose directory says that the only member, a.png, has `declared` bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.png", content)
    data = bytearray(file.getvalue())
    if declared is not None:
        place = data.rindex(b"PK\1\2")
        data[place + 24 : place + 28] = struct.pack("<I", declared)
    return bytes(data)


@pytest.mark.parametrize(
    "content, declared, message",
    [
        (bytes(1000), (1 << 30) + 1, "1073741825 bytes are more than the limit"),
        (bytes(50_000_000), 1000, "the zip file is damaged here"),
        (bytes(1000), 999, "the zip file is damaged here"),
        (bytes(1000), 1001, "the zip file is damaged here"),
    ],
)
def test_a_member_of_a_zip_is_read_as_far_as_the_directory_says(
    tmp_path, content, declared, message
):
    (tmp_path / "a.zip").write_bytes(zip_of(content, declared))
    with pytest.raises(ImageError, match=f"a.zip/a.png: .*{message}"):
        open_files(str(tmp_path / "a.zip")).read("a.png")


@pytest.mark.faults
def test_damaged_zips(tmp_path):
    path, whole = tmp_path / "a.zip", zip_of(odd_images.encoded("png"))
    for rng in generators():
        data = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            data[rng.choice([rng.integers(len(data)), -rng.integers(1, 80)])] = rng.integers(256)
        path.write_bytes(data)
        try:
            files = open_files(str(path))
            files.check(["a.png"])
            files.read("a.png")
        except (ConfigError, ImageError, FileNotFoundError) as error:
            assert_one_line(error, str(path))


def test_a_zip_of_windows(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x"), b"")
        archive.filelist[0].filename = "train\\a.png"
        archive.filelist[0].orig_filename = "train\\a.png"
    files = open_files(str(tmp_path / "a.zip"))
    for name in ("train/a.png", "train\\a.png"):
        assert files.read(files.named([name])[0]) == b""


# Lists
# --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """train/a.jpg of 40 x 32 pixels with its label train/a.png, and a `c\\d.jpg`."""
    (tmp_path / "train").mkdir()
    Image.new("RGB", (40, 32)).save(tmp_path / "train" / "a.jpg")
    Image.new("L", (40, 32)).save(tmp_path / "train" / "a.png")
    Image.new("RGB", (40, 32)).save(tmp_path / "c\\d.jpg", "jpeg")
    return tmp_path


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("start", [b"", BOM])
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_lists_as_other_systems_write_them(folder, start, slash, end):
    def written(name, text):
        (folder / name).write_bytes(start + text.replace("\n", end).encode())
        return str(folder / name)

    root = str(folder)
    listed = written("list.txt", f"train{slash}a.jpg 0\n")
    data = dataset(
        "ImageNetDataset",
        1,
        image_root=root,
        cls_label_path=listed,
        transform_ops=[{"DecodeImage": None}],
    )
    assert data.names == ["train/a.jpg"] and data.load(0, RNG)["label"] == 0
    pairs = written("pairs.txt", f"train{slash}a.jpg train{slash}a.png\n")
    data = dataset("SegmentationDataset", 2, dataset_root=root, list_path=pairs, mode="train")
    assert (data.names, data.labels) == (["train/a.jpg"], ["train/a.png"])
    assert data.load(0, RNG)["segmentation"].shape == (32, 40)
    assert read_class_names(written("names.txt", "0 cat\n")) == ["cat"]
    content = coco_content()
    content["images"][0]["file_name"] = f"train{slash}a.jpg"
    (folder / "coco.json").write_bytes(start + json.dumps(content).encode())
    assert coco(folder, folder / "coco.json").load(0, RNG)["boxes"].shape == (1, 4)


def test_a_name_that_has_a_backslash_keeps_it(folder):
    assert open_files(str(folder)).named(["c\\d.jpg", "train\\a.jpg"]) == [
        "c\\d.jpg",
        "train/a.jpg",
    ]


def test_a_line_ends_at_its_end(tmp_path):
    """Not at characters that Python's splitlines takes for one."""
    names = ["a\x0bb.jpg", "a\x0cb.jpg", "a\x1cb.jpg", "a\x85b.jpg", "a\u2028b.jpg", "a b.jpg"]
    (tmp_path / "list.txt").write_text("".join(f"{name} 1\n" for name in names), encoding="utf-8")
    assert read_label_list(tmp_path / "list.txt", 2) == (names, [1] * len(names))


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.jpg 1_0\n", "list.txt:1: the label must be an integer, got '1_0'"),
        ("a.jpg " + "9" * 5000 + "\n", "list.txt:1: the label must be an integer, got '9999"),
        ("a.jpg 99999999999999999999\n", "label 99999999999999999999 is out of range"),
        ("a.jpg 1.0\n", "the label must be an integer"),
        (
            "x" * 10**6 + "\n",
            r"list.txt:1: expected 'path label', got 'xxx.*\(1000000 characters\)",
        ),
        ("a\x1b[2J.jpg\n", r"got 'a\\x1b\[2J.jpg'"),
        ("\ufeff".encode("utf-16"), "text in UTF-16; save it as UTF-8"),
    ],
)
@pytest.mark.parametrize("class_num", [None, 10])
def test_labels_and_lines_that_cannot_be(tmp_path, text, message, class_num):
    text = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_label_list(tmp_path / "list.txt", class_num)
    assert_one_line(error.value)


@pytest.mark.parametrize(
    "line", ["² cat", "१२३४५६७८९० cat", "1_0 cat", "-0 cat", "0", "9" * 5000 + " c"]
)
def test_class_numbers_that_are_none(tmp_path, line):
    (tmp_path / "names.txt").write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match="names.txt"):
        read_class_names(tmp_path / "names.txt")


PIECES = [b"a.jpg", b" ", b"0", b"12", b"\n", b"\r", b"\t", BOM, b"\0", b"\xff", b"\xc3\xa9", b"\\"]
PIECES += [b"/", b"-1", b"cat", b",", b"\x1b", b"\xe2\x80\xa8", b"9" * 30, b"'", b"."]


READERS = [
    lambda path: read_label_list(path, None),
    lambda path: read_label_list(path, None, relabel=True),
    lambda path: read_label_list(path, 13, delimiter=","),
    read_pair_list,
    read_class_names,
]


@pytest.mark.faults
def test_any_text_is_read_or_refused(tmp_path):
    path = tmp_path / "list.txt"
    for rng in generators(5 * COUNT):
        path.write_bytes(
            b"".join(PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(40)))
        )
        for read in READERS:
            try:
                read(path)
            except ConfigError as error:
                assert_one_line(error)


# Folders
# --------------------------------------------------------------------------------------


def test_every_format_that_is_read_is_found_in_folders(tmp_path, caplog):
    for class_name in ("cat", "dog", "empty", ".hidden"):
        (tmp_path / "set" / class_name).mkdir(parents=True)
    for ending in EXTENSIONS:
        kind = {".apng": "png", ".avif": "avif", ".bmp": "bmp", ".gif": "gif", ".webp": "webp"}.get(
            ending, "jpeg"
        )
        kind = {".tif": "tiff", ".tiff": "tiff", ".png": "png", ".j2k": "jpeg2000"}.get(
            ending, kind
        )
        kind = "ppm" if ending in (".pbm", ".pgm", ".pnm", ".ppm") else kind
        kind = "jpeg2000" if ending == ".jp2" else kind
        Image.new("RGB", (9, 9)).save(tmp_path / "set" / "cat" / f"x{ending.upper()}", kind)
    (tmp_path / "more" / "deep").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "more" / "deep" / "y.jpg")
    os.symlink(tmp_path / "more", tmp_path / "set" / "dog" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "more" / "deep" / "round")
    for name in ("a.heic", "b.txt", "c", "Thumbs.db", ".DS_Store", "._x.jpg"):
        (tmp_path / "set" / "dog" / name).write_bytes(b"x")
    data = dataset(
        "ImageFolder", 3, image_root=str(tmp_path / "set"), transform_ops=[{"DecodeImage": None}]
    )
    assert data.class_names == ["cat", "dog", "empty"]
    assert data.class_counts().counts.tolist() == [len(EXTENSIONS), 1, 0]
    # the loop of links ends
    assert "dog/linked/deep/y.jpg" in data.names
    told = [record.getMessage() for record in caplog.records]
    assert "3 files are left out by their endings: .heic (1), .txt (1), no ending (1); " in told[0]
    assert told[1] == f"{tmp_path / 'set'}: no image in the class folders ['empty']"
    for index in range(len(data)):
        data.load(index, RNG)


def test_names_as_they_come(tmp_path):
    """Not UTF-8, with line breaks, dollars, quotes, of 250 bytes."""
    odd = [b"\xff\xfe", b"a\nb", b"$HOME `x` %s {0}", b"'\"", b"\x1b[2J", "é".encode() * 120, b" "]
    folder = os.fsencode(tmp_path / "cat")
    os.mkdir(folder)
    for name in odd:
        with open(os.path.join(folder, name + b".png"), "wb") as file:
            file.write(odd_images.encoded("png"))
        with open(os.path.join(folder, name + b".jpg"), "wb") as file:
            file.write(b"no image")
    data = dataset(
        "ImageFolder", 1, image_root=str(tmp_path), transform_ops=[{"DecodeImage": None}]
    )
    assert len(data) == 2 * len(odd)
    for index in range(len(data)):
        try:
            data.load(index, RNG)
        except ImageError as error:
            assert_one_line(error, str(tmp_path))
            str(error).encode()


def test_a_link_to_itself_is_no_folder(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "cat").mkdir()
    assert subfolders(tmp_path) == ["cat"]


def test_no_folder_is_read_twice(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "x.jpg")
    for name in ("a", "b"):
        os.symlink(tmp_path, tmp_path / name)
    assert files_below(tmp_path).images == ["x.jpg"]


def test_the_data_page_s_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dog", "eagle", ".ipynb_checkpoints"):
        (tmp_path / "dataset" / "own" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (9, 9)).save(tmp_path / "dataset" / "own" / name / f"{i}.jpg")
    for name in ("dog/.DS_Store", "eagle/Thumbs.db", "dog/._1.jpg", "dog/notes.txt"):
        (tmp_path / "dataset" / "own" / name).write_bytes(b"\0\5\x16\7Mac OS X")
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    code = page.partition("```python\nown = ")[2].partition("```")[0]
    exec("from pathlib import Path\nown = " + code)  # noqa: S102 - the page's own lines
    own = tmp_path / "dataset" / "own"
    assert (own / "labels.txt").read_text() == "0 dog\n1 eagle\n"
    for split, count in (("train", 8), ("val", 4)):
        data = dataset(
            "ImageNetDataset",
            2,
            image_root=str(own),
            cls_label_path=str(own / f"{split}_list.txt"),
            transform_ops=[{"DecodeImage": None}],
        )
        assert len([data.load(i, RNG) for i in range(len(data))]) == count
