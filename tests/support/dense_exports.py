"""Exports of a small Mask R-CNN, DINO and segmentors of seeded weights, whose answers differ from
picture to picture: real programs, for what runs them elsewhere.
"""

from pathlib import Path

import numpy as np
import paddle
import yaml
from PIL import Image

from ppcls_nextvit import create_model
from support.paths import ROOT
from support.programs import program_at

NAMES = ["background", "tree", "café"]
TINY = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}
MICRO = {"name": "TransNeXt_micro", "depths": [1, 1, 1, 1]}
ARCH = {
    "MaskRCNN": {
        "backbone": {**TINY, "extra_norms": False},
        "fpn_channels": 16,
        "fc_channels": 32,
        "mask_convs": 1,
        "anchor_scales": [4.0],
        "test_proposals": [200, 100],
    },
    "DINO": {
        "backbone": MICRO,
        "num_queries": 20,
        "channels": 32,
        "heads": 4,
        "hidden": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "max_detections": 20,
    },
    "SemanticFPN": {"backbone": TINY, "fpn_channels": 32, "channels": 16},
    "UPerNet": {"backbone": TINY, "channels": 16, "auxiliary_channels": 16},
}
QUICKSTART = {"MaskRCNN": "nuclei_mask_rcnn", "DINO": "nuclei_dino"}
# of random weights, by which scores, boxes and masks differ from place to place
FACTORS = {
    "rpn_head.rpn_cls.weight": 1000,
    "rpn_head.rpn_reg.weight": 100,
    "roi_head.bbox_head.fc_cls.weight": 600,
    "roi_head.bbox_head.fc_reg.weight": 100,
    "roi_head.mask_head.conv_logits.weight": 30,
    "bbox_head.cls_branches.2.weight": 6,
}


def dense_export(folder: Path, name: str, to: str = "onnx") -> Path:
    """The folder of an export of a small `name`, a key of ARCH, beside whose folder its
    configuration and weights are written.
    """
    work = folder.with_name(f"{folder.name}_work")
    work.mkdir(parents=True)
    paddle.seed(2)
    model = create_model(name, num_classes=len(NAMES), **ARCH[name])
    paddle.save(apart(model).state_dict(), str(work / "weights.pdparams"))
    tool = program_at("tools/export_model.py")
    assert tool.main(["-c", str(_config(work, name, folder)), "--to", to]) == 0
    return folder


def apart(model: paddle.nn.Layer) -> paddle.nn.Layer:
    """`model` with statistics and scores that are not all the same."""
    for layer in model.sublayers():
        if hasattr(layer, "_variance"):
            layer._variance.set_value(paddle.rand(layer._variance.shape) + 0.5)
            layer._mean.set_value(0.1 * paddle.randn(layer._mean.shape))
    weights = model.state_dict()
    for key in FACTORS.keys() & weights.keys():
        value = weights[key]
        centred = value - value.mean(axis=0 if value.ndim == 2 else 1, keepdim=True)
        value.set_value(FACTORS[key] * centred)
    if hasattr(model, "decode_head"):
        head = model.decode_head.conv_seg.weight
        head.set_value(paddle.randn(head.shape))
    return model


def _config(work: Path, name: str, folder: Path) -> Path:
    quickstart = QUICKSTART.get(name, "nuclei_semfpn")
    text = (ROOT / "configs" / "quickstart" / f"{quickstart}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    labels = "".join(f"{i} {label}\n" for i, label in enumerate(NAMES))
    (work / "labels.txt").write_text(labels, encoding="utf-8")
    content["Global"].update(
        pretrained_model=str(work / "weights.pdparams"), save_inference_dir=str(folder)
    )
    content["Arch"] = {"name": name, "class_num": len(NAMES), **ARCH[name]}
    post = {"class_id_map_file": str(work / "labels.txt")}
    if name in QUICKSTART:
        post["score_threshold"] = 0.3
    content["Infer"] = {
        "infer_imgs": str(pictures(work / "pictures")),
        "transforms": [
            {"Resize": {"scale": [128, 96]}},
            {"Normalize": {}},
            {"Pad": {"size_divisor": 32}},
        ],
        "PostProcess": post,
    }
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def pictures(folder: Path) -> Path:
    """`folder` with pictures of blots, of several sizes; one is grown, others shrunk."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for i, (height, width) in enumerate([(96, 128), (190, 81), (150, 240)]):
        blots = rng.integers(0, 256, (7, 9, 3), np.uint8)
        picture = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}.png")
    return folder
