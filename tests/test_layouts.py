"""Layouts of other programs: what VOC's, YOLO's, labelme's files, tables and label PNGs say becomes
what our datasets read; whatever is wrong with them is one line that names the file.
"""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.api import layouts
from ppcls_nextvit.api.choices import Choices
from ppcls_nextvit.api.doctor import examined
from ppcls_nextvit.api.layouts import LAYOUTS, recognised
from ppcls_nextvit.api.layouts.voc import read_xml
from ppcls_nextvit.api.recipe import plan
from ppcls_nextvit.cli import common
from ppcls_nextvit.data import DATASETS
from ppcls_nextvit.data.agreement import check_data
from ppcls_nextvit.data.images import ImageError, image_size
from ppcls_nextvit.schema import ConfigError
from support.faults import COUNT, generators
from support.paths import NUCLEI

pytest.importorskip("pycocotools", reason="the extra det")

SIZE = (60, 40)  # of every image: width, height


def picture(path, shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (shade, 40, 200)).save(path)
    return path


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def xml_of(name, *objects, size=SIZE, extra=""):
    parts = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2, more in objects
    )
    side = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"{extra}<annotation><filename>{name}</filename>{side}{parts}</annotation>"


def voc(root, count=6, lists=True):
    """VOC's folders: `dog` in every image, `cat` in every second, one of them difficult."""
    for i in range(count):
        picture(root / "JPEGImages" / f"{i}.jpg", 20 * i)
        objects = [("dog", 1, 1, 30, 20, "")]
        if i % 2:
            more = "<difficult>1</difficult>" if i == 1 else ""
            objects.append(("cat", 11, 6, 60, 40, more))
        written(root / "Annotations" / f"{i}.xml", xml_of(f"{i}.jpg", *objects))
    if lists:
        sets = root / "ImageSets" / "Main"
        written(sets / "train.txt", "".join(f"{i}\n" for i in range(count - 2)))
        written(sets / "val.txt", "".join(f"{i}\n" for i in range(count - 2, count)))
    return root


def yolo(root, names="[dog, cat]", outline=False, count=3):
    """YOLO's folders with data.yaml."""
    for part in ("train", "val"):
        for i in range(count):
            picture(root / "images" / part / f"{i}.png", 20 * i)
            line = "1 0.5 0.5 0.5 1\n"
            if outline:
                line = "1 0.25 0 0.75 0 0.75 1 0.25 1\n"
            written(root / "labels" / part / f"{i}.txt", f"0 0.25 0.25 0.5 0.5\n{line}")
    settings = f"path: ../somewhere\ntrain: images/train\nval: images/val\nnames: {names}\n"
    written(root / "data.yaml", settings + "download: import os; os.remove('x')\n")
    return root


def labelme_of(image, *shapes, **more):
    kinds = [
        {"label": label, "points": points, "shape_type": kind, "group_id": group}
        for label, kind, points, group in shapes
    ]
    return json.dumps(
        {"imagePath": image, "shapes": kinds, "imageWidth": 60, "imageHeight": 40, **more}
    )


TRIANGLE = [[10, 10], [30, 10], [10, 30]]


def labelme(root, count=5):
    for i in range(count):
        picture(root / f"{i}.png", 20 * i)
        shapes = [
            ("cell", "polygon", TRIANGLE, 7),
            ("cell", "polygon", [[40, 10], [50, 10], [50, 20]], 7),
            ("box", "rectangle", [[50, 30], [20, 5]], None),
            ("cell", "circle", [[20, 20], [20, 25]], None),
            ("cell", "point", [[1, 1]], None),
        ]
        written(root / f"{i}.json", labelme_of(f"{i}.png", *shapes))
    return root


def pixels(root, parts=("training", "validation"), folders=("images", "annotations"), end=""):
    labels = np.zeros(SIZE[::-1], np.uint8)
    labels[10:20, 5:50] = 2
    for part in parts:
        for i in range(5):
            picture(root / folders[0] / part / f"{i}.jpg", 20 * i)
            path = root / folders[1] / part / f"{i}{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(path)
    return root


def datasets(data, folder):
    """Our own datasets of both parts."""
    data.write_lists(folder)
    for section in (data.placed(folder).train, data.placed(folder).evaluation):
        arguments = {key: value for key, value in section.items() if key != "name"}
        yield DATASETS.build(section["name"], arguments, "dataset", data.class_num)


def test_the_command_line_offers_every_layout():
    assert common.LAYOUTS == tuple(LAYOUTS)


def test_voc(tmp_path):
    data = recognised(voc(tmp_path / "data"))
    assert (data.layout, data.holds, data.names) == ("voc", "objects", ["cat", "dog"])
    assert (data.images, data.masks, data.split) == ((4, 2), False, False)
    train, held = datasets(data, tmp_path / "run")
    assert train.class_counts().counts.tolist() == [1, 4]  # the difficult one does not count
    truth = train.truth(3, (40, 60))
    # pixels are counted from 1 there, and the last belongs to the box
    assert truth["boxes"].tolist() == [[0, 0, 30, 20], [10, 5, 60, 40]]
    assert train.truth(1, (40, 60))["ignore_boxes"].tolist() == [[10, 5, 60, 40]]
    assert train.image(0).shape == (40, 60, 3) and len(held) == 2
    assert not examined(data).errors


def test_voc_without_lists_is_split_by_the_rarest_class(tmp_path):
    data = recognised(voc(tmp_path / "data", count=10, lists=False), val_share=0.4)
    assert data.split and data.images == (6, 4)
    for dataset in datasets(data, tmp_path / "run"):
        assert dataset.class_counts().counts.all()
    assert recognised(tmp_path / "data", val_share=0.4) == data


def test_voc_beside_the_images_in_folders_of_the_parts(tmp_path):
    for part in ("train", "valid", "test"):
        for i in range(2):
            picture(tmp_path / part / f"{i}.png")
            text = xml_of("other.png", ("dog", 1, 1, 9, 9, ""), size=(0, 0))
            written(tmp_path / part / f"{i}.xml", text)
    data = recognised(tmp_path)
    assert (data.layout, data.images) == ("voc", (2, 2))
    assert data.notes == ("left out: 2 images that are neither of train nor of valid",)


@pytest.mark.parametrize("names", ["[dog, cat]", "{0: dog, 1: cat}"])
@pytest.mark.parametrize("outline", [False, True])
def test_yolo(tmp_path, names, outline):
    data = recognised(yolo(tmp_path / "data", names, outline))
    assert (data.layout, data.names, data.images) == ("yolo", ["dog", "cat"], (3, 3))
    # of objects with and without outlines, the boxes are learnt
    assert not data.masks and bool(data.notes) == outline
    train, _ = datasets(data, tmp_path / "run")
    truth = train.truth(0, (40, 60))
    assert truth["boxes"].tolist() == [[0, 0, 30, 20], [15, 0, 45, 40]]
    assert truth["labels"].tolist() == [0, 1]


def test_yolo_outlines(tmp_path):
    root = yolo(tmp_path / "data")
    for path in root.rglob("labels/*/*.txt"):
        path.write_text("0 0.25 0 0.75 0 0.75 1.004 0.25 1\n")
    data = recognised(root)
    assert data.masks
    train, _ = datasets(data, tmp_path / "run")
    assert train.truth(0, (40, 60))["masks"].sum() == 30 * 40


def test_yolo_without_a_yaml_or_as_others_write_it(tmp_path):
    root = yolo(tmp_path / "data")
    (root / "data.yaml").unlink()
    (root / "labels" / "val" / "2.txt").unlink()
    data = recognised(root)
    assert (data.names, data.images) == (["0", "1"], (3, 3))
    assert data.notes == ("1 of 6 images have no label file, so no object",)
    written(root / "classes.txt", "a dog\ncat\n")
    assert recognised(root).names == ["a dog", "cat"]
    text = "train: ../images/train\nval: [../images/val]\nnc: 2\nnames: [x, y]\n"
    written(root / "data.yaml", text)
    assert recognised(root).names == ["x", "y"]
    written(root / "list.txt", "images/val/0.png\n./images/val/1.png\n")
    written(root / "data.yaml", text.replace("[../images/val]", "list.txt"))
    assert recognised(root).images == (3, 2)


def test_labelme(tmp_path):
    data = recognised(labelme(tmp_path / "data"))
    assert (data.layout, data.names, data.masks) == ("labelme", ["box", "cell"], True)
    assert data.images == (4, 1)
    assert data.notes == ("left out: 5 shapes of the type point, which have no inside",)
    train, _ = datasets(data, tmp_path / "run")
    truth = train.truth(0, (40, 60))
    assert truth["labels"].tolist() == [1, 0, 1]  # two polygons of a group are one object
    assert truth["boxes"].round().tolist()[:2] == [[10, 10, 50, 30], [20, 5, 50, 30]]
    areas = truth["masks"].sum(axis=(1, 2))
    assert areas[1] == 30 * 25 and abs(areas[2] - np.pi * 25) < 10


def test_csv(tmp_path):
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png", 30 * i)
    rows = [f"{i}.png,{'a cat' if i % 2 else 'dog'}" for i in range(6)]
    written(tmp_path / "data.csv", "\ufeffImage,Label\n" + "\n".join(rows))
    data = recognised(tmp_path)
    assert (data.layout, data.names, data.images) == ("csv", ["a cat", "dog"], (4, 2))
    assert data.counts == ([2, 2], [1, 1]) and data.split
    train, _ = datasets(data, tmp_path / "run")
    assert len(train) == 4
    # a column of parts, numbers as names, another delimiter
    rows = [f"{i}.png;{10 - i % 2};{'val' if i > 3 else 'train'}" for i in range(6)]
    written(tmp_path / "data.csv", "filename;class;split\n" + "\n".join(rows) + "\n\n")
    data = recognised(tmp_path)
    assert (data.names, data.images, data.split) == (["9", "10"], (4, 2), False)
    (tmp_path / "data.csv").unlink()
    written(tmp_path / "train.csv", "image,label\n0.png,x\n1.png,y\n")
    written(tmp_path / "val.csv", "image,label\n2.png,y\n")
    assert recognised(tmp_path).images == (2, 1)


@pytest.mark.parametrize("end", ["", "_mask"])
def test_pixels(tmp_path, end):
    data = recognised(pixels(tmp_path / "data", end=end))
    assert (data.layout, data.holds, data.class_num) == ("pixels", "pixels", 3)
    assert data.images == (5, 5) and not data.split
    train, _ = datasets(data, tmp_path / "run")
    assert train.label(0)[15, 10] == 2
    found = examined(data)
    assert "no pixel of '1' to train with" in found.errors
    written(tmp_path / "data" / "labels.txt", "0 background\n1 cat\n2 dog\n")
    assert recognised(tmp_path / "data").names == ["background", "cat", "dog"]


def test_pixels_that_are_split_and_those_of_lists(tmp_path):
    root = pixels(tmp_path / "data", parts=("",), folders=("img", "masks"))
    data = recognised(root)
    assert data.split and data.images == (4, 1)
    for part, numbers in (("train", range(3)), ("val", range(3, 5))):
        lines = [f"img/{i}.jpg masks/{i}.png\n" for i in numbers]
        written(root / f"{part}.txt", "".join(lines))
    data = recognised(root)
    assert (data.layout, data.images, data.split) == ("pixels", (3, 2), False)
    assert recognised(NUCLEI, layout="pixels").names == ["background", "nucleus"]


@pytest.mark.parametrize("name", ["gone.png", "x" * 300 + ".png"])
def test_images_of_a_coco_json_that_are_nowhere(tmp_path, name):
    content = json.loads((NUCLEI / "instances_training.json").read_text())
    content["images"][0]["file_name"] = name
    written(tmp_path / "annotations.json", json.dumps(content))
    with pytest.raises(ConfigError, match=f"annotations.json: its first image, {name}, is in none"):
        recognised(tmp_path)


def test_one_coco_json_is_split(tmp_path):
    content = json.loads((NUCLEI / "instances_training.json").read_text())
    written(tmp_path / "annotations.json", json.dumps(content))
    shutil.copytree(NUCLEI / "images" / "training", tmp_path / "images")
    data = recognised(tmp_path)
    assert (data.layout, data.images, data.split) == ("coco", (10, 2), True)
    parts = list(datasets(data, tmp_path / "run"))
    assert sum(len(part) for part in parts) == 12 and data.masks
    # a json in the folder of each part
    for part in ("train", "valid"):
        shutil.copytree(tmp_path / "images", tmp_path / "robo" / part)
        written(tmp_path / "robo" / part / "_annotations.coco.json", json.dumps(content))
    assert recognised(tmp_path / "robo").images == (12, 12)


def one_of_each(root, parts=("",)):
    """Folders of two classes with an image each."""
    for part in parts:
        for name in ("cat", "dog"):
            picture(root / part / name / "0.png")
    return root


def table(root, head="image,label", end=""):
    for name in ("cat", "dog"):
        picture(root / f"{name}.png")
    lines = [f"{name}.png,{name}{end}\n" for name in ("cat", "dog")]
    written(root / "data.csv", "".join([f"{head}\n", *lines]))
    return root


def one_json(root, name="annotations.json"):
    content = json.loads((NUCLEI / "instances_training.json").read_text())
    first = content["images"][0]
    found = [each for each in content["annotations"] if each["image_id"] == first["id"]]
    written(root / name, json.dumps({**content, "images": [first], "annotations": found}))
    shutil.copytree(NUCLEI / "images" / "training", root / "images")
    return root


def one_list(root):
    picture(root / "cat.png")
    written(root / "val_list.txt", "cat.png 0\n")
    return root


def pair_list(root):
    pixels(root, parts=("x",))
    written(root / "val.txt", "images/x/0.jpg annotations/x/0.png\n")
    return root


@pytest.mark.parametrize(
    "make, count",
    [
        (one_of_each, 2),
        (lambda root: one_of_each(root, ["test"]), 2),
        (table, 2),
        (lambda root: table(root, "image,label,split", ",val"), 2),
        (one_json, 1),
        (lambda root: one_json(root, "val.json"), 1),
        (lambda root: voc(root, count=1, lists=False), 1),
        (lambda root: labelme(root / "val", count=1).parent, 1),
        (one_list, 1),
        (pair_list, 1),
        (lambda root: pixels(root, parts=("val",)), 5),
    ],
)
def test_what_cannot_be_trained_on_can_be_evaluated(tmp_path, make, count):
    data = recognised(make(tmp_path / "data"), whole=True)
    assert data.images == (count, count)
    assert [len(part) for part in datasets(data, tmp_path / "run")] == [count, count]


def test_a_part_for_evaluation_is_all_that_is_evaluated(tmp_path):
    assert recognised(one_of_each(tmp_path / "a", ["train", "val"]), whole=True).images[1] == 2
    assert recognised(voc(tmp_path / "b"), whole=True).images == (4, 2)


# What is decided.


def choices(folder, **given):
    base = {"model": "NextViT_small", "folder": folder, "device": "cpu", "memory": 8 << 30}
    return Choices(**{**base, **given})


@pytest.mark.parametrize(
    "make, model, head",
    [
        (voc, "NextViT_small", "DINO"),
        (labelme, "NextViT_small", "MaskRCNN"),
        (pixels, "NextViT_small", "SemanticFPN"),
        (pixels, "TransNeXt_tiny", "UPerNet"),
    ],
)
def test_recipes(tmp_path, make, model, head):
    from ppcls_nextvit.tasks import load_config

    folder = tmp_path / "run"
    data = recognised(make(tmp_path / "data"))
    data.write_lists(folder)
    written(folder / "class_names.txt", "".join(f"{i} c{i}\n" for i in range(data.class_num)))
    made = plan(data.placed(folder), choices(folder, model=model, epochs=3))
    assert made.content["Arch"]["name"] == head
    written(folder / "recipe.yaml", made.text("nextvit train"))
    config = load_config(folder / "recipe.yaml")
    assert config.Arch.class_num == data.class_num and config.Global.epochs == 3
    assert not config.Arch.arguments["backbone"].get("norm_eval")


def test_a_segmentors_size(tmp_path):
    data = recognised(pixels(tmp_path / "data"))
    content = plan(data, choices(tmp_path, size=96)).content
    ops = content["DataLoader"]["Train"]["dataset"]["transform_ops"]
    assert {"Resize": {"scale": [384, 96], "ratio_range": [0.5, 2.0]}} in ops
    assert {"Pad": {"size": [96, 96]}} in ops
    assert content["Infer"]["transforms"][0] == {"Resize": {"scale": [384, 96]}}


def test_boxes_have_recipes_on_some_backbones(tmp_path):
    data = recognised(voc(tmp_path))
    with pytest.raises(ConfigError, match="no DINO, .* recipe on this backbone; .*nextvit_small"):
        plan(data, choices(tmp_path, model="NextViT_large"))


# Bad input.


def first(root, pattern):
    return sorted(root.rglob(pattern))[0]


def damaged(make, pattern, text):
    """`make`, whose first file of that pattern then has `text`."""

    def made(root):
        make(root)
        first(root, pattern).write_text(text)

    return made


def voc_with(*objects, **more):
    return damaged(voc, "*.xml", xml_of("0.jpg", *objects, **more))


def csv_with(text):
    def made(root):
        for i in range(3):
            picture(root / f"{i}.png")
        written(root / "data.csv", text)

    return made


def labelme_with(*shapes, image="0.png", **more):
    return damaged(labelme, "*.json", labelme_of(image, *shapes, **more))


def _lost_image(root):
    voc(root)
    (root / "JPEGImages" / "0.jpg").unlink()


def _lost_label(root):
    pixels(root)
    first(root, "annotations/training/*.png").unlink()


def _listed_and_lost(root):
    voc(root)
    (root / "ImageSets" / "Main" / "val.txt").write_text("nowhere\n")


def _other_names(root):
    voc(root)
    written(root / "Annotations" / "5.xml", xml_of("5.jpg", ("hound", 1, 1, 9, 9, "")))


def _no_label_files(root):
    yolo(root)
    shutil.rmtree(root / "labels")


def _two_images(root):
    labelme(root)
    for folder in ("a", "b"):
        picture(root / folder / "0.png")
    (root / "0.png").unlink()
    (root / "0.json").rename(root / "third.json")
    (root / "third.json").write_text(labelme_of("0.png", ("cell", "polygon", TRIANGLE, None)))


def _binary_masks(root):
    pixels(root)
    for path in root.rglob("annotations/*/*.png"):
        labels = np.array(Image.open(path))
        Image.fromarray((labels > 0).astype(np.uint8) * 255).save(path)


def _coloured_labels(root):
    pixels(root)
    Image.new("RGB", SIZE).save(first(root, "annotations/*/*.png"))


def _too_few_names(root):
    pixels(root)
    written(root / "labels.txt", "0 background\n1 cat\n")


def _settings(change):
    """YOLO's folders with another data.yaml."""

    def made(root):
        yolo(root)
        path = root / "data.yaml"
        path.write_text(change(path.read_text()))

    return made


def _second_settings(root):
    yolo(root)
    written(root / "other.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")


def _both_parts_of_voc(root):
    voc(root)
    written(root / "ImageSets" / "Main" / "val.txt", "5\n0\n")


def _training_folders(root):
    for part in ("train", "training", "val"):
        for name in ("a", "b"):
            picture(root / part / name / "0.png")


def _lists_that_differ(root):
    for i in range(2):
        picture(root / f"{i}.png")
    written(root / "train_list.txt", "0.png 0\n1.png 1\n")
    written(root / "val_list.txt", "0.png 0\n")
    written(root / "train.txt", "0.png 1\n1.png 0\n")


def _labels_twice(folder, end):
    def made(root):
        pixels(root)
        path = root / folder / "training" / f"0{end}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", SIZE, 1).save(path)

    return made


def _equal_but_for_capitals(root):
    pixels(root)
    for name in ("A", "a"):
        picture(root / "images" / "training" / f"{name}.jpg")
        Image.new("L", SIZE, 1).save(root / "annotations" / "training" / f"{name}.png")


BOMB = '<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTER = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "make, message",
    [
        (damaged(voc, "*.xml", ""), "0.xml: an empty file; expected VOC's XML"),
        (damaged(voc, "*.xml", "<annotation><object>"), "0.xml: not an XML file"),
        (voc_with(extra=BOMB), "0.xml: has a document type"),
        (voc_with(extra=OUTER), "0.xml: has a document type"),
        (damaged(voc, "*.xml", "<a>" * 5000), "0.xml: elements nested deeper than 20"),
        (voc_with(("dog", 30, 1, 2, 9, "")), "0.xml: object 1: expected xmin <= xmax"),
        (voc_with(("dog", "x", 1, 2, 9, "")), "0.xml: object 1: bndbox/xmin: expected a number"),
        (voc_with(("dog", "nan", 1, 2, 9, "")), "bndbox/xmin: expected a number"),
        (voc_with((" ", 1, 1, 2, 9, "")), "0.xml: object 1: has no name"),
        (voc_with(size=(99999, 99999)), "0.xml: an image of 99999 x 99999 pixels"),
        (_lost_image, "0.xml: no image is called 0"),
        (_listed_and_lost, r"val.txt:1: no XML file is called nowhere.xml"),
        (_other_names, "of hound there is nothing to train with"),
        (damaged(yolo, "*.txt", "2 0.5 0.5 1 1"), "0.txt: class 2, but there are 2 names"),
        (damaged(yolo, "*.txt", "-1 0.5 0.5 1 1"), "0.txt:1: expected `class x y width height`"),
        (damaged(yolo, "*.txt", "0 0.1 0.1"), "0.txt:1: expected `class x y width height`"),
        (damaged(yolo, "*.txt", "0 0.5 0.5 1 1 0.9"), "0.txt:1: expected `class x y width"),
        (damaged(yolo, "*.txt", "\n0 1.5 0.5 1 1"), "0.txt:2: expected shares of the image"),
        (damaged(yolo, "*.txt", "0 nan 0.5 1 1"), "0.txt:1: expected shares of the image"),
        (damaged(yolo, "*.yaml", "names: 7\ntrain: x\n"), "data.yaml: names: expected a list"),
        (
            damaged(yolo, "*.yaml", "names: [a]\nnc: 2\ntrain: x\n"),
            "data.yaml: nc is 2, but there are 1 names",
        ),
        (
            damaged(yolo, "*.yaml", "names: [a]\ntrain: gone\nval: images/val\n"),
            "data.yaml: gone: no such folder or list",
        ),
        (
            damaged(yolo, "*.yaml", f"names: [a]\ntrain: {'x' * 300}\nval: images/val\n"),
            "data.yaml: x+: no such folder or list",
        ),
        (
            damaged(yolo, "*.yaml", "names: [a]\ntrain: /tmp\nval: images/val\n"),
            "data.yaml: /tmp lies outside",
        ),
        (
            damaged(yolo, "*.yaml", "names: !!python/object/apply:os.getcwd []\ntrain: x\n"),
            "data.yaml",
        ),
        (_settings(lambda text: text.replace("cat", "dog")), "2 classes are called dog"),
        (
            _settings(lambda text: text.replace("val: images/val", "val: images/train")),
            "data.yaml: 3 images are both of train and of val, the first is images/train/0.png",
        ),
        (_second_settings, "data.yaml and .*other.yaml: which is meant?"),
        (damaged(yolo, "*.txt", "0_1 0.5 0.5 1 1"), "0.txt:1: expected `class x y width height`"),
        (damaged(yolo, "*.txt", "0 0.5 0.5 0_1 1"), "0.txt:1: expected `class x y width height`"),
        (_both_parts_of_voc, "Main: 1 images are both of train and of val, the first is .*0.jpg"),
        (
            damaged(voc, "*.xml", xml_of("1.jpg", ("dog", 1, 1, 9, 9, ""))),
            "0.xml: names the image 1.jpg, but is called as JPEGImages/0.jpg is",
        ),
        (voc_with(("dog", "1_0", 1, 29, 9, "")), "bndbox/xmin: expected a number"),
        (_training_folders, "train and .*training: which is meant?"),
        (_lists_that_differ, "train_list.txt and .*train.txt: which is meant?"),
        (_labels_twice("annotations", "_mask"), "0.png and .*0_mask.png have the labels of one"),
        (
            _labels_twice("masks", ""),
            "annotations/.*0.png and masks/.*0.png have the labels of one",
        ),
        (_equal_but_for_capitals, "A.png and .*a.png have the labels of one image"),
        (
            csv_with("filename,class,xmin,ymin,xmax,ymax\n0.png,a,1,1,9,9\n"),
            "data.csv: has the column xmin, so a row is an object",
        ),
        (_no_label_files, "none of its 6 images has a label file"),
        (damaged(labelme, "*.json", ""), "0.json: an empty file; expected labelme's json"),
        (damaged(labelme, "*.json", "{"), "0.json: not a JSON file"),
        (labelme_with(shapes=3), "0.json: shapes: expected a list of shapes, got 3"),
        (
            labelme_with(("cell", "polygon", TRIANGLE[:2], None)),
            r"0.json: shape 0: a polygon of 3 points \[x, y\] or more was expected",
        ),
        (labelme_with(("", "polygon", TRIANGLE, None)), "0.json: shape 0: expected a label"),
        (
            labelme_with(("cell", "polygon", TRIANGLE, None), image="1.png"),
            "0.json: names the image 1.png, but is called as 0.png is",
        ),
        (_two_images, "third.json: belongs to .*0.png or to"),
        (csv_with(""), "data.csv: an empty table"),
        (csv_with("image,label\n"), "data.csv: a table without rows"),
        (csv_with("image,label\n0.png\n"), "data.csv:2: expected an image and its class"),
        (csv_with("image,label\ngone.png,a\ngone.png,a\n"), "gone.png, is neither in"),
        (csv_with("image,label,split\n0.png,a,tarin\n"), "of the part 'tarin'; expected train"),
        (
            csv_with("image,label,split\n0.png,a,train\n1.png,b,val\n"),
            "of b there is nothing to train with",
        ),
        (csv_with("image,label,split\n0.png,a,train\n"), "no images to evaluate on"),
        (_lost_label, "0.jpg: has no label PNG; 1 of 10 images have none"),
        (_binary_masks, "255 is ignored, so there is one class"),
        (_coloured_labels, "labels must be a PNG of 8-bit grey or palette values"),
        (_too_few_names, "a label PNG has the value 2, but there are 2 names"),
    ],
)
def test_bad_files(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises((ConfigError, FileNotFoundError, ImageError), match=message) as told:
        recognised(tmp_path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 1000


def test_boxes_outside_are_told_of_before_training(tmp_path):
    voc(tmp_path / "data")
    path = tmp_path / "data" / "Annotations" / "0.xml"
    path.write_text(xml_of("0.jpg", ("dog", 100, 1, 130, 9, "")))
    with pytest.raises(ConfigError, match="0.jpg: its box .* lies outside the image"):
        examined(recognised(tmp_path / "data"))
    with pytest.raises(ConfigError, match="0.jpg: its box .* lies outside the image"):
        list(datasets(recognised(tmp_path / "data"), tmp_path / "run"))


def test_an_xml_file_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts.voc, "LABEL_BYTES", 100)
    with pytest.raises(ConfigError, match="more than the limit of 100 bytes"):
        read_xml(written(tmp_path / "a.xml", xml_of("a.jpg", ("dog", 1, 1, 2, 9, ""))))


def test_sizes_of_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", SIZE).save(tmp_path / "b.webp")
    assert image_size(str(tmp_path / "a.jpg")) == SIZE[::-1]
    assert image_size(str(tmp_path / "b.webp")) == SIZE
    (tmp_path / "c.jpg").write_bytes(b"no image")
    for name in ("c.jpg", "gone.jpg"):
        with pytest.raises(ImageError, match=name):
            image_size(str(tmp_path / name))


# Two files that say the same fact


def test_names_files_that_are_not_followed(tmp_path):
    """The classes of VOC's objects are numbered by the alphabet, whatever a names' file says."""
    voc(tmp_path)
    written(tmp_path / "labels.txt", "0 dog\n1 cat\n")
    written(tmp_path / "classes.txt", "cat\ndog\nfox\n")
    written(tmp_path / "label_list.txt", "0 cat\n0 dog\n")
    written(tmp_path / "class_names.txt", "cat\ndog\n")
    data = recognised(tmp_path)
    assert data.names == ["cat", "dog"]
    first, second, third = data.notes
    assert first == "labels.txt is not followed: class 0 is cat here, dog there"
    assert second.startswith("label_list.txt is not followed: class_id_map_file ")
    assert third == "classes.txt is not followed: class 2 is not there here, fox there"


def test_what_is_left_out_is_told(tmp_path):
    yolo(tmp_path / "yolo")
    written(tmp_path / "yolo" / "labels" / "train" / "spare.txt", "0 0.5 0.5 1 1\n")
    assert "1 label files without an image" in recognised(tmp_path / "yolo").notes[0]
    pixels(tmp_path / "pixels")
    Image.new("L", SIZE, 1).save(tmp_path / "pixels" / "annotations" / "training" / "spare.png")
    assert "1 label PNGs without an image" in recognised(tmp_path / "pixels").notes[0]
    rows = "".join(f"{i}.png,{i % 2},c{i % 2}\n" for i in range(6))
    csv_with("image,label,class\n" + rows)(tmp_path / "csv")
    assert recognised(tmp_path / "csv").notes == ("data.csv: column label is read, not class",)


def test_objects_that_are_given_twice(tmp_path):
    box = ("dog", 1, 1, 30, 20, "")
    voc_with(box, box)(tmp_path)
    told = examined(recognised(tmp_path)).warnings
    assert any("objects with the box and class of another: 1" in line for line in told)


# Made-up damage

ODD = b"nan -inf 1e999 -1 2147483648 9 0 1_0 \xff\xfe \x00 \x1b[31m \\ud800 ../x /dev/zero".split()
ODD += [b"", b"\r", b"\n\n", b"9" * 400, b"a" * 5000, b"[[" * 3000, b'{"a":' * 3000, b"<a>" * 3000]
ODD += [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"',
    b"&amp;",
    b"&#0;",
    b"<!--",
    b"!!python/object:os.system",
]
MAKERS = (voc, yolo, labelme, pixels)


def damaged_once(rng, data):
    """`data` cut, a byte or a word of it another."""
    place = int(rng.integers(len(data) + 1))
    words = list(re.finditer(rb"[^\s,<>\"\[\]{}:]+", data))
    if rng.random() < 0.2:
        return data[:place]
    if rng.random() < 0.3 or not words:
        return data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]
    word = words[rng.integers(len(words))]
    return data[: word.start()] + ODD[rng.integers(len(ODD))] + data[word.end() :]


def csv(root):
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'val'}\n" for i in range(6))
    for i in range(6):
        picture(root / f"{i}.png", 20 * i)
    written(root / "data.csv", f"image,label,split\n{rows}")


@pytest.mark.faults
@pytest.mark.parametrize("make", [*MAKERS, csv])
def test_any_folder_is_read_or_refused(tmp_path, make):
    root = tmp_path / "data"
    make(root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix not in (".png", ".jpg")] or files
    refused = 0
    for rng in generators():
        path = (texts if rng.random() < 0.8 else files)[rng.integers(len(texts))]
        before = path.read_bytes()
        path.write_bytes(damaged_once(rng, damaged_once(rng, before)))
        try:
            data = recognised(root)
            check_data(*datasets(data, tmp_path / "lists"))
            told = examined(data)
            lines = [*data.notes, *told.errors, *told.warnings]
        except (ConfigError, FileNotFoundError, ImageError) as error:
            lines, refused = [str(error)], refused + 1
        assert all(line.isprintable() and len(line) < 5000 for line in lines), lines
        path.write_bytes(before)
    assert refused > COUNT // 10
