"""deploy/cpp with detectors and segmentors: the JSON that deploy/python writes, and what it refuses
by name.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from support import cpp_programs
from support.programs import program_at
from support.toy_exports import scenes, toy_detector, toy_segmentor

pytestmark = pytest.mark.chain
pytest.importorskip("cv2", reason="needs the extra `cv2`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, an export of a detector, one of a segmentor."""
    folder = tmp_path_factory.mktemp("dense")
    scenes(folder / "scenes")
    toy_detector(folder / "detection")
    toy_segmentor(folder / "segmentation")
    toy_detector(folder / "many", count=1000, threshold=0.0)
    toy_segmentor(folder / "fixed", sides=(64, 64))
    for task in (
        "detection",
        "segmentation",
        "many",
        "fixed",
    ):  # as exports to paddle are described twice
        shutil.copy(folder / task / "export.json", folder / task / "inference.yml")
    return folder


def classify(*arguments):
    return cpp_programs.run(
        f"{cpp_programs.build('deploy/cpp', '-DPADDLE_WHEEL=ON')}/classify", *arguments
    )


def told(folder, task, tmp_path, *options):
    """(deploy/python's JSON, deploy/cpp's)."""
    given = ["--model", folder / task, "--images", folder / "scenes", *options, "--json"]
    predict = program_at("deploy/python/predict.py")
    assert predict.main([*map(str, given), str(tmp_path / "python.json")]) == 0
    done = classify(*given, tmp_path / "cpp.json")
    assert done.returncode == 0, done.stderr
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("python.json", "cpp.json")]
    return [json.loads(text) for text in texts]


def assert_alike(found, expected, where=""):
    """Equal, but for what float32 sums in another order: scores, boxes and shares to 1e-4."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_alike(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where}[{index}]")
    elif isinstance(expected, float):  # JSON's 1 is 1.0
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_json_is_that_of_python(folder, tmp_path, task):
    expected, found = told(folder, task, tmp_path)
    assert len({json.dumps(one) for one in expected}) == 5, "pictures alike would show nothing"
    assert_alike(found, expected)


def test_thresholds(folder, tmp_path):
    expected, found = told(folder, "detection", tmp_path, "--score-threshold", "0.3")
    assert_alike(found, expected)
    every, _ = told(folder, "detection", tmp_path, "--score-threshold", "0")
    assert sum(len(one["objects"]) for one in every) > sum(len(one["objects"]) for one in expected)
    assert_alike(*reversed(told(folder, "detection", tmp_path, "--mask-threshold", "0.7")))


def test_nothing_is_found(folder, tmp_path):
    expected, found = told(folder, "detection", tmp_path, "--score-threshold", "1")
    assert found == expected and not any(one["objects"] for one in found)


def test_a_thousand_objects(folder, tmp_path):
    expected, found = told(folder, "many", tmp_path)
    assert [len(one["objects"]) for one in found] == [1000] * 5
    assert_alike(found, expected)


def test_an_image_of_another_size_than_the_program_s_is_refused(folder):
    done = classify("--model", folder / "fixed", "--images", folder / "scenes")
    assert done.returncode == 1 and done.stderr.count("error: ") == 5
    assert "the exported program takes 64 x 64" in done.stderr


@pytest.mark.parametrize("task, kind", [("detection", "objects"), ("segmentation", "labels")])
def test_pictures(folder, tmp_path, task, kind):
    given = ("--model", folder / task, "--images", folder / "scenes", "--out", tmp_path / "out")
    done = classify(*given)
    assert done.returncode == 0 and f"drawn in {tmp_path / 'out'}" in done.stdout
    sources = sorted((folder / "scenes").iterdir())
    for source in sources:
        [picture] = (tmp_path / "out").glob(f"{source.stem}_{kind}.png")
        assert min(np.asarray(Image.open(picture)).shape[:2]) >= min(Image.open(source).size)


@pytest.mark.parametrize(
    "task, options, message",
    [
        ("detection", ["--topk", "2"], "--topk: for classification; this export is for detection"),
        ("segmentation", ["--mask-threshold", "0.5"], "--mask-threshold: for detection"),
        (
            "detection",
            ["--mask-threshold", "1.5"],
            "--mask-threshold: expected a number from 0 to 1",
        ),
        (
            "detection",
            ["--score-threshold", "x"],
            "--score-threshold: expected a number from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_meant_is_named(folder, task, options, message):
    done = classify("--model", folder / task, "--images", folder / "scenes", *options)
    assert done.returncode in (1, 2) and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_an_image_that_takes_too_much_memory_is_refused(folder, tmp_path):
    options = ("--memory", "0.0001", "--json", tmp_path / "told.json")
    done = classify("--model", folder / "segmentation", "--images", folder / "scenes", *options)
    assert done.returncode == 1 and done.stderr.count("error: ") == 5
    assert all("error" in one for one in json.loads((tmp_path / "told.json").read_text()))


def test_a_file_that_was_changed_is_refused(folder, tmp_path):
    for path in (folder / "segmentation").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with open(tmp_path / "inference.pdiparams", "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    done = classify("--model", tmp_path, "--images", folder / "scenes")
    assert done.returncode == 1 and "inference.pdiparams" in done.stderr
