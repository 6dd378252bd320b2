"""A small set of real images with several labels each: garments of Fashion-MNIST, none to two in a
picture.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from .tiny_run import DATA, write_config

# by number in the set: trousers, bags and ankle boots
GARMENTS = {1: 0, 8: 1, 9: 2}
NAMES = ["trousers", "bag", "ankle boot"]


def pictures(split, count, seed):
    """[(RGB image of 32 x 64, label [3] of 0 and 1), ...]: two halves, each with one garment of the
    three kinds or, with probability 1/4, none.
    """
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(DATA / "images.zip") as archive:
        kinds = {}
        for line in (DATA / f"{split}_list.txt").read_text().splitlines():
            name, label = line.split(" ")
            if int(label) in GARMENTS:
                kinds.setdefault(GARMENTS[int(label)], []).append(name)
        for _ in range(count):
            sheet, label = Image.new("RGB", (64, 32)), [0, 0, 0]
            for left in (2, 34):
                kind = int(rng.integers(4))
                if kind < 3:
                    name = kinds[kind][rng.integers(len(kinds[kind]))]
                    sheet.paste(Image.open(io.BytesIO(archive.read(name))), (left, 2))
                    label[kind] = 1
            yield sheet, label


def write_pairs(directory, train=160, test=60, **sections):
    """The pictures, their lists as PaddleClas has them, and a YAML of them; returns the YAML's
    path. sections: as of `write_config`.
    """
    directory = Path(directory)
    labels = {"Loss": {"Train": [{"MultiLabelLoss": {}}], "Eval": [{"MultiLabelLoss": {}}]}}
    labels["Metric"] = {
        "Train": [{"AccuracyScore": None}],
        "Eval": [{"MultiLabelMAP": None}, {"AccuracyScore": None}, {"HammingDistance": None}],
    }
    path = write_config(directory, **{**labels, **sections, "Arch": {"class_num": 3}})
    content = yaml.safe_load(path.read_text())
    for split, count, mode in (("train", train, "Train"), ("test", test, "Eval")):
        (directory / split).mkdir()
        lines = []
        for index, (picture, label) in enumerate(pictures(split, count, len(split))):
            picture.save(directory / split / f"{index}.png")
            lines.append(f"{split}/{index}.png\t{','.join(map(str, label))}\n")
        (directory / f"{split}_list.txt").write_text("".join(lines))
        dataset = content["DataLoader"][mode]["dataset"]
        dataset.update(name="MultiLabelDataset", image_root=str(directory))
    resize = {"ResizeImage": {"size": [64, 32], "backend": "pil"}}
    for transforms in (
        *(content["DataLoader"][mode]["dataset"]["transform_ops"] for mode in ("Train", "Eval")),
        content["Infer"]["transforms"],
    ):
        transforms[1] = resize
    names = directory / "names.txt"
    names.write_text("".join(f"{index} {name}\n" for index, name in enumerate(NAMES)))
    content["Global"]["image_shape"] = [3, 32, 64]
    content["Infer"]["infer_imgs"] = str(directory / "test")
    content["Infer"]["PostProcess"] = {
        "name": "MultiLabelThreshOutput",
        "threshold": 0.5,
        "class_id_map_file": str(names),
        "delimiter": " ",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
