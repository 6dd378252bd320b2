"""The strict loader: what it reports, what it refuses and in which words, and that a refused load
leaves the model as it was.
"""

import functools
import re
import time

import numpy as np
import paddle
import pytest

from ppcls_nextvit import create_model, fuse_bn
from ppcls_nextvit.weights import LoadError, WeightFileError, load_weights, to_torch
from ppcls_nextvit.weights.load import _differs_in_channels
from scripts import seeded

TINY = {"depths": (1, 1, 5, 1), "num_classes": 5}


def tiny(name="NextViT_small", seed=None, **arguments):
    """A shallow model; with a seed, filled with numbers that depend on key and seed."""
    model = create_model(name, **{**TINY, **arguments})
    if seed is not None:
        for key, tensor in model.state_dict().items():
            leaf = {"_mean": "running_mean", "_variance": "running_var"}.get(key.rsplit(".", 1)[-1])
            if tensor.dtype == paddle.float32:
                tensor.set_value(
                    seeded.tensor(f"{key}.{leaf}" if leaf else key, tensor.shape, seed)
                )
    return model


@functools.cache
def source():
    """The arrays of tiny(seed=1), made once."""
    return arrays(tiny(seed=1))


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def assert_equal(model, expected):
    for key, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), expected[key]), key


def fill(model, value):
    for tensor in model.state_dict().values():
        tensor.set_value(np.full(tensor.shape, value, np.float32))


def error_of(model, source, **options):
    before = arrays(model)
    with pytest.raises(LoadError) as error:
        load_weights(model, source, **options)
    assert_equal(model, before)
    return str(error.value)


def test_loads_its_own_files_with_and_without_the_suffix(tmp_path):
    paddle.save(source(), str(tmp_path / "best_model.pdparams"))
    model = tiny()
    for path in (
        tmp_path / "best_model.pdparams",
        tmp_path / "best_model",
        str(tmp_path / "best_model"),
    ):
        fill(model, 0.0)
        report = load_weights(model, path)
        assert_equal(model, source())
        assert (
            str(report)
            == f"{len(model.state_dict())} loaded, 0 missing, 0 unexpected, 0 mismatched"
        )
        assert (
            report.source == str(tmp_path / "best_model.pdparams")
            and report.format == "paddle"
            and not report.transposed
        )


def test_loads_dicts_of_tensors_and_wrapped_ones(tmp_path):
    model = tiny()
    torch_keys = to_torch(source(), model)
    wrapped = {
        "state_dict": {f"module.{key}": value for key, value in torch_keys.items()},
        "epoch": 3,
    }
    tensors = {key: paddle.to_tensor(value) for key, value in source().items()}
    for given in (tensors, torch_keys, wrapped, {"model": to_torch(source(), model, "timm")}):
        fill(model, 0.0)
        load_weights(model, given)
        assert_equal(model, source())


def test_chooses_among_the_entries_of_a_checkpoint():
    model, averaged = tiny(), {key: value / 2 for key, value in source().items()}
    checkpoint = {"model_ema": averaged, "model": source(), "epoch": 1}
    for entry, expected in ((None, source()), ("model_ema", averaged), ("model", source())):
        assert load_weights(model, checkpoint, entry=entry).entry == (entry or "model")
        assert_equal(model, expected)
    assert "no weights under 'ema'; there are: 'model_ema', 'model'" in error_of(
        model, checkpoint, entry="ema"
    )


@pytest.mark.parametrize(
    "entry, prefix",
    [
        ("state_dict", "model."),  # a LightningModule whose network is self.model
        ("state_dict", "net."),
        ("state_dict", "model._orig_mod."),
        ("state_dict", "timm_model."),  # mmpretrain's wrapper of timm
        ("state_dict", "module.backbone."),
        ("model_state_dict", ""),  # PyTorch's tutorials
        ("net", "module."),
        ("module", ""),  # DeepSpeed
        ("ema", ""),
        ("ema.module", ""),
        ("model.state_dict", ""),
        ("model_ema", "module."),
    ],
)
def test_where_other_programs_put_the_weights(entry, prefix):
    model = tiny()
    weights = {f"{prefix}{key}": value for key, value in to_torch(source(), model, "timm").items()}
    tree = {"epoch": 3, "callbacks": {"best": {"score": np.float32(0.5)}}}
    for name in reversed(entry.split(".")):
        weights = {**tree, name: weights} if name == entry.split(".")[0] else {name: weights}
    report = load_weights(model, weights)
    assert report.entry == entry and report.format == "timm"
    assert_equal(model, source())


@pytest.mark.parametrize("counter", ["n_averaged", "steps"])
def test_a_moving_average_counts_its_steps_beside_the_weights(counter):
    """torch's AveragedModel, mmengine's ExponentialMovingAverage."""
    model = tiny()
    averaged = {f"module.{key}": value for key, value in to_torch(source(), model).items()}
    report = load_weights(model, {"ema_state_dict": {counter: np.array(7), **averaged}})
    assert report.dropped[counter] == "counts the steps of a moving average"
    assert_equal(model, source())


def test_a_backbone_of_mm_s_wrapper_of_timm():
    """timm's list of features, as mmdet and mmseg hold it: stem_0, stages_2, no head, no norm."""
    model, body = tiny(num_classes=None), {}
    for key, value in to_torch(source(), tiny(), "timm").items():
        if not key.startswith(("norm.", "head.")):
            joined = re.sub(r"^(stem|stages)\.", r"\1_", key)
            body[f"backbone.timm_model.{joined}"] = value
    heads = {"decode_head.conv_seg.weight": np.zeros((2, 8, 1, 1), np.float32)}
    load_weights(model, {"state_dict": {**body, **heads}}, backbone_only=True)
    assert_equal(model, {key: source()[key] for key in model.state_dict()})


def test_one_state_of_many_names_is_looked_at_once():
    """A file of a few megabytes can name one dict a hundred thousand times."""
    state = {f"key{number}": np.zeros(1) for number in range(50_000)}
    tree = {f"entry{number}": state for number in range(50_000)}
    start = time.process_time()
    assert "no weights in it: expected tensors, or an entry model" in error_of(tiny(), tree)
    assert time.process_time() - start < 10


def test_messages_of_bounded_length_without_control_characters():
    model = tiny()
    for tree in (
        {"x" * 100_000: np.zeros(2)},
        {"features.0.\x1b[31m\n" + "y" * 400: np.zeros(2)},
        {("\n",) * 2000: np.zeros(2)},
        {"features." + "9" * 450 + ".x": np.zeros(2)},
        {b"\n" * 5000: {}},
    ):
        message = error_of(model, tree)
        assert message.isprintable() and len(message) < 4100


def test_missing_unexpected_and_mismatched_are_counted_and_named():
    model, state = tiny(), dict(source())
    del state["stem.0.conv.weight"], state["norm._mean"]
    state["features.0.extra"] = np.zeros(3, np.float32)
    state["norm.bias"] = np.zeros(7, np.float32)
    message = error_of(model, state)
    assert message.startswith(
        "the given dict: 2 missing (stem.0.conv.weight, norm._mean); 1 unexpected "
        "(features.0.extra); "
        "1 mismatched (norm.bias [7], the model has [1024])"
    )
    assert "\n" not in message


def test_gaps_that_the_caller_names_are_allowed_and_reported():
    state, model = dict(source()), tiny()
    kept = model.state_dict()["norm.weight"].numpy()
    del state["norm.weight"], state["norm.bias"]
    state["neck.weight"] = np.zeros(3, np.float32)
    report = load_weights(model, state, allow_missing=("norm.*",), allow_unexpected="neck.*")
    assert report.missing == ["norm.weight", "norm.bias"] and report.unexpected == ["neck.weight"]
    assert str(report) == f"{len(state) - 1} loaded, 2 missing, 1 unexpected, 0 mismatched"
    assert np.array_equal(model.state_dict()["norm.weight"].numpy(), kept)
    assert np.array_equal(model.state_dict()["norm._mean"].numpy(), state["norm._mean"])
    assert "2 missing" in error_of(
        tiny(), state, allow_missing=("norm.w*x",), allow_unexpected=("neck.*",)
    )


def test_a_head_of_another_class_count():
    state, model = dict(source()), tiny(num_classes=7)
    initial = model.state_dict()["proj_head.0.weight"].numpy()
    assert (
        "2 mismatched" in (message := error_of(model, state))
        and "head='fresh_on_mismatch'" in message
    )
    report = load_weights(model, state, head="fresh_on_mismatch")
    assert report.fresh == ["proj_head.0.weight", "proj_head.0.bias"]
    assert str(report).endswith(
        "0 mismatched; at their initialisation: proj_head.0.weight, proj_head.0.bias"
    )
    assert np.array_equal(model.state_dict()["proj_head.0.weight"].numpy(), initial)
    assert np.array_equal(model.state_dict()["norm.weight"].numpy(), state["norm.weight"])


def test_images_of_another_number_of_channels():
    grey = tiny(in_channels=1)
    message = error_of(grey, source())
    assert "1 mismatched (stem.0.conv.weight" in message
    assert "The file takes images of 3 channels, the model of 1: set in_channels" in message
    message = error_of(tiny(in_channels=4, num_classes=7), source())
    assert "of 3 channels, the model of 4" in message and "another class count" in message
    assert "channels" not in error_of(tiny(num_classes=7), source())


@pytest.mark.parametrize(
    "own, in_channels, differs",
    [
        ([8, 1, 3, 3], 1, True),
        ([8, 3, 3, 3], 3, False),
        ([4, 1, 3, 3], 1, False),  # another network, whose first convolution differs in more
        ([8, 1, 3, 5], 1, False),
        ([8, 1, 3, 3], 4, False),  # a later convolution
        ([8, 1, 3], 1, False),
    ],
)
def test_what_differs_in_channels_alone(own, in_channels, differs):
    assert _differs_in_channels([8, 3, 3, 3], own, in_channels) is differs


def test_heads_that_one_side_lacks():
    without = tiny(num_classes=0)
    assert "2 unexpected (proj_head.0.weight, proj_head.0.bias)" in error_of(without, source())
    report = load_weights(without, source(), head="fresh_on_mismatch")
    assert report.dropped == dict.fromkeys(
        ["proj_head.0.weight", "proj_head.0.bias"], "the model has no head"
    )
    model = tiny()
    assert load_weights(model, arrays(without), head="fresh_on_mismatch").fresh == [
        "proj_head.0.weight",
        "proj_head.0.bias",
    ]


def test_a_head_that_fits_is_loaded_in_either_mode():
    model = tiny()
    assert not load_weights(model, source(), head="fresh_on_mismatch").fresh
    assert_equal(model, source())
    with pytest.raises(ValueError, match="head must be"):
        load_weights(model, source(), head="loose")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_values_are_assigned_in_place_in_the_model_s_dtype(dtype):
    model = tiny()
    model.to(dtype=dtype)
    tensors = dict(model.state_dict())
    load_weights(model, source())
    for key, tensor in model.state_dict().items():
        assert tensor is tensors[key] or tensor.data_ptr() == tensors[key].data_ptr()
        assert tensor.dtype == tensors[key].dtype
    weight = tensors["stem.0.conv.weight"]
    assert weight.dtype == getattr(paddle, dtype)
    expected = paddle.to_tensor(source()["stem.0.conv.weight"]).astype(dtype)
    assert np.array_equal(weight.astype("float32").numpy(), expected.astype("float32").numpy())


@pytest.mark.parametrize(
    "value, dtype", [(np.nan, "float32"), (np.inf, "float32"), (1e6, "float16")]
)
def test_values_that_are_not_finite_are_refused_with_their_key(value, dtype):
    state, model = dict(source()), tiny()
    state["features.3.mlp.conv1.bias"] = state["features.3.mlp.conv1.bias"].copy()
    state["features.3.mlp.conv1.bias"][3:5] = value
    model.to(dtype=dtype)
    with pytest.raises(
        LoadError, match=f"features.3.mlp.conv1.bias has 2 values that are not finite in {dtype}"
    ):
        load_weights(model, state)


def test_other_kinds_of_values():
    state = dict(source())
    model = tiny()
    assert "norm.bias is of type int32" in error_of(
        model, {**state, "norm.bias": np.zeros(1024, np.int32)}
    )
    assert "1 unexpected (norm.bias)" in error_of(model, {**state, "norm.bias": "text"})


@pytest.mark.parametrize(
    "name, given, expected",
    [
        (
            "NextViT_small",
            "NextViT_base",
            "The file looks like NextViT_base, the model is NextViT_small.",
        ),
        (
            "NextViT_large",
            "NextViT_small",
            "The file looks like NextViT_small, the model is NextViT_large.",
        ),
    ],
)
@pytest.mark.parametrize("style", ["paddle", "timm"])
def test_another_variant_is_recognised(name, given, expected, style):
    with paddle.LazyGuard():
        model, other = create_model(name), create_model(given)
    state = {key: np.zeros(value.shape, np.float32) for key, value in other.state_dict().items()}
    with pytest.raises(LoadError, match=re.escape(expected)):
        load_weights(model, to_torch(state, other, "timm") if style == "timm" else state)


def test_fused_models_are_recognised():
    model = tiny(seed=1)
    model.eval()
    fused = fuse_bn(model)
    assert "The file is a fused model" in error_of(model, arrays(fused))
    assert "The model is fused already" in error_of(fused, arrays(model))
    load_weights(fused, arrays(fuse_bn(model)))
    reparameterized = {
        key: value
        for key, value in to_torch(arrays(model), model, "timm").items()
        if not re.search(r"blocks\.\d+\.(norm\d?|e_mhsa\.norm)\.", key)
    }
    assert "The file is a fused model" in error_of(model, reparameterized)
    with pytest.raises(LoadError, match="before fuse_bn"):
        to_torch(arrays(fused), fused)


def test_the_window_pool_variant_is_recognised():
    published, window = tiny(), tiny("NextViT_small_window_pool")
    assert "window_pool" in error_of(window, source())
    assert "window_pool" in error_of(published, arrays(window))
    load_weights(window, arrays(window))


@pytest.mark.parametrize(
    "tree, message",
    [
        ({"x": np.zeros(2)}, "not a Next-ViT checkpoint .*: its keys are 'x'"),
        (
            {"epoch": 3, "optimizer": {}},
            "no weights in it: expected tensors, or an entry model | .*got 'epoch', 'optimizer'",
        ),
        ({}, "no weights in it: .* got nothing"),
    ],
)
def test_trees_without_our_weights(tree, message):
    assert re.search(message, error_of(tiny(), tree))


def test_files_that_are_none(tmp_path):
    paddle.save([1, 2], str(tmp_path / "list.pdparams"))
    with pytest.raises(
        LoadError, match="list.pdparams: expected a dict of tensors, the file holds a list"
    ):
        load_weights(tiny(), tmp_path / "list.pdparams")
    with pytest.raises(WeightFileError, match="nothing: no such file"):
        load_weights(tiny(), tmp_path / "nothing")


def test_two_keys_for_one_place():
    model = tiny()
    state = to_torch(source(), model)
    state["norm._mean"] = state["norm.running_mean"]
    assert "1 unexpected (norm._mean)" in error_of(model, state)
