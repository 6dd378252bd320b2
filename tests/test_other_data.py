"""A model on other data than its run's: evaluated on a folder, and as an exported folder in the
command that predicts.
"""

import json

import paddle
import pytest

import ppcls_nextvit as nv
from ppcls_nextvit.api.layouts import recognised
from ppcls_nextvit.api.other_data import on_data
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data import DATASETS
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from support.paths import NUCLEI, ROOT
from support.pictures import clothes
from support.tiny_run import write_config
from test_own_data import photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(YAML, weights) of a classifier of two classes, a cat and a dog."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "names.txt").write_text("0 a cat\n1 dog\n")
    weights = folder / "w.pdparams"
    paddle.seed(0)
    network = nv.create_model("NextViT_small", num_classes=2, depths=(1, 1, 5, 1))
    paddle.save(network.state_dict(), str(weights))
    post = {"class_id_map_file": str(folder / "names.txt")}
    path = write_config(folder, train=4, test=4, Arch={"class_num": 2})
    return path, weights, post


def loaded(run):
    path, weights, post = run
    return nv.load(path, weights=weights, device="cpu", options={"Infer.PostProcess": post})


@pytest.mark.chain
def test_evaluation_on_other_data(run, tmp_path, capsys):
    photos(tmp_path / "all", a_cat=3, dog=4)
    model = loaded(run)
    found = model.evaluate(tmp_path / "all")
    assert found["images"] == 7 and 0 <= found["top1"] <= 1  # nothing is kept back
    assert model.evaluate(photos(tmp_path / "one", a_cat=1, dog=1))["images"] == 2
    photos(tmp_path / "parts" / "train", a_cat=1, dog=1)
    photos(tmp_path / "parts" / "val", a_cat=2, dog=1)
    assert model.evaluate(tmp_path / "parts")["images"] == 3
    path, weights, post = run
    words = ["eval", "-c", str(path), "-o", f"Global.pretrained_model={weights}"]
    words += ["-o", f"Infer.PostProcess={json.dumps(post)}", "--data", str(tmp_path / "all")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert main([*words, "--report", str(tmp_path / "report")]) == 0
    said = capsys.readouterr()
    assert said.err.endswith(f"written: {tmp_path / 'report' / 'report.html'}\n")
    assert json.loads(said.out) == found
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"top1: {found['top1']:.4f} of 7 images" in page and "Calibration" in page
    assert f"nextvit infer --model {weights}" in page and (tmp_path / "report/results.csv").exists()


def test_other_classes_are_refused(run, tmp_path):
    model = loaded(run)
    with pytest.raises(ConfigError, match="class 1 is 'hound' there and 'dog' in the model"):
        model.evaluate(photos(tmp_path / "a", a_cat=2, hound=2))
    with pytest.raises(ConfigError, match="3 classes, but the model has 2"):
        model.evaluate(photos(tmp_path / "b", a_cat=2, dog=2, emu=2))
    with pytest.raises(SystemExit):
        main(["eval", "-c", "x", "--layout", "folders"])


def test_one_json_is_evaluated_as_a_whole(tmp_path):
    pytest.importorskip("pycocotools", reason="the extra det")
    content = json.loads((NUCLEI / "instances_training.json").read_text())
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(NUCLEI / "images" / "training")
    assert recognised(tmp_path).split
    config = load_config(ROOT / "configs" / "quickstart" / "nuclei_mask_rcnn.yaml")
    found = on_data(config, tmp_path, None, tmp_path / "lists").DataLoader["Eval"]["dataset"]
    arguments = {key: value for key, value in found.items() if key != "name"}
    dataset = DATASETS.build(found["name"], arguments, "dataset", 1)
    objects = sum(not each.get("iscrowd") for each in content["annotations"])
    assert len(dataset) == 12 and dataset.class_counts().counts.tolist() == [objects]
    assert found["transform_ops"] == config.DataLoader["Eval"]["dataset"]["transform_ops"]


@pytest.mark.chain
def test_an_export_predicts_in_the_command(run, tmp_path, capsys):
    model = loaded(run)
    folder = tmp_path / "model"
    model.export(folder)
    pictures = clothes(tmp_path / "photos", 3)
    capsys.readouterr()
    words = ["infer", "--model", str(folder), "--images", str(pictures)]
    assert main([*words, "--json", str(tmp_path / "o.json")]) == 0
    assert json.loads((tmp_path / "o.json").read_text()) == json.loads(
        nv.load(folder).predict(pictures).to_json()
    )
    assert len(capsys.readouterr().out.splitlines()) == 3
    for more, message in (
        (["-o", "Global.device=cpu"], "an export has its settings in it"),
        (["--out", "x"], "--out is not for classification"),
    ):
        assert main([*words, *more]) == 1
        assert message in capsys.readouterr().err
    assert main(words[:3]) == 1 and "give --images" in capsys.readouterr().err
    assert main(["explain", "cam", "--model", str(folder), "--images", str(pictures)]) == 1
    assert "which can predict and be evaluated; for this give its run" in capsys.readouterr().err


@pytest.mark.chain
@pytest.mark.parametrize(
    "to",
    ["paddle", "onnx", "openvino"],
)
def test_an_export_is_evaluated_by_the_command(run, tmp_path, capsys, to):
    for package in {"onnx": ("paddle2onnx", "onnxruntime"), "openvino": ("openvino",)}.get(to, ()):
        pytest.importorskip(package, reason=f"the extra {to}")
    model, folder, data = loaded(run), tmp_path / "model", photos(tmp_path / "all", a_cat=3, dog=4)
    model.export(folder, to=to)
    expected = model.evaluate(data)
    words = ["eval", "--model", str(folder)]
    capsys.readouterr()
    assert main([*words, "--data", str(data), "--report", str(tmp_path / "report")]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == pytest.approx(expected, abs=1e-4) and found["images"] == 7
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"nextvit infer --model {folder}" in page
    for more, message in (
        ([], "an export names no images; give --data"),
        (["--data", str(data), "-o", "Global.device=cpu"], "an export has its settings in it"),
        (["--data", str(photos(tmp_path / "c", a_cat=2, hound=2))], "class 1 is 'hound' there"),
    ):
        assert main([*words, *more]) == 1 and message in capsys.readouterr().err


def test_an_export_for_one_size_says_which(run, tmp_path):
    loaded(run).export(tmp_path / "model", size=(64, 64))
    data = photos(tmp_path / "all", a_cat=2, dog=2)
    with pytest.raises(ImageError, match="takes images of 64 x 64 pixels, and these are 32 x 32"):
        nv.evaluate(tmp_path / "model", data)
