"""nextvit explain with options, names and pictures of any kind: pictures and their numbers, or one
line; and a bad picture costs none of the others.
"""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit import explain
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.engine.curves import pyplot
from ppcls_nextvit.explain.explanation import Explanation
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.subject import class_indices
from support import odd_images
from support.faults import assert_one_line, generators, many
from test_explain_command import explained

pytest.importorskip("matplotlib", reason="needs the extra `train`")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return explained(tmp_path_factory.mktemp("tiny"))


NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "31",
    "32",
    "33",
    "1024",
    "1025",
    "9" * 25,
    "9" * 5000,
    "-" + "9" * 30,
]
WORDS = ["Bag", "bag", "3", "10", "-1", "", "٣", "²", "9" * 5000, "\n", "\udcff", "x" * 9999, "3.0"]


def odd_options(rng, kind):
    """Options of `nextvit explain`, of its own kind and of others."""

    def drawn(values):
        return values[rng.integers(len(values))]

    options = []
    for _ in range(rng.integers(0, 3)):
        name = drawn(["point", "grid", "heads", "classes", "method", "stage", "sizes", "objects"])
        values = {
            "point": [drawn(NUMBERS), drawn(NUMBERS)],
            "grid": [drawn([n for n in NUMBERS if n not in ("31",)])],
            "classes": [drawn(WORDS) for _ in range(rng.integers(1, 4))],
            "method": [drawn(["grad", "hires", "eigen"])],
            "stage": [drawn(NUMBERS)],
            "sizes": [drawn(NUMBERS[4:]) for _ in range(rng.integers(1, 3))],
        }.get(name, [])
        options += [f"--{name}", *values]
    return [kind, *options]


@pytest.mark.slow
@pytest.mark.faults
def test_whatever_is_asked_for_is_answered_or_one_line(tiny, tmp_path, capsys):
    arguments, images = tiny
    for number, rng in enumerate(generators(many(6))):
        kind = ["attention", "cam", "cam", "features", "erf", "multiscale"][number % 6]
        own = ["--images", str(images / "00000.png")] if kind != "multiscale" else []
        out = tmp_path / str(number)
        try:
            found = main(["explain", *odd_options(rng, kind), *arguments, *own, "--out", str(out)])
        except SystemExit as error:  # argparse's, of what is no number to Python
            assert error.code == 2
            continue
        said = capsys.readouterr()
        assert found in (0, 1)
        if found:
            (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
            assert_one_line(line)
            assert not out.exists()
        else:
            # nothing where nothing is found
            files = list(out.iterdir()) if out.exists() else []
            assert set(map(os.fspath, files)) == set(said.out.splitlines())


@pytest.mark.slow
@pytest.mark.faults
def test_a_bad_picture_costs_none_of_the_others(tiny, tmp_path, capsys):
    arguments, _ = tiny
    for number, rng in enumerate(generators(many(4))):
        folder, good, bad = tmp_path / str(number), 0, 0
        folder.mkdir()
        for image in range(4):
            kind = ["jpeg", "png", "webp", "bmp"][rng.integers(4)]
            data = odd_images.encoded(kind)
            if rng.integers(2):
                data = data[: rng.integers(40)]
                bad += 1
            else:
                good += 1
            name = f"{image}{['', ' 猫', '$x^2$', 'x' * 240, '%s'][rng.integers(5)]}"
            (folder / f"{name[:240]}.{kind}").write_bytes(data)
        out = tmp_path / f"out{number}"
        kind = ["cam", "features"][number % 2]
        command = ["explain", kind, *arguments, "--images", str(folder), "--out", str(out)]
        assert main(command) == (1 if bad else 0)
        said = capsys.readouterr()
        assert len(said.out.splitlines()) == 2 * good
        assert len(list(out.rglob("*.png"))) == len(list(out.rglob("*.json"))) == good
        if bad:
            last = said.err.splitlines()[-1]
            assert last.startswith(f"error: {bad} of 4 images could not be looked at; the first: ")
            assert str(folder) in last


def test_pictures_of_equal_names_in_two_folders(tiny, tmp_path, capsys):
    arguments, images = tiny
    for name in "ab":
        (tmp_path / "in" / name).mkdir(parents=True)
        shutil.copy(images / "00000.png", tmp_path / "in" / name / "1.png")
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    command = ["explain", "features", *arguments, "--images", str(tmp_path / "in")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    ends = ("png", "json")
    expected = [tmp_path / "out" / name / f"1_features.{end}" for name in "ab" for end in ends]
    assert sorted(said.out.splitlines()) == sorted(map(str, expected))
    assert all(path.exists() for path in expected)
    assert "error: 1 of 3 images could not be looked at; the first: " in said.err
    assert "c.png: not an image" in said.err


def test_python_is_told_of_a_bad_picture(tiny, tmp_path):
    arguments, images = tiny
    (tmp_path / "c.png").write_bytes(b"no picture")
    config = load_config(arguments[1], arguments[3:])
    with pytest.raises(ImageError, match="c.png: not an image"):
        list(explain.explain("features", config, [str(images), str(tmp_path / "c.png")]))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"points": ((1, 1),) * 257}, "points: at most 256, got 257"),
        ({"grid": 17}, "grid: must be from 1 to 16, got 17"),
        ({"grid": -1}, "grid: must be from 1 to 16, got -1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        explain.Settings(**settings)
    explain.Settings(points=((1, 1),) * 256)


def test_no_stage_0(tiny, capsys):
    arguments, images = tiny
    assert main(["explain", "cam", *arguments, "--images", str(images), "--stage", "0"]) == 1
    assert "stage: must be from 1 to 4, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["9" * 5000, "0" * 9 + "1", "²", "10", "-1", ""])
def test_classes_that_are_none(word):
    with pytest.raises(ConfigError, match="no class .* an index from 0 to 9") as error:
        class_indices([f"c{i}" for i in range(10)], [word])
    assert_one_line(error.value)


def test_a_picture_of_many_rows_is_drawn_coarser(tmp_path):
    """Matplotlib draws up to 65,535 pixels along a side."""

    def draw():
        figure = pyplot().figure(figsize=(1, 600))
        figure.add_axes((0, 0, 1, 1)).imshow(np.zeros((2, 2)), aspect="auto")
        return figure

    picture, _ = Explanation("a/b", {}, {}, draw).save(tmp_path)
    with Image.open(picture) as image:
        assert 10_000 < image.height < 65_535
