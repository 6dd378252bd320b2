"""A folder of one's own, without a YAML: layouts are recognised, what is decided is said and
written, and the written YAML is what trains; runs go on, end early, and leave each other alone.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

import ppcls_nextvit as nv
from ppcls_nextvit.api import memory, training
from ppcls_nextvit.api.choices import Choices
from ppcls_nextvit.api.layouts import recognised
from ppcls_nextvit.api.recipe import plan
from ppcls_nextvit.cli.main import main
from ppcls_nextvit.engine.log import RunLog, read_figures
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.common import class_names_text
from support.locks import held
from support.paths import NUCLEI
from support.tiny_run import DATA, write_config

SHALLOW = {"Arch.depths": [1, 1, 5, 1]}
FAST = {
    **SHALLOW,
    "DataLoader.Train.loader.num_workers": 0,
    "DataLoader.Eval.loader.num_workers": 0,
}


def photos(folder, **counts):
    """Coloured pictures: `count` of each class in folders of the classes' names."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name.replace("_", " ")).mkdir(parents=True)
        for index in range(count):
            colour = (90 * label + index, 200 - 90 * label, 40)
            path = folder / name.replace("_", " ") / f"{index}.png"
            Image.new("RGB", (40, 36), colour).save(path)
    return folder


def choices(**given):
    base = {"model": "NextViT_small", "folder": Path("run"), "device": "cpu", "memory": 8 << 30}
    return Choices(**{**base, **given})


def test_folders_of_classes_are_split_by_a_seed(tmp_path):
    root = photos(tmp_path / "photos", cat=10, a_dog=5, one=1)
    (root / "empty").mkdir()
    data = recognised(root)
    assert (data.layout, data.class_num, data.names) == ("folders", 3, ["a dog", "cat", "one"])
    assert data.images == (13, 3) and data.counts == ([4, 8, 1], [1, 2, 0])
    train, held = (data.lists[f"{part}_list.txt"].splitlines() for part in ("train", "val"))
    assert not set(train) & set(held) and len(train) + len(held) == 16
    assert {line.rpartition("\t")[2] for line in train} == {"0", "1", "2"}
    assert recognised(root) == data and recognised(root, seed=1).lists != data.lists
    assert recognised(root, val_share=0.5).counts == ([3, 5, 1], [2, 5, 0])


@pytest.mark.parametrize("names", [("train", "val"), ("training", "test"), ("Train", "valid")])
def test_folders_that_are_split(tmp_path, names):
    photos(tmp_path / names[0], cat=3, dog=2)
    photos(tmp_path / names[1], cat=1, dog=1)
    data = recognised(tmp_path)
    assert (data.names, data.images, data.lists) == (["cat", "dog"], (5, 2), {})
    assert data.train == {"name": "ImageFolder", "image_root": str(tmp_path / names[0])}
    (tmp_path / names[1] / "extra").mkdir()
    with pytest.raises(ConfigError, match="have other classes: extra is in one alone"):
        recognised(tmp_path)


def test_only_the_training_part_is_split(tmp_path):
    photos(tmp_path / "train", cat=4, dog=4)
    data = recognised(tmp_path)
    assert data.images == (6, 2) and data.train["image_root"] == str(tmp_path / "train")


def test_lists():
    data = recognised(DATA)
    assert (data.layout, data.class_num, data.names[9]) == ("lists", 10, "Ankle boot")
    assert data.images == (5000, 1000) and data.train["image_root"] == str(DATA / "images.zip")
    assert data.counts[1] == [100] * 10


@pytest.mark.parametrize("delimiter", [" ", "\t", ","])
def test_lists_of_several_writers(tmp_path, delimiter):
    photos(tmp_path / "images", cat=2, a_dog=2)
    for name in ("train.txt", "val.txt"):
        lines = [
            f"{kind}/{i}.png{delimiter}{n}"
            for n, kind in enumerate(("a dog", "cat"))
            for i in (0, 1)
        ]
        (tmp_path / name).write_text("\n".join(lines))
    data = recognised(tmp_path)
    assert (data.class_num, data.names, data.images) == (2, None, (4, 4))
    assert data.train["image_root"] == str(tmp_path / "images")
    assert data.train.get("delimiter", " ") == delimiter


def test_coco():
    data = recognised(NUCLEI)
    assert (data.layout, data.holds, data.names) == ("coco", "objects", ["nucleus"])
    assert data.masks
    assert data.images == (12, 4)
    assert data.train["image_root"] == str(NUCLEI / "images" / "training")
    assert data.evaluation["annotation_path"] == str(NUCLEI / "instances_validation.json")


def _no_images(root):
    (root / "cat").mkdir()


def _one_image_each(root):
    photos(root / "x", cat=1, dog=1)
    shutil.move(root / "x" / "cat", root / "cat")
    shutil.rmtree(root / "x")


def _lost_images(root):
    (root / "train_list.txt").write_text("gone.png 0\n")
    (root / "val_list.txt").write_text("gone.png 0\n")


def _other_categories(root):
    content = json.loads((NUCLEI / "instances_training.json").read_text())
    (root / "train.json").write_text(json.dumps(content))
    content["categories"][0]["name"] = "other"
    (root / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, "no data of a known layout; expected a folder for each class"),
        (_no_images, "no data of a known layout"),
        (_one_image_each, "one image a class: none is left to evaluate on"),
        (_lost_images, "its first image, gone.png, is neither in"),
        (_other_categories, "have other categories"),
    ],
)
def test_what_is_not_recognised(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        recognised(tmp_path)


def test_a_layout_that_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="no data of a known layout"):
        recognised(NUCLEI, layout="lists")
    with pytest.raises(ConfigError, match="expected one of coco, voc, yolo, labelme, csv"):
        recognised(NUCLEI, layout="visual")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        recognised(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\), got 1.5"):
        recognised(NUCLEI, val_share=1.5)


# The rules.


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return recognised(photos(tmp_path_factory.mktemp("many"), **{f"c{i}": 60 for i in range(7)}))


@pytest.mark.parametrize(
    "given, batch, epochs, rate",
    [
        ({}, 16, 100, 5e-4 * 0.5),  # 8 GB: 4 less the model's 0.5, 209 MB an image
        ({"memory": 64 << 30}, 64, 100, 5e-4),
        ({"memory": 1 << 20}, 2, 100, 8.8e-5),  # never less than two
        ({"size": 96, "memory": 8 << 30}, 64, 100, 5e-4),
        ({"pretrained": True, "memory": 64 << 30}, 64, 20, 1.5e-4),
        ({"batch_size": 5, "epochs": 3, "learning_rate": 0.01}, 5, 3, 0.01),
    ],
)
def test_what_is_decided(many, given, batch, epochs, rate):
    made = plan(many, choices(**given))
    content = made.content
    assert content["DataLoader"]["Train"]["sampler"]["batch_size"] == batch
    assert content["Global"]["epochs"] == epochs
    assert content["Optimizer"]["lr"]["learning_rate"] == pytest.approx(rate)
    assert content["Arch"].get("pretrained", False) == given.get("pretrained", False)
    assert content["Metric"]["Eval"][0]["TopkAcc"]["topk"] == [1, 5]
    said = "\n".join(made.said)
    for part in (f"batch size: {batch}", f"epochs: {epochs}", f"learning rate: {rate:.2g}"):
        assert part in said
    assert "7 classes, 336 images to train, 48 of each class, 84 to evaluate (split here" in said


def test_few_images_make_small_batches_and_few_classes_no_top5(tmp_path):
    data = recognised(photos(tmp_path / "photos", cat=6, dog=6))
    content = plan(data, choices(model="NextViT_small_384")).content
    assert content["DataLoader"]["Train"]["sampler"]["batch_size"] == 2
    assert content["Metric"]["Eval"][0]["TopkAcc"]["topk"] == [1]
    assert content["Global"]["image_shape"] == [3, 384, 384]
    assert content["Infer"]["PostProcess"]["topk"] == 2


@pytest.mark.parametrize(
    "data, given, message",
    [
        (NUCLEI, {"model": "MaskRCNN"}, "give a classifier, such as NextViT_small"),
        (NUCLEI, {"model": "NextViT_smal"}, "Did you mean 'NextViT_small'"),
        (NUCLEI, {"size": 64}, "keep their proportions"),
        (NUCLEI, {"model": "TransNeXt_micro"}, "there is no Mask R-CNN recipe"),
    ],
)
def test_choices_that_cannot_be(data, given, message):
    with pytest.raises(ConfigError, match=message):
        plan(recognised(data), choices(**given))


@pytest.mark.parametrize("data", [DATA, NUCLEI])
def test_the_written_yaml_is_a_configuration(data, tmp_path):
    found = recognised(data)
    found.write_lists(tmp_path)
    made = plan(found.placed(tmp_path), choices(batch_size=4, folder=tmp_path))
    (tmp_path / "class_names.txt").write_text(class_names_text(found.names))
    (tmp_path / "recipe.yaml").write_text(made.text("nextvit train --data 'a\nb'"))
    text = (tmp_path / "recipe.yaml").read_text()
    assert text.startswith("# Made by: nextvit train --data 'a b'\n# data: ")
    config = load_config(tmp_path / "recipe.yaml")
    assert config.Arch.class_num == len(found.names)
    assert yaml.safe_load(text) == made.content


def test_free_memory(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:   4096 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "LIMITS", ((limit, used),))
    assert memory.free_memory("cpu") == 4 << 20
    limit.write_text("max\n")
    assert memory.free_memory("cpu") == 4 << 20
    limit.write_text("3000\n")
    used.write_text("1000\n")
    assert memory.free_memory("cpu") == 2000
    used.write_text("9000\n")
    assert memory.free_memory("cpu") == 0


# Runs.


def command(*words, **options):
    overrides = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return main([*map(str, words), *overrides])


@pytest.mark.chain
def test_from_a_folder_to_predictions_and_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), red=6, a_blue=6)
    words = ["train", "--data", "photos", "--model", "NextViT_small", "--size", "32"]
    words += ["--epochs", "2", "--batch", "4", "--device", "cpu"]
    assert main([*words, "--dry-run"]) == 0
    assert sorted(path.name for path in Path("output/photos").iterdir()) == [
        "class_names.txt",
        "recipe.yaml",
        "train_list.txt",
        "val_list.txt",
    ]
    out = capsys.readouterr().out
    assert "batch size: 4 (as asked)" in out and "written as output/photos/recipe.yaml" in out
    assert command(*words, **FAST) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == "predict: nextvit infer --model output/photos --images IMAGES"
    log = Path("output/photos/NextViT_small/train.log").read_text()
    assert re.search(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d a blue +5 +1$", log, re.MULTILINE)
    for part in ("10 training images, 4 a step, 3 x 32 x 32; 0 workers; 2 evaluation", "threads: "):
        assert part in log
    assert "best_model.pdparams, latest.pdparams, report.html" in log and "top5" not in log
    model = nv.load("output/photos")
    assert model.names == ["a blue", "red"]
    assert len(model.predict("photos")) == 12
    # the same run by its YAML, to the same bits
    first = read_figures("output/photos/NextViT_small")
    again = {**FAST, "Global.output_dir": "again"}
    assert command("train", "-c", "output/photos/recipe.yaml", **again) == 0
    losses = [
        [line["loss"] for line in lines] for lines in (first, read_figures("again/NextViT_small"))
    ]
    assert losses[0] == losses[1]
    # another run does not touch it
    before = Path("output/photos/NextViT_small/latest.pdparams").read_bytes()
    assert main([*words, "--dry-run"]) == 0
    assert "written as output/photos-2/recipe.yaml" in capsys.readouterr().out
    assert Path("output/photos/NextViT_small/latest.pdparams").read_bytes() == before
    # nor does looking at what would take its place, nor a run that cannot begin
    assert main([*words, "--dry-run", "--overwrite"]) == 0
    assert main([*words, "--overwrite", "-o", "Global.epoch=1"]) == 1
    assert Path("output/photos/NextViT_small/latest.pdparams").read_bytes() == before
    notes = Path("output/photos/NextViT_small/notes.txt")
    notes.write_text("mine")
    with held(notes.with_name("run.lock")):
        assert main([*words, "--overwrite"]) == 1
        assert "another run writes there" in capsys.readouterr().err
    assert notes.with_name("latest.pdparams").read_bytes() == before
    notes.with_name("epoch_9.pdparams").write_bytes(b"")
    assert command(*words, "--overwrite", **{**FAST, "Global.seed": "1"}) == 0
    assert notes.with_name("latest.pdparams").read_bytes() != before
    assert notes.read_text() == "mine" and not notes.with_name("epoch_9.pdparams").exists()


@pytest.mark.chain
def test_a_run_ends_early_and_one_goes_on_without_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path, train=8, test=8, Global={"epochs": 6, "patience": 2})
    config = load_config(path)
    # nothing is learnt, so that the first evaluation stays the best
    still = {"Optimizer.lr": "{name: ConstLR, learning_rate: 0.0}", "Arch.norm_eval": "True"}
    assert command("train", "-c", path, **still) == 0
    evaluated = [
        line["epoch"] for line in read_figures(config.output_dir) if line["kind"] == "eval"
    ]
    assert evaluated == [1, 2, 3]
    log = (config.output_dir / "train.log").read_text()
    assert "no better evaluation for 2 epochs (Global.patience): the run ends" in log
    more = {**still, "Global.patience": "null", "Global.epochs": "4"}
    assert command("train", "-c", path, "--resume", **more) == 0
    assert command("train", "--resume", tmp_path / "output", **more) == 0
    assert [
        line["epoch"] for line in read_figures(config.output_dir) if line["kind"] == "eval"
    ] == [
        *evaluated,
        4,
    ]
    capsys.readouterr()
    assert command("train", "-c", path, "--resume", **{"Global.output_dir": "elsewhere"}) == 1
    assert "--resume: no elsewhere/NextViT_small/latest.pdstates" in capsys.readouterr().err
    assert command("train", "--resume", "nowhere") == 1
    assert "--resume nowhere: not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "give --data DIR --model NAME, or -c FILE"),
        (["--data", "x"], "--data needs --model NAME"),
        (["--data", "x", "--model", "y", "-c", "z"], "--data and -c: give one of them"),
        (["-c", "x", "--epochs", "3"], "--epochs is for --data"),
        (["-c", "x", "--val-share", "0.5"], "--val-share is for --data"),
        (["-c", "x", "--resume", "y"], "--resume RUN has its own configuration"),
        (["-c", "x", "--resume", "--continue"], "--resume and --continue: give one of them"),
        (["--data", "x", "--continue"], "--data and --continue: give one of them"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["train", *words])
    assert message in capsys.readouterr().err


def test_training_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="epochs: is for training with data=FOLDER"):
        nv.train("NextViT_small_224.yaml", epochs=3)
    photos(Path("photos"), red=6, blue=6)
    began = []
    monkeypatch.setattr(training, "train_config", lambda config, _: began.append(config) or 0)
    run = nv.train("NextViT_small", data="photos", epochs=3, batch_size=2, options=SHALLOW)
    (config,) = began
    assert run == config.output_dir == Path("output/photos/NextViT_small")
    assert config.Global.epochs == 3 and config.Arch.arguments["depths"] == (1, 1, 5, 1)
    assert load_config("output/photos/recipe.yaml") == config


def test_the_written_yaml_has_what_was_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), red=6, blue=6)
    words = ["train", "--data", "photos", "--model", "NextViT_small", "--batch", "2", "--dry-run"]
    changes = ["-o", "Arch.depths=[1, 1, 5, 1]", "-o", "Optimizer.clip_global_norm=null"]
    assert main([*words, *changes]) == 0
    config = load_config("output/photos/recipe.yaml")
    assert config.Arch.arguments["depths"] == (1, 1, 5, 1)
    assert "clip_global_norm" not in config.Optimizer
    made_by = Path("output/photos/recipe.yaml").read_text().splitlines()[0]
    assert made_by.endswith(f"--batch 2 {shlex.join(changes)}")


def test_a_run_that_could_not_begin_takes_no_folder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="the extra train")
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), red=6, blue=6)
    words = ["train", "--data", "photos", "--model", "NextViT_small", "--batch", "2"]
    words += ["--device", "cpu"]
    for _ in range(2):
        assert command(*words, "--pretrained", "nowhere.pdparams", **FAST) == 1
        assert "written as output/photos/recipe.yaml" in capsys.readouterr().out
    Path("output/photos/NextViT_small/notes.txt").write_text("mine")
    assert main([*words, "--dry-run"]) == 0
    assert "written as output/photos-2/recipe.yaml" in capsys.readouterr().out


def test_a_run_that_was_stopped_says_how_it_goes_on(tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path, train=8, test=8)
    monkeypatch.setattr("ppcls_nextvit.tasks.train", lambda *_: 130)
    assert main(["train", "-c", str(path)]) == 130
    folder = load_config(path).output_dir
    assert capsys.readouterr().out == f"go on: nextvit train --resume {folder}\n"


def test_null_takes_a_key_away(tmp_path):
    path = write_config(tmp_path)
    assert load_config(path, ["Global.epochs=3", "Global.print_batch_step=null"]).Global == (
        load_config(path, ["Global.epochs=3", "Global.print_batch_step=10"]).Global
    )
    config = load_config(path, ["Loss.Eval=null", "Optimizer.weight_decay=null", "Infer=null"])
    assert "Eval" not in config.Loss and "weight_decay" not in config.Optimizer
    assert config.Infer is None
    with pytest.raises(ConfigError, match="Global.epoch: unknown key. Did you mean 'epochs'"):
        load_config(path, ["Global.epoch=null"])
    with pytest.raises(ConfigError, match="Global.epochs: missing"):
        load_config(path, ["Global.epochs=null"])


def test_the_bar_fits_into_80_columns(tmp_path, monkeypatch):
    pytest.importorskip("tqdm", reason="the extra train")
    import io

    from ppcls_nextvit.engine import log
    from ppcls_nextvit.engine.distributed import Processes

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for columns in (200, 80, 40):
        screen = Terminal()
        monkeypatch.setattr(log.sys, "stderr", screen)
        monkeypatch.setenv("COLUMNS", str(columns))
        run = RunLog(tmp_path, Processes())
        with run.bar(1000, 0, 123, 300) as bar:
            bar.set_postfix_str("loss 12.345 top1 0.1234 1.23e+03 img/s eta 12:34:56")
            bar.update(500)
            bar.refresh()
        run.close()
        rows = [row for row in screen.getvalue().replace("\n", "\r").split("\r") if row.strip()]
        assert rows and max(map(len, rows)) <= min(80, columns)
        if columns >= 80:
            assert "epoch 123/300  50%, loss 12.345" in rows[-1] and "eta 12:34:56" in rows[-1]
