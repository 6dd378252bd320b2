"""COCO's average precision against cases worked out by hand, and the gathering of results from
several processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="needs the extra `det`")
pytest.importorskip("cv2", reason="needs the extra `cv2`")

from ppcls_nextvit.data.datasets.coco import COCODataset  # noqa: E402
from ppcls_nextvit.data.rle import mask_tools  # noqa: E402
from ppcls_nextvit.engine.distributed import Processes  # noqa: E402
from ppcls_nextvit.tasks.detection.metrics import coco_map, gathered, result_records  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def square(left, top, side):
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def dataset(folder, annotations, images=1, categories=(7, 3)):
    """A set of black images 100 x 100 with square objects: annotations = [(image, category id,
    left, top, side, crowd), ...].
    """
    for i in range(images):
        Image.new("L", (100, 100)).save(folder / f"{i}.png")
    content = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "width": 100, "height": 100}
            for i in range(images)
        ],
        "categories": [{"id": number, "name": f"class{number}"} for number in categories],
        "annotations": [
            {
                "id": n,
                "image_id": 10 + image,
                "category_id": category,
                "bbox": [left, top, side, side],
                "area": side * side,
                "iscrowd": crowd,
                "segmentation": square(left, top, side),
            }
            for n, (image, category, left, top, side, crowd) in enumerate(annotations, 1)
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return COCODataset(
        len(categories),
        image_root=str(folder),
        annotation_path=str(folder / "coco.json"),
        mode="val",
    )


def found(data, image, left, top, width, height, score, label=0, mask=True):
    rle = None
    if mask:
        pixels = np.zeros((100, 100), np.uint8, order="F")
        pixels[top : top + height, left : left + width] = 1
        rle = mask_tools().encode(pixels)
        rle = [{"size": rle["size"], "counts": rle["counts"].decode()}]
    return result_records(
        data, image, [[left, top, left + width, top + height]], [score], [label], rle
    )


def test_records_are_in_the_files_ids_and_corners_and_sizes(tmp_path):
    data = dataset(tmp_path, [(0, 3, 0, 0, 10, 0)], images=2)
    (record,) = found(data, 1, 5, 6, 20, 30, 0.5, label=1, mask=False)
    # class 1 is the second smallest id
    assert record == {"image_id": 11, "category_id": 7, "bbox": [5, 6, 20, 30], "score": 0.5}
    json.dumps(found(data, 0, 5, 6, 20, 30, np.float32(0.5)))


def test_everything_right_is_one(tmp_path, capsys):
    data = dataset(tmp_path, [(0, 3, 0, 0, 40, 0), (1, 7, 20, 20, 20, 0)], images=2)
    result = coco_map(
        data, found(data, 0, 0, 0, 40, 40, 0.9) + found(data, 1, 20, 20, 20, 20, 0.2, label=1)
    )
    assert capsys.readouterr().out == ""
    for kind in ("box", "mask"):
        assert all(
            result[f"{kind}_{name}"] == pytest.approx(1)
            for name in ("map", "map_50", "map_75", "map_small", "map_medium")
        )
        # nothing of 96 x 96 pixels or more
        assert result[f"{kind}_map_large"] is None
        assert result[f"class_{kind}_map"] == pytest.approx({"class3": 1, "class7": 1})
    # which chooses the best model
    assert next(iter(result)) == "box_map"


def test_iou_thresholds_recall_and_order(tmp_path):
    """Two objects 40 x 40; found: one with IoU 0.75 (40 x 30), ahead of it a false alarm."""
    data = dataset(tmp_path, [(0, 3, 0, 0, 40, 0), (0, 3, 50, 50, 40, 0)], categories=(3,))
    hit, alarm = found(data, 0, 0, 0, 40, 30, 0.5), found(data, 0, 50, 0, 40, 40, 0.8)
    # recall 0.5 reached at precision 1/2: of the 101 recalls 0, 0.01, ..., 1 the first 51 have it
    result = coco_map(data, hit + alarm)
    assert result["box_map_50"] == pytest.approx(51 / 101 / 2) == result["mask_map_50"]
    # 0.75 counts at 0.75
    assert result["box_map_75"] == pytest.approx(51 / 101 / 2)
    # thresholds 0.5, 0.55, ..., 0.75
    assert result["box_map"] == pytest.approx(6 / 10 * 51 / 101 / 2)
    # behind the hit it costs nothing
    alarm[0]["score"] = 0.3
    assert coco_map(data, hit + alarm)["box_map_50"] == pytest.approx(51 / 101)


@pytest.mark.parametrize("side, medium", [(40, 0.5), (20, 1.0)])
def test_a_false_alarm_counts_in_its_own_size_alone(tmp_path, side, medium):
    data = dataset(tmp_path, [(0, 7, 10, 10, 40, 0)], categories=(7,))
    alarm = found(data, 0, 55, 55, side, side, 0.9)
    figures = coco_map(data, [*found(data, 0, 10, 10, 40, 40, 0.5), *alarm])
    for kind in ("box", "mask"):
        assert figures[f"{kind}_map"] == pytest.approx(0.5)
        assert figures[f"{kind}_map_medium"] == pytest.approx(medium)
        assert figures[f"{kind}_map_small"] is None is figures[f"{kind}_map_large"]


def test_masks_are_judged_by_their_own_pixels(tmp_path):
    """A right box around half of a mask: IoU 1 of the boxes, 0.5 of the masks; and the mask's area,
    not the box's, is its size.
    """
    data = dataset(tmp_path, [(0, 3, 10, 10, 40, 0)], categories=(3,))
    (record,) = found(data, 0, 10, 10, 40, 20, 0.9)
    result = coco_map(data, [{**record, "bbox": [10, 10, 40, 40]}])
    assert result["box_map"] == pytest.approx(1) and result["mask_map_50"] == pytest.approx(1)
    assert result["mask_map_75"] == 0 and result["mask_map"] == pytest.approx(0.1)


def test_crowds_are_neither_missed_nor_false_alarms(tmp_path):
    data = dataset(tmp_path, [(0, 3, 0, 0, 20, 0), (0, 3, 40, 40, 50, 1)], categories=(3,))
    inside_crowd = found(data, 0, 45, 45, 20, 20, 0.9)
    assert coco_map(data, found(data, 0, 0, 0, 20, 20, 0.5) + inside_crowd)[
        "box_map"
    ] == pytest.approx(1)


def test_no_detection_is_zero_and_no_object_an_error(tmp_path):
    data = dataset(tmp_path, [(0, 3, 0, 0, 20, 0)])
    result = coco_map(data, [])
    assert result["box_map"] == result["mask_map"] == 0 and result["box_map_large"] is None
    assert result["class_box_map"] == {"class3": 0, "class7": None}
    with pytest.raises(ValueError, match="coco.json: no object to find"):
        coco_map(dataset(tmp_path, [(0, 3, 0, 0, 20, 1)]), [])


def test_evaluating_twice_changes_nothing(tmp_path):
    data = dataset(tmp_path, [(0, 3, 0, 0, 20, 0)])
    records = found(data, 0, 0, 0, 20, 15, 0.5)
    before, masks = json.dumps(records), data.truth(0, (100, 100))["masks"]
    assert coco_map(data, records) == coco_map(data, records) and json.dumps(records) == before
    # though pycocotools rewrites them
    assert np.array_equal(data.truth(0, (100, 100))["masks"], masks) and masks.sum() == 400


GATHER = """
import sys
from ppcls_nextvit.engine.distributed import start_processes
from ppcls_nextvit.tasks.detection.metrics import gathered
processes = start_processes("cpu")
records = [{"image_id": i, "score": 0.1 * i, "segmentation": {"counts": "a\\\\b" * i}} for i in range(3 * processes.rank)]
together = gathered(records, processes)
assert together == [{"image_id": i, "score": 0.1 * i, "segmentation": {"counts": "a\\\\b" * i}} for i in range(3)], together
open(f"{sys.argv[1]}/{processes.rank}", "w").close()
"""


@pytest.mark.slow
def test_two_processes_gather_the_records_of_both(tmp_path):
    (tmp_path / "gather.py").write_text(GATHER)
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node=2",
        "--log_dir",
        str(tmp_path / "logs"),
        str(tmp_path / "gather.py"),
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "0").exists() and (tmp_path / "1").exists()


def test_one_process_keeps_its_own():
    records = [{"image_id": 1}]
    assert gathered(records, Processes()) is records
