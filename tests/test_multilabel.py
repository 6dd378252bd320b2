"""Several labels an image, from PaddleClas's lists and YAML to predictions and exports, on pairs of
garments; and what cannot be meant.
"""

import json
import re

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

import ppcls_nextvit
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.data import DATASETS
from ppcls_nextvit.data.agreement import check_data
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.lists import read_multilabel_list
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import evaluate, load_config, train
from ppcls_nextvit.tasks.classification.export import Classifier, logit_difference
from ppcls_nextvit.tasks.classification.predict import contact_sheet
from ppcls_nextvit.tasks.classification.results import LabelsResult
from ppcls_nextvit.tasks.inputs import InputImage
from support.faults import assert_one_line
from support.pairs import NAMES, write_pairs
from support.programs import program_at
from support.tiny_run import write_config

deploy = program_at("deploy/python/predict.py")

# ---- lists


def listed(tmp_path, text, class_num=3, **keys):
    path = tmp_path / "list.txt"
    path.write_text(text)
    return read_multilabel_list(path, class_num, **keys)


def test_lists_as_paddleclas_has_them_and_with_numbers_of_classes(tmp_path):
    names, labels = listed(tmp_path, "a b.png\t1,0,1\n\n c.png \t 0, 0,0 \n")
    assert names == ["a b.png", "c.png"] and labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    names, numbers = listed(tmp_path, "a b.png\t2,0\nc.png\t\n", label_format="classes")
    assert names == ["a b.png", "c.png"] and numbers.tolist() == labels.tolist()
    assert numbers.dtype == labels.dtype == np.uint8
    # without a model: as many classes as the list tells
    assert listed(tmp_path, "a\t1,0\nb\t0,1\n", None)[1].shape == (2, 2)
    assert listed(tmp_path, "a\t\nb\t4\n", None, label_format="classes")[1].shape == (2, 5)
    assert listed(tmp_path, "a;1,0\n", None, delimiter=";")[1].tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "text, label_format, message",
    [
        (
            "a\t1,0,1\nb\t1,0\n",
            "vector",
            "list.txt:2: expected for each of 3 classes 0 or 1.* got 2",
        ),
        ("a\t1,0,1,0\n", "vector", "got 4 values; for numbers of classes set label_format"),
        ("a\t1,0,2\n", "vector", "list.txt:1: .* got '2'"),
        ("a\t1,0,-1\n", "vector", "got '-1'"),
        ("a\t1,0,1.0\n", "vector", "got '1.0'"),
        ("a\t1,0,nan\n", "vector", "got 'nan'"),
        ("a\t\n", "vector", "got 1 values"),
        ("a 1,0,1\n", "vector", r"expected 'path\\tlabels', got 'a 1,0,1'"),
        ("\t1,0,1\n", "vector", r"expected 'path\\tlabels'"),
        ("a\t3\n", "classes", "expected numbers of classes, 0 to 2, got '3'"),
        ("a\t-1\n", "classes", "got '-1'"),
        ("a\t1,1\n", "classes", "a class is named twice in '1,1'"),
        ("a\t1,,2\n", "classes", "got ''"),
        ("\n", "vector", "the list is empty"),
    ],
)
def test_bad_lists_name_the_line(tmp_path, text, label_format, message):
    with pytest.raises(ConfigError, match=message) as error:
        listed(tmp_path, text, label_format=label_format)
    assert_one_line(error.value)


# ---- data


def data_of(tmp_path, text, class_num=3, **keys):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    (tmp_path / "list.txt").write_text(text)
    transforms = [{"DecodeImage": None}, {"NormalizeImage": {"order": ""}}]
    keys = {"image_root": str(tmp_path), "cls_label_path": str(tmp_path / "list.txt"), **keys}
    return DATASETS.build(
        "MultiLabelDataset", {"transform_ops": transforms, **keys}, "here", class_num
    )


def test_batches_have_labels_as_0_and_1_and_their_shares(tmp_path):
    text = "a.png\t1,0,1\nb.png\t1,0,0\n"
    for ratio in (False, True):
        data = data_of(tmp_path, text, label_ratio=ratio)
        batch = data.collate([data.load(i, None) for i in range(2)], np.random.default_rng(0))
        assert batch["image"].shape == (2, 3, 32, 32) and batch["label"].dtype == np.float32
        assert batch["label"].tolist() == [[1, 0, 1], [1, 0, 0]]
        assert ("label_ratio" in batch) == ratio
    assert batch["label_ratio"].tolist() == [1.0, 0.0, 0.5]
    Image.new("RGB", (40, 32)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="differ in shape"):
        data.collate([data.load(i, None) for i in range(2)], np.random.default_rng(0))


def test_a_class_without_an_image_is_told_and_no_label_at_all_is_refused(tmp_path, caplog):
    check_data(data_of(tmp_path, "a.png\t1,0,1\nb.png\t1,0,0\n"), None)
    assert re.search("list.txt: 2 images: no labels of class 1", caplog.text)
    with pytest.raises(ConfigError, match="no labels of any class, so nothing to learn"):
        check_data(data_of(tmp_path, "a.png\t0,0,0\nb.png\t0,0,0\n"), None)


# ---- configurations


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The YAML of a set of pairs; 2 epochs."""
    optimizer = {
        "name": "AdamW",
        "weight_decay": 0.05,
        "clip_global_norm": 5.0,
        "lr": {"name": "Cosine", "learning_rate": 3e-3, "warmup_epoch": 1},
    }
    return write_pairs(tmp_path_factory.mktemp("pairs"), 128, 40, Optimizer=optimizer)


ONE_LABEL = "is for one label an image, but DataLoader.Train.dataset MultiLabelDataset for several"


@pytest.mark.parametrize(
    "override, message",
    [
        ("Loss.Train=[{CELoss: {}}]", f"Loss.Train.0.CELoss: {ONE_LABEL}"),
        ("Loss.Eval=[{CELoss: {}}]", f"Loss.Eval.0.CELoss: {ONE_LABEL}"),
        ("Metric.Eval=[{TopkAcc: {}}]", f"Metric.Eval.0.TopkAcc: {ONE_LABEL}"),
        ("Infer.PostProcess={name: Topk}", f"Infer.PostProcess.name Topk: {ONE_LABEL}"),
        ("Global.use_multilabel=False", "but Global.use_multilabel False for one label"),
        (
            "Loss.Train=[{DistillationLoss: {teacher: {name: NextViT_small}}}]",
            "Loss.Train.0.DistillationLoss: is for one label",
        ),
        ("DataLoader.Eval.dataset.name=ImageNetDataset", "label_ratio|ImageNetDataset: is for one"),
        ("DataLoader.Train.dataset.batch_transform_ops=[{TimmMixup: {}}]", "for one label each"),
        ("Metric.Train=[{MultiLabelMAP: {}}]", "MultiLabelMAP: needs all images at once"),
        ("Loss.Train=[{MultiLabelLoss: {weight_ratio: True}}]", "Train.dataset.label_ratio: True"),
        ("Loss.Train=[{MultiLabelLoss: {epsilon: 1}}]", "epsilon"),
        ("Loss.Train=[{MultiLabelAsymmetricLoss: {clip: 1}}]", r"clip in \[0, 1\)"),
        (
            "Infer.PostProcess.threshold=1",
            "threshold: must be a probability between 0 and 1, got 1",
        ),
        ("Infer.PostProcess.threshold=.nan", "threshold: expected float"),
        ("Infer.PostProcess.topk=3", "Infer.PostProcess.topk: unknown key"),
        ("Infer.PostProcess.delimiter=';'", "delimiter: class_id_map_file has lines"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(pairs, override, message):
    with pytest.raises(ConfigError, match=message) as error:
        train(load_config(pairs, [override]))
    assert_one_line(error.value)


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "Loss.Train=[{CELoss: {class_weights: [1, 2]}}]",
            "class_weights: 2 weights for 10 classes",
        ),
        (f"Loss.Train=[{{FocalLoss: {{class_weights: {[-1] + [1] * 9}}}}}]", "0 or more.*got -1"),
        (f"Loss.Train=[{{CELoss: {{class_weights: {[0] * 10}}}}}]", "not all of them 0"),
        ("Loss.Eval=[{CELoss: {class_weights: [1, .nan]}}]", "class_weights.1: expected float"),
        ("Loss.Train=[{FocalLoss: {gamma: -1}}]", "gamma must be 0 or more; got -1"),
        ("Infer.PostProcess.threshold=0.5", "Infer.PostProcess.threshold: unknown key"),
        ("Infer.PostProcess.name=MultiLabelThreshOutput", "is for several labels an image, but"),
        ("Global.use_multilabel=True", "is for one label an image, but Global.use_multilabel True"),
        ("Loss.Train=[{MultiLabelLoss: {}}]", "MultiLabelLoss: is for several labels an image"),
        ("Metric.Eval=[{TopkAcc: {}}, {AccuracyScore: {}}]", "AccuracyScore: is for several"),
    ],
)
def test_of_one_label_too(tmp_path, override, message):
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        train(load_config(path, [override]))
    assert_one_line(error.value)


def test_one_class_is_enough_for_labels_and_none_for_the_focal_loss(tmp_path, pairs):
    load_config(pairs, ["Arch.class_num=1"])
    with pytest.raises(ConfigError, match="Arch.class_num: FocalLoss of a single class"):
        load_config(write_config(tmp_path), ["Arch.class_num=1", "Loss.Train=[{FocalLoss: {}}]"])


# ---- from training to exports


@pytest.fixture(scope="module")
def run(pairs):
    """(YAML, folder of its run)."""
    assert train(load_config(pairs)) == 0
    return pairs, pairs.parent / "output" / "NextViT_small"


def truths(folder):
    lines = (folder / "test_list.txt").read_text().splitlines()
    return np.array([[int(v) for v in line.split("\t")[1].split(",")] for line in lines])


@pytest.mark.chain
def test_garments_are_learnt_above_chance(run):
    path, folder = run
    evaluated = evaluate(load_config(path, [f"Global.pretrained_model={folder / 'best_model'}"]))
    chance = truths(path.parent).mean()
    assert evaluated["MultiLabelMAP"] > chance + 0.1
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    best = max(line["MultiLabelMAP"] for line in lines if line["kind"] == "eval")
    assert evaluated["MultiLabelMAP"] == pytest.approx(best, abs=1e-4)
    distance = evaluated["HammingDistance"]
    assert distance == pytest.approx(1 - evaluated["AccuracyScore"]) and evaluated["images"] == 40
    written = {file.name for file in folder.iterdir()}
    assert {"labels.png", "predictions.png", "curves.png"} <= written
    assert "confusion_matrix.png" not in written


@pytest.mark.chain
def test_predictions_are_those_that_were_evaluated_and_exports_tell_the_same(run, tmp_path):
    path, folder = run
    weights = f"Global.pretrained_model={folder / 'best_model'}"
    order = [
        line.split("\t")[0] for line in (path.parent / "test_list.txt").read_text().split("\n")
    ]
    (tmp_path / "list.txt").write_text("".join(f"{path.parent / n}\n" for n in order if n))
    told = tmp_path / "told.json"
    arguments = ["-c", str(path), "-o", weights]
    images = ["-o", f"Infer.infer_imgs={tmp_path / 'list.txt'}"]
    sheet = ["--json", str(told), "--sheet", str(tmp_path / "sheet.png")]
    assert main(["infer", *arguments, *images, *sheet]) == 0
    results = json.loads(told.read_text())
    found = np.zeros((40, 3), int)
    for row, result in zip(found, results, strict=True):
        row[result["class_ids"]] = 1
        assert result["class_ids"] == sorted(result["class_ids"])
        assert result["label_names"] == [NAMES[i] for i in result["class_ids"]]
        assert all(score >= 0.5 for score in result["scores"])
    evaluated = evaluate(load_config(path, [weights]))
    score = evaluated["AccuracyScore"]
    assert (found == truths(path.parent)).mean() == pytest.approx(score)

    where = tmp_path / "export"
    exported = ["-o", f"Global.save_inference_dir={where}"]
    assert main(["export", *arguments, *exported]) == 0
    description = json.loads((where / "export.json").read_text())
    assert description["PostProcess"] == {
        "MultiLabelThreshOutput": {"threshold": 0.5, "label_list": NAMES}
    }
    assert description["Model"]["sigmoid"] is True and "softmax" not in description["Model"]
    test_images = ["--images", str(path.parent / "test")]
    deployed = tmp_path / "deployed.json"
    assert deploy.main(["--model", str(where), *test_images, "--json", str(deployed)]) == 0
    theirs = {entry["file_name"]: entry for entry in json.loads(deployed.read_text())}
    opened = ppcls_nextvit.load(where).predict([result["file_name"] for result in results])
    for ours, mine in zip(results, opened, strict=True):
        for other in (theirs[ours["file_name"]], mine.to_dict()):
            assert other["class_ids"] == ours["class_ids"]
            assert other["scores"] == pytest.approx(ours["scores"], abs=1e-4)
    figures = ppcls_nextvit.evaluate(where, data=path)
    assert figures == pytest.approx(evaluated, abs=1e-4)
    # another threshold than that of the run, and none of one label
    high = ["-o", "Infer.PostProcess.threshold=0.999"]
    assert main(["infer", *arguments, *images, *high, "--json", str(told)]) == 0
    assert sum(len(result["class_ids"]) for result in json.loads(told.read_text())) < found.sum()


def test_an_export_has_the_sigmoid_of_the_logits():
    model = ppcls_nextvit.create_model("NextViT_small", num_classes=3, depths=[1, 1, 5, 1])
    form = Classifier(model, sigmoid=True)
    form.body.forward_head = lambda maps: paddle.to_tensor([[-200.0, -1.0, 200.0]])
    found = form(paddle.zeros([1, 3, 32, 32])).numpy()[0]
    assert found.tolist() == pytest.approx([0, 1 / (1 + np.e), 1], rel=1e-6, abs=1e-20)
    # the difference from the model is one of logits: small probabilities hide nothing
    logits, small = np.array([[-9.0, 2.0]]), 1 / (1 + np.exp(np.array([[8.0, -2.0]])))
    assert logit_difference(small, logits) == pytest.approx(1 / 9)
    assert logit_difference(1 / (1 + np.exp(-logits)), logits) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_a_pdmodel_is_written_too_and_other_programs_refuse_it(run, tmp_path):
    path, folder = run
    where = tmp_path / "export"
    options = [f"Global.pretrained_model={folder / 'best_model'}"]
    options += [f"Global.save_inference_dir={where}"]
    overrides = [word for option in options for word in ("-o", option)]
    assert main(["export", "-c", str(path), *overrides, "--format", "pdmodel"]) == 0
    convert = program_at("deploy/serving/paddle_serving/convert.py")
    with pytest.raises(ValueError, match="tells several labels an image, this program one"):
        convert.convert(where, tmp_path / "server", tmp_path / "client")
    classifier = program_at("deploy/serving/classifier.py")
    with pytest.raises(ValueError, match="tells several labels an image, this program one"):
        classifier.read_description(where)


@pytest.mark.slow
def test_programs_that_tell_one_label_are_refused(run, tmp_path, capsys):
    path, folder = run
    weights = ["-o", f"Global.pretrained_model={folder / 'best_model'}"]
    where = ["-o", f"Global.save_inference_dir={tmp_path / 'export'}"]
    assert main(["export", "-c", str(path), *weights, *where, "--to", "coreml"]) == 1
    assert "goes to paddle, onnx, openvino; the programs for coreml" in capsys.readouterr().err
    assert main(["quantize", "-c", str(path), *weights, *where]) == 1
    assert "int8 is for one label an image" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


# ---- results


def result(probabilities, threshold=0.5):
    image = InputImage("x.png", content=np.zeros((32, 64, 3), np.uint8))
    return LabelsResult(image, np.float32(probabilities), NAMES, threshold)


def test_results_tell_the_labels_in_their_order_or_none():
    some = result([0.5, 0.25, 0.75])
    assert [one.class_id for one in some.top()] == [0, 2]
    assert some.top(1)[0].label_name == "ankle boot"
    assert some.caption() == ("trousers, ankle boot", "50 %, 75 %")
    assert some.rows()[1] == {
        "file_name": "x.png",
        "class_id": 2,
        "label_name": "ankle boot",
        "score": 0.75,
    }
    none = result([0.1, 0.2, 0.3])
    assert none.to_dict()["class_ids"] == [] and none.rows() == []
    assert "no label" in repr(none) and none.caption() == ("no label", "")
    taller = some.draw().height - none.draw().height
    assert taller > 0  # two lines against the one that says so
    assert contact_sheet([some, none]).size[0] > 0


# ---- deploy/python's own reading


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d["PostProcess"]["MultiLabelThreshOutput"].pop("threshold"), "threshold"),
        (
            lambda d: d["PostProcess"]["MultiLabelThreshOutput"].update(threshold=2),
            "threshold: expected a probability, got 2",
        ),
        (lambda d: d["Model"].pop("sigmoid"), "expected Model.sigmoid to be true"),
        (lambda d: d["PostProcess"]["MultiLabelThreshOutput"]["label_list"].pop(), "2 class names"),
        (lambda d: d["PostProcess"].pop("MultiLabelThreshOutput"), "PostProcess.Topk"),
    ],
)
def test_a_damaged_description_is_one_line(tmp_path, capsys, change, message):
    description = {
        "PreProcess": {"transform_ops": [{"DecodeImage": {}}]},
        "PostProcess": {"MultiLabelThreshOutput": {"threshold": 0.5, "label_list": list(NAMES)}},
        "Model": {"class_num": 3, "sigmoid": True, "input": {"shape": [None, 3, 32, 32]}},
        "Files": {},
    }
    change(description)
    (tmp_path / "export.json").write_text(json.dumps(description))
    assert deploy.main(["--model", str(tmp_path), "--images", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_yaml_that_paddleclas_ships_loads_but_for_its_model(tmp_path):
    """Its MobileNetV1_multilabel.yaml, with a network of ours."""
    content = yaml.safe_load(write_pairs(tmp_path / "pairs", 4, 4).read_text())
    content["Global"]["use_multilabel"] = True
    content["Metric"] = {"Train": [{"AccuracyScore": None}, {"HammingDistance": None}]}
    content["Metric"]["Eval"] = content["Metric"]["Train"]
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(content))
    assert load_config(path).Global.use_multilabel
    assert paddle.get_device()
