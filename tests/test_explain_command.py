"""nextvit explain: files, numbers, and what is refused; the tasks' parts of it."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit import create_model, explain, load
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.engine.curves import pyplot
from ppcls_nextvit.explain.figures import attention_figure, heat_over
from ppcls_nextvit.explain.multiscale import modes_of
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config, task_of
from ppcls_nextvit.tasks.detection.subject import agreement as of_objects
from ppcls_nextvit.tasks.inputs import InputImage
from support.paths import ROOT
from support.pictures import clothes
from support.tiny_run import write_config

pytest.importorskip("matplotlib", reason="needs the extra `train`")

MICRO = {"name": "TransNeXt_micro", "depths": [1, 1, 1, 1]}
SEEN_AT_64 = "[{Resize: {scale: [64, 64]}}, {Normalize: {}}, {Pad: {size_divisor: 32}}]"
NUCLEI = ROOT / "dataset" / "nuclei" / "images" / "validation"


def saved(path, name, constant=False, **arguments):
    """Weights of a new model in a file; constant: of a head that says the same of every image."""
    paddle.seed(0)
    model = create_model(name, **arguments)
    if constant:
        model.head.weight.set_value(paddle.zeros_like(model.head.weight))
    paddle.save(model.state_dict(), str(path))
    return path


def explained(folder):
    """(arguments of a command for a small TransNeXt with its weights, a folder of two images)."""
    config = write_config(folder, test=10, Arch=MICRO)
    weights = saved(folder / "w.pdparams", MICRO["name"], num_classes=10, depths=(1, 1, 1, 1))
    images = clothes(folder / "images", 2)
    return ["-c", str(config), "-o", f"Global.pretrained_model={weights}"], images


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return explained(tmp_path_factory.mktemp("tiny"))


def told(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


CALLS = {
    "attention": ["--point", "3", "30", "--grid", "0"],
    "cam": ["--classes", "Bag", "3"],
    "features": [],
    "fourier": [],
    "erf": ["--untrained"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CALLS)
def test_each_kind_writes_pictures_and_their_numbers(kind, tiny, tmp_path, capsys):
    arguments, images = tiny
    command = ["explain", kind, *arguments, "--images", str(images), *CALLS[kind]]
    assert main([*command, "--out", str(tmp_path)]) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    names = ["erf"] if kind == "erf" else [f"0000{i}_{kind}" for i in (0, 1)]
    assert written == sorted(f"{name}.{end}" for name in names for end in ("json", "png"))
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / f"{name}.{end}") for name in names for end in ("png", "json")
    ]
    for name in names:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.ptp(np.asarray(picture)) > 100
    numbers = told(tmp_path, names[0])
    if kind == "attention":
        (point,) = numbers["points"]
        assert point["point"] == [3, 30] and [one["block"] for one in point["blocks"]] == [
            f"stage{i}.block1" for i in (1, 2, 3, 4)
        ]
        first = point["blocks"][0]
        assert first["query"] == [7, 0] and first["size"] == [8, 8]
        assert np.sum(first["map"]) == pytest.approx(1, abs=1e-4)
    elif kind == "cam":
        assert [one["class_id"] for one in numbers["maps"]] == [8, 3]
        assert np.shape(numbers["maps"][0]["map"]) == (8, 8)
    elif kind == "erf":
        assert numbers["images"] == 2 and numbers["size"] == [32, 32]
        assert [one["weights"] for one in numbers["fields"]] == ["before training"] * 4 + [
            "after training"
        ] * 4
        assert [area["share"] for area in numbers["fields"][0]["areas"]] == [0.2, 0.3, 0.5, 0.99]


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes(tiny, tmp_path):
    arguments, images = tiny
    for out in ("one", "two"):
        command = ["explain", "cam", *arguments, "--images", str(images / "00000.png")]
        assert main([*command, "--out", str(tmp_path / out)]) == 0
    for name in ("00000_cam.png", "00000_cam.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_heads_have_rows_of_their_own():
    blocks = [
        explain.BlockAttention(i, 1, (0, 0), (2, 2), np.ones((i, 4)) / 4, np.ones((i, 2, 2)) / 4)
        for i in (1, 2)
    ]
    picture = np.zeros((8, 8, 3), np.uint8)
    figure = attention_figure(picture, [(1, 2)], [blocks], heads=True)
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    # the first block has one head
    assert titles == ["head 1", "stage1.block1", "stage2.block1", "head 2", "stage2.block1"]
    pyplot().close(figure)


def test_the_colours_of_a_picture_follow_the_map():
    picture = np.full((4, 4, 3), 100, np.uint8)
    drawn = heat_over(picture, np.array([[0.0, 0], [0, 2]]))
    assert drawn.shape == (224, 224, 3)
    dark, bright = drawn[0, 0].astype(int), drawn[-1, -1].astype(int)
    assert bright.sum() > 2 * dark.sum() and np.ptp(dark) == 0
    assert abs(heat_over(picture, np.zeros((2, 2))).astype(int) - dark).max() <= 1
    for side, drawn_at in ((224, 224), (448, 448), (500, 500), (1024, 512)):
        large = np.zeros((side, side // 2, 3), np.uint8)
        assert heat_over(large, np.ones((2, 2))).shape == (drawn_at, drawn_at // 2, 3)


REFUSED = [
    (["attention", "--point", "32", "0"], "the point (32, 0) is outside of the image"),
    (["attention", "--point", "-1", "5"], "the point (-1, 5) is outside of the image"),
    (["attention", "--point", "1", "1", "--grid", "2"], "give one of points, grid and objects"),
    (["attention", "--grid", "17"], "grid: must be from 1 to 16, got 17"),
    (["cam", "--classes", "Bagg"], "no class 'Bagg'. Did you mean 'Bag'? Expected a name, such as"),
    (["cam", "--classes", "10"], "or an index from 0 to 9"),
    (["cam", "--stage", "5"], "stage: must be from 1 to 4, got 5"),
    (["cam", "--method", "eigen", "--classes", "Bag"], "method eigen knows no classes"),
    (["features", "--grid", "2"], "grid: is not for features, which has no settings"),
    (["erf", "--classes", "Bag"], "classes: is not for erf, which has untrained"),
    (["multiscale", "--sizes", "16", "32"], "expected different ones from 32 to 1024 pixels"),
    (["multiscale", "--sizes", "32", "2048"], "expected different ones from 32 to 1024 pixels"),
    (["multiscale", "--images", "."], "say agreement, too"),
    (
        ["features", "-o", "Infer.transforms.1.ResizeImage.size=1025"],
        "1025 x 1025 pixels when transformed, more than 1048576 (1024 x 1024)",
    ),
    (["features", "-o", "Infer.transforms.1.ResizeImage.size=31"], "the model needs 32 or more"),
    (["features", "--images", "nowhere.png"], "nowhere.png: no such file or directory"),
    (["features", "-o", "Global.pretrained_model=null"], "no weights, and an untrained model"),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=[" ".join(call) for call, _ in REFUSED])
def test_what_cannot_be_meant_is_one_line(call, message, tiny, tmp_path, capsys):
    arguments, images = tiny
    own = [] if "--images" in call or call[0] == "multiscale" else ["--images", str(images)]
    command = ["explain", call[0], *arguments, *own, *call[1:], "--out", str(tmp_path / "out")]
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("error: ") and message in error[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, message",
    [
        ("attention", "TransNeXt has no attention that could be shown: its blocks have no layer"),
        ("fourier", "TransNeXt does not tell its blocks"),
    ],
)
def test_models_and_folders_with_nothing_in_them(
    kind, message, tiny, tmp_path, capsys, monkeypatch
):
    arguments, images = tiny
    for name, data in (("empty", None), ("damaged", b"\xff\xd8\xff"), ("words", b"no picture")):
        (tmp_path / name).mkdir()
        if data is not None:
            (tmp_path / name / "a.jpg").write_bytes(data)
        command = ["explain", kind, *arguments, "--images", str(tmp_path / name)]
        assert main([*command, "--out", str(tmp_path / "out")]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert line.startswith("error: ") and str(tmp_path / name) in line
    monkeypatch.setattr(type(create_model(**MICRO)), "blocks", lambda model: [])
    command = ["explain", kind, *arguments, "--images", str(images)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_loaded_model_explains_itself(tiny, tmp_path):
    arguments, images = tiny
    model = load(arguments[1], weights=arguments[3].partition("=")[2])
    one, two = model.explain("cam", str(images), classes=["Bag", 3], method="hires")
    assert sorted(one.arrays) == ["0", "1"] and one.arrays["0"].shape == (8, 8)
    assert [m["class_id"] for m in two.numbers["maps"]] == [8, 3]
    command = ["explain", "cam", *arguments, "--images", str(images), "--classes", "Bag", "3"]
    assert main([*command, "--method", "hires", "--out", str(tmp_path / "seen")]) == 0
    one.save(tmp_path / "own")
    for end in ("png", "json"):
        name = f"00000_cam.{end}"
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "seen" / name).read_bytes()
    with pytest.raises(ConfigError, match=r"classes: expected a list of names .*, got 'Bag'"):
        model.explain("cam", str(images), classes="Bag")
    with pytest.raises(ConfigError, match="grid: is not for cam"):
        model.explain("cam", str(images), grid=2)
    model.config = None  # as of an export
    with pytest.raises(ConfigError, match="is an export; only what it was made of can be explain"):
        model.explain("features", str(images))


def test_without_images_and_without_matplotlib(tiny, tmp_path, capsys, monkeypatch):
    arguments, images = tiny
    config = load_config(arguments[1], arguments[3:])
    with pytest.raises(ConfigError, match="images: there is none"):
        explain.explain("features", config, [])
    with pytest.raises(ConfigError, match="kind: expected one of attention, cam"):
        explain.explain("saliency", config, [])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["explain", "features", *arguments, "--images", str(images)]) == 1
    assert "pip install 'ppcls_nextvit[train]'" in capsys.readouterr().err


# Sizes.


def test_modes_are_the_network_s_own(tiny):
    arguments, _ = tiny
    config = load_config(arguments[1], arguments[3:])
    assert modes_of(config)["interpolation"] == {
        "position_bias": "interpolation",
        "table_size": 32,
        "fixed_pool_size": None,
    }
    assert modes_of(config)["linear"]["fixed_pool_size"] == 1
    plain = replace(config, Arch=replace(config.Arch, name="NextViT_small"))
    assert modes_of(plain) == {"plain": {}}
    sized = task_of(config).resized(config, 64)
    assert sized.Global.image_shape == (3, 64, 64)
    transforms = [sized.Infer.transforms, sized.DataLoader["Eval"]["dataset"]["transform_ops"]]
    assert [ops[1]["ResizeImage"]["size"] for ops in transforms] == [64, 64]
    assert config.Infer.transforms[1]["ResizeImage"]["size"] == 32, "the given one stays"


@pytest.mark.slow
def test_a_constant_model_is_flat_over_sizes_and_agrees_with_itself(tiny, tmp_path):
    arguments, images = tiny
    weights = saved(
        tmp_path / "w.pdparams", "TransNeXt_micro", True, num_classes=10, depths=(1,) * 4
    )
    config = load_config(arguments[1], [f"Global.pretrained_model={weights}"])
    steps = []
    curves = explain.size_curves(config, (32, 64), told=lambda: steps.append(1))
    assert list(curves.values) == ["extrapolation", "interpolation", "linear"]
    # the share of the class that it always says
    ((first, second),) = set(map(tuple, curves.values.values()))
    assert first == second and 0 < first < 0.5
    assert (curves.figure, curves.trained, len(steps)) == ("top1", 32, 6)
    curves = explain.size_curves(config, (48,), str(images))
    assert curves.figure == "agreement" and set(map(tuple, curves.values.values())) == {(1.0,)}


def test_objects_agree_as_far_as_they_are_the_same():
    def result(*objects):
        found = [SimpleNamespace(class_id=c, box=box) for c, box in objects]
        return SimpleNamespace(top=lambda: found)

    one = result((0, [0, 0, 10, 10]), (1, [20, 20, 30, 30]))
    assert of_objects(one, one) == 1 and of_objects(result(), result()) == 1
    assert of_objects(one, result()) == 0
    # the first moved by a fifth is the same, the second has another class
    assert of_objects(one, result((0, [2, 0, 12, 10]), (0, [20, 20, 30, 30]))) == 0.5
    twice = result((0, [0, 0, 10, 10]), (0, [0, 0, 10, 10]))
    assert of_objects(one, twice) == 0.5, "each counts once"


# Segmentors and detectors.


@pytest.mark.slow
def test_evidence_of_a_segmentor_is_its_logits_where_the_class_is(tmp_path):
    pytest.importorskip("cv2", reason="needs the extra `seg`")
    small = "{name: TransNeXt_micro, depths: [1, 1, 1, 1]}"
    weights = saved(
        tmp_path / "w.pdparams",
        "SemanticFPN",
        num_classes=2,
        backbone=MICRO,
        fpn_channels=16,
        channels=16,
    )
    config = load_config(
        ROOT / "configs" / "quickstart" / "nuclei_semfpn.yaml",
        [
            f"Arch.backbone={small}",
            "Arch.fpn_channels=16",
            "Arch.channels=16",
            f"Global.pretrained_model={weights}",
            f"Infer.PostProcess.class_id_map_file={ROOT / 'dataset/nuclei/labels.txt'}",
        ],
    )
    subject = task_of(config).subject(config)
    path = sorted(NUCLEI.iterdir())[0]
    view = subject.view(InputImage(str(path), path))
    assert view.picture.shape == (128, 128, 3)
    with Image.open(path) as picture:
        assert np.array_equal(view.picture, np.asarray(picture.convert("RGB")))
    logits = subject.model(view.x)[0].numpy()
    labels = logits.argmax(0)
    for one in subject.evidence(view, [0, 1]):
        where = labels == one.class_id
        expected = logits[one.class_id][where if where.any() else slice(None)].mean()
        assert float(one.score) == pytest.approx(float(expected), rel=1e-4)
    found = explain.class_maps(subject, view, stage=2)
    assert {m.evidence.class_id for m in found} == set(np.unique(labels).tolist())
    assert found[0].values.shape == (16, 16)
    larger = task_of(config).resized(config, 256).Infer.transforms
    assert larger[0] == {"Resize": {"scale": [256, 256]}}


@pytest.mark.slow
def test_evidence_of_a_detector_is_its_objects(tmp_path, capsys):
    for package in ("cv2", "pycocotools"):
        pytest.importorskip(package, reason="needs the extra `det`")
    toy = {"fpn_channels": 16, "fc_channels": 32, "mask_convs": 1, "max_detections": 3}
    weights = saved(tmp_path / "w.pdparams", "MaskRCNN", num_classes=1, backbone=MICRO, **toy)
    options = [
        "Arch.backbone={name: TransNeXt_micro, depths: [1, 1, 1, 1]}",
        *(f"Arch.{key}={value}" for key, value in toy.items()),
        "Arch.score_threshold=0.0",
        "Arch.test_proposals=[50, 20]",
        "Infer.PostProcess.score_threshold=0.0",
        f"Infer.transforms={SEEN_AT_64}",
        f"Infer.PostProcess.class_id_map_file={ROOT / 'dataset/nuclei/instance_labels.txt'}",
        f"Global.pretrained_model={weights}",
    ]
    yaml = ROOT / "configs" / "quickstart" / "nuclei_mask_rcnn.yaml"
    config = load_config(yaml, options)
    subject = task_of(config).subject(config)
    path = sorted(NUCLEI.iterdir())[0]
    view = subject.view(InputImage(str(path), path))
    assert view.scale == (0.5, 0.5) and view.picture.shape == (64, 64, 3)
    found = explain.class_maps(subject, view, stage=1)
    assert len(found) == 3
    for one in found:
        assert one.values.shape == (16, 16) and one.values.max() > 0
        x1, y1, x2, y2 = one.evidence.box
        assert 0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 64, "in pixels of the picture"
    (whole,) = subject.evidence(view, [0])
    assert float(whole.score) == pytest.approx(
        sum(float(m.evidence.score) for m in found), rel=1e-4
    )

    # of an image in which nothing is found there is a warning, and no picture
    words = [word for option in options for word in ("-o", option)]
    command = ["explain", "attention", "-c", str(yaml), *words, "--images", str(path), "--objects"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*command, *out]) == 0
    assert len(told(tmp_path / "out", f"{path.stem}_attention")["points"]) == 3
    assert main([*command, "--out", str(tmp_path / "none"), "-o", "Arch.score_threshold=1.0"]) == 0
    assert not (tmp_path / "none").exists()
