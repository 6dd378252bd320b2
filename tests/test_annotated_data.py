"""Datasets of detection and segmentation: formats, what is left out, batches, order, and every kind
of bad input.
"""

import copy
import json
import logging
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from support.paths import NUCLEI

mask_tools = pytest.importorskip("pycocotools.mask", reason="needs the extra `det`")
pytest.importorskip("cv2", reason="needs the extra `cv2`")

from ppcls_nextvit.data import DATASETS, SAMPLERS, build_loader, check_loader  # noqa: E402
from ppcls_nextvit.data.datasets.coco import why_not_learnt  # noqa: E402
from ppcls_nextvit.data.images import ImageError  # noqa: E402
from ppcls_nextvit.data.packed import PackedNames  # noqa: E402
from ppcls_nextvit.data.rle import decompressed  # noqa: E402
from ppcls_nextvit.schema import ConfigError  # noqa: E402

RNG = np.random.default_rng(0)
PLAIN = [{"Normalize": {"mean": [0, 0, 0], "std": [1, 1, 1]}}]
AUGMENT = [
    {"RandomFlip": None},
    {"Resize": {"scale": [[90, 60], [90, 80]]}},
    {"Normalize": None},
    {"Pad": {"size_divisor": 32}},
]


def polygon(left, top, width, height):
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def bitmap(box, height, width):
    left, top, w, h = box
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[top : top + h, left : left + w] = 1
    return mask


def annotation(number, image, box, category=3, **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": polygon(*box),
        **more,
    }


def write(folder, annotations=(), sizes=((60, 80), (80, 60), (60, 80)), **sections):
    """Grey images `0.png`, `1.png`, ... of (height, width) in `sizes`, with ids 1, 2, ..., and
    their json; classes 7 'b', 3 'a'.
    """
    for i, (height, width) in enumerate(sizes):
        Image.new("L", (width, height), i).save(folder / f"{i}.png")
    content = {
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "width": width, "height": height}
            for i, (height, width) in enumerate(sizes)
        ],
        "categories": [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}],
        "annotations": list(annotations),
        **sections,
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder


def section(folder, transform_ops=PLAIN, mode="train", sampler=None, workers=0, **dataset):
    return {
        "dataset": {
            "name": "COCODataset",
            "image_root": str(folder),
            "annotation_path": str(folder / "coco.json"),
            "mode": mode,
            "transform_ops": transform_ops,
            **dataset,
        },
        "sampler": {"batch_size": 2, **(sampler or {})},
        "loader": {"num_workers": workers},
    }


def coco(folder, mode="train", class_num=2, **more):
    arguments = section(folder, mode=mode, **more)["dataset"]
    return DATASETS.build(arguments.pop("name"), arguments, "dataset", class_num)


def batches(section, mode="Train", classes=2, epoch=0, **place):
    return [
        {key: value.numpy() for key, value in batch.items()}
        for batch in build_loader(section, mode, num_classes=classes, **place).epoch(epoch)
    ]


# COCO
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box, learnt",
    [
        ((79, 59, 4, 4), True),
        ((80, 5, 4, 4), False),
        ((5, 60, 4, 4), False),
        ((-3, -3, 4, 4), True),
        ((-4, 5, 4, 4), False),
        ((5, -4, 4, 4), False),
        ((5, 5, 1, 1), True),
        ((5, 5, 0.5, 4), False),
        ((5, 5, 4, 0.5), False),
    ],
)
def test_a_box_is_learnt_that_has_a_pixel_of_the_image(tmp_path, box, learnt):
    others = [annotation(number, 2, (5, 5, 9, 9)) for number in range(2, 101)]
    write(tmp_path, [annotation(1, 1, box), *others])
    data = coco(tmp_path)
    assert data.class_counts().counts.tolist() == [99 + learnt, 0]
    assert len(data.load(0, RNG)["boxes"]) == learnt
    assert (why_not_learnt(annotation(1, 1, box), 60, 80) is None) is learnt


def test_masks_that_take_too_much_memory_are_refused(tmp_path, monkeypatch):
    write(tmp_path, [annotation(number, 1, (5, 5, 9, 9)) for number in (1, 2, 3)])
    monkeypatch.setattr("ppcls_nextvit.data.datasets.coco.MASK_BYTES", 3 * 60 * 80)
    assert len(coco(tmp_path).load(0, RNG)["masks"]) == 3
    monkeypatch.setattr("ppcls_nextvit.data.datasets.coco.MASK_BYTES", 3 * 60 * 80 - 1)
    with pytest.raises(ImageError, match="0.png: the masks of 3 objects in 80 x 60 pixels take"):
        coco(tmp_path).load(0, RNG)


def test_polygons_and_both_run_lengths_are_the_same_mask(tmp_path):
    box = (10, 20, 30, 15)
    mask = bitmap(box, 60, 80)
    compressed = mask_tools.encode(mask)
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    plain = {"size": [60, 80], "counts": np.diff([0, *edges, flat.size]).tolist()}
    forms = (
        polygon(*box),
        plain,
        {"size": [60, 80], "counts": compressed["counts"].decode()},
        # two parts of one object
        [*polygon(10, 20, 30, 8), *polygon(10, 28, 30, 7)],
    )
    write(tmp_path, [annotation(n, 1, box, segmentation=form) for n, form in enumerate(forms)])
    sample = coco(tmp_path).load(0, RNG)
    assert sample["masks"].shape == (4, 60, 80) and sample["masks"].dtype == np.uint8
    assert all(np.array_equal(found, mask) for found in sample["masks"])
    assert (
        sample["boxes"].tolist() == [[10, 20, 40, 35]] * 4 and sample["labels"].tolist() == [0] * 4
    )


def test_classes_are_numbered_by_category_id(tmp_path):
    data = coco(
        write(tmp_path, [annotation(1, 1, (0, 0, 9, 9), 7), annotation(2, 1, (0, 0, 9, 9), 3)])
    )
    assert (
        data.class_names == ["a", "b"]
        and data.category_ids == [3, 7]
        and data.load(0, RNG)["labels"].tolist() == [1, 0]
    )


def test_crowds_and_what_cannot_be_learnt(tmp_path):
    crowd = {"size": [60, 80], "counts": [0, 60 * 40, 60 * 40]}
    data = coco(
        write(
            tmp_path,
            [
                annotation(1, 1, (5, 5, 20, 20)),
                annotation(2, 1, (0, 0, 40, 60), iscrowd=1, segmentation=crowd),
                annotation(3, 1, (5, 5, 0.5, 20)),
                annotation(4, 1, (5, 5, 20, 20), area=0),
                annotation(5, 1, (5, 5, 20, 20), ignore=1),
            ],
        )
    )
    sample = data.load(0, RNG)
    assert sample["boxes"].tolist() == [[5, 5, 25, 25]] and len(sample["masks"]) == 1
    assert sample["ignore_boxes"].tolist() == [[0, 0, 40, 60]]


def test_boxes_of_which_nothing_is_left(tmp_path):
    # a ten-millionth of a pixel inside the image
    box = [79.9999999, 5, 20, 20]
    data = coco(
        write(tmp_path, [annotation(1, 1, (5, 5, 20, 20)), annotation(2, 1, box)]),
        transform_ops=[{"Resize": {"scale": [40, 40]}}],
    )
    sample = data.load(0, RNG)
    assert (
        sample["boxes"].tolist() == [[2.5, 2.5, 12.5, 12.5]]
        and len(sample["masks"]) == len(sample["labels"]) == 1
    )


def test_training_leaves_out_empty_and_tiny_images_and_evaluation_none(tmp_path):
    write(
        tmp_path,
        [annotation(1, 1, (5, 5, 9, 9)), annotation(2, 3, (5, 5, 9, 9))],
        ((60, 80), (80, 60), (31, 80)),
    )
    assert coco(tmp_path).image_ids == [1] and coco(tmp_path, min_size=31).image_ids == [1, 3]
    assert coco(tmp_path, filter_empty=False).image_ids == [1, 2] and coco(
        tmp_path, "val"
    ).image_ids == [1, 2, 3]
    write(tmp_path, [])
    with pytest.raises(ConfigError, match="coco.json: no image has an annotation and 32 pixels"):
        coco(tmp_path)
    assert len(coco(tmp_path, "val")) == 3


def test_a_sample_of_the_images(tmp_path, labelled):
    write(tmp_path, [annotation(n, n + 1, (5, 5, 9, 9)) for n in range(5)], [(60, 80)] * 5)
    data = coco(tmp_path, "val", sample_num=2)
    assert data.image_ids == [1, 3] and coco(tmp_path, "val", sample_num=9).image_ids == [
        1,
        2,
        3,
        4,
        5,
    ]
    # the others do not count as missed
    truth = data.ground_truth()
    assert sorted(truth.imgs) == [1, 3]
    assert [truth.anns[number]["image_id"] for number in sorted(truth.anns)] == [1, 3]
    (labelled / "list.txt").write_text("images/training/one.jpg annotations/training/one.png\n" * 4)
    assert len(listed(labelled, sample_num=3)) == 3 and len(listed(labelled)) == 4
    with pytest.raises(ConfigError, match="sample_num: expected 1 or more images, got 0"):
        coco(tmp_path, sample_num=0)


def test_training_batch(tmp_path):
    write(
        tmp_path,
        [
            annotation(1, 1, (5, 5, 20, 30)),
            annotation(2, 1, (30, 2, 9, 9), 7),
            annotation(3, 2, (1, 2, 3, 4), iscrowd=1),
            annotation(4, 3, (40, 30, 20, 20)),
        ],
    )
    first, second = batches(section(tmp_path))
    # 60 x 80 and 80 x 60, padded
    assert first["image"].shape == (2, 3, 80, 80) and first["image"].dtype == np.float32
    assert (first["image"][1, :, :, :60] == 1).all() and (first["image"][1, :, :, 60:] == 0).all()
    expected = {
        "index": [0, 1],
        "shape": [[60, 80], [80, 60]],
        "original": [[60, 80], [80, 60]],
        "scale": [[1, 1], [1, 1]],
        "flip": [False, False],
        "counts": [2, 0],
        "labels": [0, 1],
        "boxes": [[5, 5, 25, 35], [30, 2, 39, 11]],
        "ignore_boxes": [[1, 2, 4, 6]],
        "ignore_counts": [0, 1],
    }
    types = {
        "index": np.int64,
        "shape": np.int32,
        "original": np.int32,
        "scale": np.float32,
        "flip": bool,
        "counts": np.int32,
        "labels": np.int64,
        "boxes": np.float32,
        "ignore_boxes": np.float32,
        "ignore_counts": np.int32,
    }
    for key, value in expected.items():
        assert first[key].tolist() == value and first[key].dtype == types[key], key
    assert first["masks"].shape == (2, 80, 80) and first["masks"].sum(axis=(1, 2)).tolist() == [
        600,
        81,
    ]
    assert (
        second["counts"].tolist() == [1]
        and second["image"].shape == (1, 3, 60, 80)
        and second["ignore_boxes"].shape == (0, 4)
    )


def test_evaluation_batch_carries_no_truth(tmp_path):
    write(tmp_path, [annotation(1, 1, (5, 5, 20, 30))])
    ops = [{"Resize": {"scale": [160, 120]}}, *PLAIN, {"Pad": {"size_divisor": 32}}]
    first, second = batches(section(tmp_path, ops, "val"), "Eval")
    assert set(first) == {"image", "index", "shape", "original", "scale", "flip"}
    assert first["shape"].tolist() == [[120, 160], [160, 120]] and first["original"].tolist() == [
        [60, 80],
        [80, 60],
    ]
    assert (
        first["scale"].tolist() == [[2, 2], [2, 2]]
        and first["image"].shape == (2, 3, 160, 160)
        and second["index"].tolist() == [2]
    )


def test_no_object_one_object_and_500_objects(tmp_path):
    sizes = ((32, 900), (900, 32), (64, 64))
    write(
        tmp_path,
        [annotation(n, 1, (n, 3, 8, 8), 7) for n in range(500)]
        + [annotation(500, 2, (3, 700, 20, 90))],
        sizes,
    )
    data = section(tmp_path, AUGMENT, filter_empty=False)
    runs = [batches({**data, "loader": {"num_workers": workers}}, epoch=3) for workers in (0, 2)]
    first, last = runs[0]
    assert first["counts"].tolist() == [500, 1] and first["masks"].shape == (
        501,
        *first["image"].shape[2:],
    )
    # very wide, very tall
    assert first["shape"].tolist() == [[3, 90], [90, 3]] and first["image"].shape == (2, 3, 96, 96)
    assert (
        last["counts"].tolist() == [0]
        and last["boxes"].shape == (0, 4)
        and last["masks"].shape == (0, *last["image"].shape[2:])
    )
    for a, b in zip(*runs, strict=True):  # empty arrays come from workers too
        assert a.keys() == b.keys() and all(
            np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a
        )


def test_nuclei():
    for mode, split, tiles, nuclei in (
        ("train", "training", 12, 114),
        ("val", "validation", 4, 39),
    ):
        data = DATASETS.build(
            "COCODataset",
            {
                "image_root": str(NUCLEI / "images" / split),
                "mode": mode,
                "annotation_path": str(NUCLEI / f"instances_{split}.json"),
            },
            "dataset",
            1,
        )
        labels = DATASETS.build(
            "ADE20KDataset",
            {"dataset_root": str(NUCLEI), "mode": mode, "reduce_zero_label": False},
            "dataset",
            2,
        )
        truths = [data.truth(i, (128, 128)) for i in range(len(data))]
        assert (
            len(data) == len(labels) == tiles
            and sum(len(truth["labels"]) for truth in truths) == nuclei
        )
        for i, truth in enumerate(truths):
            assert np.array_equal(data.image(i), labels.image(i))
            assert not (truth["masks"].any(axis=0) & (labels.label(i) == 0)).any()
            for (x1, y1, x2, y2), mask in zip(
                truth["boxes"].astype(int), truth["masks"], strict=True
            ):
                assert (
                    mask[y1:y2, x1:x2].sum() == mask.sum()
                    and mask[y1].any()
                    and mask[y2 - 1].any()
                    and mask[:, x2 - 1].any()
                )


def test_images_in_a_zip(tmp_path):
    write(tmp_path, [annotation(1, 1, (5, 5, 20, 30))])
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for i in range(3):
            archive.write(tmp_path / f"{i}.png", f"{i}.png")
    assert coco(tmp_path, image_root=str(tmp_path / "images.zip")).load(0, RNG)["image"].shape == (
        60,
        80,
        3,
    )


@pytest.mark.parametrize("form", [None, [], "left out"])
def test_boxes_without_outlines(tmp_path, form):
    """No annotation has one: samples and batches have no masks, and nothing is left out."""
    boxes = [annotation(n, n, (4, 6, 20 * n, 30)) for n in (1, 2)]
    for each in boxes:
        each["segmentation"] = form
        if form == "left out":
            del each["segmentation"]
    write(tmp_path, boxes)
    ops = [{"RandomFlip": {"prob": 1.0}}, {"Resize": {"scale": [40, 40]}}, *PLAIN]
    content = {"image_root": str(tmp_path), "annotation_path": str(tmp_path / "coco.json")}
    arguments = {**content, "mode": "train", "transform_ops": ops}
    data = DATASETS.build("COCODataset", arguments, "dataset", 2)
    assert not data.outlined and data.class_counts().counts.tolist() == [2, 0]
    samples = [data.load(i, RNG) for i in range(2)]
    assert "masks" not in samples[0] and samples[1]["boxes"].shape == (1, 4)
    batch = data.collate(samples, RNG)
    assert "masks" not in batch and batch["counts"].tolist() == [1, 1]


GOOD = [annotation(1, 1, (5, 5, 20, 30)), annotation(2, 2, (1, 2, 30, 40), 7)]


def changed(number, **values):
    """GOOD, with keys of one annotation replaced, or removed (None)."""
    annotations = copy.deepcopy(GOOD)
    annotations[number].update(values)
    annotations[number] = {
        key: value for key, value in annotations[number].items() if value is not None
    }
    return annotations


@pytest.mark.parametrize(
    "annotations, message",
    [
        (changed(1, category_id=5), "annotation 2: category_id 5 is not among the categories"),
        (changed(1, image_id=9), "annotation 2: image_id 9 is not among the images"),
        (changed(1, id=1), "annotations has the id 1 2 times"),
        (changed(1, id="x"), r"annotations\[1\]: the id must be an integer, got 'x'"),
        (changed(1, bbox=None), r"annotations\[1\] \(id 2\) has no 'bbox'"),
        (changed(1, segmentation=None), "annotation 2 of 1.png: its segmentation has no polygon"),
        (
            changed(1, bbox=[1, 2, 3]),
            r"annotation 2: expected bbox \[left, top, width, height\] and an area, got \[1, 2, "
            r"3\]",
        ),
        (changed(1, bbox=[1, 2, 3, float("nan")]), "annotation 2: expected bbox"),
        (
            changed(1, area="large"),
            "annotation 2: expected bbox .* and an area, got .* and 'large'",
        ),
        (
            changed(1, bbox=[60, 2, 30, 40]),
            "annotation 2 of 1.png: its box .* lies outside the image of 60 x 80 pixels",
        ),
        (
            changed(1, bbox=[2, 1, 40, 30][::-1]),
            "annotation 2 of 1.png: its mask extends over x 1 to 31, y 2 to 42, its box .* "
            "elsewhere",
        ),
        (
            changed(1, segmentation=polygon(2, 1, 40, 8)),
            r"its mask extends over .* \(1 of 2 annotations are like this\)",
        ),
        (
            changed(1, segmentation={"size": [60, 80], "counts": [0, 4800]}),
            r"segmentation: a mask of size \[60, 80\] in an image",
        ),
        (
            changed(1, segmentation={"size": [80, 60], "counts": [0, 4799]}),
            "run lengths that add up to 4799 pixels of 4800",
        ),
        (
            changed(1, segmentation={"size": [80, 60], "counts": "o"}, iscrowd=1),
            "b'o'... ends in the middle of a number",
        ),
        (
            changed(1, segmentation={"size": [80, 60], "counts": "~"}),
            "b'~'... is not COCO's compressed form",
        ),
        (changed(1, segmentation={"counts": [0, 4800]}), "expected polygons, or run lengths"),
        (
            changed(1, segmentation=[[1, 2, 3, 4]]),
            "annotation 2 of 1.png: its segmentation has no polygon of three points",
        ),
        (
            changed(1, segmentation=[[1, 2, float("nan"), 4, 5, 6]]),
            r"a polygon from .* in an image of 60 x 80 pixels",
        ),
        (
            changed(1, segmentation=polygon(1, 2, 30, 1e9)),
            r"a polygon from \(1, 2\) to \(31, 1000000002.0\) in an image of 60 x 80 pixels",
        ),
        (
            changed(1, segmentation={"size": [80, 60], "counts": 4800}),
            "annotation 2: segmentation: expected polygons .* got {'size': .*4800}",
        ),
        (
            changed(1, segmentation={"size": [80, 60], "counts": [0.5, 4799.5]}),
            "annotation 2: segmentation: run lengths must be whole numbers",
        ),
        (
            changed(1, segmentation=[[1, 2, "x", 4, 5, 6]]),
            "annotation 2: segmentation: expected polygons .* got .*'x'",
        ),
        (
            changed(1, segmentation=[[1, 2, 10**400, 4, 5, 6]]),
            "annotation 2: segmentation: a polygon from",
        ),
        (changed(1, image_id=[2]), r"annotations\[1\]: the image_id must be an integer, got \[2\]"),
        (
            changed(1, category_id={}),
            r"annotations\[1\]: the category_id must be an integer, got {}",
        ),
        (changed(1, iscrowd="no"), "annotation 2: iscrowd must be 0 or 1, got 'no'"),
        (changed(1, area=10**400), "annotation 2: expected bbox"),
        (
            changed(1, segmentation=[]),
            "annotation 2 of 1.png: its segmentation has no polygon of three points",
        ),
        (changed(1, segmentation="mask"), "expected polygons, or run lengths"),
    ],
)
def test_bad_annotations(tmp_path, annotations, message):
    with pytest.raises(ConfigError, match=message) as caught:
        coco(write(tmp_path, annotations))
    assert str(tmp_path / "coco.json") in str(caught.value)


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"images": []}, "'images' is empty"),
        ({"categories": []}, "'categories' is empty"),
        ({"annotations": [[]]}, "'annotations' is a list of mappings"),
        ({"images": [3]}, "'images' is a list of mappings"),
        (
            {"categories": [{"id": 3, "name": "a"}]},
            "1 categories, but the model has 2 classes; set Arch.class_num",
        ),
        (
            {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]},
            "categories has the id 3 2 times",
        ),
        (
            {"categories": [{"id": 3, "name": None}, {"id": 7, "name": "b"}]},
            "category 3: expected a name, got None",
        ),
        ({"categories": [{"id": 3}]}, r"categories\[0\] \(id 3\) has no 'name'"),
        (
            {"images": [{"id": 1, "file_name": "0.png", "width": 0, "height": 60}]},
            "image 1: expected width and height .*, got 0 and 60",
        ),
        (
            {"images": [{"id": 1, "file_name": "0.png", "width": 10**400, "height": 60}]},
            "image 1: expected width and height",
        ),
        (
            {"images": [{"id": 1, "file_name": 5, "width": 9, "height": 60}]},
            "image 1: expected a file_name, got 5",
        ),
        (
            {"images": [{"id": 1, "file_name": "0.png", "height": 60}]},
            r"images\[0\] \(id 1\) has no 'width'",
        ),
    ],
)
def test_bad_files(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        coco(write(tmp_path, **{"annotations": GOOD, **sections}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not a JSON file"),
        ("[" * 10**5, "not a JSON file"),
        ("{", "not a JSON file"),
        ("[]", "not a COCO file"),
        ("{}", "not a COCO file"),
    ],
)
def test_no_coco_json(tmp_path, text, message):
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(ConfigError, match=f"coco.json: {message}"):
        coco(tmp_path)
    (tmp_path / "coco.json").write_bytes(b"\xff\xff\x00")
    with pytest.raises(ConfigError, match="coco.json: not a text file in UTF-8"):
        coco(tmp_path)
    (tmp_path / "coco.json").unlink()
    with pytest.raises(FileNotFoundError, match="annotation_path: .*coco.json"):
        coco(tmp_path)


def test_few_contradictions_are_a_warning(tmp_path, caplog):
    annotations = [annotation(n, 1, (5, 5, 20, 30)) for n in range(200)]
    annotations[7]["segmentation"], annotations[8]["segmentation"] = (
        polygon(50, 40, 9, 9),
        [[5, 5, 25, 35]],
    )
    annotations[9]["segmentation"].append([5, 5])
    with caplog.at_level(logging.WARNING):
        sample = coco(write(tmp_path, annotations)).load(0, RNG)
    assert (
        "annotation 7 of 0.png: its mask extends over x 50 to 59" in caplog.text
        and "(2 annotations are like this)" in caplog.text
    )
    # 8 has none, 9 has one polygon
    assert len(sample["masks"]) == 199 and sample["masks"].any(axis=(1, 2)).all()


def test_an_image_of_another_size_than_the_json_says(tmp_path):
    write(tmp_path, GOOD)
    Image.new("L", (80, 61)).save(tmp_path / "0.png")
    with pytest.raises(ImageError, match="0.png: 80 x 61 pixels, but .*coco.json says 80 x 60"):
        batches(section(tmp_path))
    with pytest.raises(ImageError, match="0.png: 80 x 61 pixels"):
        batches(section(tmp_path, mode="val"), "Eval")
    data = section(tmp_path, bad_images={"policy": "skip", "limit": 1})
    # another one in its place
    assert batches(data)[0]["index"].tolist() == [1, 1]


def test_missing_images(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "0.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"0.png: no such file, .*; is image_root \(or dataset_root\) right"
    ):
        coco(tmp_path)


@pytest.mark.parametrize(
    "part, values, mode, message",
    [
        (
            "dataset",
            {"mode": "val"},
            "Train",
            "DataLoader.Train.dataset.mode: DataLoader.Train needs 'train', got 'val'",
        ),
        (
            "dataset",
            {"transform_ops": AUGMENT},
            "Eval",
            "DataLoader.Eval.dataset.mode: DataLoader.Eval needs 'val'",
        ),
        (
            "dataset",
            {"transform_ops": AUGMENT, "mode": "val"},
            "Eval",
            "transform_ops: evaluation and prediction leave nothing to chance",
        ),
        (
            "dataset",
            {"transform_ops": [{"Rezize": None}]},
            "Train",
            "transform_ops.0.Rezize: unknown transform",
        ),
        (
            "dataset",
            {"anotation_path": "x"},
            "Train",
            "anotation_path: unknown key. Did you mean 'annotation_path'",
        ),
        ("dataset", {"min_size": "small"}, "Train", "min_size: expected int, got 'small'"),
        (
            "sampler",
            {"name": "AspectRatioSampler", "drop_last": True},
            "Train",
            "drop_last: unknown key",
        ),
        ("sampler", {"name": "IterationSampler"}, "Train", "iterations: missing"),
        (
            "sampler",
            {"name": "IterationSampler", "iterations": 0},
            "Train",
            "iterations must be 1 or more",
        ),
    ],
)
def test_bad_sections(tmp_path, part, values, mode, message):
    data = section(tmp_path)
    data[part].update(values)
    with pytest.raises(ConfigError, match=message):
        check_loader(data, mode)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path, changed(0, segmentation={"size": [60, 80], "counts": [0, 4800]}))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"install ppcls_nextvit\[det\]"):
        coco(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"install ppcls_nextvit\[cv2\]"):
        check_loader(section(tmp_path, AUGMENT), "Train")


# Segmentation
# ------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """ADE20K's layout: one image 20 x 10 in each part, its labels 0, 1, 2 and 255 in four
    stripes.
    """
    labels = np.repeat(np.uint8([[0, 1, 2, 255]]), 5, axis=1).repeat(10, axis=0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / split / "one.jpg")
        Image.fromarray(labels).save(tmp_path / "annotations" / split / "one.png")
    (tmp_path / "list.txt").write_text("images/training/one.jpg annotations/training/one.png\n\n")
    return tmp_path


def ade(folder, class_num=3, mode="train", **more):
    return DATASETS.build(
        "ADE20KDataset",
        {"dataset_root": str(folder), "mode": mode, "reduce_zero_label": False, **more},
        "dataset",
        class_num,
    )


def listed(folder, class_num=3, **more):
    arguments = {
        "dataset_root": str(folder),
        "list_path": str(folder / "list.txt"),
        "mode": "train",
        **more,
    }
    return DATASETS.build("SegmentationDataset", arguments, "dataset", class_num)


def test_pixels_of_labels_that_cannot_be_read_are_not_counted_where_images_may_be_bad(labelled):
    folder = labelled
    (folder / "annotations/training/two.png").write_bytes(b"no picture")
    (folder / "list.txt").write_text(
        "".join(
            f"images/training/one.jpg annotations/training/{name}.png\n" for name in ("one", "two")
        )
    )
    with pytest.raises(ImageError, match="two.png"):
        listed(folder).class_counts()
    some = listed(folder, bad_images={"policy": "skip", "limit": 1}).class_counts()
    assert some.counts.tolist() == [50, 50, 50]


def relabel(folder, image):
    image.save(folder / "annotations" / "training" / "one.png")


def test_labels(labelled):
    for data in (ade(labelled), listed(labelled)):
        assert isinstance(data.labels, PackedNames)  # workers share them
        sample = data.load(0, RNG)
        assert sample["segmentation"].dtype == np.uint8 and sample["segmentation"][
            0, ::5
        ].tolist() == [0, 1, 2, 255]
        assert sample["image"].shape == (10, 20, 3) and data.label(0).shape == (10, 20)
    assert ade(labelled, 2, reduce_zero_label=True).label(0)[0, ::5].tolist() == [255, 0, 1, 255]
    held_out = ade(labelled, mode="val")
    assert held_out.name(0).endswith(
        "images/validation/one.jpg"
    ) and "segmentation" not in held_out.load(0, RNG)


def test_palette_labels_are_their_indices(labelled):
    image = Image.fromarray(ade(labelled).label(0), "P")
    image.putpalette([9, 8, 7] * 256)
    relabel(labelled, image)
    assert ade(labelled).label(0)[0, ::5].tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize("bits, row", [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x23")])
def test_labels_of_fewer_bits_are_not_stretched(labelled, bits, row):
    """As programs that shrink PNG files leave them."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )
    (labelled / "annotations" / "training" / "one.png").write_bytes(png)
    assert ade(labelled, None).label(0).tolist() == [[0, 1, 0, 1] if bits == 1 else [0, 1, 2, 3]]


def test_labels_in_a_lossy_format(labelled):
    Image.new("L", (20, 10)).save(labelled / "annotations" / "training" / "one.png", "jpeg")
    with pytest.raises(
        ImageError, match="labels must be a PNG of 8-bit grey or palette values, not JPEG of mode L"
    ):
        ade(labelled).label(0)


def test_segmentation_batches(labelled):
    ops = [{"RandomCrop": {"size": [8, 8]}}, {"Normalize": None}, {"Pad": {"size": [8, 12]}}]
    data = {
        "dataset": {
            "name": "SegmentationDataset",
            "dataset_root": str(labelled),
            "list_path": str(labelled / "list.txt"),
            "mode": "train",
            "transform_ops": ops,
        },
        "sampler": {"name": "IterationSampler", "batch_size": 2, "iterations": 3},
        "loader": {"num_workers": 0},
    }
    runs = [batches({**data, "loader": {"num_workers": workers}}, classes=3) for workers in (0, 2)]
    assert len(runs[0]) == 3 and all(
        np.array_equal(a[key], b[key]) for a, b in zip(*runs, strict=True) for key in a
    )
    batch = runs[0][0]
    assert (
        batch["segmentation"].shape == (2, 8, 12) and (batch["segmentation"][:, :, 8:] == 255).all()
    )
    assert batch["shape"].tolist() == [[8, 8]] * 2 and batch["original"].tolist() == [[10, 20]] * 2
    crops = np.concatenate([batch["segmentation"] for batch in runs[0]])
    # repetitions are cropped anew
    assert len(np.unique(crops, axis=0)) > 1
    evaluation = {
        **data,
        "dataset": {**data["dataset"], "mode": "val", "transform_ops": PLAIN},
        "sampler": {"batch_size": 1},
    }
    assert set(batches(evaluation, "Eval", 3)[0]) == {
        "image",
        "index",
        "shape",
        "original",
        "scale",
        "flip",
    }


@pytest.mark.parametrize(
    "image, message",
    [
        (
            Image.new("RGB", (20, 10)),
            "8-bit grey or palette values, not PNG of mode RGB, whose colours do not say which "
            "class",
        ),
        (Image.new("RGBA", (20, 10)), "not PNG of mode RGBA"),
        (
            Image.fromarray(np.zeros((10, 20), np.uint16)),
            "8-bit grey or palette values, not PNG of mode I;16",
        ),
        (Image.new("L", (20, 11)), "20 x 11 labels for an image of 20 x 10 pixels, .*one.jpg"),
        (
            Image.new("L", (20, 10), 3),
            "label 3 is out of range; the model has 3 classes, 0 to 2, and 255 is ignored",
        ),
    ],
)
def test_bad_labels(labelled, image, message):
    relabel(labelled, image)
    with pytest.raises(ImageError, match=f"annotations/training/one.png: .*{message}"):
        ade(labelled).load(0, RNG)


def test_labels_out_of_range_are_told_as_stored(labelled):
    relabel(labelled, Image.new("L", (20, 10), 4))
    with pytest.raises(ImageError, match=r"label 3 \(stored as 4\) is out of range"):
        ade(labelled, reduce_zero_label=True).label(0)


def test_damaged_and_missing_labels(labelled):
    path = labelled / "annotations" / "training" / "one.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match="one.png: truncated or damaged image"):
        ade(labelled).label(0)
    path.write_bytes(b"GIF or not")
    with pytest.raises(
        ImageError,
        match="one.png: not an image, or of a format that is not read .it begins with b.GIF or n",
    ):
        ade(labelled).label(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="one.png: no such file; 1 of 1 images lack labels"):
        ade(labelled)
    with pytest.raises(FileNotFoundError, match="one.png: no such file, and it is the first"):
        listed(labelled)


def test_bad_layouts(labelled, tmp_path):
    (labelled / "images" / "training" / "one.jpg").unlink()
    with pytest.raises(ConfigError, match="images/training: no images"):
        ade(labelled)
    with pytest.raises(FileNotFoundError, match="dataset_root: .*images/training: no such folder"):
        ade(labelled / "images")


@pytest.mark.parametrize(
    "text, message",
    [
        ("one.jpg\n", "list.txt:1: expected 'image label', got 'one.jpg'"),
        ("\n\n", "the list is empty; expected lines 'image label'"),
        ("a b c\n", "list.txt:1: expected 'image label'"),
    ],
)
def test_bad_lists(labelled, text, message):
    (labelled / "list.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        listed(labelled)
    (labelled / "list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="list_path"):
        listed(labelled)


def test_delimiters_allow_blanks(labelled):
    (labelled / "images" / "training" / "one.jpg").rename(
        labelled / "images" / "training" / "number one.jpg"
    )
    (labelled / "list.txt").write_text(
        "images/training/number one.jpg\tannotations/training/one.png\n"
    )
    assert listed(labelled, delimiter="\t").load(0, RNG)["segmentation"].shape == (10, 20)


def test_images_of_different_size_need_a_crop(labelled):
    Image.new("RGB", (21, 10)).save(labelled / "images" / "training" / "two.jpg")
    Image.new("L", (21, 10)).save(labelled / "annotations" / "training" / "two.png")
    data = ade(labelled)
    with pytest.raises(ImageError, match="differ in size: .*; add RandomCrop and Pad"):
        data.collate([data.load(0, RNG), data.load(1, RNG)], RNG)


# Order
# ------------------------------------------------------------------------------------------


class Sized:
    """A dataset of which the numbers divisible by three are high."""

    def __init__(self, count):
        self.aspect_ratios = np.array([0.75 if i % 3 == 0 else 1.5 for i in range(count)])

    def __len__(self):
        return len(self.aspect_ratios)


def sampler(name, dataset, rank=0, world=1, seed=0, pad=True, **arguments):
    return SAMPLERS.build(
        name, {"batch_size": 4, **arguments}, "sampler", dataset, rank, world, seed, pad
    )


@pytest.mark.parametrize("count, world", [(40, 1), (40, 2), (41, 3), (7, 2)])
def test_batches_of_one_aspect_ratio(count, world):
    ranks = [sampler("AspectRatioSampler", Sized(count), rank, world) for rank in range(world)]
    high = -(-count // 3)
    steps = -(-high // (4 * world)) + -(-(count - high) // (4 * world))
    orders = [one.order(2) for one in ranks]
    assert all(
        len(one) == steps and len(indices) == len(occurrences) == 4 * steps
        for one, (indices, occurrences) in zip(ranks, orders, strict=True)
    )
    # [steps, 4 * world]
    together = np.concatenate([indices.reshape(steps, 4) for indices, _ in orders], axis=1)
    kinds = together % 3 == 0
    # of all processes at a step
    assert (kinds.all(axis=1) | ~kinds.any(axis=1)).all()
    assert set(together.ravel()) == set(range(count))
    places = {
        (i, o) for indices, occurrences in orders for i, o in zip(indices, occurrences, strict=True)
    }
    # repetitions are augmented anew
    assert len(places) == together.size
    firsts = [i for indices, occurrences in orders for i in indices[occurrences == 0]]
    assert sorted(firsts) == list(range(count))


def test_aspect_ratio_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return sampler("AspectRatioSampler", Sized(40), seed=seed).order(epoch)[0].tolist()

    assert order(0, 1) == order(0, 1) and order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)
    plain = sampler("AspectRatioSampler", Sized(12), shuffle=False).order(5)[0]
    assert plain.tolist() == [0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10, 11]


def test_two_processes_together_see_the_batches_of_one():
    one = sampler("AspectRatioSampler", Sized(40), batch_size=8).order(0)[0].reshape(-1, 8)
    two = [
        sampler("AspectRatioSampler", Sized(40), rank, 2).order(0)[0].reshape(-1, 4)
        for rank in (0, 1)
    ]
    assert np.array_equal(one[:, ::2], two[0]) and np.array_equal(one[:, 1::2], two[1])


def test_epochs_of_iterations_go_on_through_the_passes():
    one = sampler("IterationSampler", range(10), iterations=3)
    assert len(one) == 3
    # 60 images: six passes
    orders = [one.order(epoch) for epoch in range(5)]
    stream = np.concatenate([indices for indices, _ in orders]).reshape(6, 10)
    assert (
        all(sorted(row) == list(range(10)) for row in stream)
        and len({tuple(row) for row in stream}) == 6
    )
    for indices, occurrences in orders:
        assert len(set(zip(indices, occurrences, strict=True))) == 12
    two = [
        sampler("IterationSampler", range(10), rank, 2, batch_size=2, iterations=3).order(1)[0]
        for rank in (0, 1)
    ]
    assert np.array_equal(np.stack(two, axis=1).ravel(), orders[1][0])
    assert sampler("IterationSampler", range(3), iterations=2, shuffle=False).order(1)[
        0
    ].tolist() == [2, 0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    "name, more", [("AspectRatioSampler", {}), ("IterationSampler", {"iterations": 2})]
)
def test_training_samplers_do_not_evaluate(name, more):
    with pytest.raises(ConfigError, match=f"{name} is for training"):
        sampler(name, Sized(9), pad=False, **more)


def test_a_dataset_without_sizes_has_no_aspect_ratios():
    with pytest.raises(
        ConfigError, match="a dataset that knows the sizes of its images, such as COCODataset"
    ):
        sampler("AspectRatioSampler", [1, 2, 3])


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    for share in (0.5, 0.02, 0.98, 0.0, 1.0):
        mask = np.asfortranarray(rng.random((70, 90)) < share).astype(np.uint8)
        counts, flat = decompressed(mask_tools.encode(mask)["counts"]), mask.ravel(order="F")
        assert np.array_equal(np.repeat(np.arange(len(counts)) % 2, counts), flat)
