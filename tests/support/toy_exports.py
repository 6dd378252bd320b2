"""Exports of a detector and a segmentor of a handful of numbers, whose answers differ from image to
image: for the programs of deploy/ beside the package.
"""

import hashlib
import json

import numpy as np
import paddle
import yaml
from PIL import Image

from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.target import Signature

NAMES = ["background", "tree", "café", "a very long name of a class that no legend has room for"]
TRANSFORMS = [
    {"Resize": {"scale": [96, 64], "keep_ratio": True}},
    {"Normalize": {"mean": [120.0, 110.5, 100.25], "std": [58.0, 57.5, 60.0]}},
    {"Pad": {"size_divisor": 32}},
]


class ToyDetector(paddle.nn.Layer):
    """`count` objects anywhere in and around the image, their scores by its colour; masks [n, 28,
    28] if wanted.
    """

    def __init__(self, count, masks):
        super().__init__()
        rng = np.random.default_rng(5)
        low = rng.uniform(-0.2, 0.8, (count, 2))
        places = np.concatenate([low, low + rng.uniform(0.02, 0.5, (count, 2))], axis=1)
        scores = np.sort(rng.uniform(0.05, 0.95, count))[::-1]
        self.places = self.constant(places)
        self.numbers = self.constant(np.stack([rng.integers(0, len(NAMES), count), scores], axis=1))
        grids = rng.random((count, 7, 7)).repeat(4, 1).repeat(4, 2)
        self.grids = self.constant(grids) if masks else None

    @staticmethod
    def constant(values):
        return paddle.to_tensor(np.ascontiguousarray(values, np.float32))

    def forward(self, image, im_shape, scale_factor):
        height, width = paddle.split(im_shape / scale_factor, 2, axis=1)
        size = paddle.concat([width, height], axis=1)
        boxes = self.places * paddle.concat([size, size], axis=1)
        shade = image.mean(axis=[0, 1, 2, 3]) * paddle.to_tensor([0.0, 0.02])
        objects = paddle.concat([self.numbers + shade, boxes], axis=1)
        return (objects,) if self.grids is None else (objects, self.grids * 1.0)


class ToySegmentor(paddle.nn.Layer):
    """Scores of a quarter of the image's sides, by colour."""

    def __init__(self, classes):
        super().__init__()
        paddle.seed(3)
        self.pool = paddle.nn.AvgPool2D(4)
        self.scores = paddle.nn.Conv2D(3, classes, 1)
        self.scores.weight.set_value(paddle.randn(self.scores.weight.shape))

    def forward(self, x):
        scores = self.scores(self.pool(x))
        return scores.argmax(axis=1).astype("int32"), scores


def toy_detector(folder, to="paddle", count=12, masks=True, threshold=0.3, sides=(None, None)):
    """The folder of an export of ToyDetector."""
    inputs = {"image": (1, 3, *sides), "im_shape": (1, 2), "scale_factor": (1, 2)}
    signature = Signature(inputs, ("objects", "masks")[: 1 + masks])
    post = {"label_list": NAMES, "score_threshold": threshold}
    return _written(folder, ToyDetector(count, masks), to, signature, "detection", post)


def toy_segmentor(folder, to="paddle", classes=4, sides=(None, None)):
    """The folder of an export of ToySegmentor."""
    signature = Signature({"x": (None, 3, *sides)}, ("labels", "logits"))
    names = NAMES[:classes] + [f"class {i}" for i in range(len(NAMES), classes)]
    model = ToySegmentor(classes)
    return _written(folder, model, to, signature, "segmentation", {"label_list": names})


def _written(folder, layer, to, signature, task, post):
    folder.mkdir(parents=True)
    layer.eval()
    TARGETS[to].write(layer, folder, signature, "fp32", [])
    name = next(iter(signature.inputs))
    description = {
        "Global": {"model_name": "MaskRCNN" if task == "detection" else "SemanticFPN"},
        "PreProcess": {"transform_ops": TRANSFORMS},
        "PostProcess": post,
        "Model": {
            "task": task,
            "class_num": len(post["label_list"]),
            "input": {
                "name": name,
                "dtype": "float32",
                "shape": list(signature.inputs[name]),
                "image_size": None,
                "min_size": 32,
            },
        },
        "Export": {
            "target": to,
            "precision": "fp32",
            "nodes": 1,
            "inputs": {name: list(shape) for name, shape in signature.inputs.items()},
            "outputs": list(signature.outputs),
        },
        "Check": {"ran": False},
        "Versions": {"paddle": paddle.__version__, "pillow": "13.0.0"},
    }
    return described(folder, description)


def described(folder, description):
    """`folder` with the description and the hashes of its files."""
    in_yaml = folder / "inference.yml"  # of those to Paddle
    files = [path for path in sorted(folder.iterdir()) if path.suffix != ".yml"]
    files = [path for path in files if path.name != "export.json"]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    told = {**description, "Files": {name: {"sha256": of} for name, of in hashes.items()}}
    (folder / "export.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    if in_yaml.exists():
        in_yaml.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
    return folder


def scenes(folder):
    """A folder with pictures of several sizes, blots of colour, one of a single colour."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for i, (height, width) in enumerate([(48, 64), (90, 41), (130, 200), (33, 97)]):
        blots = rng.integers(0, 256, (5, 6, 3), np.uint8)
        picture = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}.png")
    Image.new("RGB", (70, 50), (10, 200, 30)).save(folder / "plain.png")
    return folder
