"""Images of folders, drawn one by one: names of what is written, and that one which cannot be read,
named or written costs no other.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.models.api import Instances
from ppcls_nextvit.tasks.detection.results import DetectionResult
from ppcls_nextvit.tasks.inputs import InputImage
from ppcls_nextvit.tasks.joint import ImagePredictor
from ppcls_nextvit.tasks.results import Result, output_stems, predictions, save_results
from ppcls_nextvit.tasks.segmentation.results import SegmentationResult


@pytest.mark.parametrize(
    "paths, stems",
    [
        (["a.png"], ["a"]),
        (["in/a.png", "in/b.png"], ["a", "b"]),
        (["in/a.png", "in/a.jpg", "in/b.png"], ["a.png", "a.jpg", "b"]),
        (["in/a.png", "in/sub/a.png", "in/sub/deep/c.d.png"], ["a", "sub/a", "sub/deep/c.d"]),
        (["in/one/a.png", "in/two/a.png"], ["one/a", "two/a"]),
        (["in/a.png", "in/a.png"], ["a", "a"]),  # one file, given twice
        (["in/../in/a.png", "in/b.png"], ["a", "b"]),
        ([], []),
    ],
)
def test_names_of_what_is_written(paths, stems):
    assert output_stems([Path(path) for path in paths]) == stems


def test_long_names_stay_different_and_leave_room_for_endings():
    names = [letter + "ü" * 124 + ".png" for letter in "ab"]  # 250 bytes
    names += ["ü" * 124 + letter + ".png" for letter in "ab"]
    stems = output_stems([Path(name) for name in names])
    assert len(set(stems)) == 4
    assert all(len(os.fsencode(stem)) <= 200 for stem in stems)


def grey(side=8):
    return Image.new("RGB", (side, side), "gray")


class Drawn(Result):
    """What a task draws, by the name of the image."""

    def __init__(self, image, names):
        image.picture()
        if image.path.stem == "refused":
            raise ImageError(f"{image.path}: too small")
        super().__init__(image, names)

    def to_dict(self):
        return {"file_name": self.file_name, "objects": [self.image.path.stem]}

    def pictures(self):
        return {"_overlay.png": grey(), "_labels.png": grey()}


def save(paths, directory):
    """What JSON says of the files `paths`, which are predicted and drawn into `directory`."""
    images = [InputImage(str(path), path) for path in paths]
    results = predictions(ImagePredictor(["object"], Drawn), images)
    return save_results(results, images, directory)


def test_one_image_costs_no_other(tmp_path, caplog):
    for name in ("good.png", "refused.png", "sub/good.png", "taken.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        grey().save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    # a folder where a picture should go
    (tmp_path / "out" / "taken_labels.png").mkdir(parents=True)
    names = ("bad.png", "gone.png", "good.png", "refused.png", "sub/good.png", "taken.png")
    paths = [tmp_path / "in" / name for name in names]
    results = save(paths, tmp_path / "out")
    assert [Path(result["file_name"]) for result in results] == paths
    bad, gone, good, refused, sub, taken = results
    assert all(set(result) == {"file_name", "error"} for result in (bad, gone, refused))
    assert good == {"file_name": str(paths[2]), "objects": ["good"]}
    assert sub["objects"] == ["good"] and (tmp_path / "out/sub/good_labels.png").is_file()
    assert taken["objects"] == ["taken"] and "taken_labels.png" in taken["error"]
    assert (tmp_path / "out/taken_overlay.png").is_file()


class Told(Drawn):
    def line(self):
        return "1 object: a\nb"


def test_a_line_says_what_was_found_in_each_image(tmp_path, capsys):
    grey().save(tmp_path / "good.png")
    images = [InputImage(name, tmp_path / name) for name in ("good.png", "gone.png")]
    assert ImagePredictor(["object"], Told).write(images, out=str(tmp_path / "out")) == 1
    assert capsys.readouterr().out == "good.png: 1 object: a\\nb\n"


def test_what_the_line_says(tmp_path):
    grey(2).save(tmp_path / "a.png")
    image, names = InputImage("a.png", tmp_path / "a.png"), ["none", "cell"]
    labels = SegmentationResult(image, np.array([[1, 1], [0, 1]]), names)
    assert repr(labels) == "SegmentationResult(a.png: cell 75.0 %, none 25.0 %)"
    found = Instances(np.zeros((3, 4)), np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1]), None)
    assert DetectionResult(image, found, names, 0.5).line() == "2 objects: cell 0.9000, none 0.8000"
    assert DetectionResult(image, found, names, 1.0).line() == "0 objects"


def test_a_file_where_the_folder_should_be_is_an_error_before_the_work(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError):
        save_results(iter(lambda: pytest.fail("worked"), None), [], tmp_path / "out")


def test_pictures_of_all_sizes_and_kinds_are_drawn(tmp_path):
    """Sides of one pixel, more objects than colours, names that no font draws."""
    from ppcls_nextvit.tasks.detection.pictures import draw_objects
    from ppcls_nextvit.tasks.segmentation.pictures import draw_labels

    names = ["猫\n", "x" * 300, "$\\frac$", "", "\udcff"]
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 3000), (3000, 1), (31, 33), (600, 700)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = rng.integers(0, len(names), (height, width))
        assert draw_labels(image, labels, names).height == max(height, 18)
        corners = rng.uniform(-5, width + 5, (9, 4)).astype(np.float32)
        corners = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] ** 2], axis=1)
        found = Instances(corners, np.ones(9), np.arange(9) % len(names), None)
        picture = draw_objects(image, found, names)
        assert max(picture.size) >= min(512, 512 // max(height, width) * max(height, width))


def test_texts_of_objects_stand_apart_within_the_picture():
    from ppcls_nextvit.tasks.detection.pictures import _free_place

    rng, size = np.random.default_rng(0), (300, 200)
    taken = []
    for _ in range(60):
        left, top = rng.uniform(-20, 310), rng.uniform(-20, 210)
        place = _free_place("nucleus 0.93", (left, top, left + 60, top + 40), size, taken)
        if place is None:
            continue
        assert 0 <= place[0] < place[2] < size[0] and 0 <= place[1] < place[3] < size[1]
        for x1, y1, x2, y2 in taken:
            assert place[2] < x1 or x2 < place[0] or place[3] < y1 or y2 < place[1]
        taken.append(place)
    assert 10 < len(taken) < 60
    assert _free_place("x" * 100, (0, 0, 9, 9), size, []) is None


def test_objects_have_their_classes_colours_and_a_legend():
    from ppcls_nextvit.tasks.detection.pictures import comparison_sheet, draw_objects
    from ppcls_nextvit.tasks.pictures import palette

    image = np.zeros((60, 80, 3), np.uint8)
    boxes = np.float32([[5, 30, 25, 50], [30, 30, 50, 50], [55, 30, 75, 50]])
    labels = np.array([2, 0, 2])
    found = Instances(boxes, np.float32([0.9, 0.8, 0.7]), labels, None)
    names, colours = ["a", "b", "c"], palette(3)
    picture = draw_objects(image, found, names, smallest=80)
    assert picture.width == 80 and picture.height > 60 + 18  # the legend is below
    pixels = np.asarray(picture)
    for box, label in zip(boxes.astype(int), labels, strict=True):
        assert (pixels[box[3], box[0] : box[2]] == colours[label]).all()
    legend = {tuple(pixel) for pixel in pixels[60:].reshape(-1, 3).tolist()}
    assert tuple(colours[0].tolist()) in legend and tuple(colours[2].tolist()) in legend
    assert tuple(colours[1].tolist()) not in legend  # of which there is no object
    # of a single class an object has one colour in truth and in prediction, whatever the order
    truth = {"boxes": boxes, "labels": np.zeros(3, int)}
    turned = Instances(boxes[::-1] + 2, np.float32([0.9, 0.8, 0.7]), np.zeros(3, int), None)
    sheet = np.asarray(comparison_sheet([(image, truth, turned)], 0.5, 80, ["x"]))[18:]
    assert sheet.shape == (64, 3 * 84 - 4, 3)
    for box in boxes.astype(int):
        own, theirs = sheet[box[3], 84 + box[0] + 5], sheet[box[3] + 2, 168 + box[0] + 7]
        assert own.any() and (own == theirs).all()
