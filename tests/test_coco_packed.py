"""COCO's json read by sections into arrays: the same dataset, the same warnings and the same
complaints as from the whole file, one entry after the other.
"""

import copy
import io
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="needs the extra `det`")

from ppcls_nextvit.data.datasets import coco_packed, json_stream  # noqa: E402
from ppcls_nextvit.data.datasets.coco import REASONS, COCODataset, why_not_learnt  # noqa: E402
from ppcls_nextvit.data.datasets.json_stream import sections_of  # noqa: E402
from support.faults import generators  # noqa: E402

CROWD = {"size": [60, 80], "counts": [0, 2400, 2400]}
BOX = [10, 8, 20, 16]
SHAPE = [[10, 8, 30, 8, 30, 24, 10, 24]]


def content(rng, count=24):
    """A file of 5 images, one of them small and one empty, and `count` objects of many kinds."""
    annotations = []
    for number in range(count):
        left, top = rng.uniform(0, 40), rng.uniform(0, 30)
        w, h = rng.uniform(2, 30), rng.uniform(2, 25)
        shape = [left, top, left + w, top, left + w, top + h, left, top + h]
        if number % 3:
            left, top, w, h = (float(round(v, 2)) for v in (left, top, w, h))
            shape = [float(round(v, 2)) for v in shape]
        annotations.append(
            {
                "id": int(number + 100),
                "image_id": int(rng.choice([7, 3, 9])),
                "category_id": int(rng.choice([1, 5])),
                "bbox": [left, top, w, h],
                "area": float(w * h),
                "segmentation": [shape] * (1 + number % 2),
                **({"iscrowd": 0} if number % 4 else {}),
                **({"attributes": {"parts": [{"id": 1}, {"id": 2}], "text": '}, {"id":'}}),
            }
        )
    annotations[1].update(segmentation=CROWD, iscrowd=1, bbox=[0, 0, 80, 60], image_id=3)
    annotations[2].update(bbox=BOX, segmentation=SHAPE, area=320, image_id=3)
    annotations[3].update(bbox=BOX, segmentation=[*SHAPE, [1, 2], []], image_id=3)
    annotations[9].update(bbox=[1, 1, 9, 9], segmentation=[[1, 1, 10, 1, 10, 10]], image_id=12)
    annotations[4].update(ignore=1)
    annotations[5].update(area=0)
    annotations[6].update(bbox=[5, 5, 0.5, 9], segmentation=[[5, 5, 5.5, 5, 5.5, 14]])
    sizes = {7: (60, 80), 3: (60, 80), 9: (60, 80), 12: (20, 30), 4: (60, 80)}
    return {
        "info": {"annotations": [{"id": 1}], "text": "]}"},
        "licenses": [],
        "annotations": annotations,
        "numbers": [1, 2.5, [3], "x"],
        "images": [
            {"id": n, "file_name": f"é{n}.png", "height": h, "width": w}
            for n, (h, w) in sizes.items()
        ],
        "categories": [{"id": 5, "name": "b"}, {"id": 1, "name": "a"}],
    }


def outcome(path, caplog, **arguments):
    """What a dataset of the file holds and warns of, or its error."""
    caplog.clear()
    given = {"mode": "train", **arguments}
    try:
        data = COCODataset(2, image_root=str(path.parent), annotation_path=str(path), **given)
    except (ValueError, OSError) as error:
        return type(error), str(error)
    wanted = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    return (
        [record.getMessage() for record in caplog.records],
        [data.image_ids, list(data.names), data.sizes.tolist(), data.outlined],
        [data.counts.of_class.tolist(), data.counts.of_image.tolist(), data.reasons.tolist()],
        [
            [{key: entry[key] for key in wanted} | {"left": entry.get("ignore")} for entry in part]
            for part in data.annotations
        ],
    )


def both(path, caplog, monkeypatch, **arguments):
    """The outcomes of the quick way and of the other."""
    quick = outcome(path, caplog, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(coco_packed, "_read_quickly", lambda path: None)
        return quick, outcome(path, caplog, **arguments)


@pytest.fixture
def folder(tmp_path):
    for number in (7, 3, 9, 12, 4):
        Image.new("L", (80, 60)).save(tmp_path / f"é{number}.png")
    return tmp_path


STYLES = [{}, {"indent": 1}, {"separators": (",", ":"), "ensure_ascii": False}]


@pytest.mark.parametrize("with_orjson", [True, False])
@pytest.mark.parametrize("block", [1 << 9, 1 << 12, 4 << 20])
def test_the_quick_way_reads_what_the_other_reads(folder, caplog, monkeypatch, block, with_orjson):
    if with_orjson and json_stream.quick_loads is None:
        pytest.skip("needs orjson, of the extra `det`")
    if not with_orjson:
        monkeypatch.setattr(json_stream, "quick_loads", None)
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    for rng, style in zip(generators(3), STYLES, strict=True):
        path = folder / "coco.json"
        path.write_text(json.dumps(content(rng), **style), encoding="utf-8-sig")
        assert coco_packed._read_quickly(str(path)) is not None
        for arguments in (
            {},
            {"mode": "val"},
            {"filter_empty": False, "min_size": 1},
            {"sample_num": 2},
        ):
            quick, plain = both(path, caplog, monkeypatch, **arguments)
            assert quick == plain and isinstance(quick[0], list)


def test_coordinates_come_back_to_the_last_bit(folder, caplog, monkeypatch):
    rng = np.random.default_rng(0)
    made = content(rng)
    shape = [10.123456789, 8.1, 30.3, 8.7, 30.25, 24.000001, 1 / 3 + 10, 24]
    made["annotations"][8].update(bbox=BOX, segmentation=[shape], image_id=3)
    path = folder / "coco.json"
    path.write_text(json.dumps(made))
    coco = coco_packed.open_coco(str(path)).objects()
    assert coco.objects.entry(8)["segmentation"] == [shape]
    assert coco.objects.entry(3)["segmentation"] == [*SHAPE, [1, 2], []]
    assert coco.objects.entry(1)["segmentation"] == CROWD
    exact = content(rng)["annotations"][7]["segmentation"]
    assert np.rint(np.array(exact) * 100).tolist() == (np.array(exact) * 100).round(6).tolist()


ODD = [None, True, -1, 0, 1e400, float("nan"), 10**30, 2**62, "", "x", "12", [], {}, [[]], [None]]
ODD += ["\ud800", [["a"] * 6], [[1, 2, 3, 4, 5, None]], {"size": [60, 80], "counts": "["}]
ODD += [[[1, 2]], [[float("inf")] * 6], [SHAPE[0], ["a"]], [[10**30, 1, 2, 3, 4, 5]], [1e3] * 4]


def changed(made, rng):
    """`made` with one entry or one value of it replaced, left out, or there twice."""
    made = copy.deepcopy(made)
    section = str(rng.choice(["images", "annotations", "annotations", "categories"]))
    entries = made[section]
    at = int(rng.integers(len(entries)))
    key = str(rng.choice(list(entries[at])))
    odd = copy.deepcopy(ODD[rng.integers(len(ODD))])
    kind = rng.integers(6)
    if kind == 0:
        entries[at] = odd
    elif kind == 1:
        entries[at].pop(key)
    elif kind == 2:
        entries.append(copy.deepcopy(entries[at]))
    elif kind == 3 and rng.random() < 0.3:
        made[section] = odd
    else:
        entries[at][key] = odd
    return made


@pytest.mark.faults
def test_odd_files_are_the_other_ways(folder, caplog, monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 1 << 10)
    path = folder / "coco.json"
    complaints = 0
    for number, rng in enumerate(generators(160)):
        made = content(rng)
        for _ in range(int(rng.integers(1, 3)) if number else 0):  # the first stays whole
            parts = [made[key] for key in ("images", "annotations", "categories")]
            if all(isinstance(part, list) and part for part in parts):
                if all(
                    isinstance(entry, dict) and entry
                    for part in made.values()
                    if isinstance(part, list)
                    for entry in part
                    if part is not made["numbers"]
                ):
                    made = changed(made, rng)
        path.write_text(json.dumps(made), encoding="utf-8")
        quick, plain = both(path, caplog, monkeypatch, mode=str(rng.choice(["train", "val"])))
        assert repr(quick) == repr(plain)
        complaints += not isinstance(quick[0], list)
    assert 20 < complaints < 160


def test_one_contradiction_of_many_is_told_as_it_was_written(folder, caplog, monkeypatch):
    made = content(np.random.default_rng(1), 300)
    made["annotations"][50].update(bbox=[60, 40, 5, 6.5], segmentation=SHAPE, image_id=3)
    path = folder / "coco.json"
    path.write_text(json.dumps(made))
    assert coco_packed._read_quickly(str(path)) is not None
    quick, plain = both(path, caplog, monkeypatch, mode="val")
    assert quick == plain
    assert "annotation 150 of é3.png: its mask extends over" in quick[0][0]
    assert "its box [60, 40, 5, 6.5]" in quick[0][0]


def test_boxes_alone(folder, caplog, monkeypatch):
    made = content(np.random.default_rng(1))
    for number, entry in enumerate(made["annotations"]):
        entry["segmentation"] = [None, [], ""][number % 3]
    path = folder / "coco.json"
    path.write_text(json.dumps(made))
    quick, plain = both(path, caplog, monkeypatch)
    assert quick == plain and quick[1][-1] is False
    assert quick[3][0][0]["segmentation"] is None


def test_of_one_object_and_of_all_the_reasons_are_the_same(folder):
    for rng in generators(20):
        made = content(rng)
        for entry in made["annotations"]:
            entry.update({"area": float(rng.choice([0, 5])), "ignore": int(rng.choice([0, 1]))})
        path = folder / "coco.json"
        path.write_text(json.dumps(made))
        data = COCODataset(2, image_root=str(folder), annotation_path=str(path), mode="val")
        found = [
            why_not_learnt(entry, *size) or ""
            for size, part in zip(data.sizes.tolist(), data.annotations, strict=True)
            for entry in part
        ]
        assert found == [REASONS[reason] for reason in data.reasons] and len(set(found)) > 2


def streamed(text):
    found = {}
    for key, entries in sections_of(io.BytesIO(text.encode())):
        found.setdefault(key, []).extend(entries)
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_sections_are_those_of_the_whole(monkeypatch, block):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    made = {"a": [{"é": [1, {"x": "},{"}], "n": 12345}] * 9, "b": [], "c": 5, "d": [1, 23, "4]"]}
    for style in STYLES:
        text = json.dumps(made, **style)
        assert streamed(text) == {key: made[key] for key in "abd"}
        for end in range(len(text)):
            with pytest.raises(ValueError):
                streamed(text[:end])
    for text in (
        '{"a": [1 2]}',
        '{"a": [1,]}',
        '{"a": [], "a": []}',
        "[]",
        '{"a": []} 1',
        "{1: []}",
    ):
        with pytest.raises(ValueError):
            streamed(text)
