"""`nextvit check`: each fault that is planted is found and named, and clean data have none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ppcls_nextvit.api.doctor import examined
from ppcls_nextvit.api.layouts import recognised
from ppcls_nextvit.cli.main import main
from support.paths import NUCLEI, ROOT

PHOTOS = sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))


def scene(seed, size=(48, 40)):
    """A picture with structure, another for each seed."""
    areas = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(areas).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Two classes, 4 images to train and 2 to evaluate each, all different."""
    for place, (split, count) in enumerate((("train", 4), ("val", 2))):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                path = tmp_path / split / name / f"{index}.png"
                scene(100 * place + 10 * label + index).save(path)
    return tmp_path


def found(folder):
    return examined(recognised(folder))


def test_clean_data_have_no_findings(folder, capsys):
    findings = found(folder)
    assert (findings.errors, findings.warnings) == ([], [])
    assert findings.facts[0].split() == ["class", "train", "evaluation"]
    assert findings.facts[2].split() == ["dog", "4", "2"]
    assert "12 images can be read; width x height from 48 x 40 to 48 x 40" in findings.facts[-1]
    assert main(["check", str(folder), "--json", str(folder / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "folders of images: 2 classes, 8 images to train, 4 of each class, 4 to evaluate" in out
    assert out.endswith(f"0 errors, 0 warnings\nwritten: {folder / 'out.json'}\n")
    assert json.loads((folder / "out.json").read_text()) == findings.to_dict()


def _unreadable(root):
    (root / "train/cat/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")


def _leak(root):
    (root / "val/cat/copy.png").write_bytes((root / "train/cat/1.png").read_bytes())


def _two_classes(root):
    (root / "train/dog/copy.png").write_bytes((root / "train/cat/1.png").read_bytes())


def _empty_class(root):
    for split in ("train", "val"):
        (root / split / "bird").mkdir()
    scene(7).save(root / "val/bird/0.png")


@pytest.mark.parametrize(
    "plant, message",
    [
        (_unreadable, "images that cannot be read: 1 ({}/train/cat/bad.png: "),
        (
            _leak,
            "images in training and in evaluation, the same file: 1 (train cat/1.png = evaluation "
            "cat/copy.png)",
        ),
        (
            _two_classes,
            "images of several classes, the same file: 1 (train cat/1.png = train dog/copy.png)",
        ),
        (_empty_class, "classes without a training image: 1 (bird)"),
    ],
)
def test_errors(folder, plant, message, capsys):
    plant(folder)
    findings = found(folder)
    assert len(findings.errors) == 1
    assert findings.errors[0].startswith(message.format(folder))
    assert main(["check", str(folder)]) == 1
    assert f"error: {message.format(folder)}" in capsys.readouterr().out


def _copy(root):
    (root / "train/cat/copy.png").write_bytes((root / "train/cat/1.png").read_bytes())


def _smaller_and_darker(root):
    picture = Image.open(root / "train/cat/1.png").resize((96, 80), Image.Resampling.BICUBIC)
    ImageEnhance.Brightness(picture).enhance(0.8).save(root / "val/cat/other.jpg", quality=85)


def _tiny(root):
    scene(9, (20, 60)).save(root / "train/cat/tiny.png")


def _strip(root):
    scene(9, (400, 40)).save(root / "train/cat/strip.png")


def _uneven(root):
    for index in range(100):
        scene(1000 + index).save(root / "train/cat" / f"more{index}.png")


def _not_evaluated(root):
    for path in (root / "val/dog").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "plant, message",
    [
        (_copy, "images that are there more than once: 1 (train cat/1.png = train cat/copy.png)"),
        (
            _smaller_and_darker,
            "evaluation images that look like one of training: 1 (train cat/1.png = evaluation "
            "cat/other.jpg)",
        ),
        (_tiny, "images with a side below 32 pixels: 1 (train cat/tiny.png)"),
        (_strip, "images 5 times as long as high, or more: 1 (train cat/strip.png)"),
        (_uneven, "classes are uneven: from 4 to 104 training images"),
        (_not_evaluated, "classes without an evaluation image: 1 (dog)"),
    ],
)
def test_warnings(folder, plant, message):
    plant(folder)
    findings = found(folder)
    assert (findings.errors, findings.warnings) == ([], [message])


def test_photographs_are_alike_to_their_copies_alone(tmp_path):
    for index, path in enumerate(PHOTOS):
        for split in ("train", "val"):
            (tmp_path / split / f"c{index}").mkdir(parents=True)
        with Image.open(path) as photo:
            photo.save(tmp_path / "train" / f"c{index}" / "a.jpg", quality=95)
            small = photo.resize((photo.width * 2 // 3, photo.height * 2 // 3))
            small.save(tmp_path / "val" / f"c{index}" / "b.jpg", quality=70)
    (warning,) = found(tmp_path).warnings
    assert warning.startswith(f"evaluation images that look like one of training: {len(PHOTOS)} (")
    assert all(f"train c{i}/a.jpg = evaluation c{i}/b.jpg" in warning for i in range(len(PHOTOS)))


def test_flat_pictures_are_alike_to_none(tmp_path):
    for split, grey in (("train", 10), ("val", 200)):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (40, 40), (grey, grey, grey)).save(tmp_path / split / "a" / "x.png")
    assert found(tmp_path).warnings == []


def test_lists_and_a_folder_that_is_split(folder):
    data = recognised(folder / "train")
    assert examined(data).errors == [] and data.lists
    (folder / "train_list.txt").write_text("train/cat/0.png 0\ntrain/dog/0.png 1\n")
    (folder / "val_list.txt").write_text("val/cat/0.png 0\nval/dog/gone.png 1\n")
    (error,) = examined(recognised(folder, "lists")).errors
    assert "gone.png" in error


@pytest.fixture
def objects(tmp_path):
    """The nuclei, whose json can be changed: (folder, content of training's)."""
    for split in ("training", "validation"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / split).symlink_to(NUCLEI / "images" / split)
        name = f"instances_{split}.json"
        (tmp_path / name).write_text((NUCLEI / name).read_text())
    path = tmp_path / "instances_training.json"
    return tmp_path, json.loads(path.read_text())


def test_objects_without_faults(objects):
    folder, content = objects
    findings = found(folder)
    assert (findings.errors, findings.warnings) == ([], [])
    own = [each for each in content["annotations"] if not each["iscrowd"]]
    assert findings.facts[1].split() == ["nucleus", str(len(own)), "39"]


def _outside(content):
    content["annotations"][0]["bbox"] = [500, 500, 20, 20]
    return "objects, a box outside the image: 1 (annotation"


def _no_area(content):
    content["annotations"][0]["area"] = 0
    return "objects, of area 0: 1 (annotation"


def _elsewhere(content):
    content["annotations"][0]["bbox"] = [0, 0, 3, 3]
    content["annotations"][0]["segmentation"] = [[90, 90, 120, 90, 120, 120]]
    return "objects, a mask elsewhere than the box: 1 (annotation"


def _other_size(content):
    image = content["images"][0]
    image["width"] += 4
    content["annotations"] = [
        each for each in content["annotations"] if each["image_id"] != image["id"]
    ]
    return "images of another size than the json says: 1 (train "


@pytest.mark.parametrize("plant", [_outside, _no_area, _elsewhere, _other_size])
def test_objects_that_cannot_be_meant(objects, plant):
    folder, content = objects
    message = plant(content)
    (folder / "instances_training.json").write_text(json.dumps(content))
    (error,) = found(folder).errors
    assert error.removeprefix("train: ").startswith(message)


def test_objects_worth_a_look(objects):
    folder, content = objects
    image = content["images"][0]
    content["annotations"] = [
        each for each in content["annotations"] if each["image_id"] != image["id"]
    ]
    box = content["annotations"][0]["bbox"]
    content["annotations"][0].update(
        bbox=[*box[:2], 4, 4],
        segmentation=[[box[0], box[1], box[0] + 4, box[1], box[0] + 4, box[1] + 4]],
    )
    for name in ("instances_training.json", "instances_validation.json"):
        own = content if "training" in name else json.loads((folder / name).read_text())
        own["categories"].append({"id": 99, "name": "other"})
        (folder / name).write_text(json.dumps(own))
    findings = found(folder)
    assert findings.errors == ["no object of 'other' to train with"]
    assert findings.warnings[0].startswith("train: objects smaller than 8 pixels: 1 (annotation")
    assert findings.warnings[1] == (
        f"train: images without an object: 1 ({Path(image['file_name']).name})"
    )


def test_the_page_has_histograms_and_needs_nothing_else(folder, tmp_path, capsys):
    (folder / "val/cat/copy <b>.png").write_bytes((folder / "train/cat/1.png").read_bytes())
    assert main(["check", str(folder), "--html", str(tmp_path / "c.html")]) == 1
    assert capsys.readouterr().out.endswith(f"\nwritten: {tmp_path / 'c.html'}\n")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<h2>Errors: 1</h2>" in page and "copy &lt;b&gt;.png" in page
    assert page.count('src="data:image/png;base64,') == 2 and "http" not in page
    assert main(["check", str(NUCLEI), "--html", str(tmp_path / "n.html")]) == 0
    page = (tmp_path / "n.html").read_text(encoding="utf-8")
    for heading in ("Of each class: objects", "Sizes of the images", "Sizes of the boxes"):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Errors: 0</h2>\n<p>none</p>" in page
