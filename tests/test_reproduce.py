"""tools/reproduce.py: the right numbers from pictures on disk, honest exit statuses, interruptions
that change nothing, no mixing.
"""

import dataclasses
import functools
import json
import os

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit import create_model, zoo
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.reproduce import (
    PUBLISHED_DATASETS,
    classification,
    default_dataset,
    open_dataset,
    predictions,
    reproduce,
)
from ppcls_nextvit.reproduce.classification import transforms_for
from ppcls_nextvit.reproduce.request import MATCH, MISMATCH, NO_COMPARISON, verdict
from ppcls_nextvit.reproduce.run import find_record
from ppcls_nextvit.schema import ConfigError
from support.drawn_figures import keep_figures
from support.programs import program_at
from support.random_models import random_model

tool = program_at("tools/reproduce.py")
CROP, RATIO, SHORT = 48, 0.75, 64
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLASSES, PER_CLASS = 10, 3


@pytest.fixture(scope="module")
def network():
    return random_model()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "ours.pdparams"
    paddle.save(network.state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """30 JPEGs of many sizes and colours, in ten folders named by WordNet id."""
    root, rng = tmp_path_factory.mktemp("val"), np.random.default_rng(0)
    for number in range(CLASSES):
        (root / f"n{number:08d}").mkdir()
        for index in range(PER_CLASS):
            height, width = rng.integers(60, 120, 2)
            coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(
                root / f"n{number:08d}" / f"{index}.JPEG"
            )
    return root


@pytest.fixture(scope="module")
def expected(network, data):
    """{name: five best classes}, image by image, with Pillow and numpy alone."""
    best = {}
    for path in sorted(data.rglob("*.JPEG")):
        with Image.open(path) as image:
            width, height = image.size
            scale = SHORT / min(width, height)
            size = (
                (SHORT, int(SHORT * height / width))
                if width <= height
                else (int(SHORT * width / height), SHORT)
            )
            assert abs(max(size) - scale * max(width, height)) < 1
            image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        left, top = round((size[0] - CROP) / 2), round((size[1] - CROP) / 2)
        pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP))) / 255
        with paddle.no_grad():
            logits = network(
                paddle.to_tensor(((pixels - MEAN) / STD).transpose(2, 0, 1)[None].astype("float32"))
            ).numpy()[0]
        best[str(path.relative_to(data))] = np.argsort(-logits)[:5].tolist()
    # the answers do depend on the image
    assert len({guess[0] for guess in best.values()}) > 2
    return best


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """The tool builds the shallow network that the weights are of."""
    shallow_model = functools.partial(create_model, depths=(1, 1, 5, 1))
    monkeypatch.setattr(classification, "create_model", shallow_model)


def arguments(weights, data, out, *more):
    return [
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


CUT = ("--crop", str(CROP), "--crop-ratio", str(RATIO))


def top(expected, count):
    return 100 * np.mean([int(name[1:9]) in guess[:count] for name, guess in expected.items()])


def test_the_numbers_are_those_of_a_plain_loop(
    weights, data, expected, tmp_path, capsys, monkeypatch
):
    figures = keep_figures(monkeypatch)
    assert (
        tool.main(arguments(weights, data, tmp_path / "out", "--batch-size", "7", *CUT))
        == NO_COMPARISON
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["figures"] == {
        "top1": pytest.approx(top(expected, 1)),
        "top5": pytest.approx(top(expected, 5)),
    }
    assert (
        report["measured"] == report["figures"]["top1"]
        and report["published"] is None
        and report["images"] == 30
    )
    assert (report["resize_short"], report["crop"], report["interpolation"]) == (
        SHORT,
        CROP,
        "bicubic",
    )
    header, *rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    assert {row["image"]: row["classes"] for row in rows} == expected
    for number, value in report["per_class"].items():
        right = [
            guess[0] == int(number)
            for name, guess in expected.items()
            if int(name[1:9]) == int(number)
        ]
        assert value == pytest.approx(100 * np.mean(right))
    shown = capsys.readouterr().out
    assert (
        f"| top-1 | {top(expected, 1):.3f} | - |" in shown
        and "no published figure to compare with" in shown
    )
    assert (
        (tmp_path / "out" / "report.md")
        .read_text()
        .startswith("# ImageNet-1K validation: no published figure")
    )
    ((left, right),) = (figure.axes for figure in figures)
    assert [bar.get_height() for bar in left.patches] == [report["measured"]]
    assert sum(bar.get_height() for bar in right.patches) == CLASSES
    with Image.open(tmp_path / "out" / "report.png") as picture:
        assert picture.size == (1080, 360) and len(set(picture.convert("L").getdata())) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "shift, tolerance, status", [(-0.05, "0.1", 0), (0.2, "0.1", 1), (0.2, "0.3", 0)]
)
def test_exit_status_is_within_the_tolerance(
    shift, tolerance, status, weights, data, expected, tmp_path, monkeypatch, capsys
):
    """A zoo of one record, whose published figure lies `shift` from the true one, and a dataset of
    30 images.
    """
    name = "nextvit_small.test.ours"
    record = dataclasses.replace(
        zoo.get("nextvit_small.in1k_224.official"),
        name=name,
        file=weights.name,
        preprocess=zoo.Preprocessing(CROP, RATIO),
        published={"imagenet/top1": top(expected, 1) + shift},
    )
    monkeypatch.setattr(zoo, "WEIGHTS", {name: record})
    monkeypatch.setenv("PPCLS_NEXTVIT_WEIGHTS", str(weights.parent))
    thirty = dataclasses.replace(PUBLISHED_DATASETS["imagenet"], images=30)
    monkeypatch.setitem(PUBLISHED_DATASETS, "imagenet", thirty)
    assert tool.main(arguments(name, data, tmp_path, "--tolerance", tolerance)) == status
    assert ("within " if status == 0 else "outside ") + tolerance in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["record"] == name
    # found by its file name, and resumed
    assert tool.main(arguments(weights, data, tmp_path, "--tolerance", tolerance)) == status
    if status == 0:
        assert tool.main(arguments(name, data, tmp_path / "part", "--limit", "10")) == NO_COMPARISON
        assert "not the complete set" in capsys.readouterr().out


def test_default_dataset():
    """Of weights without a record, ImageNet; else the first that their task is evaluated on."""
    assert default_dataset("/data/mine.pth") == "imagenet"
    assert default_dataset("nextvit_small.in1k_224.official") == "imagenet"
    assert default_dataset("nextvit_small.mask_rcnn_1x.official") == "coco"
    assert default_dataset("/data/fpn_80k_nextvit_small.pth") == "ade20k"


def test_verdict():
    assert verdict(82.4, 82.5, 0.1, True) == (MATCH, "-0.100 percentage points, within 0.1")
    assert verdict(82.39, 82.5, 0.1, True)[0] == verdict(82.61, 82.5, 0.1, True)[0] == MISMATCH
    assert verdict(82.5, 82.5, 0.1, False)[0] == verdict(82.5, None, 0.1, True)[0] == NO_COMPARISON


class Counting:
    """A model that counts its images, and is interrupted before image number `stop`."""

    def __init__(self, model, stop=None):
        self.model, self.stop, self.seen = model, stop, 0

    def __call__(self, images):
        if self.stop is not None and self.seen + images.shape[0] > self.stop:
            raise KeyboardInterrupt
        self.seen += images.shape[0]
        return self.model(images)


def test_an_interrupted_run_continues(network, data, expected, tmp_path):
    images, ops, path = (
        open_dataset("imagenet", str(data), CLASSES),
        zoo.Preprocessing(CROP, RATIO).transform_ops(),
        tmp_path / "p.jsonl",
    )
    with pytest.raises(KeyboardInterrupt):
        predictions.predict_images(
            Counting(network, stop=12), images, ops, path, {"weights": 1}, batch_size=4
        )
    assert len(path.read_text().splitlines()) == 1 + 12
    with open(path, "a") as file:
        # the process was killed while it wrote
        file.write('{"image": "n00000004/0.JPEG", "cla')
    second = Counting(network)
    result = predictions.predict_images(second, images, ops, path, {"weights": 1}, batch_size=5)
    assert second.seen == 18 and dict(zip(images.names, result, strict=True)) == expected
    third, content = Counting(network, stop=0), path.read_text()
    assert (
        predictions.predict_images(third, images, ops, path, {"weights": 1}, batch_size=5) == result
    )
    assert path.read_text() == content and len(content.splitlines()) == 31


def test_predictions_of_different_runs_do_not_mix(network, weights, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert tool.main(arguments(weights, data, out, "--limit", "10", *CUT)) == NO_COMPARISON
    for more, what in (
        (("--limit", "11", *CUT), "images, set"),
        (("--limit", "10", "--crop", "48"), "transform_ops"),
    ):
        assert tool.main(arguments(weights, data, out, *more)) == 1
        assert (
            f"has the predictions of another evaluation (other {what}); they do not mix"
            in capsys.readouterr().err
        )
    network.proj_head[0].bias.set_value(network.proj_head[0].bias + 1)
    paddle.save(network.state_dict(), str(tmp_path / "other.pdparams"))
    network.proj_head[0].bias.set_value(network.proj_head[0].bias - 1)
    assert tool.main(arguments(tmp_path / "other.pdparams", data, out, "--limit", "10", *CUT)) == 1
    assert "(other weights_sha256)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["hello\n", "[1]\n", '{"a": 1}\n{"b": 2}\n', "no line at all"])
def test_another_file_is_not_overwritten(content, network, data, tmp_path):
    images, path = open_dataset("imagenet", str(data), CLASSES), tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(
        ConfigError, match="p.jsonl: not a file of predictions; remove it or choose another folder"
    ):
        predictions.predict_images(
            network, images, zoo.Preprocessing(CROP, RATIO).transform_ops(), path, {}
        )
    assert path.read_text() == content


@pytest.mark.parametrize(
    "classes", [None, [], "12", [1.0], [True], [-1], [CLASSES], [0] * 6, {"0": 1}]
)
def test_results_that_no_model_gave(classes, network, data, tmp_path):
    images, path = open_dataset("imagenet", str(data), CLASSES), tmp_path / "p.jsonl"
    ops = zoo.Preprocessing(CROP, RATIO).transform_ops()
    predictions.predict_images(network, images, ops, path, {})
    header, first, *others = path.read_text().splitlines()
    changed = json.dumps({**json.loads(first), "classes": classes})
    path.write_text("\n".join([header, changed, *others, ""]))
    with pytest.raises(ConfigError, match="p.jsonl: no class numbers for 'n0000000"):
        predictions.predict_images(network, images, ops, path, {})
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="p.jsonl: not a regular file"):
        predictions.predict_images(network, images, ops, path, {})


def test_wrong_classes_and_values_are_refused(network, data, tmp_path):
    images, ops = (
        open_dataset("imagenet", str(data), CLASSES),
        zoo.Preprocessing(CROP, RATIO).transform_ops(),
    )
    with pytest.raises(ConfigError, match="the model has 9 classes, the set is numbered for 10"):
        predictions.predict_images(
            lambda x: network(x)[:, :9], images, ops, tmp_path / "a.jsonl", {}
        )
    with pytest.raises(
        FloatingPointError,
        match="n00000000/0.JPEG and the images after it give logits that are not finite",
    ):
        predictions.predict_images(
            lambda x: network(x) * np.nan, images, ops, tmp_path / "b.jsonl", {}
        )


def test_a_bad_image_is_named(network, weights, data, tmp_path, capsys):
    names = open_dataset("imagenet", str(data), CLASSES).names
    for name in names:
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name).symlink_to(data / name)
    (tmp_path / "val" / names[4]).unlink()
    (tmp_path / "val" / names[4]).write_bytes((data / names[4]).read_bytes()[:-60])
    assert tool.main(arguments(weights, tmp_path / "val", tmp_path / "out", *CUT)) == 1
    assert f"val/{names[4]}: truncated or damaged image" in capsys.readouterr().err
    assert issubclass(ImageError, ValueError)


def test_wrong_requests_are_one_line(weights, data, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PPCLS_NEXTVIT_WEIGHTS", raising=False)
    for given, message in (
        (
            arguments("nextvit_small.in1k_224.official", data, tmp_path),
            "nextvit_small_in1k_224.pth is not there, and nothing is",
        ),
        (
            arguments("nextvit_small.mask_rcnn_1x.official", data, tmp_path, "--set", "imagenet"),
            "ImageNet-1K validation is for class",
        ),
        (
            arguments("nextvit_small.mask_rcnn_1x.official", data, tmp_path),
            "mask_rcnn_1x_nextvit_small.pth is not there",
        ),
        (
            arguments("nextvit_smal.in1k_224.official", data, tmp_path),
            "closest: nextvit_small.in1k_224.official",
        ),
        (arguments(tmp_path / "none.pth", data, tmp_path), "none.pth: no such file"),
        (
            arguments(weights, tmp_path / "none", tmp_path),
            "none: no such folder; expected the images of ImageNet-1K validation",
        ),
        (
            arguments(weights, data, tmp_path, "--set", "a"),
            "10 class folders; ImageNet-A (Hendrycks et al. 2021) has 200",
        ),
        (
            arguments(weights, data, tmp_path, "--record", "nextvit_small.in1k_224.timm", *CUT),
            "evaluated as published for",
        ),
        (
            arguments(weights, data, tmp_path, "--model", "NextViT_huge"),
            "unknown model 'NextViT_huge'",
        ),
    ):
        assert tool.main(given) == 1
        error = capsys.readouterr().err
        assert message in error and error.strip().splitlines()[-1].startswith("error: ")


def test_records_are_found_by_name_and_by_file_name():
    assert find_record("nextvit_base.in1k_384.timm").variant == "NextViT_base"
    assert (
        find_record("/data/NextViT_large_384_ssld_pretrained.pdparams").name
        == "nextvit_large.in1k6m_384.paddleclas"
    )
    assert find_record("/data/mine.pth") is None
    assert find_record(
        "/data/mine.pth", "nextvit_base.in1k_384.timm"
    ).preprocess == zoo.Preprocessing(384, 1.0)


def test_corrupted_images_are_not_cropped():
    """They are 224 x 224: the whole image for a 224 network, the whole image enlarged for a 384
    one.
    """
    for name, size in (
        ("nextvit_small.in1k_224.official", 224),
        ("nextvit_small.in1k_384.official", 384),
    ):
        ops = transforms_for("c", zoo.get(name).preprocess)
        assert ops[1]["ResizeImage"]["resize_short"] == ops[2]["CropImage"]["size"] == size
        assert (
            transforms_for("a", zoo.get(name).preprocess)
            == zoo.get(name).preprocess.transform_ops()
        )


def test_warped_images_are_reported_so(weights, data, tmp_path):
    report = reproduce(
        weights, data, tmp_path / "out", preprocessing=zoo.Preprocessing(32, 1.0, warp=True)
    )
    assert (report["resize_short"], report["crop"]) == (None, 32)
    assert "warped to 32 x 32, bicubic" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_corruption_report(weights, data, tmp_path, monkeypatch):
    """All 75 folders show the same ten images, so every error is the same, and CE is that error
    over AlexNet's.
    """
    figures = keep_figures(monkeypatch)
    from ppcls_nextvit.reproduce.datasets import CORRUPTIONS, SEVERITIES
    from ppcls_nextvit.reproduce.scores import ALEXNET_ERROR

    for number in range(CLASSES):
        (tmp_path / "ten" / f"n{number:08d}").mkdir(parents=True)
        (tmp_path / "ten" / f"n{number:08d}" / "0.JPEG").symlink_to(
            data / f"n{number:08d}" / "0.JPEG"
        )
    for corruption in CORRUPTIONS:
        (tmp_path / "c" / corruption).mkdir(parents=True)
        for severity in SEVERITIES:
            (tmp_path / "c" / corruption / severity).symlink_to(tmp_path / "ten")
    report = reproduce(
        weights, tmp_path / "c", tmp_path / "out", "c", preprocessing=zoo.Preprocessing(32, 0.875)
    )
    error = 100 - report["figures"]["top1"]
    assert report["images"] == 750 and error > 0
    assert report["figures"]["ce"]["snow"] == pytest.approx(error / ALEXNET_ERROR["snow"])
    assert report["measured"] == pytest.approx(
        np.mean([error / ALEXNET_ERROR[c] for c in CORRUPTIONS])
    )
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"| mCE | {report['measured']:.3f} | - |" in page and page.count("\n| ") > 17
    ((left, right),) = (figure.axes for figure in figures)
    assert [bar.get_height() for bar in left.patches] == [report["measured"]]
    assert [bar.get_height() for bar in right.patches] == list(report["figures"]["ce"].values())
    names = [label.get_text() for label in right.get_xticklabels()]
    assert names == [corruption.replace("_", " ") for corruption in CORRUPTIONS]
    (mean,) = right.get_lines()
    assert mean.get_ydata()[0] == report["measured"]
    with Image.open(tmp_path / "out" / "report.png") as picture:
        assert picture.size == (1080, 360)
