"""The models: parity with the reference's goldens, fused inference, the table of numbers, and what
users may ask of them.
"""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit import create_model, fuse_bn, list_models
from ppcls_nextvit.models import export_form
from ppcls_nextvit.models.backbones.nextvit import E_MHSA, NCB, NTB, SequencePool, WindowPool
from ppcls_nextvit.models.folding import as_pointwise
from ppcls_nextvit.models.layers import (
    BATCH_NORMS,
    LARGE_MAP,
    Conv2D,
    DropPath,
    GroupNorm,
    PointwiseConv2D,
    draw_truncated,
    make_divisible,
)
from scripts import seeded
from support.goldens import (
    assert_loads,
    max_difference,
    paddle_state_dict,
    seeded_model,
    torch_state_dict,
)
from support.paths import GOLDEN

CONV_NORMS = ("patch_embed.norm", "projection.norm", "mhca.norm")
TINY = {"depths": (1, 1, 5, 1), "num_classes": 5}


def image(*shape, seed=0):
    return paddle.to_tensor(seeded.image(shape, seed))


def tiny_model(name="NextViT_small", **arguments):
    """A shallow model with weights and BatchNorm statistics of ordinary size, so that no norm is
    nearly an identity.
    """
    model = create_model(name, **{**TINY, **arguments})
    manifest = {}
    for key, tensor in model.state_dict().items():
        if tensor.dtype == paddle.float32:
            key = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
            # a Linear is [in, out] here
            manifest[key] = tensor.shape[::-1] if tensor.ndim == 2 else tensor.shape
    model.set_state_dict(paddle_state_dict(model, seeded.state_dict(manifest)))
    model.eval()
    return model


def trainable(model):
    return sum(p.size for p in model.parameters() if not p.stop_gradient)


def drop_paths(model):
    return [layer for layer in model.sublayers() if isinstance(layer, DropPath)]


# ---------------------------------------------------------------- parity with the reference


@pytest.mark.parametrize(
    "variant, size",
    [
        pytest.param("NextViT_small", (2, 224, 224), marks=pytest.mark.slow),
        ("NextViT_small", (1, 232, 248)),
        pytest.param("NextViT_base", (1, 224, 224), marks=pytest.mark.slow),
        pytest.param("NextViT_large", (1, 224, 224), marks=pytest.mark.slow),
    ],
)
def test_outputs_equal_the_reference(variant, size):
    batch, height, width = size
    golden = np.load(GOLDEN / f"{variant.lower()}_{batch}x{height}x{width}_seed0.npz")
    model = seeded_model(variant)
    images = image(batch, 3, height, width)
    with paddle.no_grad():
        maps, logits, fused_logits = (
            model.forward_features(images),
            model(images),
            fuse_bn(model)(images),
        )
    assert max_difference(logits, golden["logits"]) < 1e-5
    assert max_difference(fused_logits, golden["logits"]) < 1e-5
    assert len(maps) == 4
    for stage, found in enumerate(maps, start=1):
        assert found.shape == golden[f"stage{stage}.shape"].tolist()
        assert found.shape[1] == model.stage_channels[stage - 1]
        assert max_difference(seeded.sample(found.numpy()), golden[f"stage{stage}.sample"]) < 1e-5
        statistics = [found.numpy().mean(), found.numpy().std(), np.abs(found.numpy()).max()]
        np.testing.assert_allclose(statistics, golden[f"stage{stage}.stats"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["NextViT_small", "NextViT_base", "NextViT_large"])
def test_keys_and_shapes_equal_the_reference(variant):
    with paddle.LazyGuard():
        model = create_model(variant)
    expected = paddle_state_dict(model, torch_state_dict(variant))
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == {
        k: list(v.shape) for k, v in expected.items()
    }


@pytest.mark.parametrize("pool_size, remainder", [(2, 1), (4, 5)])
def test_attention_equals_a_naive_one(pool_size, remainder):
    """E-MHSA by its definition, head by head in numpy; N is no multiple of the pool's window, so a
    remainder is dropped.
    """
    channels, batch, height, width = 96, 2, 3, 7
    tokens = height * width
    window = pool_size**2
    assert tokens % window == remainder
    paddle.seed(0)
    attention = E_MHSA(channels, pool_size, "sequence", 0.0, 0.0)
    attention.norm._mean.set_value(seeded.tensor("running_mean", [channels]))
    attention.norm._variance.set_value(seeded.tensor("running_var", [channels]))
    attention.eval()
    x = (
        np.random.default_rng(0)
        .standard_normal((batch, channels, height, width))
        .astype(np.float32)
    )

    weight = {
        key: tensor.numpy().astype(np.float64) for key, tensor in attention.state_dict().items()
    }
    linear = lambda name, value: value @ weight[f"{name}.weight"] + weight[f"{name}.bias"]  # noqa: E731
    expected = np.zeros((batch, tokens, channels))
    for b in range(batch):
        sequence = x[b].reshape(channels, tokens).T.astype(np.float64)
        pooled = np.stack(
            [sequence[i * window : (i + 1) * window].mean(0) for i in range(tokens // window)]
        )
        pooled = (pooled - weight["norm._mean"]) / np.sqrt(weight["norm._variance"] + 1e-5)
        pooled = pooled * weight["norm.weight"] + weight["norm.bias"]
        q, k, v = linear("q", sequence), linear("k", pooled), linear("v", pooled)
        for head in range(channels // 32):
            part = slice(32 * head, 32 * (head + 1))
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(32))
            expected[b, :, part] = scores / scores.sum(1, keepdims=True) @ v[:, part]
        expected[b] = linear("proj", expected[b])
    assert max_difference(attention(paddle.to_tensor(x)), expected) < 1e-5


@pytest.mark.parametrize("pool, pooled", [("sequence", 5 * 7 // 4), ("window", 3 * 4)])
def test_multiply_adds_of_attention(pool, pooled):
    x = paddle.zeros([1, 64, 5, 7])
    assert E_MHSA(64, 2, pool, 0.0, 0.0).macs(x, x) == 2 * 35 * pooled * 64


# ---------------------------------------------------------------- fused inference


def test_fused_equals_unfused_in_float64():
    model = tiny_model(in_channels=4).to(dtype="float64")
    images = image(2, 4, 70, 45).astype("float64")
    assert max_difference(fuse_bn(model)(images), model(images)) < 1e-10


@pytest.mark.parametrize("name", ["NextViT_small", "NextViT_small_window_pool"])
def test_fused_equals_unfused_in_float32(name):
    model, images = tiny_model(name), image(2, 3, 70, 45)
    fused = fuse_bn(model)
    assert max_difference(fused(images), model(images)) < 1e-5
    assert max_difference(export_form(model)(images), model(images)) < 1e-5
    for ours, theirs in zip(
        fused.forward_features(images), model.forward_features(images), strict=True
    ):
        assert max_difference(ours, theirs) < 1e-5


def test_fusing_changes_the_copy_only():
    model = tiny_model()
    model.train()
    before = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
    fused = fuse_bn(model)
    assert model.training and not fused.training
    assert list(model.state_dict()) == list(before)
    assert all(
        np.array_equal(tensor.numpy(), before[key]) for key, tensor in model.state_dict().items()
    )
    assert not [layer for layer in fused.sublayers() if isinstance(layer, BATCH_NORMS)]


@pytest.mark.filterwarnings("ignore:Skip loading")
def test_fused_and_unfused_weights_do_not_load_into_each_other_unnoticed():
    model = tiny_model()
    fused = fuse_bn(model)
    # fusing twice is fusing once
    assert_loads(fuse_bn(fused), fused.state_dict())
    for target, state in ((model, fused.state_dict()), (fused, model.state_dict())):
        missing, unexpected = target.set_state_dict(state)
        assert missing and unexpected


def test_a_model_without_a_head_keeps_its_last_norm_when_fused():
    model, images = tiny_model(num_classes=0), image(2, 3, 40, 40)
    fused = fuse_bn(model)
    assert [name for name, layer in fused.named_sublayers() if isinstance(layer, BATCH_NORMS)] == [
        "norm"
    ]
    assert max_difference(fused(images), model(images)) < 1e-5


def test_fusing_something_else_is_refused():
    with pytest.raises(TypeError, match="fuse_bn knows Next-ViT only; got Linear"):
        fuse_bn(nn.Linear(2, 2))


# ---------------------------------------------------------------- the table of numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant, parameters, published_m",
    [
        ("NextViT_small", 31_763_368, 31.7),
        ("NextViT_base", 44_818_856, 44.8),
        ("NextViT_large", 57_874_344, 57.8),
    ],
)
def test_parameter_counts(variant, parameters, published_m):
    model = create_model(variant)
    assert trainable(model) == parameters
    # the reference's README truncates
    assert parameters // 100_000 / 10 == published_m
    # Fused: every norm's scale and shift go; a convolution before a norm gains one bias per
    # channel.
    sizes = {
        name: layer.weight.size
        for name, layer in model.named_sublayers()
        if isinstance(layer, BATCH_NORMS)
    }
    after_convolution = [
        name for name in sizes if name.startswith("stem.") or name.endswith(CONV_NORMS)
    ]
    gained = sum(sizes[name] for name in after_convolution)
    assert trainable(fuse_bn(model)) == parameters - 2 * sum(sizes.values()) + gained


def test_every_name_makes_the_network_it_says():
    names = [
        f"NextViT_{variant}{suffix}"
        for variant in ("small", "base", "large")
        for suffix in ("", "_224", "_384", "_window_pool")
    ]
    own = [name for name in list_models("classification") if name.startswith("NextViT")]
    assert own == sorted(names)
    for name in names:
        size = name.split("_")[1]
        # the structure alone, not 24 s of random numbers
        with paddle.LazyGuard():
            model = create_model(name)
        assert model.config.depths == (3, 4, {"small": 10, "base": 20, "large": 30}[size], 3)
        assert model.config.drop_path_rate == {"small": 0.1, "base": 0.2, "large": 0.2}[size]
        assert model.config.pool == ("window" if name.endswith("window_pool") else "sequence")


# ---------------------------------------------------------------- training


def test_every_parameter_receives_a_gradient():
    model = tiny_model()
    for training in (True, False):
        model.train() if training else model.eval()
        model.clear_gradients()
        nn.functional.cross_entropy(model(image(2, 3, 64, 64)), paddle.to_tensor([1, 3])).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if not p.stop_gradient}
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        sizes = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
        assert min(sizes.values()) > 0
    # In training a following BatchNorm removes what some biases add, so the size says something in
    # evaluation only; a softmax does not see what all keys share, so the bias of k is reached by
    # rounding alone.
    assert min(size for name, size in sizes.items() if not name.endswith("e_mhsa.k.bias")) > 1e-5


def test_gradient_equals_the_difference_quotient():
    model = tiny_model().to(dtype="float64")
    images, labels = image(1, 3, 64, 64).astype("float64"), paddle.to_tensor([3])
    loss = lambda: nn.functional.cross_entropy(model(images), labels)  # noqa: E731
    loss().backward()
    direction = np.random.default_rng(0)
    for name in (
        "stem.0.conv.weight",
        "features.1.e_mhsa.k.weight",
        "features.1.e_mhsa.norm.weight",
        "features.6.projection.conv.weight",
    ):
        parameter = dict(model.named_parameters())[name]
        step, value = direction.standard_normal(parameter.shape), parameter.numpy().copy()
        ends = []
        for sign in (1, -1):
            parameter.set_value(value + sign * 1e-7 * step)
            ends.append(float(loss()))
        parameter.set_value(value)
        np.testing.assert_allclose(
            (parameter.grad.numpy() * step).sum(), (ends[0] - ends[1]) / 2e-7, rtol=1e-4
        )


def test_drop_path_rates_rise_linearly_and_split_in_a_transformer_block():
    with paddle.LazyGuard():
        model, other = (
            create_model("NextViT_base"),
            create_model("NextViT_base", drop_path_rate=0.5),
        )
    rates = np.linspace(0, 0.2, 30)
    for rate, block in zip(rates, model.features, strict=True):
        if isinstance(block, NCB):
            assert block.drop_path.rate == pytest.approx(rate)
        else:
            assert isinstance(block, NTB)
            found = (block.mhsa_drop_path.rate, block.mhca_drop_path.rate, block.mlp_drop_path.rate)
            assert found == pytest.approx((0.75 * rate, 0.25 * rate, rate))
    assert max(layer.rate for layer in drop_paths(other)) == 0.5


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    paddle.seed(0)
    layer, x = DropPath(0.25), paddle.ones([20_000, 2, 3])
    out = layer(x).numpy()
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert (out == out[:, :1, :1]).all()
    # 4.9 standard deviations
    assert (out[:, 0, 0] == 0).mean() == pytest.approx(0.25, abs=0.015)
    layer.eval()
    assert np.array_equal(layer(x), x)
    assert layer(paddle.ones([4, 2], dtype="bfloat16")).dtype == paddle.bfloat16


@pytest.mark.parametrize(
    "rates", [{"drop_rate": 0.5}, {"attn_drop_rate": 0.5}, {"drop_path_rate": 0.5}]
)
def test_dropout_is_active_in_training_only(rates):
    model = tiny_model(**{"drop_path_rate": 0.0, **rates})
    for norm in model.sublayers():
        if isinstance(norm, BATCH_NORMS):
            # training then differs from evaluation by dropout alone
            norm._use_global_stats = True
    images = image(2, 3, 64, 64)
    calm = model(images)
    assert max_difference(calm, model(images)) == 0
    model.train()
    assert max_difference(calm, model(images)) > 1e-6
    for layer in model.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0
        elif isinstance(layer, DropPath):
            layer.rate = 0.0
    assert max_difference(calm, model(images)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("drop_path_rate, frozen_stages", [(0.0, 0), (0.3, 0), (0.0, 1), (0.0, 3)])
def test_recompute_changes_nothing(drop_path_rate, frozen_stages):
    """Loss, gradients and running statistics, after two steps, bit for bit."""
    results = []
    for recompute in (False, True):
        model = tiny_model(
            drop_path_rate=drop_path_rate, frozen_stages=frozen_stages, recompute=recompute
        )
        before = {
            key: t.numpy()
            for key, t in model.state_dict().items()
            if key.endswith(("_mean", "_variance"))
        }
        model.train()
        losses = []
        for step in range(2):
            paddle.seed(step)
            loss = nn.functional.cross_entropy(
                model(image(4, 3, 48, 48, seed=step)), paddle.to_tensor([0, 1, 2, 3])
            )
            loss.backward()
            losses.append(float(loss))
        gradients = {
            name: p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient
        }
        statistics = {
            key: t.numpy()
            for key, t in model.state_dict().items()
            if key.endswith(("_mean", "_variance"))
        }
        results.append((losses, gradients, statistics))
    (losses, gradients, statistics), (losses_r, gradients_r, statistics_r) = results
    assert losses == losses_r
    assert all(np.array_equal(gradients[key], gradients_r[key]) for key in gradients)
    assert all(np.array_equal(statistics[key], statistics_r[key]) for key in statistics)
    moved = [not np.array_equal(statistics[key], before[key]) for key in statistics]
    assert all(moved) if not frozen_stages else any(moved)


def test_no_initial_weight_is_at_the_references_limit(monkeypatch):
    """A generator that ends at its limits, as Paddle's does about once in 60 million numbers, gives
    10 standard deviations.
    """
    drawn = paddle.create_parameter([3, 4], "float32")

    class AtTheLimit(paddle.nn.initializer.TruncatedNormal):
        def __call__(self, weight):
            assert (self._mean, self._std_dev) == (0.0, 0.02)
            weight.set_value(paddle.full_like(weight, self._a))

    monkeypatch.setattr(paddle.nn.initializer, "TruncatedNormal", AtTheLimit)
    draw_truncated(drawn)
    assert drawn.numpy() == pytest.approx(np.full([3, 4], -0.2))


def test_initial_weights():
    """The reference's: convolutions and Linears of deviation 0.02, biases 0, norms 1 and 0."""
    paddle.seed(0)
    for layer in create_model("NextViT_small", **TINY).sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Linear)):
            # by the median: of 6e7 numbers Paddle (3.3.1) draws one that is -2, where it cuts
            deviation = np.median(np.abs(layer.weight.numpy())) / 0.67449
            assert deviation == pytest.approx(0.02, rel=6 / layer.weight.size**0.5), layer
            assert layer.bias is None or not layer.bias.numpy().any()
        elif isinstance(layer, BATCH_NORMS):
            assert (layer.weight.numpy() == 1).all() and not layer.bias.numpy().any()


def test_train_and_eval_return_the_model():
    model = create_model("NextViT_small", **TINY)
    assert model.eval() is model and not model.training and not model.stem[0].norm.training
    assert model.train() is model and model.training and model.stem[0].norm.training


# ---------------------------------------------------------------- inputs and arguments


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (250, 187)])
def test_any_size_from_32_on(size):
    model = tiny_model()
    maps = model.forward_features(image(1, 3, *size))
    assert [m.shape for m in maps] == [
        [1, c, *(-(-side // stride) for side in size)]
        for c, stride in zip((96, 256, 512, 1024), (4, 8, 16, 32), strict=True)
    ]
    assert (model.stage_channels, model.stage_strides) == ((96, 256, 512, 1024), (4, 8, 16, 32))
    assert model(image(1, 3, *size)).shape == [1, 5]


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_smaller_images_are_refused(size):
    with pytest.raises(ValueError, match=f"at least 32 x 32 pixels; got {size[0]} x {size[1]}"):
        tiny_model()(image(1, 3, *size))


def test_classes_and_channels():
    assert tiny_model(num_classes=7, in_channels=1)(image(2, 1, 32, 32)).shape == [2, 7]
    headless = tiny_model(num_classes=0)
    assert headless(image(2, 3, 32, 32)).shape == [2, 1024]
    assert not [key for key in headless.state_dict() if key.startswith("proj_head")]


def test_channels_are_rounded_to_32():
    """To the nearest, halves up; up where the nearest is less than nine tenths."""
    widths = {1: 32, 32: 32, 47: 64, 48: 64, 71: 64, 72: 96, 1007: 992, 1008: 1024, 1024: 1024}
    assert {width: make_divisible(width) for width in widths} == widths
    assert (
        make_divisible(20, 8) == 24 and make_divisible(19, 8) == 24 and make_divisible(17, 8) == 16
    )


def test_custom_depths_and_stem():
    model = tiny_model(depths=(2, 3, 5, 1), stem_channels=(8, 16, 24))
    assert [type(block) for block in model.features] == [NCB] * 2 + [NCB] * 2 + [NTB] + [
        NCB
    ] * 4 + [NTB] * 2
    assert [layer.conv.weight.shape[0] for layer in model.stem] == [8, 16, 24, 24]
    assert model(image(1, 3, 32, 32)).shape == [1, 5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"depths": (3, 4, 11, 3)}, "the third a multiple of 5"),
        ({"depths": (0, 4, 10, 3)}, "four positive numbers"),
        ({"depths": (3, 4, 10)}, "expected 4 values, got 3"),
        ({"depths": "3,4,10,3"}, "depths: expected a list, got '3,4,10,3'"),
        ({"stem_channels": (64, 0, 64)}, "three positive numbers"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\); got 1.0"),
        ({"drop_rate": -0.1}, r"drop_rate must be in \[0, 1\)"),
        ({"attn_drop_rate": 2}, r"attn_drop_rate must be in \[0, 1\)"),
        ({"num_classes": -1}, "num_classes must be 0 or more"),
        ({"in_channels": 0}, "in_channels 1 or more"),
        ({"num_class": 10}, "num_class: unknown key. Did you mean 'num_classes'?"),
        ({"num_classes": "ten"}, "num_classes: expected int, got 'ten'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("NextViT_small", **arguments)


def test_an_unknown_model_names_its_neighbours():
    with pytest.raises(
        ValueError, match="unknown model 'NextViT_smal'. Did you mean 'NextViT_small'?"
    ):
        create_model("NextViT_smal")


# ---------------------------------------------------------------- faster convolutions


@pytest.mark.parametrize("batch", [1, 3])
# below and above LARGE_MAP
@pytest.mark.parametrize("size", [(3, 5), (12, 11)])
@pytest.mark.parametrize("bias", [None, False])
def test_convolutions_equal_paddles_own(batch, size, bias):
    """Values and all gradients, in training and evaluation, of both kinds."""
    assert 3 * 5 < LARGE_MAP <= 12 * 11
    pointwise, grouped = (
        PointwiseConv2D(8, 12, bias_attr=bias),
        Conv2D(8, 12, 3, stride=2, padding=1, groups=4, bias_attr=bias),
    )
    plain = (
        nn.Conv2D(8, 12, 1, bias_attr=bias),
        nn.Conv2D(8, 12, 3, stride=2, padding=1, groups=4, bias_attr=bias),
    )
    for ours, paddles in zip((pointwise, grouped), plain, strict=True):
        for number, parameter in enumerate(ours.parameters()):
            parameter.set_value(
                image(*parameter.shape, seed=number)
                if parameter.ndim == 4
                else np.arange(12, dtype=np.float32)
            )
        paddles.set_state_dict(ours.state_dict())
        for mode in ("train", "eval"):
            results = []
            for layer in (ours, paddles):
                getattr(layer, mode)()
                layer.clear_gradients()
                x = image(batch, 8, *size)
                x.stop_gradient = False
                y = layer(x)
                (y * y).sum().backward()
                results.append([y, x.grad, *(p.grad for p in layer.parameters())])
            for a, b in zip(*results, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------- the two pools


def test_sequence_pool_averages_consecutive_tokens_and_drops_the_remainder():
    x = paddle.arange(15, dtype="float32").reshape([1, 1, 3, 5])
    # of 15 tokens the last three are not seen
    assert SequencePool(2)(x).tolist() == [[[1.5, 5.5, 9.5]]]


def test_window_pool_averages_squares():
    x = paddle.arange(15, dtype="float32").reshape([1, 1, 3, 5])  # 0..4 / 5..9 / 10..14
    # borders average what is there
    assert WindowPool(2)(x).tolist() == [[[3.0, 5.0, 6.5, 10.5, 12.5, 14.0]]]


@pytest.mark.filterwarnings("ignore:Skip loading")
def test_window_pool_is_another_model():
    published, window = tiny_model(), tiny_model("NextViT_small_window_pool")
    for make in (lambda model: model, fuse_bn):
        a, b = make(published), make(window)
        missing, unexpected = a.set_state_dict(b.state_dict())
        assert not missing and unexpected == [
            "features.1.e_mhsa.sr.window",
            "features.6.e_mhsa.sr.window",
        ]
        assert b.set_state_dict(a.state_dict()) == (unexpected, missing)
    images = image(1, 3, 64, 64)
    # same weights, another function
    assert max_difference(published(images), window(images)) > 1e-3


def test_the_tasks_divide_the_models():
    assert list_models("detection") == ["DINO", "MaskRCNN"] and list_models("segmentation") == [
        "Mask2Former",
        "SemanticFPN",
        "UPerNet",
    ]
    assert list_models() == sorted(
        name
        for task in ("classification", "detection", "segmentation")
        for name in list_models(task)
    )


def test_frozen_stages_and_fixed_statistics():
    """frozen_stages counts stages after the stem; norm_eval fixes statistics everywhere and lets
    weights train.
    """
    model = create_model("NextViT_small", num_classes=None, frozen_stages=1, norm_eval=True)
    # stem + 3 NCB
    assert (
        sum(p.size for p in model.parameters() if p.stop_gradient and not is_statistic(model, p))
        == 361_024
    )
    assert model.train() is model and model.training and model.features[3].training
    assert not model.stem.training and not model.features[2].training
    norms = [layer for layer in model.sublayers() if isinstance(layer, BATCH_NORMS)]
    assert not any(layer.training for layer in norms)
    assert any(not layer.weight.stop_gradient for layer in norms)
    assert model.eval() is model and not model.train(False).training


def is_statistic(model, parameter):
    return any(
        parameter is tensor
        for name, tensor in model.state_dict().items()
        if name.endswith(("._mean", "._variance"))
    )


def test_what_is_held_still_stays_still():
    model = tiny_model(num_classes=None, frozen_stages=2, norm_eval=True, extra_norms=True).train()
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    optimizer = paddle.optimizer.SGD(
        0.1, parameters=[p for p in model.parameters() if not p.stop_gradient]
    )
    sum((x**2).sum() for x in model(paddle.to_tensor(seeded.image((2, 3, 64, 64), 0)))).backward()
    optimizer.step()
    frozen = ("stem.", "features.0.", "features.1.", "extra_norm_list.0.", "extra_norm_list.1.")
    for name, tensor in model.state_dict().items():
        still = name.startswith(frozen) or name.endswith(("._mean", "._variance"))
        assert (tensor.numpy() == before[name]).all() == still, name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"frozen_stages": 5}, "from 0 .* to 4"),
        ({"frozen_stages": -1}, "from 0"),
        ({"extra_norms": True}, "num_classes=None"),
    ],
)
def test_bad_backbone_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("NextViT_small", **arguments)


def test_the_norms_after_the_stages_belong_to_them():
    """And are frozen with them; a classifier's only norm is its head's."""
    with paddle.LazyGuard():
        model = create_model("NextViT_small", **{**TINY, "num_classes": None}, extra_norms=True)
        classifier = create_model("NextViT_small", **TINY)
    stages = dict(model.stages())
    assert stages["stage1"] == ("features.0.", "extra_norm_list.0.")
    assert stages["stage3"] == (*(f"features.{i}." for i in range(2, 7)), "extra_norm_list.2.")
    assert (stages["stage4"], stages["head"]) == (("features.7.", "norm."), ("proj_head.",))
    assert dict(classifier.stages())["head"] == ("norm.", "proj_head.")
    frozen = create_model(
        "NextViT_small", depths=(1, 1, 5, 1), num_classes=None, extra_norms=True, frozen_stages=4
    )
    assert all(parameter.stop_gradient for parameter in frozen.parameters())
    norms = [layer for layer in frozen.train().sublayers() if isinstance(layer, BATCH_NORMS)]
    assert frozen.training and not any(norm.training for norm in norms)


def test_linear_layers_as_one_pointwise_convolution():
    first, second = nn.Linear(3, 4), nn.Linear(3, 2)
    for layer in (first, second):
        layer.bias.set_value(paddle.randn(layer.bias.shape))
    x = paddle.randn([2, 3, 5, 6])
    tokens = x.flatten(2).transpose([0, 2, 1])
    expected = 0.5 * paddle.concat([first(tokens), second(tokens)], axis=-1)
    conv = as_pointwise(first, second, gain=0.5)
    assert conv.weight.shape == [6, 3, 1, 1]
    found = conv(x).flatten(2).transpose([0, 2, 1])
    assert np.allclose(found.numpy(), expected.numpy(), atol=1e-6)


def test_group_norm_as_it_is_recorded(monkeypatch):
    norm, x = GroupNorm(2, 6), paddle.randn([2, 6, 3, 4])
    norm.weight.set_value(paddle.randn([6]))
    norm.bias.set_value(paddle.randn([6]))
    expected = norm(x).numpy()
    asked = []
    monkeypatch.setattr(nn.GroupNorm, "forward", lambda self, x: asked.append(x))
    norm(x)
    monkeypatch.setattr(paddle, "in_dynamic_mode", lambda: False)
    recorded = norm(x).numpy()
    assert len(asked) == 1, "Paddle's own, but for a program"
    assert np.allclose(recorded, expected, atol=1e-5)
