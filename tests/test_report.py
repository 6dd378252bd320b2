"""report.html and results.csv of a run: whole in one file, right numbers, whatever the names."""

import csv
import json
import re

import numpy as np
from PIL import Image

from ppcls_nextvit.engine.page import write_page
from ppcls_nextvit.tasks.classification.class_table import class_table

EVALUATIONS = [
    {"kind": "train", "epoch": 1, "loss": 3.0},
    {"kind": "eval", "time": 1.0, "update": 5, "epoch": 1, "top1": 0.25, "loss": 2.0},
    {"kind": "eval_ema", "time": 1.0, "update": 5, "epoch": 1, "top1": 0.5, "loss": 1.0},
    {"kind": "eval", "epoch": 2, "top1": 0.75, "images": 9, "class_iou": {"a<b": 0.5, "c": None}},
]


def run(folder):
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in EVALUATIONS))
    (folder / "config.yaml").write_text("Arch: {name: <script>alert(1)</script>}\n")
    Image.new("RGB", (30, 20), "red").save(folder / "curves.png")
    return folder


def test_a_page_that_needs_nothing_else(tmp_path):
    table = [["class", "F1"], ["猫 & <b>", 0.5], ["\udcff", None]]
    write_page(run(tmp_path), "NextViT_small", "best 0.7500 at epoch 2", {"Classes": table})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    loaded = re.findall(r"""(?:src|href)=["']([a-z]+:)|url\(|@import""", page)
    assert loaded == ["data:"], "nothing is loaded from elsewhere"
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "<td>猫 &amp; &lt;b&gt;</td><td>0.5000</td>" in page and "<td>-</td>" in page
    assert "<td>a&lt;b</td><td>0.5000</td>" in page, "figures of classes are a table"
    assert page.count("data:image/png;base64,") == 1 and "Confusion matrix" not in page
    assert f"nextvit infer --model {tmp_path} --images IMAGES" in page
    assert 'name="viewport"' in page
    for tag in ("table", "tr", "details", "pre", "div"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>")


def test_the_evaluations_as_csv(tmp_path):
    write_page(run(tmp_path), "x", "y", {})
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["weights"], row["epoch"], row["top1"], row["images"]) for row in rows] == [
        ("trained", "1", "0.25", ""),
        ("averaged", "1", "0.5", ""),
        ("trained", "2", "0.75", "9"),
    ]


def test_a_run_that_was_never_evaluated(tmp_path):
    write_page(tmp_path, "x", "not evaluated yet", {})
    assert "not evaluated yet" in (tmp_path / "report.html").read_text()


def test_long_tables_are_cut(tmp_path):
    write_page(tmp_path, "x", "y", {"Classes": [["class"], *[[f"c{i}"] for i in range(1000)]]})
    page = (tmp_path / "report.html").read_text()
    assert "c199<" in page and "c200<" not in page and "and 800 more rows" in page


def test_precision_recall_and_f1():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, 0])
    head, *rows = class_table(labels, predictions, ["a", "b", "c", "d"])
    assert head == ["class", "images", "precision", "recall", "F1"]
    assert rows == [
        ["c", 1, None, 0.0, 0.0],
        ["b", 2, 1 / 2, 1 / 2, 1 / 2],
        ["a", 3, 2 / 4, 2 / 3, 4 / 7],
        ["d", 0, None, None, None],
    ]
    several = [np.eye(4, dtype=int)[part] for part in (labels, predictions)]
    assert class_table(*several, ["a", "b", "c", "d"]) == [head, *rows]
