"""deploy/web with detectors and segmentors: its parts under Node.js beside deploy/python's, and
the built page in a real browser beside the package's own predictions.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.export.opened import open_export
from ppcls_nextvit.tasks.detection.exported import exported_predictor as detector_of
from ppcls_nextvit.tasks.inputs import input_images
from ppcls_nextvit.tasks.pictures import palette
from ppcls_nextvit.tasks.results import predictions
from ppcls_nextvit.tasks.segmentation.exported import exported_predictor as segmentor_of
from ppcls_nextvit.tasks.segmentation.pictures import overlay
from support.dense_exports import dense_export
from support.paths import ROOT
from support.programs import program_at
from support.toy_exports import NAMES, described, scenes, toy_detector, toy_segmentor
from support.web_page import FOLDER, NODE, built_page, driven, needs_node
from test_deploy_dense import PIPELINES

pytest.importorskip("cv2", reason="needs the extra `cv2`")
pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")

joint = program_at("deploy/python/joint.py")
winners = program_at("deploy/python/winners.py")
objects_of = program_at("deploy/python/objects.py")
EMPTY = {"inputs": [], "labels": [], "objects": [], "palette": 0, "descriptions": []}


def run_node(folder, **cases):
    """What test/dense.mjs answers."""
    (folder / "cases.json").write_text(json.dumps({**EMPTY, **cases}), encoding="utf-8")
    done = subprocess.run(
        [NODE, "test/dense.mjs", str(folder / "cases.json")],
        cwd=FOLDER,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stored(path, array):
    path.write_bytes(array.tobytes())
    return str(path)


@needs_node
def test_inputs_are_those_of_evaluation_bit_for_bit(tmp_path):
    scenes(tmp_path / "scenes")
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "scenes").iterdir())]
    # of exactly half the size, which OpenCV averages
    pictures.append(np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8))
    options = {"sides": [None, None], "fills": True}
    cases, expected = [], []
    for transforms in PIPELINES:
        ours = joint.JointPreprocess(transforms, (None, None), fills=True)
        for pixels in pictures:
            place = tmp_path / str(len(cases))
            cases.append(
                {
                    "ops": transforms,
                    "options": options,
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "raw": stored(place.with_suffix(".raw"), pixels),
                    "out": str(place.with_suffix(".out")),
                }
            )
            expected.append(ours(pixels))
    answers = run_node(tmp_path, inputs=cases)["inputs"]
    for case, answer, wanted in zip(cases, answers, expected, strict=True):
        assert np.fromfile(case["out"], np.float32).tobytes() == wanted.image.tobytes()
        assert answer["size"] == list(wanted.image.shape[2:])
        assert (answer["shape"], answer["scale"]) == (list(wanted.shape), list(wanted.scale))


@needs_node
def test_what_cannot_be_an_input_is_refused_as_in_python(tmp_path):
    raw = stored(tmp_path / "raw", np.zeros((40, 60, 3), np.uint8))
    cases = [
        ([{"Normalize": None}], {"sides": [32, 64], "fills": True}),
        ([{"Normalize": None}], {"sides": [32, 64], "fills": False}),
        ([{"Normalize": None}], {"sides": [None, None], "fills": False, "min_size": 64}),
        ([{"RandomFlip": {"prob": 0.5}}], {"sides": [None, None], "fills": True}),
        ([{"Resize": {"scale": [9, 9, 9]}}], {"sides": [None, None], "fills": True}),
        ([{"Resize": {"scale": [[9, 9], [8, 8]]}}], {"sides": [None, None], "fills": True}),
        ([{"Pad": {}}], {"sides": [None, None], "fills": True}),
        ([{"Normalize": {"std": [1, 0, 1]}}], {"sides": [None, None], "fills": True}),
        ([{"Pad": {"size": [20000, 20000]}}], {"sides": [None, None], "fills": True}),
        ([{"Normalize": {}}, {"Resize": {"scale": [9, 9]}}], {"sides": [9, 9], "fills": True}),
    ]
    given = [
        {
            "ops": ops,
            "options": {**options, "least": options.get("min_size", 1)},
            "width": 60,
            "height": 40,
            "raw": raw,
            "out": str(tmp_path / "out"),
        }
        for ops, options in cases
    ]
    answers = run_node(tmp_path, inputs=given)["inputs"]
    for (ops, options), answer in zip(cases, answers, strict=True):
        with pytest.raises(ValueError) as refusal:
            joint.JointPreprocess(ops, source="export.json", **options)(np.zeros((40, 60, 3)))
        told = str(refusal.value).replace("'", "")
        # up to what the two say of the program, or of the type
        assert answer["refused"][:30] == told[:30], (answer, told)


@needs_node
@pytest.mark.parametrize("smooth", [False, True])
def test_the_class_of_every_pixel_and_its_run_lengths(tmp_path, smooth):
    sizes = [
        ((20, 24), (80, 96), (77, 90), (200, 211)),
        ((20, 24), (80, 96), (80, 96), (31, 40)),
        ((40, 33), (40, 33), (37, 33), (37, 33)),
        ((1, 3), (4, 9), (3, 9), (70, 2)),
    ]
    names = [f"class {i}" for i in range(9)]
    cases, scores = [], []
    for i, size in enumerate(sizes):
        values = np.random.default_rng(i).normal(size=(9, *size[0])).astype(np.float32)
        scores.append(values.cumsum(axis=1).cumsum(axis=2) if smooth else values)
        cases.append(
            {
                "raw": stored(tmp_path / f"{i}.raw", scores[-1]),
                "classes": 9,
                "sizes": size,
                "names": names,
                "out": str(tmp_path / f"{i}.out"),
            }
        )
    answers = run_node(tmp_path, labels=cases)["labels"]
    for case, values, answer in zip(cases, scores, answers, strict=True):
        original = case["sizes"][3]
        got = np.fromfile(case["out"], np.int32).reshape(original)
        expected = winners.best_class(values, *case["sizes"][1:])
        assert (got != expected).mean() < 1e-3, "ties alone may come out otherwise"
        assert answer == program_at("deploy/python/labels.py").told_classes(got, names)


@needs_node
def test_a_thousand_objects_and_none(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(-30, 120, (1000, 2))
    boxes = np.concatenate([low, low + rng.uniform(-1, 60, (1000, 2))], axis=1)
    numbers = np.stack([rng.integers(0, 4, 1000), rng.uniform(0, 1, 1000)], axis=1)
    table = np.concatenate([numbers, boxes], axis=1).astype(np.float32)
    grids = rng.random((1000, 28, 28)).astype(np.float32)
    files = {"table": stored(tmp_path / "t", table), "grids": stored(tmp_path / "g", grids)}
    case = {**files, "cells": 28, "names": NAMES, "size": [70, 110]}
    limit = float(table[7, 1])  # which is in float32 on both sides
    thresholds = (0.0, limit, 1.0)
    answers = run_node(tmp_path, objects=[{**case, "threshold": at} for at in thresholds])
    for threshold, answer in zip(thresholds, answers["objects"], strict=True):
        found = objects_of.objects_of([table, grids], 70, 110, threshold)
        expected = objects_of.told_objects(found, NAMES)
        assert len(answer) == len(expected) == (table[:, 1] >= np.float32(threshold)).sum()
        pairs = zip(answer, expected, strict=True)
        masks = [(one.pop("mask"), other.pop("mask")) for one, other in pairs]
        assert answer == expected
        # a pixel of exactly the threshold may be rounded to either side
        assert sum(one != other for one, other in masks) <= 2


@needs_node
def test_colours_and_descriptions(tmp_path):
    toy_segmentor(tmp_path / "model")
    whole = json.loads((tmp_path / "model" / "export.json").read_text(encoding="utf-8"))
    whole["Export"]["target"] = "onnx"
    changes = [
        ({}, None),
        ({"Model": {"task": "tracking"}}, "Model.task: expected one of classification, detection"),
        ({"Export": {**whole["Export"], "target": "paddle"}}, 'an export for "paddle"; this page'),
        ({"PostProcess": {"label_list": ["a"]}}, "1 class names for 4 classes; export again"),
        ({"PreProcess": {"transform_ops": 5}}, "PreProcess.transform_ops: expected a list"),
        (
            {"Model": {"task": "detection"}, "PostProcess": {"label_list": ["a"]}},
            "PostProcess.score_threshold: expected a number from 0 to 1, got nothing",
        ),
        (
            {
                "Model": {"task": "detection"},
                "PostProcess": {"label_list": ["a"], "score_threshold": 1.5},
            },
            "PostProcess.score_threshold: expected a number from 0 to 1, got 1.5",
        ),
        ({"Export": {**whole["Export"], "outputs": ["x"]}}, "expected logits among them"),
    ]
    given = [{**whole, **change} for change, _ in changes]
    answers = run_node(tmp_path, palette=200, descriptions=given)
    assert answers["palette"] == palette(200).tolist()
    for (_, message), answer in zip(changes, answers["descriptions"], strict=True):
        assert answer == "right" if message is None else message in answer["refused"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures and, made when they are asked for, exports to ONNX."""
    folder = tmp_path_factory.mktemp("dense")
    scenes(folder / "scenes")
    return folder


TOYS = {"detector": toy_detector, "segmentor": toy_segmentor}


def exported(folder, name):
    made = TOYS.get(name)
    if not (folder / name).is_dir():
        made(folder / name, "onnx") if made else dense_export(folder / name, name)
    return folder / name


def prepared(model, out):
    given = ["--model", str(model), "--out", str(out)]
    assert program_at("deploy/web/prepare.py").main(given) == 0
    return out


def results_of(model, paths):
    """The package's own Results of the pictures."""
    opened = open_export(model)
    detects = "score_threshold" in opened.description["PostProcess"]
    predictor = (detector_of if detects else segmentor_of)(opened)
    images = [image for path in paths for image in input_images(path)]
    return list(predictions(predictor, images))


def grown(pixels):
    factor = max(1, 512 // max(pixels.shape[:2]))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def drawn(result):
    """The picture under its masks or labels alone."""
    pixels = result.image.pixels()
    if hasattr(result, "labels") and np.ndim(result.labels) == 2:
        return overlay(pixels, result.labels, result.names)
    found = result.top()
    colours = palette(max(len(result.names), len(found)))
    mixed = pixels.astype(np.float32)
    for i, one in enumerate(found):
        if one.mask is not None:
            inside = one.mask.full() == 1
            colour = colours[one.class_id if len(result.names) > 1 else i]
            mixed[inside] = 0.55 * mixed[inside] + 0.45 * colour
    return mixed


def assert_alike(found, expected, where=""):
    """Equal, but for what float32 sums in another order: scores and boxes to 2e-4."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_alike(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=2e-4, abs=2e-4), where
    else:
        assert found == expected, where


def without_masks(told):
    return [{key: value for key, value in one.items() if key != "mask"} for one in told]


def assert_matched(found, expected):
    """The same objects but for a tenth: weights that were never trained give neighbouring places
    almost the same scores, of which another engine's sums choose others.
    """
    assert len(found) == len(expected)
    assert sum(not has_counterpart(one, found) for one in expected) <= len(expected) / 10


def has_counterpart(wanted, found):
    """Whether `found` has an object of the same class, place, score and mask."""
    mask = pytest.importorskip("pycocotools.mask")
    far = [np.abs(np.subtract(one["box"], wanted["box"])).max() for one in found]
    one = found[int(np.argmin(far))]
    if min(far) > 0.1 or one["class_id"] != wanted["class_id"] or one.keys() != wanted.keys():
        return False
    if "mask" in one and one["mask"] != wanted["mask"]:
        if mask.iou([one["mask"]], [wanted["mask"]], [0])[0, 0] < 0.98:
            return False
    return abs(one["score"] - wanted["score"]) < 2e-3


def assert_told(told, results, exact=True):
    """The page's JSON is that of `nextvit infer`, and of a segmentor the masks, too. exact: objects
    are in the same order.
    """
    mask = pytest.importorskip("pycocotools.mask")
    for one, result in zip(told, results, strict=True):
        expected = {**result.to_dict(), "file_name": one["file_name"]}
        if "objects" in expected and not exact:
            assert_matched(one.pop("objects"), expected.pop("objects"))
        if "classes" not in expected:
            assert_alike(one, expected)
            continue
        for area in one["classes"]:
            assert np.array_equal(mask.decode(area["mask"]), result.labels == area["class_id"])
        assert_alike({**one, "classes": without_masks(one["classes"])}, expected)


def assert_pictures(folder, results, exact=True):
    """The canvas holds the picture, enlarged, and over it the masks' or labels' colours."""
    for result in results:
        name = result.file_name.rpartition("/")[2]
        plain, masks, whole = (
            np.asarray(Image.open(folder / f"{kind}-{name}").convert("RGB")).astype(int)
            for kind in ("plain", "masks", "all")
        )
        assert np.array_equal(plain, grown(result.image.pixels()))
        wrong = np.abs(masks - grown(drawn(result))).max(axis=-1) > 3
        assert wrong.mean() <= (0 if exact else 0.1)
        assert "objects" not in result.to_dict() or not len(result) or (whole != masks).any()


BAD = ROOT / "README.md"
THRESHOLDS = ("1.5", "-0.1", "", "0.6", "1", "0.45")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *TOYS,
        *(
            pytest.param(name, marks=pytest.mark.chain)
            for name in ("MaskRCNN", "SemanticFPN", "UPerNet")
        ),
        pytest.param("DINO", marks=[pytest.mark.chain, pytest.mark.long]),
    ],
)
def test_the_page_finds_what_nextvit_infer_finds(folder, tmp_path, name):
    model, exact = exported(folder, name), name in TOYS
    images = folder / "scenes" if exact else folder / f"{name}_work" / "pictures"
    paths = sorted(images.iterdir())
    results = results_of(model, paths)
    with built_page(prepared(model, tmp_path / "model"), tmp_path) as page:
        seen = driven(
            page,
            "drive_dense.mjs",
            photos=[str(path) for path in paths],
            bad=[str(BAD)],
            thresholds=THRESHOLDS,
            folder=str(tmp_path),
        )
    assert seen["problems"] == [] and seen["status"].endswith("classes.")
    assert all(url.startswith(page[0]) for url in seen["requests"])
    assert_listed(seen)
    assert_told(seen["told"], results, exact)
    assert_pictures(tmp_path, results, exact)
    assert seen["400"] == {"page": 400, "canvas": seen["400"]["canvas"]}
    assert seen["1400"]["page"] == 1400 and 150 < seen["400"]["canvas"] <= 400
    assert seen["bad"] == [seen["last"][0]["error"]] and "README.md: this is not" in seen["bad"][0]
    if "typed" in seen and exact:
        assert_thresholds(seen, results)


def assert_listed(seen):
    """Status, label of the picture and legend tell what the JSON does."""
    for photo, one in zip(seen["photos"], seen["told"], strict=True):
        assert photo["status"] == photo["label"]
        found = one.get("classes", one.get("objects"))
        listed = [row[0] for row in photo["legend"]]
        assert listed == [area["label_name"] for area in found] or "objects" in one
        assert set(listed) == {area["label_name"] for area in found}


def assert_thresholds(seen, results):
    """What was typed beside the slider is what the page shows and tells from then on."""
    assert [one["wrong"] != "" for one in seen["typed"]] == [True] * 3 + [False] * 3
    assert seen["typed"][0]["wrong"] == "The score must be a number from 0 to 1."
    (last,) = results[-1:]
    before = len(seen["typed"][0]["objects"])
    assert [len(one["objects"]) for one in seen["typed"]] == [before] * 3 + [
        len(last.scoring(threshold)) for threshold in (0.6, 1, 0.45)
    ]
    nothing = seen["typed"][4]
    assert nothing["label"].endswith("no object scores 1 or more") and nothing["legend"] == []
    assert nothing["slider"] == "1"
    assert_told(seen["toldThen"], [result.scoring(0.45) for result in results])
    assert seen["stepped"] == 0.46 and seen["next"] == "exact", "the keyboard moves the slider"


@pytest.mark.slow
def test_a_model_that_is_not_the_one_described_is_not_run(folder, tmp_path):
    out = prepared(exported(folder, "segmentor"), tmp_path / "model")
    data = bytearray((out / "model.onnx").read_bytes())
    data[100] ^= 1
    (out / "model.onnx").write_bytes(data)
    with built_page(out, tmp_path) as page:
        seen = driven(
            page, "drive_dense.mjs", photos=[], bad=[], thresholds=[], folder=str(tmp_path)
        )
    assert seen["status"].startswith(
        "The model cannot be loaded: model.onnx does not match export.json, so it is damaged or"
    )


@pytest.mark.slow
def test_exports_that_cannot_be_prepared(folder, tmp_path, capsys):
    prepare = program_at("deploy/web/prepare.py")
    model = shutil.copytree(exported(folder, "segmentor"), tmp_path / "copy")
    whole = json.loads((model / "export.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"Export": {**whole["Export"], "target": "openvino"}}, "an export for 'openvino'; expect"),
        ({"Model": {"task": "tracking"}}, "expected a classifier, a detector or a segmentor"),
        (
            {"Model": {"task": "classification"}},
            "export.json is no description of an export: 'Topk'",
        ),
        (
            {"Export": {**whole["Export"], "outputs": ["labels", "scores"]}},
            "has the outputs labels, logits, export.json labels, scores",
        ),
        ({"Export": {"target": "onnx"}}, "export.json is no description of an export: 'inputs'"),
    ):
        described(model, {**whole, **change})
        assert prepare.main(["--model", str(model), "--out", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    described(model, whole)
    (model / "inference.onnx").write_bytes(b"others")
    assert prepare.main(["--model", str(model), "--out", str(tmp_path / "out")]) == 1
    assert "inference.onnx: does not match export.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
