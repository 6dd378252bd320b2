"""report.html and results.csv of a run: whole in one file, right numbers, whatever the names."""

import csv
import html
import json
import re
import shlex

import numpy as np
from PIL import Image

from ppcls_nextvit.engine.page import write_page
from ppcls_nextvit.tasks.classification.class_table import class_table
from ppcls_nextvit.tasks.classification.pictures import draw_calibration, draw_precision_recall
from ppcls_nextvit.tasks.classification.quality import calibration, precision_recall

EVALUATIONS = [
    {"kind": "train", "epoch": 1, "loss": 3.0},
    {"kind": "eval", "time": 1.0, "update": 5, "epoch": 1, "top1": 0.25, "loss": 2.0},
    {"kind": "eval_ema", "time": 1.0, "update": 5, "epoch": 1, "top1": 0.5, "loss": 1.0},
    {
        "kind": "eval",
        "epoch": 2,
        "top1": 0.75,
        "images": 9,
        "class_iou": {"a<b": 0.5, "c": None},
        "class_acc": {"a<b": 0.25, "c": 1.0},
    },
]


def run(folder):
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in EVALUATIONS))
    (folder / "config.yaml").write_text("Arch: {name: <script>alert(1)</script>}\n")
    Image.new("RGB", (30, 20), "red").save(folder / "curves.png")
    return folder


def test_a_page_that_needs_nothing_else(tmp_path):
    table = [["class", "F1"], ["猫 & <b>", 0.5], ["\udcff", None]]
    write_page(run(tmp_path), "NextViT_small", "best 0.7500 at epoch 2", {"Of a task": table})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    loaded = re.findall(r"""(?:src|href)=["']([a-z]+:)|url\(|@import""", page)
    assert loaded == ["data:"], "nothing is loaded from elsewhere"
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "<td>猫 &amp; &lt;b&gt;</td><td>0.5000</td>" in page and "<td>-</td>" in page
    assert page.count("<h2>Classes</h2>") == 1, "figures of classes are a table"
    assert "<th>class</th><th>iou</th><th>acc</th>" in page
    assert "<td>a&lt;b</td><td>0.5000</td><td>0.2500</td>" in page
    assert page.count("data:image/png;base64,") == 1 and "Confusion matrix" not in page
    assert f"nextvit infer --model {tmp_path} --images IMAGES" in page
    assert 'name="viewport"' in page
    for tag in ("table", "tr", "details", "pre", "div"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>")


def test_its_commands_can_be_pasted(tmp_path):
    folder = tmp_path / "my run; it's"
    folder.mkdir()
    write_page(run(folder), "x", "y", {})
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    (infer,) = re.findall("^.*nextvit infer.*$", page, re.M)
    assert shlex.split(infer.partition("<pre>")[2])[2:4] == ["--model", str(folder)]


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


def test_speeds_are_one_table_and_only_wide_pictures_scroll(tmp_path):
    lines = [{"kind": "train", "images_per_s": speed} for speed in (5.0, 7.0, 6.0)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (801, 20)).save(tmp_path / "curves.png")
    Image.new("RGB", (800, 20)).save(tmp_path / "calibration.png")
    speed = {"Speed": [["", "images per second"], ["evaluation", 30.5]]}
    write_page(tmp_path, "x", "y", speed)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h2>Speed</h2>") == 1
    assert "<td>training (median)</td><td>6.0</td>" in page and "<td>30.5</td>" in page
    assert page.count('<div class="wide"><img') == 1 and page.count("<img") == 2


def test_calibration():
    """Two bins by hand: of (0.5, 0.6] 4 images of 0.55, 3 right; of (0.9, 1] 1 of 1.0, wrong."""
    confidences = np.array([0.55, 0.55, 0.55, 0.55, 1.0])
    found = calibration(confidences, np.array([True, True, True, False, False]))
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 4, 0, 0, 0, 1]
    assert found.accuracy[5] == 0.75 and found.confidence[9] == 1.0 and found.accuracy[9] == 0
    assert abs(found.error - (4 * 0.2 + 1 * 1.0) / 5) < 1e-12
    # the upper end of a bin belongs to it, and so does 0 to the first
    assert calibration(np.array([0.0, 0.1, 0.6]), np.ones(3, bool)).counts[[0, 5]].tolist() == [
        2,
        1,
    ]


def test_precision_over_recall():
    scores, truth = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, True])
    recall, precision = precision_recall(scores, truth)
    assert recall.tolist() == [1 / 3, 2 / 3, 1.0] and precision.tolist() == [1.0, 2 / 3, 3 / 4]


def test_pictures_of_quality(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 50)
    truth = np.eye(3, dtype=bool)[rng.integers(0, 2, 50)]  # of the last class there is none
    draw_precision_recall(tmp_path / "pr.png", truth, probabilities, ["a$b", "猫", "c"])
    assert Image.open(tmp_path / "pr.png").width > 400
    draw_precision_recall(tmp_path / "many.png", truth, probabilities, ["x"] * 21)
    assert not (tmp_path / "many.png").exists()
    error = draw_calibration(tmp_path / "c.png", probabilities.max(axis=1), truth[:, 0])
    assert 0 < error < 1 and Image.open(tmp_path / "c.png").height > 400
