"""Semantic FPN and UPerNet against mmsegmentation 1.2 on the reference backbone (tests/golden), and
what training needs of them.
"""

import json

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit import create_model
from ppcls_nextvit.models.segmentors.heads import (
    ConvModule,
    FCNHead,
    FPNHead,
    UPerHead,
    adaptive_average,
    resize,
)
from ppcls_nextvit.models.segmentors.inference import Inference
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.segmentation.losses import build_loss
from ppcls_nextvit.tasks.segmentation.metrics import PixelAccuracy
from scripts import seeded
from support.goldens import assert_loads, paddle_state_dict
from support.paths import GOLDEN

TINY = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}
NARROW = {
    "SemanticFPN": {"fpn_channels": 32, "channels": 16},
    "UPerNet": {"channels": 16, "auxiliary_channels": 16},
}
# in the reference's state dict, never used by it, not built here
UNUSED = "backbone.extra_norm_list.3."


def tiny(name, **arguments):
    return create_model(name, num_classes=5, backbone=TINY, **NARROW[name], **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name, golden", [("SemanticFPN", "fpn"), ("UPerNet", "upernet")])
def test_logits_equal_the_reference(name, golden):
    manifest = json.loads((GOLDEN / f"{golden}_nextvit_small_manifest.json").read_text())
    expected = np.load(GOLDEN / f"{golden}_nextvit_small_256x320_seed0.npz")
    model = create_model(
        name, num_classes=150, backbone={"name": "NextViT_small", "extra_norms": True}
    )
    state = seeded.state_dict(
        {key: shape for key, shape in manifest.items() if not key.startswith(UNUSED)}
    )
    assert_loads(model, paddle_state_dict(model, state))
    model.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 256, 320)))
    with paddle.no_grad():
        heads, full = model.forward_heads(image), model(image)
    keys = [key for key in ("logits", "aux_logits") if f"{key}.sample" in expected]
    assert len(heads) == len(keys)
    for key, logits in zip(keys, heads, strict=True):
        sample = expected[f"{key}.sample"]
        assert list(logits.shape) == expected[f"{key}.shape"].tolist()
        assert np.abs(seeded.sample(logits.numpy()) - sample).max() < 1e-4 * np.abs(sample).max()
    assert full.shape == [1, 150, 256, 320]
    assert np.array_equal(
        seeded.sample(full.argmax(axis=1).numpy(), 2048), expected["argmax_sample"]
    )


HEADS = json.loads((GOLDEN / "segmentation_heads_seed0.json").read_text())
# the maps of an image of 66 x 90
CHANNELS, SIZES = (12, 16, 20, 24), ((17, 23), (9, 12), (5, 6), (3, 3))


@pytest.mark.parametrize(
    "name, make",
    [
        ("fpn", lambda: FPNHead(16, 8, 7, (4, 8, 16, 32), dropout=0.0)),
        ("uper", lambda: UPerHead(CHANNELS, 8, 7, (1, 2, 3, 6), dropout=0.0)),
        ("fcn", lambda: FCNHead(CHANNELS[2], 8, 7, in_index=2, dropout=0.0)),
    ],
)
def test_loss_accuracy_and_gradients_of_a_training_step_equal_the_reference(name, make):
    """mmsegmentation's heads in training mode on seeded weights and maps: batch statistics, odd
    sizes, an eighth of the pixels ignored.
    """
    head, expected = make(), HEADS[name]
    assert_loads(head, paddle_state_dict(head, seeded.state_dict(expected["manifest"])))
    head.train()
    maps = [
        paddle.to_tensor(
            seeded.image((2, 16 if name == "fpn" else channels, *size), i), stop_gradient=False
        )
        for i, (channels, size) in enumerate(zip(CHANNELS, SIZES, strict=True))
    ]
    label = (
        np.random.default_rng(0)
        .choice([0, 1, 2, 3, 4, 5, 6, 255], size=(2, 66, 90))
        .astype(np.uint8)
    )
    logits = resize(head(maps), [66, 90])
    criterion = build_loss([{"CrossEntropyLoss": {"weight": 0.4 if name == "fcn" else 1.0}}])
    loss = criterion([logits], paddle.to_tensor(label))["decode"]
    loss.backward()
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-5)
    accuracy = PixelAccuracy(7)
    accuracy.update(logits.argmax(axis=1).numpy(), label)
    # a pixel is 0.01
    assert 100 * accuracy.result(accuracy.counts())["aAcc"] == pytest.approx(
        expected["accuracy"], abs=0.02
    )
    # of each parameter its norm, and one value
    gradients = dict(expected["gradients"])
    for key, parameter in head.named_parameters():
        if not parameter.stop_gradient:
            norm, third = gradients.pop(key)
            assert float(parameter.grad.norm()) == pytest.approx(norm, rel=1e-3, abs=1e-6), key
            assert float(parameter.grad.flatten()[parameter.size // 3]) == pytest.approx(
                third, rel=1e-2, abs=1e-4 * norm + 1e-7
            ), key
    assert not gradients
    for x, norm in zip(maps, expected["map_gradients"], strict=True):
        assert (x.grad is None and norm is None) or float(x.grad.norm()) == pytest.approx(
            norm, rel=1e-3
        )


@pytest.mark.parametrize(
    "name, variant, parameters",
    [
        ("SemanticFPN", "small", 35.23),
        ("SemanticFPN", "base", 48.28),
        ("SemanticFPN", "large", 61.34),
        ("UPerNet", "small", 65.26),
        ("UPerNet", "base", 78.31),
        ("UPerNet", "large", 91.37),
    ],
)
def test_parameter_totals(name, variant, parameters):
    """Trainable, in millions: with the norms after the stages and the auxiliary head. The
    reference's README counts 1.03 M more, the classifier's last norm and head, which nothing
    uses."""
    # shapes without values
    with paddle.LazyGuard():
        model = create_model(
            name, num_classes=150, backbone={"name": f"NextViT_{variant}", "extra_norms": True}
        )
    assert (
        round(sum(p.size for p in model.parameters() if not p.stop_gradient) / 1e6, 2) == parameters
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 16), (13, 3)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_pools_are_adaptive_average_pools(size, bins):
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, *size), dtype=np.float32))
    np.testing.assert_allclose(
        adaptive_average(x, bins).numpy(), F.adaptive_avg_pool2d(x, bins).numpy(), atol=1e-6
    )


@pytest.mark.parametrize("name", NARROW)
def test_every_parameter_learns_and_training_has_all_heads(name):
    paddle.seed(0)
    model = tiny(name)
    assert model.train() is model
    maps = model(paddle.randn([2, 3, 64, 96]))
    assert [m.shape for m in maps] == [[2, 5, 16, 24], [2, 5, 4, 6]][: len(maps)] and len(
        maps
    ) == 1 + (name == "UPerNet")
    sum((m * paddle.randn(m.shape)).sum() for m in maps).backward()
    without = [
        key
        for key, p in model.named_parameters()
        if not p.stop_gradient and (p.grad is None or not float(p.grad.abs().sum()))
    ]
    # a key's bias shifts every score of a query alike, and softmax does not see it
    assert [key for key in without if not key.endswith("e_mhsa.k.bias")] == []


def test_one_image_is_no_batch_for_the_pool_of_one_bin():
    """Evaluation normalises what Paddle's BatchNorm would pass on as it is; Semantic FPN, which
    pools nothing, trains.
    """
    model = tiny("UPerNet")
    model.train()
    with pytest.raises(
        ValueError,
        match="a batch of one image leaves BatchNorm a single value per channel.*batch_size 2",
    ):
        model(paddle.randn([1, 3, 64, 96]))
    for layer in model.decode_head.psp_modules.sublayers():
        # statistics that are fixed need no batch
        layer.training = False
    assert model(paddle.randn([1, 3, 64, 96]))[0].shape == [1, 5, 16, 24]
    other = tiny("SemanticFPN")
    other.train()
    assert other(paddle.randn([1, 3, 64, 96]))[0].shape == [1, 5, 16, 24]


@pytest.mark.parametrize("name", NARROW)
def test_any_size_of_image(name):
    model = tiny(name)
    model.eval()
    with paddle.no_grad():
        assert model(paddle.randn([1, 3, 45, 70])).shape == [1, 5, 45, 70]


@pytest.mark.parametrize("name", NARROW)
def test_the_criterion_gets_the_heads_at_the_labels_size(name):
    model, seen = tiny(name), []

    def criterion(maps, label):
        seen.extend(maps)
        return {"one": maps[0].sum(), "two": maps[-1].sum()}, {"right": (1, label.size)}

    model.criterion = criterion
    model.train()
    label = paddle.zeros([2, 61, 90], "uint8")
    parts, counts = model.losses({"image": paddle.randn([2, 3, 64, 96]), "segmentation": label})
    assert list(parts) == ["one", "two"] and counts == {"right": (1, 2 * 61 * 90)}
    assert [m.shape for m in seen] == [[2, 5, 61, 90]] * (1 + (name == "UPerNet"))


def test_predictions_are_logits_whole_or_of_windows():
    windows = {"mode": "slide", "crop_size": [48, 48], "stride": [48, 48]}
    model, images = tiny("SemanticFPN", inference=windows), paddle.randn([1, 3, 48, 96])
    model.eval()
    with paddle.no_grad():
        logits = model.predict({"image": images})
        for left in (0, 48):
            part = model(images[:, :, :, left : left + 48])
            np.testing.assert_allclose(logits[:, :, :, left : left + 48], part, atol=1e-6)
        model.inference = Inference()
        np.testing.assert_array_equal(model.predict({"image": images}), model(images))


def test_what_images_it_takes_its_backbone_says():
    backbone = {**TINY, "in_channels": 4}
    model = create_model("SemanticFPN", num_classes=5, backbone=backbone, **NARROW["SemanticFPN"])
    assert model.in_channels == 4 and model.min_size == model.backbone.min_size == 32


def test_the_backbone_holds_still_what_it_is_told_to():
    model = create_model(
        "UPerNet",
        num_classes=5,
        backbone={**TINY, "frozen_stages": 1, "norm_eval": True},
        **NARROW["UPerNet"],
    )
    model.train()
    assert model.decode_head.training and model.decode_head.bottleneck.bn.training
    assert (
        not model.backbone.norm.training
        and not model.backbone.stem.training
        and model.backbone.features[-1].training
    )
    assert all(p.stop_gradient for p in model.backbone.stem.parameters())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backbone": {"name": "NextViT_smal"}}, "NextViT_small"),
        ({"backbone": {"name": "NextViT_small", "num_classes": 3}}, "without num_classes"),
        ({"backbone": TINY, "num_classes": 1}, "num_classes must be 2 or more"),
        ({"backbone": TINY, "chanels": 64}, "Did you mean 'channels'"),
        ({"backbone": TINY, "inference": {"mode": "slid"}}, "Arch.inference.mode"),
        (
            {"backbone": TINY, "inference": {"crop_size": [64, 64], "stride": [65, 64]}},
            "pixels are left out",
        ),
        (
            {
                "backbone": TINY,
                "inference": {"mode": "slide", "crop_size": [64, 31], "stride": [16, 16]},
            },
            "crop_size: the model needs 32 pixels",
        ),
        ({"backbone": TINY, "inference": {"ratios": [1.0, 0.0]}}, "ratios must be positive"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_model("SemanticFPN", **arguments)


def test_what_a_head_begins_with():
    """mmsegmentation's: He's of the fan out for convolutions, 0.01 for the classes."""
    paddle.seed(0)
    head = FCNHead(32, 64, 50, in_index=0, dropout=0.1)
    assert float(head.convs[0].conv.weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)
    assert float(ConvModule(64, 128, 1).conv.weight.std()) == pytest.approx(0.125, rel=0.1)
    assert float(head.conv_seg.weight.std()) == pytest.approx(0.01, rel=0.1)
    assert not head.conv_seg.bias.numpy().any()
