"""tools/reproduce.py for detectors and segmentors: the figures of a plain loop, both layouts on
disk, honest exit statuses.
"""

import dataclasses
import json
import shutil

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from PIL import Image

from support.drawn_figures import keep_figures
from support.paths import NUCLEI
from support.programs import program_at

pytest.importorskip("pycocotools", reason="needs the extra `det`")
cv2 = pytest.importorskip("cv2", reason="needs the extra `cv2`")

from ppcls_nextvit import create_model, zoo  # noqa: E402
from ppcls_nextvit.reproduce import PUBLISHED_DATASETS, default_dataset, dense  # noqa: E402
from ppcls_nextvit.reproduce.request import MATCH, MISMATCH, NO_COMPARISON  # noqa: E402

tool = program_at("tools/reproduce.py")
DENSE = ("coco", "ade20k", "ade20k-ms", "ade20k-ms-interpolation")
SHALLOW = {"depths": [1, 1, 5, 1]}
NARROW = {
    "MaskRCNN": {
        "fpn_channels": 16,
        "fc_channels": 32,
        "mask_convs": 1,
        "test_proposals": [200, 50],
    },
    "DINO": {
        "num_queries": 20,
        "channels": 32,
        "heads": 2,
        "points": 1,
        "hidden": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "max_detections": 10,
    },
    "SemanticFPN": {"fpn_channels": 16, "channels": 16},
    "UPerNet": {"channels": 16, "auxiliary_channels": 16},
}
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


@pytest.fixture
def small(monkeypatch):
    """The models that the tool builds are shallow and narrow, its images small, its complete
    datasets four images.
    """
    full = dense.architecture

    def shallow(record, dataset, classes):
        arch = full(record, dataset, classes)
        arguments = {
            **arch.arguments,
            **NARROW[arch.name],
            "backbone": {**arch.arguments["backbone"], **SHALLOW},
        }
        return dataclasses.replace(arch, arguments=arguments)

    monkeypatch.setattr(dense, "architecture", shallow)
    for kind in DENSE:
        _, *others = PUBLISHED_DATASETS[kind].transforms
        transforms = [{"Resize": {"scale": [192, 96]}}, *others]
        tiny = dataclasses.replace(PUBLISHED_DATASETS[kind], images=4, transforms=transforms)
        monkeypatch.setitem(PUBLISHED_DATASETS, kind, tiny)


def saved(model, path):
    paddle.save(model.state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    """The nuclei in ADE20K's convention, in which 0 is no class: labels 1 and 2; and a segmentor's
    weights under a published name.
    """
    root = tmp_path_factory.mktemp("ade")
    for split in ("training", "validation"):
        shutil.copytree(NUCLEI / "images" / split, root / "images" / split)
        (root / "annotations" / split).mkdir(parents=True)
        for path in (NUCLEI / "annotations" / split).glob("*.png"):
            Image.fromarray(np.asarray(Image.open(path)) + np.uint8(1)).save(
                root / "annotations" / split / path.name
            )
    paddle.seed(3)
    backbone = {"name": "NextViT_small", "extra_norms": True, **SHALLOW}
    model = create_model("SemanticFPN", num_classes=2, backbone=backbone, **NARROW["SemanticFPN"])
    model.eval()
    saved(model, root / "fpn_80k_nextvit_small.pth.pdparams")
    return root, model


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """The held-out nuclei in COCO's layout, and a detector's weights."""
    root = tmp_path_factory.mktemp("coco")
    shutil.copytree(NUCLEI / "images" / "validation", root / "val2017")
    (root / "annotations").mkdir()
    shutil.copy(
        NUCLEI / "instances_validation.json", root / "annotations" / "instances_val2017.json"
    )
    paddle.seed(3)
    model = create_model(
        "MaskRCNN",
        num_classes=1,
        backbone={"name": "NextViT_small", **SHALLOW},
        **NARROW["MaskRCNN"],
    )
    return saved(model, root / "detector.pdparams"), root


def run(weights, data, out, *more):
    return tool.main(
        [
            "--weights",
            str(weights),
            "--data",
            str(data),
            "--out",
            str(out),
            "--num-workers",
            "0",
            "--device",
            "cpu",
            *more,
        ]
    )


def report(out):
    return json.loads((out / "report.json").read_text())


def miou(root, model, ratios=(1.0,), flip=False):
    """%, image by image, with numpy's and OpenCV's means."""
    both, either = np.zeros(2), np.zeros(2)
    for path in sorted((root / "images" / "validation").iterdir()):
        image, total = np.asarray(Image.open(path).convert("RGB")), 0
        label = np.asarray(Image.open(root / "annotations" / "validation" / path.name)) - 1
        for ratio in ratios:
            side = int(96 * ratio)  # 128 x 128 within (192, 96)
            view = (cv2.resize(image, (side, side)) - MEAN) / STD
            for mirrored in (False, True)[: 1 + flip]:
                view = view[:, ::-1] if mirrored else view
                with paddle.no_grad():
                    logits = model(
                        paddle.to_tensor(np.ascontiguousarray(view.transpose(2, 0, 1)[None]))
                    )
                    logits = F.interpolate(
                        logits, size=[128, 128], mode="bilinear", align_corners=False
                    )[0]
                scores = (F.softmax(logits, axis=0) if flip else logits).numpy()
                total = total + (scores[:, :, ::-1] if mirrored else scores)
        guess = total.argmax(0)
        both += [((guess == c) & (label == c)).sum() for c in range(2)]
        either += [((guess == c) | (label == c)).sum() for c in range(2)]
    return 100 * (both / either).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, ratios, flip",
    [("ade20k", (1.0,), False), ("ade20k-ms", (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), True)],
)
def test_miou_is_that_of_a_plain_loop(
    small, kind, ratios, flip, ade, tmp_path, capsys, monkeypatch
):
    figures = keep_figures(monkeypatch)
    root, model = ade
    record = "nextvit_small.fpn_80k_in1k.official"
    # ade20k is the default of a segmentor
    more = () if kind == "ade20k" else ("--set", kind)
    status = run(
        root / "fpn_80k_nextvit_small.pth.pdparams", root, tmp_path, "--record", record, *more
    )
    found = report(tmp_path)
    (figure,) = found["figures"].values()
    # a pixel in 65536 may round otherwise
    assert figure == pytest.approx(miou(root, model, ratios, flip), abs=0.02)
    assert (
        found["images"] == 4
        and found["record"] == record
        and found["model"] == "SemanticFPN on NextViT_small"
    )
    page = capsys.readouterr().out
    if kind == "ade20k":
        assert (
            status == MISMATCH
            and f"| ade20k/miou | {figure:.2f} | 46.5 |" in page
            and "outside 0.1" in page
        )
    else:
        assert (
            status == NO_COMPARISON
            and f"| ade20k/miou_ms | {figure:.2f} | - |" in page
            and "no published figure" in page
        )
    ((left, right),) = (drawn.axes for drawn in figures)
    assert [bar.get_height() for bar in left.patches][0] == figure
    assert len(right.get_lines()) >= 1
    for curve in right.get_lines():
        shares = [100 * (share or 0) for share in found["result"][curve.get_label()].values()]
        assert list(curve.get_ydata()) == sorted(shares, reverse=True)


@pytest.mark.chain
def test_map_is_that_of_the_detections(small, coco, tmp_path, monkeypatch, capsys):
    """The published figures are set to what pycocotools makes of the model's answers here: both
    match; one moved, they do not.
    """
    from ppcls_nextvit.data import DATASETS
    from ppcls_nextvit.data.rle import encode_mask
    from ppcls_nextvit.models.detectors.masks import paste
    from ppcls_nextvit.tasks.detection.metrics import coco_map, result_records

    weights, root = coco
    model = create_model(
        "MaskRCNN",
        num_classes=1,
        backbone={"name": "NextViT_small", **SHALLOW},
        **NARROW["MaskRCNN"],
    )
    model.set_state_dict(paddle.load(str(weights)))
    model.eval()
    data = DATASETS.build(
        "COCODataset",
        {
            "image_root": str(root / "val2017"),
            "mode": "val",
            "annotation_path": str(root / "annotations" / "instances_val2017.json"),
        },
        "dataset",
        1,
    )
    records = []
    for i in range(4):
        image = (cv2.resize(data.image(i), (96, 96)).astype(np.float32) - MEAN) / STD
        with paddle.no_grad():
            (found,) = model(
                paddle.to_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)[None])),
                scale=paddle.full([1, 2], 0.75),
            )
        boxes, masks = found.boxes.numpy(), found.masks.numpy()
        codes = [
            encode_mask(paste(mask, box, 128, 128)) for mask, box in zip(masks, boxes, strict=True)
        ]
        records += result_records(data, i, boxes, found.scores.numpy(), found.labels.numpy(), codes)
    expected = coco_map(data, records)
    assert len(records) > 20  # though untrained, it answers
    name, real = "nextvit_small.test.ours", zoo.get("nextvit_small.mask_rcnn_1x.official")
    for shift, status in ((0.0, MATCH), (0.3, MISMATCH)):
        figures = {
            "coco/box_map": 100 * expected["box_map"],
            "coco/mask_map": 100 * expected["mask_map"] + shift,
        }
        monkeypatch.setattr(
            zoo,
            "WEIGHTS",
            {name: dataclasses.replace(real, name=name, file=weights.name, published=figures)},
        )
        assert run(weights, root, tmp_path) == status  # recognised by its file's name
        assert report(tmp_path)["figures"] == pytest.approx(
            {**figures, "coco/mask_map": 100 * expected["mask_map"]}, abs=1e-6
        )
    assert (
        "box_map +0.000 percentage points, within 0.1; mask_map -0.300 percentage points, outside "
        "0.1" in capsys.readouterr().out
    )
    assert run(weights, root, tmp_path / "two", "--limit", "2") == NO_COMPARISON
    assert (
        report(tmp_path / "two")["images"] == 2
        and "not the complete set" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_a_detector_without_masks_has_figures_of_boxes(small, coco, tmp_path, monkeypatch):
    _, root = coco
    name = "transnext_tiny.dino_4scale_12e.official"
    real = zoo.get(name)
    backbone = {**real.arguments["backbone"], **SHALLOW, "table_size": 96}
    model = create_model("DINO", num_classes=1, backbone=backbone, **NARROW["DINO"])
    weights = saved(model, tmp_path / "dino.pdparams")
    shrunk = ({"Resize": {"scale": [192, 96]}}, *real.transforms[1:])
    arguments = {**real.arguments, "backbone": {**real.arguments["backbone"], "table_size": 96}}
    record = dataclasses.replace(
        real, arguments=arguments, transforms=shrunk, published={"coco/box_map": 0.0}
    )
    monkeypatch.setattr(zoo, "WEIGHTS", {name: record})
    run(weights, root, tmp_path, "--record", name, "--tolerance", "100")
    found = report(tmp_path)
    assert found["status"] == MATCH and found["images"] == 4
    assert found["figures"].keys() == found["published"].keys() == {"coco/box_map"}
    assert found["preprocessing"] == "Resize {'scale': [192, 96]}; Normalize"
    assert "mask_map" not in (tmp_path / "report.md").read_text()


@pytest.mark.chain
@pytest.mark.parametrize("kind, batch", [("coco", 1), ("coco", 3), ("ade20k", 1)])
def test_an_interrupted_evaluation_continues(
    small, kind, batch, coco, ade, tmp_path, monkeypatch, capsys
):
    """The same figures as of a run that was not interrupted, from as many images as were missing;
    another evaluation's are refused.
    """
    weights, root = (
        coco if kind == "coco" else (ade[0] / "fpn_80k_nextvit_small.pth.pdparams", ade[0])
    )
    record = {
        "coco": "nextvit_small.mask_rcnn_1x.official",
        "ade20k": "nextvit_small.fpn_80k_in1k.official",
    }[kind]
    arguments = ("--set", kind, "--record", record, "--batch-size", str(batch))
    run(weights, root, tmp_path / "whole", *arguments)
    original, seen = dense.result_line, []

    def interrupted(name, key, result):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(name)
        return original(name, key, result)

    monkeypatch.setattr(dense, "result_line", interrupted)
    assert run(weights, root, tmp_path / "cut", *arguments) == 130
    path = tmp_path / "cut" / "predictions.jsonl"
    with open(path, "a") as file:
        file.write('{"image": "cut o')  # killed while it wrote
    monkeypatch.setattr(
        dense,
        "result_line",
        lambda name, key, result: seen.append(name) or original(name, key, result),
    )
    run(weights, root, tmp_path / "cut", *arguments)
    assert len(seen) == len(set(seen)) == 4
    assert path.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    assert report(tmp_path / "cut")["result"] == report(tmp_path / "whole")["result"]
    capsys.readouterr()
    assert run(weights, root, tmp_path / "cut", *arguments, "--limit", "3") == 1
    assert (
        "has the predictions of another evaluation (other images); they do not mix"
        in capsys.readouterr().err
    )
    header, first, second, *_ = path.read_text().splitlines(keepends=True)
    path.write_text(header + second + first)
    assert run(weights, root, tmp_path / "cut", *arguments) == 1
    assert "has the images in another order" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, mode, backbone",
    [
        ("ade20k", "slide", {"position_bias": "interpolation", "table_size": 512}),
        ("ade20k-ms", "whole", {"position_bias": "extrapolation", "table_size": 512}),
        ("ade20k-ms-interpolation", "whole", {"position_bias": "interpolation", "table_size": 800}),
    ],
)
def test_each_figure_of_a_record_is_measured_with_its_own_arguments(kind, mode, backbone):
    record = zoo.get("transnext_small.upernet_160k_in1k.official")
    dataset = PUBLISHED_DATASETS[kind]
    arguments = dense.architecture(record, dataset, 150).arguments
    assert arguments["backbone"] == {"name": "TransNeXt_small", "pretrain_size": 224, **backbone}
    windows = {"crop_size": [512, 512], "stride": [341, 341]}
    assert arguments["inference"] == {"mode": mode, **windows, **dataset.arguments["inference"]}
    assert dataset.figures.keys() <= record.published.keys()
    # the record itself stays as it is
    assert record.arguments["inference"] == {"mode": "slide", **windows}


@pytest.mark.parametrize(
    "more, message",
    [
        ((), "which model is this? Say --record NAME"),
        (
            ("--record", "nextvit_small.upernet_160k_in1k.official"),
            "weights for segmentation, but COCO val2017 is for detection",
        ),
        (
            ("--record", "nextvit_small.mask_rcnn_1x.official", "--model", "NextViT_small"),
            "model and preprocessing are the record's",
        ),
        (
            ("--record", "nextvit_small.mask_rcnn_1x.official", "--crop", "224"),
            "model and preprocessing are the record's",
        ),
        (
            ("--record", "nextvit_small.mask_rcnn_1x.official", "--limit", "0"),
            "sample_num: expected 1 or more images, got 0",
        ),
        (
            ("--record", "nextvit_small.mask_rcnn_1x.official", "--data", "nowhere"),
            "instances_val2017.json: no such file",
        ),
    ],
)
def test_errors_are_one_line(small, more, message, coco, tmp_path, capsys):
    weights, root = coco
    assert run(weights, root, tmp_path / "out", "--set", "coco", *more) == 1
    # what was logged before stands above it
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "out").exists()


def test_weights_of_another_head(small, ade, tmp_path, capsys):
    root, _ = ade
    assert (
        run(
            root / "fpn_80k_nextvit_small.pth.pdparams",
            root,
            tmp_path,
            "--record",
            "nextvit_small.upernet_160k_in1k.official",
        )
        == 1
    )
    assert "The file is Semantic FPN, the model UPerNet" in capsys.readouterr().err


def test_weights_without_heads(small, ade, tmp_path, capsys):
    root, model = ade
    weights = saved(model.backbone, tmp_path / "backbone.pdparams")
    assert (
        run(
            weights,
            root,
            tmp_path,
            "--set",
            "ade20k",
            "--record",
            "nextvit_small.fpn_80k_in1k.official",
        )
        == 1
    )
    assert (
        "backbone.pdparams: a backbone without heads; ADE20K validation, one scale needs the whole"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "name", [name for name, record in zoo.WEIGHTS.items() if record.task != "classification"]
)
def test_every_published_detector_and_segmentor_has_its_architecture(name):
    record = zoo.get(name)
    kinds = [kind for kind in DENSE if PUBLISHED_DATASETS[kind].task == record.task]
    assert default_dataset(name) == kinds[0]
    metrics = set()
    for kind in kinds:
        dataset = PUBLISHED_DATASETS[kind]
        arch = dense.architecture(record, dataset, 3)
        assert arch.name == record.model and arch.arguments["backbone"]["name"] == record.variant
        assert arch.arguments.keys() == record.arguments.keys() | dataset.arguments.keys()
        inference = dataset.arguments.get("inference", {})
        assert inference.items() <= arch.arguments.get("inference", {}).items()
        metrics |= set(dataset.figures)
    assert set(record.published) <= metrics


def test_views_of_ade20k():
    one, six, again = (PUBLISHED_DATASETS[kind].arguments["inference"] for kind in DENSE[1:])
    assert one == {"ratios": [1.0], "flip": False}
    assert six == again == {"ratios": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "flip": True}
