"""A configuration and its data that contradict each other: refused before the first step, in one
line.
"""

import json
import re

import pytest
import yaml
from PIL import Image

from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config, train
from ppcls_nextvit.tasks.common import build_loaders, class_names_text
from support.faults import assert_one_line
from support.paths import ROOT
from support.tiny_run import DATA, write_config

SEMFPN = ROOT / "configs" / "quickstart" / "nuclei_semfpn.yaml"


def grey(path, image_shape=(1, 32, 32), in_channels=1, modes=("Train", "Eval", "Infer")):
    """The configuration `path` of one channel, with grey images in these `modes`."""
    content = json.loads(json.dumps(yaml.safe_load(path.read_text())))  # nothing is shared
    content["Global"]["image_shape"] = list(image_shape)
    content["Arch"]["in_channels"] = in_channels
    lists = {
        mode: section["dataset"]["transform_ops"] for mode, section in content["DataLoader"].items()
    }
    lists["Infer"] = content["Infer"]["transforms"]
    for mode in modes:
        for step in lists[mode]:
            if "NormalizeImage" in step:
                step["NormalizeImage"].update(mean=[0.5], std=[0.5])
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "changes, place",
    [
        ({"image_shape": (1, 32, 32), "in_channels": 3, "modes": ()}, "Global.image_shape: 1 "),
        ({"image_shape": (3, 32, 32), "in_channels": 1}, "Global.image_shape: 3 "),
        ({"modes": ("Train", "Infer")}, "DataLoader.Eval.dataset.transform_ops: 3 "),
        ({"modes": ("Train", "Eval")}, "Infer.transforms: 3 "),
        ({"image_shape": (3, 32, 32), "in_channels": 3, "modes": ("Train",)}, "DataLoader.Train"),
        (
            {"image_shape": (4, 32, 32), "in_channels": 4},
            "DataLoader.Eval.dataset.transform_ops: 1 ",
        ),
    ],
)
def test_channels_agree(tmp_path, changes, place):
    with pytest.raises(ConfigError, match=place) as error:
        load_config(grey(write_config(tmp_path), **changes))
    assert_one_line(error.value)


@pytest.mark.slow
def test_one_channel_trains(tmp_path):
    path = grey(write_config(tmp_path, train=16, test=10, Global={"epochs": 1}))
    assert train(load_config(path)) == 0


def test_one_class_and_too_many(tmp_path):
    path = write_config(tmp_path)
    with pytest.raises(ConfigError, match="Arch.class_num: CELoss of a single class is always 0"):
        load_config(path, ["Arch.class_num=1"])
    with pytest.raises(ConfigError, match="Arch.class_num: CrossEntropyLoss of a single class"):
        load_config(SEMFPN, ["Arch.class_num=1"])
    load_config(SEMFPN, ["Arch.class_num=255"])
    with pytest.raises(ConfigError, match="Arch.class_num: label PNGs of 8 bits tell 255 classes"):
        load_config(SEMFPN, ["Arch.class_num=256"])


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(root / name / "x.png")
    return {"name": "ImageFolder", "image_root": str(root)}


@pytest.mark.parametrize(
    "evaluated, message",
    [
        (("b", "c", "d"), "class 0 is 'a' in .*train, but 'b' in .*val; .*; only .*train has"),
        (("b", "c"), "val: 2 class folders, but the model has 3 classes; .* The folders: b, c$"),
    ],
)
def test_folders_of_both_splits_agree(tmp_path, evaluated, message):
    path = write_config(tmp_path, Arch={"class_num": 3})
    content = yaml.safe_load(path.read_text())
    splits = {
        "Train": folders(tmp_path / "train", "a", "b", "c"),
        "Eval": folders(tmp_path / "val", *evaluated),
    }
    for mode, dataset in splits.items():
        dataset["transform_ops"] = content["DataLoader"][mode]["dataset"]["transform_ops"]
        content["DataLoader"][mode]["dataset"] = dataset
    content["Infer"]["PostProcess"]["class_id_map_file"] = None
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as error:
        train(load_config(path))
    assert_one_line(error.value)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_run_is_resumed_with_the_classes_that_it_had(tmp_path, swapped):
    """Only the names tell that a class became another: the weights fit as well."""
    path = write_config(tmp_path, Global={"checkpoints": str(tmp_path / "before" / "latest")})
    lines = (DATA / "labels.txt").read_text().splitlines()
    before = [line.partition(" ")[2] for line in lines]
    if swapped:
        before[3], before[5] = before[5], before[3]
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "class_names.txt").write_text(class_names_text(before))
    config = load_config(path)
    if not swapped:
        assert all(build_loaders(config, Processes(), training=True))
        return
    told = f"the run that is resumed has the class '3 {before[3]}', now it is '3 {before[5]}'"
    with pytest.raises(ConfigError, match=re.escape(told)):
        build_loaders(config, Processes(), training=True)
