"""deploy/python with detectors and segmentors: the inputs bit for bit, the JSON and the pixels of
the package's own predictions; what cannot be run is named.
"""

import json

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data.rle import encode_mask
from ppcls_nextvit.data.transforms.joint import JointPipeline
from ppcls_nextvit.export.opened import open_export
from ppcls_nextvit.models.detectors.masks import paste
from ppcls_nextvit.models.segmentors.inference import best_class
from ppcls_nextvit.tasks.detection.exported import exported_predictor as detector_of
from ppcls_nextvit.tasks.inputs import input_images
from ppcls_nextvit.tasks.joint import model_input
from ppcls_nextvit.tasks.results import predictions, save_results
from ppcls_nextvit.tasks.segmentation.exported import exported_predictor as segmentor_of
from support.pictures import clothes
from support.programs import program_at
from support.toy_exports import NAMES, described, scenes, toy_detector, toy_segmentor

paddle = pytest.importorskip("paddle")
pytest.importorskip("cv2", reason="needs the extra `cv2`")

deploy = program_at("deploy/python/predict.py")
joint = program_at("deploy/python/joint.py")
winners = program_at("deploy/python/winners.py")
objects = program_at("deploy/python/objects.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, an export of a detector, one of a segmentor."""
    folder = tmp_path_factory.mktemp("dense")
    scenes(folder / "scenes")
    toy_detector(folder / "detection")
    toy_segmentor(folder / "segmentation")
    return folder


def run(folder, task, *options, images="scenes"):
    given = ["--model", str(folder / task), "--images", str(folder / images)]
    return deploy.main([*given, *map(str, options)])


def expected_of(folder, task, out):
    """What the package's own predictor tells of the pictures, which it draws into `out`."""
    make = detector_of if task == "detection" else segmentor_of
    images = list(input_images(folder / "scenes"))
    return save_results(predictions(make(open_export(folder / task)), images), images, out)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_json_and_pixels_are_those_of_the_package(folder, tmp_path, task, capsys):
    expected = expected_of(folder, task, tmp_path / "expected")
    assert run(folder, task, "--json", tmp_path / "got.json", "--out", tmp_path / "got") == 0
    got = json.loads((tmp_path / "got.json").read_text(encoding="utf-8"))
    if task == "segmentation":
        # the package tells no masks; see test_masks_of_classes
        got = [
            {
                **one,
                "classes": [{k: v for k, v in c.items() if k != "mask"} for c in one["classes"]],
            }
            for one in got
        ]
    assert got == expected
    assert len({json.dumps(one.get("objects", one.get("classes"))) for one in got}) == 5
    pictures = sorted(path.name for path in (tmp_path / "expected").iterdir())
    assert pictures == sorted(path.name for path in (tmp_path / "got").iterdir())
    assert len(pictures) == (5 if task == "detection" else 10)
    for name in pictures:
        ours, theirs = (Image.open(tmp_path / place / name) for place in ("got", "expected"))
        assert ours.mode == theirs.mode
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), name
    assert f"drawn in {tmp_path / 'got'}" in capsys.readouterr().out


def test_masks_of_classes_cover_the_image(folder, tmp_path):
    mask = pytest.importorskip("pycocotools.mask")
    assert run(folder, "segmentation", "--json", tmp_path / "got.json", "--out", tmp_path) == 0
    for one in json.loads((tmp_path / "got.json").read_text(encoding="utf-8")):
        name = one["file_name"].rpartition("/")[2].removesuffix(".png")
        drawn = np.asarray(Image.open(tmp_path / f"{name}_labels.png"))
        assert sum(area["pixels"] for area in one["classes"]) == one["height"] * one["width"]
        for area in one["classes"]:
            assert np.array_equal(mask.decode(area["mask"]), drawn == area["class_id"])


PIPELINES = [
    [{"Normalize": None}],
    [{"Resize": {"scale": [133, 80]}}, {"Normalize": None}, {"Pad": {"size_divisor": 32}}],
    [{"Resize": {"scale": [[90, 70]], "keep_ratio": False}}, {"Pad": {"size": [99, 64]}}],
    [
        {"Pad": {"size_divisor": 7}},
        {"Normalize": {"mean": [1.5, 2.5, 99.0], "std": [0.3, 7, 255]}},
        {"Pad": {"size": [200, 10]}},
    ],
]


@pytest.mark.parametrize("transforms", PIPELINES)
def test_inputs_are_those_of_evaluation_bit_for_bit(folder, transforms):
    theirs = JointPipeline(transforms)
    ours = joint.JointPreprocess(transforms, (None, None), fills=True)
    for path in sorted((folder / "scenes").iterdir()):
        pixels = np.asarray(Image.open(path))
        expected, got = model_input(pixels, theirs, "x", 1), ours(pixels)
        assert got.image.tobytes() == expected.image.tobytes()
        assert (got.image.shape, got.shape) == (expected.image.shape, tuple(expected.shape))
        assert got.scale == expected.scale


@pytest.mark.parametrize(
    "sizes",
    [
        ((20, 24), (80, 96), (77, 90), (200, 211)),  # grows
        ((20, 24), (80, 96), (80, 96), (31, 40)),  # shrinks
        ((40, 33), (40, 33), (37, 33), (37, 33)),  # scores of the image's size
        ((1, 3), (4, 9), (3, 9), (70, 2)),
    ],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_the_class_of_every_pixel_is_the_package_s(monkeypatch, sizes, smooth):
    (height, width), padded, shape, original = sizes
    scores = np.random.default_rng(0).normal(size=(9, height, width)).astype(np.float32)
    if smooth:  # few classes in each part
        scores = scores.cumsum(axis=1).cumsum(axis=2)
    # as a GPU computes them: all classes, by two resizes
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    expected = best_class(paddle.to_tensor(scores), padded, shape, original).numpy()
    monkeypatch.undo()
    got = winners.best_class(scores, padded, shape, original)
    assert smooth or len(np.unique(got)) > 1
    assert (got != expected).mean() < 1e-3, "ties alone may come out otherwise"
    on_cpu = best_class(paddle.to_tensor(scores), padded, shape, original)
    assert np.array_equal(got, on_cpu.numpy()) and on_cpu.dtype == paddle.int64


def test_of_equal_scores_the_first_class_is_told():
    scores = np.zeros((5, 6, 7), np.float32)
    scores[1:4, :, 3:] = 1.0
    labels = winners.best_class(scores, (24, 28), (24, 28), (24, 28))
    assert set(np.unique(labels[:, :10])) == {0} and set(np.unique(labels[:, 14:])) == {1}


def test_scores_that_are_no_numbers_end_in_order():
    scores = np.full((3, 4, 4), np.nan, np.float32)
    assert not winners.best_class(scores, (8, 8), (8, 8), (8, 8)).any()


def test_a_thousand_objects_and_none(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(-30, 120, (1000, 2))
    boxes = np.concatenate([low, low + rng.uniform(-1, 60, (1000, 2))], axis=1)
    numbers = np.stack([rng.integers(0, 4, 1000), rng.uniform(0, 1, 1000)], axis=1)
    table = np.concatenate([numbers, boxes], axis=1).astype(np.float32)
    table[3, 2:] = np.nan
    grids = rng.random((1000, 28, 28)).astype(np.float32)
    found = objects.objects_of([table, grids], 70, 110, 0.0)
    told = objects.told_objects(found, NAMES)
    assert len(told) == 1000
    for i in (0, 1, 2, *range(900, 1000)):
        expected = encode_mask(paste(grids[i], table[i, 2:], 70, 110))
        assert told[i]["mask"] == expected
    none = objects.objects_of([table[:0], grids[:0]], 70, 110, 0.0)
    assert objects.told_objects(none, NAMES) == []


def test_an_image_without_objects_is_told_so(folder, tmp_path, capsys):
    options = ["--score-threshold", "1", "--json", tmp_path / "got.json", "--out", tmp_path]
    assert run(folder, "detection", *options, images="scenes/1.png") == 0
    assert "1.png: 0 objects\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "got.json").read_text())[0]["objects"] == []
    assert Image.open(tmp_path / "1_objects.png").size == (205, 450)


def test_thresholds_change_what_is_told(folder, tmp_path):
    def areas(*options):
        assert run(folder, "detection", "--json", tmp_path / "got.json", *options) == 0
        return json.loads((tmp_path / "got.json").read_text())

    usual, strict = areas(), areas("--mask-threshold", "0.9")
    assert usual != strict
    assert [len(one["objects"]) for one in usual] == [len(one["objects"]) for one in strict]
    some = areas("--score-threshold", "0.7")
    assert 0 < len(some[0]["objects"]) < len(usual[0]["objects"])
    assert min(found["score"] for one in some for found in one["objects"]) >= 0.7


@pytest.mark.parametrize(
    "task, options, message",
    [
        ("detection", ["--topk", "3"], "--topk: for classification; this export is for detection"),
        ("segmentation", ["--batch-size", "2"], "--batch-size: for classification; this export"),
        ("segmentation", ["--score-threshold", "0.5"], "--score-threshold: for detection; this"),
        ("segmentation", ["--mask-threshold", "0.5"], "--mask-threshold: for detection; this"),
        ("detection", ["--memory", "1e-6"], "GB or more, and 0.0 GB may be used"),
        ("segmentation", ["--memory", "1e-6"], "GB or more, and 0.0 GB may be used"),
    ],
)
def test_what_does_not_go_together_is_named(folder, capsys, task, options, message):
    assert run(folder, task, *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--mask-threshold", "--score-threshold"])
@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan"])
def test_thresholds_are_from_0_to_1(folder, capsys, option, value):
    with pytest.raises(SystemExit) as ended:
        run(folder, "detection", f"{option}={value}")
    assert ended.value.code == 2
    assert f"{option}: must be from 0 to 1, got {value}" in capsys.readouterr().err


def changed(folder, task, tmp_path, change):
    """A copy of the export with its description changed."""
    copy = tmp_path / "changed"
    copy.mkdir()
    for path in (folder / task).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    description = json.loads((copy / "export.json").read_text(encoding="utf-8"))
    change(description)
    return described(copy, description)


@pytest.mark.parametrize(
    "task, sides, message",
    [
        ("detection", [96, 64], "64 x 96 pixels when transformed, more than the 96 x 64 of the"),
        ("segmentation", [64, 64], "64 x 96 pixels when transformed; the exported program takes"),
    ],
)
def test_images_beyond_a_fixed_size_are_named(folder, tmp_path, capsys, task, sides, message):
    def change(description):
        name = "image" if task == "detection" else "x"
        description["Export"]["inputs"][name][2:] = sides

    copy = changed(folder, task, tmp_path, change)
    given = ["--model", str(copy), "--images", str(folder / "scenes"), "--memory", "4"]
    assert deploy.main(given) == 1
    told = capsys.readouterr()
    assert f"0.png: {message}" in told.err
    if task == "detection":  # a smaller one is padded
        assert "scenes/1.png: " in told.out


def test_images_below_the_least_size_are_named(folder, tmp_path, capsys):
    def change(description):
        description["PreProcess"]["transform_ops"] = [{"Normalize": None}]

    copy = changed(folder, "segmentation", tmp_path, change)
    tiny = clothes(tmp_path / "clothes", 1)
    assert deploy.main(["--model", str(copy), "--images", str(tiny)]) == 1
    message = "00000.png: 28 x 28 pixels when transformed; the model needs 32 or more"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d["Model"].update(task="tracking"), "Model.task: expected one of"),
        (lambda d: d["PostProcess"].update(score_threshold=2), "a number from 0 to 1, got int '2'"),
        (lambda d: d["PostProcess"].update(label_list=["a"]), "1 class names for 4 classes"),
        (lambda d: d["Export"]["inputs"].pop("im_shape"), "expected image, im_shape and scale_fa"),
        (
            lambda d: d["PreProcess"].update(transform_ops=[{"RandomFlip": {"prob": 0.5}}]),
            "unknown transform 'RandomFlip'; of a detector or segmentor this program knows Resize",
        ),
        (
            lambda d: d["PreProcess"].update(transform_ops=[{"Resize": {"scale": [9, 9, 9]}}]),
            "Resize: expected 2 sizes, got [9, 9, 9]",
        ),
        (
            lambda d: d["PreProcess"].update(
                transform_ops=[{"Normalize": None}, {"Resize": {"scale": [64, 64]}}]
            ),
            "Resize needs uint8 pixels; put it before Normalize",
        ),
    ],
)
def test_descriptions_that_cannot_be_are_named(folder, tmp_path, capsys, change, message):
    copy = changed(folder, "detection", tmp_path, change)
    assert deploy.main(["--model", str(copy), "--images", str(folder / "scenes")]) == 1
    told = capsys.readouterr()
    error = told.err.splitlines()[-1]  # after what it says of threads
    assert told.out == "" and error.startswith("error: ") and told.err.count("error: ") == 1
    assert message in told.err


def test_files_of_another_export_are_named(folder, tmp_path, capsys):
    copy = changed(folder, "segmentation", tmp_path, lambda d: None)
    (copy / "inference.pdiparams").write_bytes(b"others")
    assert deploy.main(["--model", str(copy), "--images", str(folder / "scenes")]) == 1
    assert "inference.pdiparams: does not match export.json" in capsys.readouterr().err


def test_classifiers_programs_refuse_the_others(folder):
    description = program_at("deploy/python/description.py")
    with pytest.raises(ValueError, match="an export for detection; this program is for classific"):
        description.read_description(folder / "detection")


def test_bad_images_are_named_and_the_others_done(folder, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((folder / "scenes" / "0.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"no picture")
    given = ["--model", str(folder / "detection"), "--images", str(tmp_path)]
    assert deploy.main([*given, "--json", str(tmp_path / "got.json")]) == 1
    told = json.loads((tmp_path / "got.json").read_text(encoding="utf-8"))
    assert ["error" in one for one in told] == [False, True, False]
    assert "b.png: not an image" in capsys.readouterr().err


def test_exports_that_do_not_say_their_task():
    fields = program_at("deploy/python/fields.py")
    assert fields.task_of({"Export": {"inputs": {"im_shape": [1, 2]}}}) == "detection"
    assert fields.task_of({"Export": {"outputs": ["labels", "logits"]}}) == "segmentation"
    assert fields.task_of({"Export": {"outputs": ["logits"]}}) == "classification"


def test_auto_says_what_the_processor_computes_in():
    engines = program_at("deploy/python/engines.py")
    assert engines.native_precision("flags : sse avx512_bf16 amx_bf16")[0] == "bf16"
    found, why = engines.native_precision("flags : sse avx512f")
    assert found == "fp32" and "neither amx_bf16 nor avx512_bf16" in why


def test_images_are_named_in_every_way(folder, tmp_path, monkeypatch, capsys):
    listing = program_at("deploy/python/listing.py")
    root = tmp_path / "photos"
    names = ["a.png", "b/c.jpg", "b/d/e.PNG"]
    for name in [*names, "notes.doc", ".hidden.png", "b/Thumbs.db"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    whole = [root / name for name in names]
    (root / "b" / "d" / "above").symlink_to(root, target_is_directory=True)
    assert listing.list_images(root) == whole
    assert "1 files are left out by their endings; the first is" in capsys.readouterr().err
    assert listing.list_images([str(root / "a.png"), str(root / "b" / "*.jpg")]) == whole[:2]
    (root / "b" / "d" / "above").unlink()
    assert listing.list_images(str(root / "**" / "*.PNG")) == [whole[2]]
    (root / "list.txt").write_text("b/c.jpg\n\na.png\n", encoding="utf-8")
    assert listing.list_images(root / "list.txt") == [whole[1], whole[0]]
    monkeypatch.setattr("sys.stdin", open(root / "list.txt", encoding="utf-8"))
    monkeypatch.chdir(root)
    assert [str(path) for path in listing.list_images("-")] == ["b/c.jpg", "a.png"]
    (root / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the list is empty"):
        listing.list_images(root / "empty.txt")
    with pytest.raises(FileNotFoundError, match="no image is called so"):
        listing.list_images(str(root / "*.doc"))
