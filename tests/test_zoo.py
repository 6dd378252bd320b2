"""The zoo: every published figure against the sources' tables, names that become files, and the
page generated from it.
"""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, list_weights, load_weights, zoo
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.models.complexity import count_parameters
from support.programs import program_at
from support.random_models import random_model

ROOT = Path(__file__).resolve().parents[1]
model_zoo = program_at("scripts/model_zoo.py")


def figures(pattern, metric="imagenet/top1"):
    return [zoo.get(name).published[metric] for name in list_weights(pattern)]


def test_every_published_file_is_there_once():
    assert Counter((r.source, r.task) for r in zoo.WEIGHTS.values()) == {
        ("bytedance/Next-ViT", "classification"): 12,
        ("bytedance/Next-ViT", "detection"): 6,
        ("bytedance/Next-ViT", "segmentation"): 12,
        ("PaddleClas", "classification"): 12,
        ("timm", "classification"): 12,
        ("DaiShiResearch/TransNeXt", "classification"): 7,
        ("DaiShiResearch/TransNeXt", "detection"): 7,
        ("DaiShiResearch/TransNeXt", "segmentation"): 6,
    }
    for field in ("name", "where", "file"):
        assert len({getattr(r, field) for r in zoo.WEIGHTS.values()}) == 74
    assert all(
        zoo.is_name(name) and not zoo.is_name(record.file) for name, record in zoo.WEIGHTS.items()
    )
    assert all(
        (r.preprocess is None) == bool(r.protocol) == (r.task != "classification")
        for r in zoo.WEIGHTS.values()
    )


def test_published_classification():
    """README of bytedance/Next-ViT; PaddleClas's model page; timm's results."""
    assert figures("nextvit*.in1k_224.official") == [82.5, 83.2, 83.6] and figures(
        "nextvit*.in1k_384.official"
    ) == [83.6, 84.3, 84.7]
    assert figures("*.in1k6m_224.official") == [84.8, 85.1, 85.4] and figures(
        "*.in1k6m_384.official"
    ) == [85.8, 86.1, 86.4]
    assert figures("nextvit*.in1k_*.paddleclas") == [82.48, 83.24, 83.63, 84.01, 84.65, 84.92]
    assert figures("*.in1k6m_*.paddleclas") == [84.72, 85.00, 85.36, 85.97, 86.34, 86.54]
    assert figures("nextvit*.in1k_*.timm") == [82.626, 83.498, 83.654, 84.036, 84.706, 84.930]
    assert figures("*.in1k6m_*.timm") == [84.872, 85.186, 85.514, 85.966, 86.372, 86.544]


def test_published_robustness():
    """timm's results, results-imagenet-{a,r,real}.csv, results-sketch.csv,
    results-imagenetv2-matched-frequency.csv.
    """

    def row(name):
        return [
            zoo.get(name).published[f"imagenet-{key}/top1"]
            for key in ("a", "r", "sketch", "v2", "real")
        ]

    assert row("nextvit_small.in1k_224.timm") == [26.640, 46.833, 33.815, 71.430, 87.794]
    assert row("nextvit_large.in1k_224.timm") == [33.027, 50.910, 37.867, 73.100, 88.404]
    assert row("nextvit_base.in1k6m_224.timm") == [47.307, 60.790, 48.046, 75.500, 89.506]
    assert row("nextvit_large.in1k6m_384.timm") == [65.373, 64.827, 49.795, 77.730, 90.211]


def test_published_detection_and_segmentation():
    assert figures("nextvit*mask_rcnn*", "coco/box_map") == [45.9, 47.2, 48.0, 48.0, 49.5, 50.2]
    assert figures("nextvit*mask_rcnn*", "coco/mask_map") == [41.8, 42.8, 43.2, 43.2, 44.4, 44.8]
    assert figures("*.fpn_80k*", "ade20k/miou") == [46.5, 48.6, 49.1, 48.8, 50.2, 50.5]
    assert figures("nextvit*.upernet*", "ade20k/miou") == [48.1, 50.4, 50.1, 49.8, 51.8, 51.5]
    assert figures("nextvit*.upernet*", "ade20k/miou_ms") == [49.0, 51.1, 50.8, 50.8, 52.8, 52.0]


def test_published_transnext():
    """README of DaiShiResearch/TransNeXt."""

    def row(name, *datasets):
        published = zoo.get(f"transnext_{name}.official").published
        assert set(published) == {f"imagenet{dataset}" for dataset in datasets}
        return [published[f"imagenet{dataset}"] for dataset in datasets]

    sets = ("/top1", "-a/top1", "-c/mce", "-r/top1", "-sketch/top1", "-v2/top1")
    assert row("micro.in1k_224", *sets) == [82.5, 29.9, 50.8, 45.8, 33.0, 72.6]
    assert row("tiny.in1k_224", *sets) == [84.0, 39.9, 46.5, 49.6, 37.6, 73.8]
    assert row("small.in1k_224", *sets) == [84.7, 47.1, 43.9, 52.5, 39.7, 74.8]
    assert row("base.in1k_224", *sets) == [84.8, 50.6, 43.5, 53.9, 41.4, 75.1]
    finetuned = ("/top1", "-a/top1", "-r/top1", "-sketch/top1", "-v2/top1")
    assert row("small.in1k_384", *finetuned) == [86.0, 58.3, 56.4, 43.2, 76.8]
    assert row("base.in1k_384", *finetuned) == [86.2, 61.6, 57.7, 44.7, 77.0]
    assert row("micro_AAAA.in1k_256", "/top1") == [82.6]

    assert figures("transnext*mask_rcnn*", "coco/box_map") == [49.9, 51.1, 51.7]
    assert figures("transnext*mask_rcnn*", "coco/mask_map") == [44.6, 45.5, 45.9]
    assert [
        (zoo.get(name).arguments["num_levels"], *zoo.get(name).published.items())
        for name in list_weights("transnext*dino*")
    ] == [
        (4, ("coco/box_map", 55.1)),
        (5, ("coco/box_map", 55.7)),
        (5, ("coco/box_map", 56.6)),
        (5, ("coco/box_map", 57.1)),
    ]
    assert figures("transnext*upernet*", "ade20k/miou") == [51.1, 52.2, 53.0]
    assert figures("transnext*upernet*", "ade20k/miou_ms") == [51.7, 52.8, 53.7]
    assert figures("transnext*upernet*", "ade20k/miou_ms_interpolation") == [51.5, 52.5, 53.5]
    assert figures("transnext*mask2former*", "ade20k/miou") == [53.4, 54.1, 54.7]


def test_the_records_of_transnext_are_of_models_here():
    """Parameters of the classifiers cut to one decimal, as the README's are; of the others rounded
    as there.
    """
    for name in list_weights("transnext*"):
        record = zoo.get(name)
        with paddle.LazyGuard():
            model = create_model(record.model, **record.arguments)
        backbone = getattr(model, "backbone", model)
        pretrain_size = 256 if "AAAA" in name else 224
        assert backbone.config.pretrain_size == pretrain_size, name
        assert record.backbone_arguments["pretrain_size"] == pretrain_size, name
        millions = count_parameters(model) / 1e6
        assert record.params_m == pytest.approx(millions, abs=0.1 if record.preprocess else 0.6)


@pytest.mark.parametrize("variant", ["NextViT_small", "NextViT_base", "NextViT_large"])
def test_parameters_are_the_models(variant):
    """The README cuts to one decimal, timm rounds, PaddleClas adds the BatchNorm statistics and
    rounds.
    """
    with paddle.LazyGuard():
        model = create_model(variant)
    count = count_parameters(model)
    statistics = sum(
        int(np.prod(value.shape))
        for key, value in model.state_dict().items()
        if key.endswith(("._mean", "._variance"))
    )
    for record in (
        r for r in zoo.WEIGHTS.values() if r.variant == variant and r.task == "classification"
    ):
        expected = {
            "bytedance/Next-ViT": int(count / 1e5) / 10,
            "timm": round(count / 1e6, 2),
            "PaddleClas": round((count + statistics) / 1e6, 2),
        }
        assert record.params_m == expected[record.source], record.name


def test_measured_figures_need_their_log():
    for record in zoo.WEIGHTS.values():
        assert (record.measured is None) == (record.log is None)
        if record.log is not None:
            # a report.json of tools/reproduce.py
            log = json.loads((ROOT / record.log).read_text())
            assert log["record"] == record.name and record.measured[log["metric"]] == pytest.approx(
                log["measured"], abs=5e-4
            )
    arguments = {
        field: getattr(zoo.get("nextvit_small.in1k_224.timm"), field)
        for field in zoo.Weights.__dataclass_fields__
    }
    with pytest.raises(ValueError, match="measured figures need their log"):
        zoo.Weights(**{**arguments, "measured": {"imagenet/top1": 82.6}})
    with pytest.raises(TypeError):
        zoo.get("nextvit_small.in1k_224.timm").published["imagenet/top1"] = 99.0


@pytest.mark.parametrize(
    "name, short, crop, ratio",
    [
        ("nextvit_small.in1k_224.official", 256, 224, 0.875),
        ("nextvit_small.in1k_384.official", 438, 384, 0.875),
        ("nextvit_small.in1k_224.paddleclas", 256, 224, 0.875),
        ("nextvit_small.in1k_384.paddleclas", 384, 384, 1.0),
        ("nextvit_small.in1k_224.timm", 235, 224, 0.95),
        ("nextvit_small.in1k6m_384.timm", 384, 384, 1.0),
    ],
)
def test_preprocessing(name, short, crop, ratio):
    preprocess = zoo.get(name).preprocess
    assert (
        preprocess.resize_short,
        preprocess.crop,
        preprocess.crop_ratio,
        preprocess.interpolation,
    ) == (short, crop, ratio, "bicubic")
    decode, resize, cut, normalise = Preprocess(preprocess.transform_ops()).describe()
    assert (
        resize["ResizeImage"]["resize_short"] == short and resize["ResizeImage"]["backend"] == "pil"
    )
    assert cut["CropImage"]["size"] == crop and decode["DecodeImage"]["to_rgb"]
    assert normalise["NormalizeImage"]["mean"] == [0.485, 0.456, 0.406] and normalise[
        "NormalizeImage"
    ]["std"] == [0.229, 0.224, 0.225]


def test_warped_images_are_not_cropped():
    preprocess = zoo.get("transnext_small.in1k_384.official").preprocess
    prepare = Preprocess(preprocess.transform_ops())
    assert [list(op)[0] for op in prepare.describe()] == [
        "DecodeImage",
        "ResizeImage",
        "NormalizeImage",
    ]
    image = np.zeros((40, 90, 3), np.uint8)
    image[:, :9] = 255  # at the left edge, where a crop would lose it
    warped = prepare(cv2.imencode(".png", image)[1].tobytes())
    assert warped.shape == (3, 384, 384)
    assert warped[0, 200, 10] > 2 and warped[0, 200, 60] < -2


def test_list_weights():
    assert len(list_weights()) == 74
    assert list_weights("*base*384.timm") == [
        "nextvit_base.in1k_384.timm",
        "nextvit_base.in1k6m_384.timm",
    ]
    assert list_weights("resnet*") == []


def test_a_name_loads_the_file_that_the_user_fetched(tmp_path, monkeypatch):
    name = "nextvit_small.in1k_224.paddleclas"
    source, target = random_model(), random_model()
    target.proj_head[0].bias.set_value(paddle.zeros([10]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPCLS_NEXTVIT_WEIGHTS", raising=False)
    (tmp_path / "weights").mkdir()
    paddle.save(source.state_dict(), "weights/NextViT_small_224_pretrained.pdparams")
    assert load_weights(target, name).source == "weights/NextViT_small_224_pretrained.pdparams"
    np.testing.assert_array_equal(
        target.proj_head[0].bias.numpy(), source.proj_head[0].bias.numpy()
    )

    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(
        FileNotFoundError,
        match="elsewhere/NextViT_small_224_pretrained.pdparams is not there, and nothing is "
        f"downloaded unasked. Run `nextvit weights get {name}`, or get it from PaddleClas "
        ".https://paddle-imagenet-models-name",
    ):
        load_weights(target, name)
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    assert load_weights(target, name).loaded


def test_a_path_is_a_path_before_it_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paddle.save(random_model().state_dict(), "nextvit_small.in1k_224.official")
    assert (
        load_weights(random_model(), "nextvit_small.in1k_224.official").source
        == "nextvit_small.in1k_224.official"
    )


def test_unknown_names_name_their_neighbours():
    with pytest.raises(
        ValueError,
        match="unknown weights 'nextvit_small.in1k_225.official'; closest: "
        "nextvit_small.in1k_224.official",
    ):
        load_weights(random_model(), "nextvit_small.in1k_225.official")
    with pytest.raises(ValueError, match="missing.pdparams: no such file"):
        load_weights(random_model(), "missing.pdparams")


def test_the_page_is_the_zoo(capsys):
    text = (ROOT / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    assert text == model_zoo.page(), "run: python scripts/model_zoo.py --write"
    assert model_zoo.main(["--check"]) == 0 and capsys.readouterr().out == ""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert sorted(row[0][3:-1] for row in rows) == sorted(list_weights())
    assert rows[0][1:7] == ["ImageNet-1K", "256, 224", "31.7", "5.8", "82.5", "not yet"]
    large = next(row for row in rows if "nextvit_large.in1k6m_384.timm" in row[0])
    assert large[1:12] == [
        "SSLD-6M first",
        "384, 384",
        "57.87",
        "-",
        "86.544",
        "65.373",
        "64.827",
        "49.795",
        "77.73",
        "90.211",
        "not yet",
    ]


def test_the_page_is_checked_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_zoo, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("old\n")
    assert model_zoo.main(["--check"]) == 1 and "-old" in capsys.readouterr().out
    assert model_zoo.main(["--write"]) == 0 and model_zoo.main(["--check"]) == 0
    capsys.readouterr()
    assert model_zoo.main([]) == 0 and capsys.readouterr().out == (tmp_path / "page.md").read_text()
