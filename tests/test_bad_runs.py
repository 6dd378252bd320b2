"""What a user of tools/train.py sees when something is wrong: one line, exit status 1, nothing
lost. Rooms have finer tests.
"""

import importlib.util
import os
import pickle
import re
import zipfile

import numpy as np
import paddle
import pytest

from support.paths import ROOT
from support.tiny_run import DATA, write_config

SPEC = importlib.util.spec_from_file_location("train_tool", ROOT / "tools" / "train.py")
train_tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(train_tool)


class RunsCode:
    def __reduce__(self):
        return os.system, ("echo run > HACKED",)


def images(directory):
    """The first training images as files, so that one can be spoiled."""
    folder = directory / "images"
    names = [line.split()[0] for line in (directory / "train_list.txt").read_text().splitlines()]
    with zipfile.ZipFile(DATA / "images.zip") as archive:
        archive.extractall(folder, names)
    return folder, names


def truncated_image(directory):
    folder, names = images(directory)
    (folder / names[5]).write_bytes((folder / names[5]).read_bytes()[:60])
    return [f"DataLoader.Train.dataset.image_root={folder}"], rf"error: .*{names[5]}"


def missing_image(directory):
    folder, names = images(directory)
    (folder / names[5]).unlink()
    return [f"DataLoader.Train.dataset.image_root={folder}"], rf"error: .*{names[5]}"


def missing_list(directory):
    (directory / "train_list.txt").unlink()
    return [], r"error: .*train_list.txt"


def empty_list(directory):
    (directory / "train_list.txt").write_text("")
    return [], r"error: .*train_list.txt.*"


def label_out_of_range(directory):
    return ["Arch.class_num=4"], r"error: .*train_list.txt.*label"


def small_image(directory):
    return [
        "DataLoader.Train.dataset.transform_ops.1.ResizeImage.size=24"
    ], r"error: .* at least 32 x 32 pixels; got 24 x 24"


def pickle_that_runs_code(directory):
    (directory / "evil.pdparams").write_bytes(pickle.dumps({"w": RunsCode()}))
    return [f"Global.pretrained_model={directory / 'evil'}"], r"error: .*evil.pdparams.*system"


def other_architecture(directory):
    paddle.save(
        {"backbone.conv1.weight": paddle.zeros([64, 3, 7, 7])}, str(directory / "resnet.pdparams")
    )
    return [f"Global.pretrained_model={directory / 'resnet'}"], r"error: .*resnet"


def truncated_checkpoint(directory):
    paddle.save({"w": paddle.zeros([1000])}, str(directory / "cut.pdparams"))
    (directory / "cut.pdparams").write_bytes((directory / "cut.pdparams").read_bytes()[:500])
    return [f"Global.pretrained_model={directory / 'cut'}"], r"error: .*cut.pdparams"


def nothing_to_resume(directory):
    return [
        f"Global.checkpoints={directory / 'latest'}"
    ], r"error: cannot resume from .*latest: no .*latest.pdparams"


def paddleclas_states(directory):
    for suffix, content in (
        (".pdparams", {}),
        (".pdopt", {}),
        (".pdstates", {"epoch": 3, "metric": 0.5}),
    ):
        paddle.save(content, str(directory / f"theirs{suffix}"))
    return [
        f"Global.checkpoints={directory / 'theirs'}"
    ], r"error: cannot resume from .*not written by this trainer.*pretrained_model"


def output_under_a_file(directory):
    (directory / "file").write_text("")
    return [f"Global.output_dir={directory / 'file'}"], r"error: .*file"


def unknown_key(directory):
    return ["Optimizer.lr.learnin_rate=1"], r"error: .*Did you mean 'learning_rate'"


CASES = [
    truncated_image,
    missing_image,
    missing_list,
    empty_list,
    label_out_of_range,
    small_image,
    pickle_that_runs_code,
    other_architecture,
    truncated_checkpoint,
    nothing_to_resume,
    paddleclas_states,
    output_under_a_file,
    unknown_key,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_line_and_status_one(tmp_path, capfd, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path, train=16, test=10)
    overrides, message = case(tmp_path)
    status = train_tool.main(
        ["-c", str(path), *(part for override in overrides for part in ("-o", override))]
    )
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert status == 1 and len(errors) == 1
    assert re.search(message, errors[0]), errors[0]
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.slow
def test_bad_images_are_skipped_and_counted_if_the_config_says_so(tmp_path, capfd):
    path = write_config(tmp_path, train=16, test=10, Global={"epochs": 1})
    overrides, _ = truncated_image(tmp_path)
    limits = ["DataLoader.Train.dataset.bad_images={policy: skip, limit: 1}", "Global.epochs=1"]
    assert (
        train_tool.main(
            [
                "-c",
                str(path),
                *(part for override in overrides + limits for part in ("-o", override)),
            ]
        )
        == 0
    )
    assert "1 bad training images were skipped" in capfd.readouterr().err


def test_more_processes_than_images_is_refused(tmp_path):
    from ppcls_nextvit.data import build_loader
    from ppcls_nextvit.tasks import load_config

    config = load_config(write_config(tmp_path, train=2, test=2))
    with pytest.raises(ValueError, match="2 images.*3 processes|3 processes.*2 images"):
        build_loader(
            config.section("DataLoader.Train"), "Train", num_classes=10, rank=0, world_size=3
        )


def test_a_failed_resume_leaves_the_checkpoint_as_it_was(tmp_path, capfd):
    path = write_config(tmp_path, train=8, test=10)
    where = tmp_path / "output" / "NextViT_small"
    assert (
        train_tool.main(
            ["-c", str(path), "-o", "Global.epochs=1", "-o", "Global.eval_during_train=False"]
        )
        == 0
    )
    before = {file.name: file.read_bytes() for file in where.glob("latest.*")}
    assert set(before) == {"latest.pdparams", "latest.pdopt", "latest.pdstates"}
    assert (
        train_tool.main(
            ["-c", str(path), "-o", f"Global.checkpoints={where / 'latest'}", "-o", "EMA.decay=0.9"]
        )
        == 1
    )
    assert "it has no EMA, the configuration has one" in capfd.readouterr().err
    assert {file.name: file.read_bytes() for file in where.glob("latest.*")} == before
    assert np.all(
        [
            np.isfinite(value).all()
            for value in paddle.load(str(where / "latest.pdparams"), return_numpy=True).values()
        ]
    )
