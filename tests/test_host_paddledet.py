"""Our models inside PaddleDetection. Needs it (pip install --no-deps paddledet==2.6.0, and what it
imports); skipped without it.

Tests marked `ppdet` run its detectors: they need a checkout of its develop branch on PYTHONPATH, as
the wheel cannot run on Paddle 3.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit import create_model, load_weights
from ppcls_nextvit.config import ConfigError
from ppcls_nextvit.hosts import paddledet
from ppcls_nextvit.models import MODELS
from ppcls_nextvit.models.layers import BATCH_NORMS
from scripts import seeded
from support.extending_page import register_models

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "paddledetection"
MASK_RCNN = CONFIGS / "mask_rcnn_nextvit_small_1x_coco.yml"
TINY = "NextViT.depths=[1,1,5,1]"


@pytest.fixture(scope="module")
def workspace():
    try:
        paddledet.register()
        paddledet.register()  # a second call changes nothing
    except ImportError as error:
        pytest.skip(str(error))
    from ppdet.core import workspace

    return workspace


@pytest.fixture
def fresh(workspace):
    """PaddleDetection keeps one global config: put back after a test."""
    import copy

    before = {
        key: (value, copy.copy(dict(value)) if isinstance(value, dict) else None)
        for key, value in workspace.global_config.items()
    }
    yield workspace
    workspace.global_config.clear()
    for key, (value, content) in before.items():
        workspace.global_config[key] = value
        if content is not None:
            dict.clear(value)
            dict.update(value, content)


RECIPES = {
    **{
        f"mask_rcnn_nextvit_{size}_{schedule}_coco": (
            "MaskRCNN",
            f"NextViT_{size}",
            rate,
            epochs,
            steps,
        )
        for size, rate in (("small", 0.1), ("base", 0.2), ("large", 0.2))
        for schedule, epochs, steps in (("1x", 12, [8, 11]), ("3x", 36, [27, 33]))
    },
    "cascade_mask_rcnn_nextvit_small_1x_coco": ("CascadeRCNN", "NextViT_small", 0.1, 12, [8, 11]),
}


def test_a_recipe_per_file():
    assert sorted(RECIPES) == sorted(path.stem for path in CONFIGS.glob("*.yml"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_and_build(fresh, name):
    architecture, variant, rate, epochs, milestones = RECIPES[name]
    config = paddledet.load(CONFIGS / f"{name}.yml")
    assert (
        config.architecture == architecture and config.epoch == epochs and config.num_classes == 80
    )
    assert (config["NextViT"]["variant"], config["NextViT"]["drop_path_rate"]) == (variant, rate)
    schedule, warmup = config["LearningRate"]["schedulers"]
    assert (
        config["LearningRate"]["base_lr"],
        schedule.milestones,
        warmup.steps,
        warmup.start_factor,
    ) == (1e-4, milestones, 500, 1e-6)
    assert config["OptimizerBuilder"]["optimizer"] == {
        "type": "AdamW",
        "weight_decay": 0.05,
        "param_groups": [{"params": ["norm"], "weight_decay": 0.0}],
    }
    with paddle.LazyGuard():
        detector = fresh.create(architecture)
    assert (
        type(detector.backbone) is paddledet.NextViT
        and detector.backbone.frozen_stages == 1
        and detector.backbone.norm_eval
    )
    assert [shape.channels for shape in detector.backbone.out_shape] == [96, 256, 512, 1024]


def test_maps_reach_its_fpn(fresh):
    paddledet.load(MASK_RCNN, [TINY])
    detector = fresh.create("MaskRCNN")
    detector.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    maps = detector.backbone({"image": image})
    plain = create_model("NextViT_small", num_classes=None, depths=(1, 1, 5, 1))
    load_weights(plain, detector.backbone.state_dict())
    plain.eval()
    assert all(
        np.array_equal(ours.numpy(), theirs.numpy())
        for ours, theirs in zip(maps, plain(image), strict=True)
    )
    sizes = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
    assert [tuple(level.shape) for level in detector.neck(maps)] == [
        (1, 256, *size) for size in sizes
    ]


def test_some_of_the_maps(fresh):
    paddledet.load(MASK_RCNN, [TINY, "NextViT.out_indices=[1,3]"])
    backbone = fresh.create("NextViT")
    assert [(shape.channels, shape.stride) for shape in backbone.out_shape] == [
        (256, 8),
        (1024, 32),
    ]
    assert [tuple(x.shape[1:]) for x in backbone({"image": paddle.zeros([1, 3, 64, 64])})] == [
        (256, 8, 8),
        (1024, 2, 2),
    ]
    for key, value, message in (
        ("out_indices", "[4]", "NextViT.out_indices: expected numbers from 0 to 3, got"),
        (
            "variant",
            "NextViT_smal",
            "NextViT.variant: unknown 'NextViT_smal'. Did you mean 'NextViT_small'",
        ),
    ):
        paddledet.load(MASK_RCNN, [f"NextViT.{key}={value}"])
        with pytest.raises(ConfigError, match=message):
            fresh.create("NextViT")


def test_transnext(fresh):
    """A section of its own, with its own keys; the FPN takes the channels that it has."""
    keys = {
        "variant": "TransNeXt_tiny",
        "depths": "[1,1,1,1]",
        "position_bias": "interpolation",
        "table_size": "800",
        "frozen_stages": "1",
    }
    section = [f"TransNeXt.{key}={value}" for key, value in keys.items()]
    paddledet.load(MASK_RCNN, ["MaskRCNN.backbone=TransNeXt", *section])
    detector = fresh.create("MaskRCNN")
    backbone = detector.backbone
    assert (backbone.table_size, backbone.frozen_stages) == (800, 1)
    shapes = [(shape.channels, shape.stride) for shape in backbone.out_shape]
    assert shapes == [(72, 4), (144, 8), (288, 16), (576, 32)]
    detector.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    maps = backbone({"image": image})
    arguments = {"position_bias": "interpolation", "table_size": 800}
    plain = create_model("TransNeXt_tiny", num_classes=None, depths=(1, 1, 1, 1), **arguments)
    load_weights(plain, backbone.state_dict())
    plain.eval()
    for ours, theirs in zip(maps, plain(image), strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy())
    assert detector.neck(maps)[0].shape == [1, 256, 16, 24]
    paddledet.load(MASK_RCNN, ["MaskRCNN.backbone=TransNeXt", "TransNeXt.position_bias=linear"])
    with pytest.raises(ValueError, match="unknown position_bias 'linear'"):
        fresh.create("MaskRCNN")


def test_a_family_from_outside(fresh, monkeypatch, own_models, tmp_path):
    """A section of its own, with its own keys; the FPN takes the channels that it has."""
    register_models(tmp_path)
    monkeypatch.setattr(paddledet, "PlainConv", None, raising=False)
    paddledet.register()
    plain = ["MaskRCNN.backbone=PlainConv", "PlainConv.width=8", "PlainConv.frozen_stages=2"]
    config = paddledet.load(MASK_RCNN, plain)
    assert config["PlainConv"].schema["norm_eval"].default is True
    detector = fresh.create("MaskRCNN")
    assert (
        isinstance(detector.backbone, MODELS.get("PlainConv"))
        and detector.backbone.frozen_stages == 2
    )
    assert [shape.channels for shape in detector.backbone.out_shape] == [8, 16, 32, 64]
    maps = detector.neck(detector.backbone({"image": paddle.zeros([1, 3, 64, 96])}))
    assert maps[0].shape == [1, 256, 16, 24]
    with pytest.raises(ConfigError, match="PlainConv.depths: unknown key"):
        paddledet.load(MASK_RCNN, [*plain, "PlainConv.depths=[1,1,5,1]"])


def test_what_is_frozen_stays_frozen_in_its_detectors(fresh):
    """A detector's train() does not call the backbone's."""
    paddledet.load(MASK_RCNN, [TINY])
    detector = fresh.create("MaskRCNN")
    detector.train()
    before = {key: value.numpy() for key, value in detector.backbone.state_dict().items()}
    sum(
        x.mean() for x in detector.neck(detector.backbone({"image": paddle.rand([2, 3, 64, 64])}))
    ).backward()
    assert not any(
        layer.training for layer in detector.backbone.sublayers() if isinstance(layer, BATCH_NORMS)
    )
    assert all(
        np.array_equal(value.numpy(), before[key])
        for key, value in detector.backbone.state_dict().items()
    )
    trained = {
        name
        for name, parameter in detector.backbone.named_parameters()
        if parameter.grad is not None
    }
    assert trained and not [name for name in trained if name.startswith(("stem.", "features.0."))]


def test_pretrained_takes_the_backbone_of_any_file(fresh, tmp_path):
    classifier = create_model("NextViT_small", num_classes=10, depths=(1, 1, 5, 1))
    paddle.save(classifier.state_dict(), str(tmp_path / "classifier.pdparams"))
    paddledet.load(MASK_RCNN, [TINY, f"NextViT.pretrained={tmp_path}/classifier.pdparams"])
    backbone = fresh.create("NextViT")
    assert np.array_equal(
        backbone.features[3].mlp.conv1.weight.numpy(),
        classifier.features[3].mlp.conv1.weight.numpy(),
    )


@pytest.mark.parametrize(
    "override, message",
    [
        ("NextVit.variant=NextViT_base", "NextVit: unknown section. Did you mean 'NextViT'?"),
        ("epochs=3", "epochs: unknown section. Did you mean 'epoch'?"),
        ("NextViT.frozen=1", "NextViT.frozen: unknown key. Did you mean 'frozen_stages'?"),
        (
            "RPNHead.test_proposals={}",
            "RPNHead.test_proposals: unknown key. Did you mean 'test_proposal'?",
        ),
        (
            "TrainReader.batchsize=1",
            "TrainReader.batchsize: unknown key. Did you mean 'batch_size'?",
        ),
        (
            "TrainDataset.image_dirr=x",
            "TrainDataset.image_dirr: unknown key. Did you mean 'image_dir'?",
        ),
        ("NextViT", "-o NextViT: expected KEY=VALUE"),
    ],
)
def test_unknown_keys(fresh, override, message):
    with pytest.raises(ConfigError) as error:
        paddledet.load(MASK_RCNN, [override])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_wheel_says_that_it_cannot_train(fresh):
    import ppdet

    if getattr(ppdet, "__version__", None) != "2.6.0":
        pytest.skip("not the wheel 2.6.0")
    with pytest.raises(
        ImportError, match=r"PaddleDetection 2.6.0 cannot run on Paddle 3\..* configs/detection/"
    ):
        paddledet.train(MASK_RCNN)


def test_without_paddledetection_the_message_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ppdet.modeling", None)
    with pytest.raises(ImportError) as error:
        paddledet.register()
    assert str(error.value) == (
        "PaddleDetection is not installed: pip install --no-deps paddledet==2.6.0, "
        "or put a checkout of it on PYTHONPATH"
    )


def coco_of_squares(folder):
    """Four pictures of 128 x 128 with two bright squares each, as COCO with polygons
    (PaddleDetection's mask head takes no run lengths).
    """
    draws, images, annotations = np.random.default_rng(0), [], []
    for index in range(4):
        pixels = draws.integers(0, 60, (128, 128, 3), dtype=np.uint8)
        for left in (8, 72):
            x, y, side = (
                int(left + draws.integers(0, 16)),
                int(draws.integers(4, 80)),
                int(draws.integers(24, 40)),
            )
            pixels[y : y + side, x : x + side] = 220
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": side * side,
                    "bbox": [x, y, side, side],
                    "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
                }
            )
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 128, "width": 128})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "squares.json").write_text(json.dumps(content))


@pytest.mark.parametrize("schedule, sizes", [("1x", {800}), ("3x", set(range(480, 801, 32)))])
def test_readers_give_pictures_boxes_and_masks(fresh, tmp_path, schedule, sizes):
    """Four square pictures: the shorter side is the recipe's, in 3x after a crop of half of
    them.
    """
    coco_of_squares(tmp_path)
    paddledet.load(
        CONFIGS / f"mask_rcnn_nextvit_small_{schedule}_coco.yml",
        [
            "num_classes=1",
            "worker_num=0",
            "TrainReader.use_shared_memory=false",
            "TrainReader.batch_size=1",
            *(
                f"TrainDataset.{key}={value}"
                for key, value in (
                    ("dataset_dir", tmp_path),
                    ("image_dir", ""),
                    ("anno_path", "squares.json"),
                )
            ),
        ],
    )
    np.random.seed(0)
    random.seed(0)
    loader = fresh.create("TrainReader")(fresh.create("TrainDataset")(), 0)
    batches = [batch for _ in range(3) for batch in loader]
    assert len(batches) == 12
    shapes = [tuple(int(side) for side in batch["im_shape"][0]) for batch in batches]
    assert {min(shape) for shape in shapes} <= sizes and (schedule == "1x" or len(set(shapes)) > 6)
    assert all(len(batch["gt_bbox"][0]) == len(batch["gt_poly"][0]) >= 1 for batch in batches)


@pytest.mark.ppdet
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mask_rcnn_nextvit_small_1x_coco", "cascade_mask_rcnn_nextvit_small_1x_coco"]
)
def test_train_evaluate_and_export(fresh, tmp_path, monkeypatch, capfd, name):
    import ppdet

    if getattr(ppdet, "__version__", None) == "2.6.0":
        pytest.skip(
            "the wheel cannot run on Paddle 3: put a checkout of PaddleDetection's develop branch "
            "on PYTHONPATH"
        )
    # it writes bbox.json and mask.json where it stands
    monkeypatch.chdir(tmp_path)
    coco_of_squares(tmp_path)
    steps = [
        {"Decode": {}},
        {
            "NormalizeImage": {
                "is_scale": True,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            }
        },
        {"Permute": {}},
    ]
    overrides = [
        TINY,
        "use_gpu=false",
        "worker_num=0",
        "num_classes=1",
        "epoch=1",
        f"save_dir={tmp_path}/out",
        "TrainReader.batch_size=2",
        f"weights={tmp_path}/out/model_final",
    ]
    overrides += [
        f"{mode}Dataset.{key}={value}"
        for mode in ("Train", "Eval", "Test")
        for key, value in (
            ("dataset_dir", tmp_path),
            ("image_dir", ""),
            ("anno_path", "squares.json"),
        )
    ]
    overrides += [
        f"{mode}Reader.sample_transforms={json.dumps(steps)}" for mode in ("Train", "Eval", "Test")
    ]
    assert paddledet.train(CONFIGS / f"{name}.yml", overrides) == 0
    capfd.readouterr()
    assert paddledet.evaluate(CONFIGS / f"{name}.yml", overrides) == 0
    # boxes and masks
    assert (
        capfd.readouterr().out.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all |")
        == 2
    )
    assert paddledet.export(CONFIGS / f"{name}.yml", f"{tmp_path}/exported", overrides) == 0
    assert list(Path(tmp_path, "exported").rglob("model.pdiparams"))
    backbone = create_model("NextViT_small", num_classes=None, depths=(1, 1, 5, 1))
    report = load_weights(backbone, tmp_path / "out" / "model_final.pdparams", backbone_only=True)
    assert not report.missing and set(report.dropped.values()) == {
        "head of a detector or segmentor; not part of the backbone"
    }
