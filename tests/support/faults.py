"""What the tests of faulty inputs share: seeds, small datasets, a watch against hanging.

Made-up inputs are functions of a seed. `FAULTS_SEED=7 FAULTS_COUNT=5000 pytest -m faults` tries
others, and more; FAULTS_SECONDS is how long those take that go by time. docs/reliability.md lists
them.
"""

import json
import os

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import DATASETS

COUNT = int(os.environ.get("FAULTS_COUNT", 40))
SEED = int(os.environ.get("FAULTS_SEED", 0))
RNG = np.random.default_rng(0)


def many(count):
    """`count`, or as many times that as FAULTS_COUNT is of its default."""
    return max(1, count * COUNT // 40)


def lasting(seconds):
    """FAULTS_SECONDS, or the `seconds` of the default run."""
    return float(os.environ.get("FAULTS_SECONDS", seconds))


def generators(count=COUNT):
    """A numpy Generator for each of `count` inputs."""
    return (np.random.default_rng((SEED, number)) for number in range(count))


def assert_one_line(error, start=""):
    """The message of `error` begins with `start`, is printable and short."""
    text = str(error)
    assert text.startswith(start) and text.isprintable() and len(text) < 5000


def dataset(kind, class_num, **arguments):
    """An entry of DATASETS."""
    return DATASETS.build(kind, arguments, "dataset", class_num)


def box_of(annotation_id, image_id=1, category=1, box=(8, 8, 20, 16), **more):
    """A COCO annotation whose polygon is its box."""
    x, y, w, h = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        **more,
    }


def coco_content(annotations=None, names=("cat",), size=(40, 32), images=1):
    """A COCO json's content: images 0.png, 1.png, ... and categories, with ids from 1."""
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "width": size[0], "height": size[1]}
            for i in range(images)
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "annotations": [box_of(1)] if annotations is None else annotations,
    }


def coco(folder, path, class_num=1, mode="train", **more):
    """The COCODataset of the json `path`."""
    pytest.importorskip("pycocotools.mask", reason="needs the extra `det`")
    arguments = {"image_root": str(folder), "annotation_path": str(path), "mode": mode, **more}
    return DATASETS.build("COCODataset", arguments, "dataset", class_num)


def written_coco(folder, content, class_num=1, **more):
    """The COCODataset of `content`, whose images that are not there are written, black."""
    for image in content["images"]:
        if not (folder / image["file_name"]).exists():
            Image.new("RGB", (image["width"], image["height"])).save(folder / image["file_name"])
    (folder / "coco.json").write_text(json.dumps(content))
    return coco(folder, folder / "coco.json", class_num, **more)
