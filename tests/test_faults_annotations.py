"""Annotations as they come: any json, ids from 0, objects that are left out, photos that EXIF
turns, masks of one class, and sources that number classes differently.
"""

import copy
import json
import logging
import time

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import DATASETS
from ppcls_nextvit.data.agreement import NamesFile, check_data, compare_transforms
from ppcls_nextvit.data.datasets.registry import ClassCounts
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.rle import mask_tools, run_lengths
from ppcls_nextvit.schema import ConfigError
from support.faults import (
    COUNT,
    RNG,
    assert_one_line,
    box_of,
    coco,
    coco_content,
    dataset,
    generators,
    written_coco,
)

# COCO
# --------------------------------------------------------------------------------------


@pytest.mark.faults
def test_perfect_detections_are_perfect_whatever_the_ids(tmp_path):
    metrics = pytest.importorskip("ppcls_nextvit.tasks.detection.metrics")
    from ppcls_nextvit.data.rle import run_lengths

    for rng in generators(max(8, COUNT // 4)):
        number = int(rng.integers(2, 9))
        first = [0, 0, 1, -3, 10**12][rng.integers(5)]
        ids = rng.permutation(number) + first
        content = coco_content(
            [
                box_of(int(i), image_id=1 + n % 3, category=1 + n % 2, box=(2 + n, 3, 9 + n, 12))
                for n, i in enumerate(ids)
            ],
            ("cat", "dog"),
            images=3,
        )
        if first == 0:  # other ids from 0 on, too
            for image in content["images"]:
                image["id"] -= 1
            for annotation in content["annotations"]:
                annotation["image_id"] -= 1
        data = written_coco(tmp_path, content, 2, mode="val")
        records = []
        for annotation in content["annotations"]:
            mask = run_lengths(annotation["segmentation"], 32, 40)
            records.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": annotation["bbox"],
                    "score": 0.9,
                    "segmentation": {**mask, "counts": mask["counts"].decode()},
                }
            )
        result = metrics.coco_map(data, records)
        assert result["box_map"] == pytest.approx(1) == result["mask_map"]


LEFT_OUT = {
    "marked `ignore`": {"ignore": 1},
    "of area 0": {"area": 0},
    "a box with a side below one pixel": {
        "bbox": [8, 8, 0.5, 9],
        "segmentation": [[8, 8, 8.5, 8, 8.5, 17]],
    },
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_objects_that_training_leaves_out_are_told(tmp_path, caplog, reason):
    gone = [box_of(5 + n, **LEFT_OUT[reason]) for n in range(3)]
    told = f"3 of 4 objects are left out of training ({reason}: 3, the first is annotation 5)"
    data = written_coco(tmp_path, coco_content([box_of(1), *gone]))
    assert [record.getMessage() for record in caplog.records] == [f"{data.source}: {told}"]
    assert data.class_counts().counts.tolist() == [1]
    with pytest.raises(
        ConfigError, match="3 of 3 objects are left out .*so there is nothing to learn"
    ):
        written_coco(tmp_path, coco_content(gone))
    assert len(written_coco(tmp_path, coco_content(gone), mode="val")) == 1


def test_only_crowds_are_nothing_to_learn(tmp_path):
    crowd = {"size": [32, 40], "counts": [0, 1280]}
    content = coco_content([box_of(1, iscrowd=1, segmentation=crowd, box=(0, 0, 40, 32))])
    with pytest.raises(ConfigError, match="1 images: no objects of any class, so nothing to learn"):
        check_data(written_coco(tmp_path, content), None)


ODD_VALUES = [
    None,
    True,
    -1,
    0,
    1e400,
    float("nan"),
    10**30,
    "",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [[]],
]
ODD_VALUES += [
    [None],
    {"size": [32, 40], "counts": "o" * 3000},
    {"size": [32, 40], "counts": [1e9]},
]
ODD_VALUES += [
    {"size": 3, "counts": {}},
    [["a"] * 6],
    [[1e300] * 8],
    [{}] * 6,
    [[10**400] * 6],
    "0.png",
]
ODD_VALUES += [{"size": [32, 40], "counts": [-1, 1281]}, {"counts": "0"}, [[1, 2, 3, 4, 5, 6]] * 3]


def mutated(content, rng):
    """`content` with up to three values, at any depth, replaced, removed or taken twice."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.75:
                node = node[key]
                continue
            if rng.random() < 0.15:
                del node[key]
            else:
                node[key] = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
            break
    return content


@pytest.mark.faults
def test_any_json_is_read_or_refused(tmp_path):
    crowd = {"size": [32, 40], "counts": [3, 1277]}
    parts = [box_of(1), box_of(2, 2, 2), box_of(3, 2, iscrowd=1, segmentation=crowd)]
    whole = coco_content(parts, ("cat", "dog"), images=2)
    written_coco(tmp_path, whole, 2)
    path = tmp_path / "coco.json"
    for rng in generators(5 * COUNT):
        path.write_text(json.dumps(mutated(whole, rng)))
        for mode in ("train", "val"):
            try:
                data = coco(tmp_path, path, None, mode, filter_empty=bool(rng.integers(2)))
                for index in range(len(data)):
                    data.load(index, rng)
                data.class_counts()
                data.ground_truth()
            except (ConfigError, ImageError, FileNotFoundError) as error:
                assert_one_line(error)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, "{", "\0", "nul"])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(ConfigError, match="coco.json: not a (JSON|COCO) file"):
        coco(tmp_path, tmp_path / "coco.json")


@pytest.mark.parametrize(
    "counts", ["o" * 10**6, "0" * 10**6, [0] * 10**6, [1 << 70, 5], "\udcff", "é", [True]]
)
def test_run_lengths_that_no_image_has(tmp_path, counts):
    annotation = box_of(1, segmentation={"size": [32, 40], "counts": counts})
    start = time.process_time()
    with pytest.raises(ConfigError, match="annotation 1: segmentation: "):
        written_coco(tmp_path, coco_content([annotation]))
    assert time.process_time() - start < 5, "no more is read than an image can have"


def test_as_many_run_lengths_as_an_image_has_pixels():
    """A run for each, and an empty one before the first."""
    pytest.importorskip("pycocotools.mask", reason="needs the extra `det`")
    tools = mask_tools()
    found = run_lengths({"size": [8, 5], "counts": [0, *[1] * 40]}, 8, 5)
    assert tools.decode(found).ravel(order="F").tolist() == [1, 0] * 20
    packed = {"size": [8, 5], "counts": found["counts"].decode()}
    assert run_lengths(packed, 8, 5) == found


def test_sizes_beyond_any_image_are_refused_before_their_masks_are_drawn(tmp_path):
    content = coco_content(size=(10**8, 10**8))
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    with pytest.raises(ConfigError, match="100000000 x 100000000 pixels are more than the limit"):
        written_coco(tmp_path, content)


# Photos that EXIF turns
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "labels"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(48, 32), (32, 32)])
def test_annotations_of_a_photo_that_is_turned(tmp_path, caplog, kind, orientation, size):
    """size: (width, height) of the pixels as stored, on which the annotations were drawn."""
    note = Image.Exif()
    note[0x112] = orientation
    Image.new("RGB", size).save(tmp_path / "0.png", exif=note)
    if kind == "json":
        data = written_coco(tmp_path, coco_content(size=size))
    else:
        Image.new("L", size).save(tmp_path / "label.png")
        (tmp_path / "list.txt").write_text("0.png label.png\n" * 2)
        listed = str(tmp_path / "list.txt")
        data = dataset(
            "SegmentationDataset", 2, dataset_root=str(tmp_path), list_path=listed, mode="train"
        )
    if orientation > 4 and size[0] != size[1]:
        with pytest.raises(ImageError, match=f"EXIF's orientation {orientation} turns the image"):
            data.load(0, RNG)
        return
    for _ in range(2):
        data.load(0, RNG)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (orientation != 1)
    assert all(f"0.png: EXIF's orientation {orientation} turns it upright" in text for text in told)


# Sources that contradict each other
# --------------------------------------------------------------------------------------


class Data:
    """As much of a dataset as is compared."""

    def __init__(self, source, names, counts=None, looked_at=4, unit="images", hint="", files=""):
        self.source, self.class_names = source, names
        self.files = files.split()  # two words for an image: its name and its label
        numbers = np.array([1] * len(names or [1, 2]) if counts is None else counts)
        self.found = ClassCounts(numbers, unit, looked_at, hint)

    def __len__(self):
        return 4

    def class_counts(self):
        return self.found

    def name(self, index):
        return self.files[2 * index] if self.files else f"{self.source}/{index}"

    @property
    def labels(self):
        return self.files[1::2] or [0] * 4


@pytest.mark.faults
def test_splits_must_number_their_classes_alike():
    pool = ["cat", "dog", "eagle", "fox", "Cat", "日本", "a\nb"]
    for rng in generators():
        ours = rng.permutation(pool)[: rng.integers(1, len(pool))].tolist()
        theirs = rng.permutation(ours if rng.random() < 0.5 else pool)[: len(ours)].tolist()
        theirs = list(ours) if rng.random() < 0.3 else theirs
        train, evaluation = Data("train.json", ours), Data("val.json", theirs)
        if ours == theirs:
            check_data(train, evaluation)
            continue
        label = next(
            i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]
        )
        with pytest.raises(ConfigError) as error:
            check_data(train, evaluation)
        start = f"class {label} is {ours[label]!r} in train.json, but {theirs[label]!r} in val.json"
        assert_one_line(error.value, start)
    # where one has no names there is nothing to compare
    check_data(Data("list.txt", None), Data("val", ["a", "b"]))


def test_the_file_of_names_must_have_the_same_order(caplog):
    train = Data("train.json", ["cat", "dog"])
    check_data(train, None, NamesFile("n.txt", ["Cat, house cat", "dog"]))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    with pytest.raises(ConfigError, match=r"names class 0 'cat', which is class 1 in n\.txt"):
        check_data(train, None, NamesFile("n.txt", ["dog", "cat"]))
    check_data(train, None, NamesFile("n.txt", ["Katze", "Hund"]))
    assert "n.txt names class 0 'Katze', the annotations name it 'cat'" in caplog.text
    caplog.clear()
    check_data(train, None, NamesFile("n.txt", ["Katze", "Hund"]), speaks=False)
    assert not caplog.records


@pytest.mark.parametrize(
    "train, evaluation, told",
    [
        ("a 0 b 1 c 0 d 1", "e 0 f 1 g 0 h 1", []),
        ("a 0 b 1 a 0 d 1", "e 0 f 1 e 0 h 1", []),  # listed more often, but alike
        (
            "a 0 b 1 a 1 b 0",
            "e 0 f 1 g 0 h 1",
            ["T: 2 images are listed again with other labels, the first is a"],
        ),
        ("a 0 b 1 c 0 d 1", "e 0 d 1 b 1 h 1", ["E: 2 of its 4 images are trained on, too, the "]),
    ],
)
def test_images_that_say_two_things(caplog, train, evaluation, told):
    check_data(Data("T", None, files=train), Data("E", None, files=evaluation))
    records = [record for record in caplog.records if record.levelname == "WARNING"]
    for record, start in zip(records, told, strict=True):
        assert record.getMessage().startswith(start)
    if told and "trained on" in told[0]:
        assert "the first is d;" in caplog.text


@pytest.mark.parametrize(
    "names, told",
    [
        (["cat", "dog"], None),
        (["cat", "dog", "Cat"], "'cat' and 'Cat' are two classes"),
        (["a  b", "a b"], "'a  b' and 'a b' are two classes"),
        (["1", "10", "01"], "'1' and '01' are two classes"),
        (["crane", "crane"], None),  # as ImageNet has it
    ],
)
def test_names_that_are_nearly_the_same(caplog, names, told):
    check_data(Data("T", names), None)
    assert (told or "two classes") in caplog.text if told else "two classes" not in caplog.text
    caplog.clear()
    check_data(Data("T", None), None, NamesFile("n.txt", names))
    assert (told is not None) == ("n.txt: " in caplog.text)


@pytest.mark.parametrize(
    "change, told",
    [
        ({}, None),
        ({"box": (38, 8, 3, 3)}, None),  # a pixel beyond the image: rounding
        ({"box": (20, 8, 30, 20)}, "1 of 1 boxes reach beyond their image"),
        ({"box": (8, 20, 20, 28)}, "1 of 1 boxes reach beyond their image"),
        ({"area": 321}, None),
        ({"area": 400}, "1 of 1 areas are larger than their box; the first is annotation 1's"),
    ],
)
def test_boxes_and_areas_that_cannot_be_meant(tmp_path, caplog, change, told):
    content = coco_content([{**box_of(1, **change), "segmentation": []}])
    written_coco(tmp_path, content)
    records = [record.getMessage() for record in caplog.records]
    assert [told in text for text in records] == ([True] if told else [])


def test_a_picture_of_two_entries_of_a_json(tmp_path, caplog):
    content = coco_content([box_of(1), box_of(2, 2)], images=2)
    content["images"][1]["file_name"] = "0.png"
    check_data(written_coco(tmp_path, content), None)
    assert "1 images are listed again with other labels" in caplog.text


@pytest.mark.parametrize(
    "counts, looked_at, level, message",
    [
        (
            [3, 1],
            4,
            "INFO",
            "x: 4 images, 2 of 2 classes, from 1 images of class 1 'b' to 3 of class",
        ),
        ([2, 2], 4, "INFO", "x: 4 images, 2 of 2 classes, 2 images of each"),
        ([1, 1], 4, "INFO", "x: 4 images, 2 of 2 classes, 1 image of each"),
        ([3, 0, 2], 4, "WARNING", "x: 4 images: no images of class 1 'b' (why)"),
        ([3, 0, 2], 2, "INFO", "x: 4 images, 2 of which were looked at, 2 of 3 classes"),
        (
            [0, 3],
            2,
            "WARNING",
            "all images are of class 1 'b', none of 0 'a', so there is nothing else",
        ),
    ],
)
def test_what_the_data_hold_is_told(caplog, counts, looked_at, level, message):
    caplog.set_level(logging.INFO, "ppcls_nextvit")
    check_data(Data("x", ["a", "b", "c"][: len(counts)], counts, looked_at, hint="why"), None)
    (record,) = caplog.records
    assert record.levelname == level and message in record.getMessage()


EVALUATED = [{"DecodeImage": None}, {"CropImage": {"size": 8}}, {"NormalizeImage": {"order": ""}}]


@pytest.mark.parametrize(
    "predicted, told",
    [
        ([*EVALUATED, {"ToCHWImage": None}], None),
        (
            [{"DecodeImage": {"to_rgb": True}}, *EVALUATED[1:2], {"NormalizeImage": {"order": ""}}],
            None,
        ),
        ([EVALUATED[0], {"CropImage": {"size": 9}}, EVALUATED[2]], "{'CropImage': {'size': 9}}"),
        (EVALUATED[:2], "nothing where evaluation has {'NormalizeImage'"),
    ],
)
def test_predictions_are_prepared_as_evaluation_prepares(caplog, predicted, told):
    compare_transforms(EVALUATED, predicted)
    assert (told in caplog.text) if told else not caplog.records
    caplog.clear()
    joint = [{"Resize": {"scale": [9, 9]}}, {"Normalize": None}]
    compare_transforms(joint, [joint[0], {"Normalize": {}}])
    assert not caplog.records
    compare_transforms(joint, joint[1:])
    assert "{'Normalize': {}} where evaluation has {'Resize'" in caplog.text


def labelled(folder, masks, class_num=2, **more):
    for kind in ("images", "annotations"):
        (folder / kind / "training").mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        Image.new("RGB", mask.shape[::-1]).save(folder / "images" / "training" / f"{number}.jpg")
        Image.fromarray(mask).save(folder / "annotations" / "training" / f"{number}.png")
    arguments = {"dataset_root": str(folder), "mode": "train", **more}
    return DATASETS.build("ADE20KDataset", arguments, "dataset", class_num)


def mask_of(inside, outside=0):
    mask = np.full((32, 40), outside, np.uint8)
    mask[8:24, 8:24] = inside
    return mask


@pytest.mark.parametrize(
    "inside, reduce_zero_label, message",
    [
        (
            255,
            False,
            "none of 1, so there is nothing else to learn (20 % of the pixels are no class",
        ),
        (1, True, "stored as 255, or as 0 (reduce_zero_label is True)"),
        (1, False, None),
        (2, True, "all pixels are of class 1, none of 0"),
    ],
)
def test_masks_of_a_single_class(tmp_path, caplog, inside, reduce_zero_label, message):
    data = labelled(tmp_path, [mask_of(inside)] * 2, reduce_zero_label=reduce_zero_label)
    check_data(data, None)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == (message is not None)
    assert message is None or message in warnings[0]


def test_masks_without_any_class(tmp_path):
    data = labelled(tmp_path, [mask_of(0), mask_of(255)], reduce_zero_label=True)
    with pytest.raises(ConfigError, match=r"no pixels of any class, so nothing to learn \(100 %"):
        check_data(data, None)


def test_labels_whose_images_are_of_no_format_that_is_read(tmp_path, caplog):
    labelled(tmp_path, [mask_of(1)] * 3)
    photo = tmp_path / "images" / "training" / "2.jpg"
    photo.rename(photo.with_suffix(".heic"))
    caplog.clear()
    assert len(dataset("ADE20KDataset", 2, dataset_root=str(tmp_path), mode="train")) == 2
    assert "annotations/training: 1 labels have no image, the first is 2.png" in caplog.text


def test_more_classes_than_a_label_png_tells_apart(tmp_path):
    with pytest.raises(
        ConfigError, match="the model has 256 classes, and label PNGs of 8 bits tell 255"
    ):
        labelled(tmp_path, [mask_of(1)], 256)
    assert labelled(tmp_path, [mask_of(254)], 255, reduce_zero_label=False).label(0).max() == 254
